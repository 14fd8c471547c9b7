"""Sentences on what an action did: what could go, what is no retraining, what is tested."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainscope


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()),
        nn.Linear(128, 3),
    )


def loader():
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(24, 1, 8, 8), torch.randint(3, (24,))), 8)


def test_a_verdict_says_what_could_go_of_a_ratio():
    """One filter must stay of eight, so 7/8 is the most that can go."""
    options = {"data": loader(), "samples": 8, "probes": ["gradient"]}
    found = trainscope.diagnose(network(), ratio=0.999, **options)
    assert (
        "took 99.9 % of the filters of 1 inner convolution, of which 87.5 % could go:"
        in (found.verdict[0])
    )
    assert found.action.reached == 7 / 8
    found = trainscope.diagnose(network(), ratio=0.75, **options)
    assert "could go" not in found.verdict[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_no_retraining(dtype):
    dense = network()
    pruned = copy.deepcopy(dense)
    weight = pruned[2].weight.data
    weight[weight.abs() < weight.abs().median()] = 0
    options = {"data": loader(), "samples": 8, "probes": ["gradient"]}
    found = trainscope.diagnose(dense, after=pruned.to(dtype), **options)
    assert not any("was retrained" in note for note in found.notes)
    assert found.action.criterion == "smallest |w| in each layer"
    pruned[5].weight.data.mul_(1.1)
    found = trainscope.diagnose(dense, after=pruned, **options)
    assert any("was retrained after the action" in note for note in found.notes)


def test_a_layer_that_is_gone_is_damage():
    """A verdict said that before and after are one network."""
    wide = nn.Sequential(*network(), nn.Linear(3, 3))
    options = {"data": loader(), "samples": 8, "probes": ["gradient"]}
    found = trainscope.diagnose(wide, after=nn.Sequential(*wide[:6], nn.Identity()), **options)
    # 80 + 584 + 387 + 12 parameters; 8 * 36 * 9 + 8 * 16 * 72 + 384 + 9 multiply-adds
    said = "took whole layers: 1.06 k → 1.05 k parameters, 12.20 k → 12.19 k FLOPs (speedup 1.00×)"
    assert said in found.verdict[0]


def test_a_layer_that_was_zeroed_is_not_said_to_be_free():
    dense = network()
    pruned = copy.deepcopy(dense)
    pruned[2].weight.data.zero_()
    options = {"data": loader(), "samples": 8, "probes": ["gradient"]}
    found = trainscope.diagnose(dense, after=pruned, **options)
    assert "100 % of the weights of 1 layer" in found.action.meaning
    assert not any("free to grow" in note for note in found.notes)


@pytest.mark.parametrize("which", ["network", "after"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (network().state_dict(), "OrderedDict is no network: .* the network that loaded it, or"),
        (nn.Linear, r"Linear is no network: .* one of it, as Linear\(\) makes, or the path"),
        (7, "int is no network: give a torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_said(which, given, said):
    """It was a traceback."""
    networks = (network(), given) if which == "after" else (given, None)
    with pytest.raises(trainscope.TrainscopeError, match=said):
        trainscope.diagnose(networks[0], after=networks[1], ratio=None, data=loader(), samples=8)


def test_a_metric_without_a_name_is_called_metric():
    found = trainscope.diagnose(
        network(),
        ratio=0.5,
        data=(loader(), loader()),
        loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 9.0])),
        metric=lambda outputs, labels: (outputs.argmax(1) == labels).float(),
        better="higher",
        samples=8,
        retrain_epochs=1,
        probes=["trainability_accuracy"],
    )
    said = " ".join([*found.verdict, *found.notes])
    assert "Test metric went from" in said
    assert "the test metric is of batches of" in said
    assert "lambda" not in said


LOSSES = {
    "not finite": (lambda o, y: (o * torch.nan).mean(), "the loss or the gradient of a sample is"),
    "detached": (
        lambda o, y: nn.functional.cross_entropy(o, y).detach(),
        "the loss has no derivative by the network's outputs: it was detached",
    ),
    "in place": (
        lambda o, y: nn.functional.cross_entropy(o.mul_(2), y),
        "keeps a state or writes into the outputs",
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_that_is_none_is_told(kind):
    loss, reason = LOSSES[kind]
    found = trainscope.diagnose(
        network(),
        ratio=0.5,
        data=(loader(), loader()),
        loss=loss,
        samples=8,
        retrain_epochs=1,
        probes=["gradient", "trainability_accuracy"],
    )
    assert reason in found.probes["gradient"].before.reason
    said = [line for line in found.verdict if "no LR is to blame" in line]
    assert len(said) == (2 if kind == "not finite" else 0)
    assert not any("too large" in line or "network's the" in line for line in found.verdict)


def test_lists_of_images_with_boxes_hint_at_the_task():
    rows = [
        (torch.rand(1, 8, 8), {"boxes": torch.rand(k + 1, 4), "labels": torch.ones(k + 1).long()})
        for k in range(4)
    ]
    data = DataLoader(rows, 2, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
    with pytest.raises(trainscope.TrainscopeError, match="task='detection'"):
        trainscope.diagnose(network(), ratio=0.5, data=data)
