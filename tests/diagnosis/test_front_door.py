"""Modules, loaders and pairs of networks that the project did not make."""

from __future__ import annotations

import copy
import inspect
import json

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import trainscope
from trainscope import diagnose, examine, measure
from trainscope.cli.probe import RETRAIN_LR
from trainscope.data import ProbeData
from trainscope.errors import TrainscopeError
from trainscope.probes import Gradient
from trainscope.records import Diagnosis
from trainscope.records.retrained import retrained
from trainscope.sparsify import Action
from trainscope.training.schedule import parse_rates

QUICK = {"samples": 8, "probes": ["gradient"]}


def _net(classes: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


def _loader(samples: int = 24, side: int = 7) -> DataLoader:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(samples, 1, side, side, generator=generator)
    return DataLoader(TensorDataset(inputs, torch.arange(samples) % 3), 8, shuffle=True)


def test_a_module_and_a_loader_leave_no_trace():
    net = _net().train()
    net[1].eval()
    modes = [part.training for part in net.modules()]
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = diagnose(net, ratio=0.5, data=_loader(), **QUICK)
    assert found.network.architecture == "Sequential"
    assert found.network.input_shape == (1, 7, 7)
    assert found.action.parameters < found.network.parameters
    assert found.data.labels == "true"
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_numbers_are_those_of_the_probe_by_hand():
    net, loader = _net().double(), _loader()
    found = measure(net, data=loader, samples=24, probes=["gradient"])["gradient"]
    inputs, labels = loader.dataset.tensors
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    by_hand = Gradient().measure(net, ProbeData("", inputs[order], labels[order]))
    assert found.value("norm") == pytest.approx(by_hand.value("norm"), rel=1e-12)
    dense = nn.functional.cross_entropy(net.eval()(inputs.double()), labels)
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(dense, list(net.parameters()))])
    assert found.value("norm") == pytest.approx(float(norm.norm()), rel=1e-10)


def test_train_and_test_loaders_give_a_trainability_accuracy():
    probe = trainscope.probes.TrainabilityAccuracy(lrs=(1e-2,), epochs=1)
    found = diagnose(_net(), ratio=0.5, data=(_loader(24), _loader(12)), samples=8, probes=[probe])
    assert found.probes["trainability_accuracy"].after.value("ta") is not None
    alone = diagnose(_net(), ratio=0.5, data=_loader(), samples=8, probes=[probe])
    assert alone.probes["trainability_accuracy"].before.reason.startswith("needs")


def test_one_network_alone(tmp_path):
    outcome = examine(_net(), data=_loader(), **QUICK)
    assert outcome.pruned is None
    found = outcome.diagnosis
    assert found.action is None
    assert found.probes["gradient"].after is None
    assert found.probes["gradient"].damage() == {}
    raw = json.loads(found.to_json())
    assert raw["action"] is None
    assert raw["probes"]["gradient"]["after"] is None
    assert Diagnosis.from_json(found.to_json()) == found
    assert any(line.startswith("Gradient norm") for line in found.verdict)
    assert "<th>value</th>" in found._repr_html_()
    assert "before" not in found._repr_html_()


def test_somebody_elses_action_gives_the_numbers_of_the_probes_by_hand():
    dense, pruned = _net(), _net()
    for place in (0, 3):
        prune.l1_unstructured(pruned[place], "weight", 0.5)
    found = diagnose(dense, after=pruned, data=_loader(), **QUICK)
    assert found.action.structure == "given"
    assert "50 % of the weights of 2 layers, held by masks" in found.action.meaning
    columns = found.probes["gradient"]
    for network, column in ((dense, columns.before), (pruned, columns.after)):
        alone = measure(network, data=_loader(), **QUICK)["gradient"]
        assert column.scalars == alone.scalars
        assert column.arrays == alone.arrays
    assert columns.recalibrated is not None


def test_a_file_and_its_pruned_file(tmp_path):
    torch.manual_seed(0)
    net = trainscope.networks.build("digits_resnet", 10)
    pruned = trainscope.sparsify.sparsify(net, Action(ratio=0.5), (1, 8, 8)).module
    for name, module in (("dense", net), ("pruned", pruned)):
        torch.save(module.state_dict(), tmp_path / f"{name}.pt")
    found = diagnose(tmp_path / "dense.pt", after=tmp_path / "pruned.pt", data="digits", **QUICK)
    assert found.action.meaning == "50 % of the filters of 6 layers"
    ours = diagnose(tmp_path / "dense.pt", ratio=0.5, data="digits", **QUICK)
    assert found.probes["gradient"].after.value("norm") == pytest.approx(
        ours.probes["gradient"].after.value("norm"), rel=1e-5
    )


def test_a_network_that_takes_any_size_takes_the_datas(tmp_path):
    torch.manual_seed(0)
    net = trainscope.networks.build("digits_resnet", 10)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    found = diagnose(tmp_path / "net.pt", data=[(torch.randn(8, 1, 12, 12), torch.arange(8))])
    assert found.network.input_shape == (1, 12, 12)
    found = diagnose(tmp_path / "net.pt", input_shape=(1, 16, 16), **QUICK)
    assert found.data.name == "random:1x16x16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a module does not say what data it takes"),
        ({"data": _loader(), "ratio": 0.5, "after": _net()}, "ratio and after are given together"),
        ({"data": _loader(), "ratio": 0.5, "action": Action(ratio=0.5)}, "ratio and action"),
        ({"data": "random:3x7x7"}, "Sequential does not take inputs of shape 3x7x7"),
        ({"data": [(torch.randn(4, 1, 7, 7), torch.arange(4))]}, "has a label 3 .* gives 3 logits"),
        ({"data": _loader(), "after": _net(4)}, "outputs from 2x3 to 2x4"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, message):
    with pytest.raises(TrainscopeError, match=message):
        diagnose(_net(), **options)


def test_a_module_without_logits_is_one_sentence():
    pair = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (7, 7)))
    with pytest.raises(TrainscopeError, match=r"tensor of shape \(2, 7, 7\) for 2 inputs"):
        diagnose(pair, data=_loader(), ratio=0.5)


def test_measure_takes_no_action():
    with pytest.raises(TrainscopeError, match="use diagnose for an action"):
        measure(_net(), data=_loader(), ratio=0.5)


def test_measure_keeps_what_a_diagnosis_says_of_its_inputs():
    """A module in half precision, and frozen weights, were measured otherwise without a word."""
    net = _net().bfloat16()
    net[3].requires_grad_(False)
    found = measure(net, data=_loader(), **QUICK)
    assert found.notes == examine(net, data=_loader(), **QUICK).diagnosis.notes
    assert any("bfloat16" in note for note in found.notes)
    assert any(note in found._repr_html_() for note in found.notes)


def test_public_results_have_one_line_each():
    found = examine(_net(), data=_loader(), **QUICK)
    for result in (found.diagnosis, found.base, found.diagnosis.probes["gradient"].before):
        assert "\n" not in repr(result)
        assert len(repr(result)) < 120
    assert repr(found.base) == "<Network Sequential, inputs 1x7x7, 3 classes>"
    assert trainscope.__version__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = trainscope.probes.Nothing


def test_the_optimizer_that_will_retrain_is_named():
    probes = ["trainability_accuracy", "curvature"]
    found = diagnose(
        _net(),
        ratio=0.5,
        data=(_loader(), _loader()),
        samples=8,
        probes=probes,
        retrain_epochs=1,
        optimizer="adamw",
    )
    curvature = found.probes["curvature"].last
    assert curvature.value("max_stable_lr_adam") > 0
    assert any("Largest stable LR of AdamW (38/λmax of" in line for line in found.verdict)
    with pytest.raises(TrainscopeError, match="sgd, adam or adamw, not lion"):
        measure(_net(), data=_loader(), optimizer="lion")


def test_measure_shows_no_option_that_it_refuses():
    refused = {"ratio", "action", "after"}
    assert refused <= inspect.signature(trainscope.diagnose).parameters.keys()
    assert not refused & inspect.signature(trainscope.measure).parameters.keys()
    described = trainscope.measure.__doc__ or ""
    assert "    network: A checkpoint file" in described
    assert not any(f"    {name}:" in described or f"`{name}`" in described for name in refused)
    with pytest.raises(trainscope.TrainscopeError, match="use diagnose for an action"):
        trainscope.measure("x.pt", ratio=0.5)


@pytest.mark.parametrize(
    ("asked", "lrs"),
    [
        ({}, (1e-2, 1e-3)),
        ({"retrain_lr": 3e-3}, (3e-3,)),
        ({"retrain_lr": (1e-1, 1e-2)}, (1e-1, 1e-2)),
    ],
)
def test_retraining_is_tried_at_the_lrs_of_the_command_or_at_those_asked_for(asked, lrs):
    probes = ["trainability_accuracy"]
    data = (_loader(), _loader())
    found = diagnose(_net(), ratio=0.5, data=data, probes=probes, retrain_epochs=2, **asked)
    tried = retrained(found.probes["trainability_accuracy"].last)
    assert tuple(tried.lrs) == lrs
    assert len(found.estimates) == sum(lr < max(lrs) for lr in lrs)
    assert tuple(parse_rates(RETRAIN_LR)) == (1e-2, 1e-3)
