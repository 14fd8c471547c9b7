"""A checkpoint that was pruned to zeros without masks, at every command that opens one."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn.utils import prune

from trainscope.cli.main import main
from trainscope.data import pin
from trainscope.data.spec import load
from trainscope.diagnosis import diagnose
from trainscope.errors import ActionError
from trainscope.networks import Network, build, masks_of, open_checkpoint
from trainscope.networks.cost import flops
from trainscope.probes.gradient import Gradient
from trainscope.records import Diagnosis, Run
from trainscope.sparsify import Action, sparsify

pytestmark = pytest.mark.usefixtures("few_digits")

QUICK = ("--epochs", 1, "--schedule", "0:1e-2", "--batch-size", 256, "--data", "digits")


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def weights(network):
    return [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def zeros(network):
    held = weights(network)
    return sum(int((w == 0).sum()) for w in held) / sum(w.numel() for w in held)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A digits network, 70 % of the weights of every layer at zero, as a bare state dict."""
    torch.manual_seed(0)
    network = build("digits_resnet", 10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(module, "weight", 0.7)
            prune.remove(module, "weight")
    path = tmp_path_factory.mktemp("pruned") / "zeros.pt"
    torch.save(network.state_dict(), path)
    return path


def test_retraining_ends_with_the_zeros_it_began_with(checkpoint, tmp_path):
    before = zeros(open_checkpoint(checkpoint).module)
    assert before == pytest.approx(0.7, abs=0.01)
    result = run("retrain", checkpoint, *QUICK, "--output", tmp_path)
    assert "are exactly zero without masks (70.0 %, unstructured" in result.stderr
    assert "pruned before" in result.stdout
    ended = open_checkpoint(tmp_path / "checkpoint.pt").module
    assert zeros(ended) == before
    moved = zip(weights(ended), weights(open_checkpoint(checkpoint).module), strict=True)
    assert all(not torch.equal(one, other) for one, other in moved)
    done = Run.load(tmp_path)
    (came,) = done.pruning.before
    assert (came.how, came.structure, came.held, came.ratio) == ("zeros", "unstructured", True, 0.7)
    assert (done.pruning.ratio, done.pruning.criterion) == (0.7, None)
    dense = build("digits_resnet", 10)
    share = flops(dense, (1, 8, 8)) / done.flops_per_sample
    assert done.pruning.speedup == came.speedup == pytest.approx(share, rel=1e-6)
    again = Run.from_json(done.to_json())
    assert again == done


def test_regrow_lets_them_grow(checkpoint, tmp_path):
    result = run("retrain", checkpoint, *QUICK, "--regrow", "--output", tmp_path)
    assert "They are free to grow." in result.stderr
    assert zeros(open_checkpoint(tmp_path / "checkpoint.pt").module) < 0.01
    assert not Run.load(tmp_path).pruning.before[0].held
    held = run("retrain", checkpoint, *QUICK, "--output", tmp_path, code=2)
    assert "holds another run" in held.stderr


def test_scratch_keeps_the_zeros_and_says_so(checkpoint, tmp_path):
    result = run("scratch", "--like", checkpoint, *QUICK, "--output", tmp_path / "held")
    assert "held at zero where those were: --regrow trains all" in result.stderr
    masks = masks_of(open_checkpoint(tmp_path / "held" / "checkpoint.pt").module)
    expected = masks_of(open_checkpoint(checkpoint).module)
    assert masks.keys() == expected.keys()
    assert all(torch.equal(masks[name], mask) for name, mask in expected.items())
    run("scratch", "--like", checkpoint, *QUICK, "--regrow", "--output", tmp_path / "free")
    assert zeros(open_checkpoint(tmp_path / "free" / "checkpoint.pt").module) < 0.01


def test_regrow_without_anything_at_zero_is_refused(tmp_path):
    torch.save(build("digits_resnet", 10).state_dict(), tmp_path / "dense.pt")
    result = run("retrain", tmp_path / "dense.pt", *QUICK, "--regrow", code=2)
    assert "there is nothing to regrow" in result.stderr


def test_inspect_says_so(checkpoint):
    shown = " ".join(run("inspect", checkpoint).stdout.split())
    assert "70.0 % of the weights, to zeros without masks (unstructured; speedup" in shown
    raw = json.loads(run("inspect", checkpoint, "--json").stdout)
    assert raw["before"][0]["how"] == "zeros"
    lost = [1 - layer["after"] / layer["before"] for layer in raw["before"][0]["layers"]]
    assert lost == pytest.approx([0.7] * len(weights(build("digits_resnet", 10))), abs=0.01)


@pytest.mark.parametrize(
    "as_stored",
    [
        torch.clone,
        torch.Tensor.half,
        lambda weight: weight.to(torch.float8_e4m3fn),
    ],
    ids=["float32", "float16", "float8"],
)
def test_inspect_says_so_of_a_network_that_it_does_not_know(tmp_path, as_stored):
    torch.manual_seed(0)
    weight = torch.randn(40, 30)
    weight[weight.abs() < 1] = 0
    held = as_stored(weight)
    torch.save({"odd.weight": held, "odd.bias": torch.zeros(40)}, tmp_path / "odd.pt")
    raw = json.loads(run("inspect", tmp_path / "odd.pt", "--json").stdout)
    assert raw["problem"] is not None
    (layer,) = raw["before"][0]["layers"]
    assert layer == {"name": "odd.weight", "before": 1200, "after": int(weight.count_nonzero())}


def test_probe_measures_the_surviving_weights(checkpoint):
    result = run(
        *("probe", checkpoint, "--ratio", 0.5, "--probes", "gradient", "--data", "digits"),
        *("--samples", 16, "--json"),
    )
    found = Diagnosis.from_json(result.stdout)
    assert any("are exactly zero without masks (70.0 %" in note for note in found.notes)
    assert found.network.before[0].gone == found.network.before[0].total - sum(
        layer.after for layer in found.network.before[0].layers
    )
    # By hand: the gradient of every parameter, those at zero left out.
    module = open_checkpoint(checkpoint).module.double()
    data = pin(load("digits", (1, 8, 8)), 16)
    logits = module(data.inputs.double())
    nn.functional.cross_entropy(logits, data.labels).backward()
    by_hand = sum(
        float(p.grad[(p != 0) | (p.ndim < 2)].square().sum()) for p in module.parameters()
    )
    measured = Gradient().measure(module, data).value("norm")
    assert measured == pytest.approx(by_hand**0.5, rel=1e-9)
    assert found.probes["gradient"].before.value("norm") == pytest.approx(measured, rel=1e-3)


def test_an_action_that_finds_its_work_done_is_said_loudly(checkpoint):
    action = Action("unstructured", 0.7, scope="all")
    found = diagnose(checkpoint, action=Action("unstructured", 0.6), probes=["jacobian"], samples=8)
    assert found.verdict[0].startswith("The sparsifying action took nothing: as many weights are")
    assert found.action.layers == ()
    assert found.action.reached == pytest.approx(0.7, abs=0.01)
    result = run(
        "retrain", checkpoint, *QUICK, "--structure", "unstructured", "--ratio", 0.6, code=2
    )
    assert "nothing would be pruned" in result.stderr
    masked = sparsify(build("digits_resnet", 10), action, (1, 8, 8)).module
    with pytest.raises(ActionError, match="nothing would be pruned"):
        diagnose(Network(masked, "digits_resnet", (1, 8, 8), 10), action=action)


def test_ratio_and_action_together_are_refused(checkpoint):
    with pytest.raises(ActionError, match="ratio and action are given together"):
        diagnose(checkpoint, ratio=0.9, action=Action("unstructured", 0.9))


def test_a_run_says_how_a_narrower_file_was_pruned(tmp_path):
    torch.manual_seed(0)
    done = sparsify(build("digits_resnet", 10), Action(ratio=0.5), (1, 8, 8))
    torch.save(done.module.state_dict(), tmp_path / "narrow.pt")
    result = run("retrain", tmp_path / "narrow.pt", *QUICK, "--output", tmp_path / "run")
    assert "6 layers are narrower than the architecture's, which lost 50.0 %" in result.stderr
    pruning = Run.load(tmp_path / "run").pruning
    (came,) = pruning.before
    assert {(layer.name, layer.before, layer.after) for layer in came.layers} == {
        (layer.name, layer.before, layer.after) for layer in done.record.layers
    }
    assert (pruning.structure, pruning.ratio) == ("filter", 0.5)
    assert pruning.speedup == pytest.approx(done.record.speedup)
