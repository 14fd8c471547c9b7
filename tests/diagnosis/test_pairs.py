"""Pairs of files, the second pruned by somebody else: what was done, and the probes' numbers."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn
from torch.nn.utils import prune

from trainscope.cli.main import main
from trainscope.data import given_data, load, pin
from trainscope.networks import build
from trainscope.probes import Curvature, Gradient, Jacobian, Probe
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.masks import set_masks
from trainscope.task import Segmentation

pytestmark = pytest.mark.usefixtures("few_digits")

PROBES: dict[str, Probe] = {
    "gradient": Gradient(),
    "jacobian": Jacobian(),
    "curvature": Curvature(top=1),
}


def dense() -> nn.Module:
    torch.manual_seed(0)
    return build("digits_resnet", 10).eval()


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def zero(weight: torch.Tensor, share: float) -> None:
    with torch.no_grad():
        edge = weight.abs().flatten().kthvalue(round(share * weight.numel())).values
        weight.mul_(weight.abs() > edge)


def cut_by_torch_pruning() -> tuple[nn.Module, str]:
    tp = pytest.importorskip("torch_pruning")
    pruned = dense()
    spared = [module for module in pruned.modules() if isinstance(module, nn.Linear)]
    tp.pruner.MagnitudePruner(
        pruned,
        torch.randn(1, 1, 8, 8),
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=spared,
    ).step()
    return pruned, "of the filters of"


def masked_by_torch() -> tuple[nn.Module, str]:
    pruned = dense()
    for layer in convolutions(pruned):
        prune.l1_unstructured(layer, "weight", 0.6)
    return pruned, "60 % of the weights of 13 layers, held by masks"


def zeroed_by_hand() -> tuple[nn.Module, str]:
    pruned = dense()
    for layer in convolutions(pruned):
        zero(layer.weight, 0.5)
    return pruned, "50 % of the weights of 13 layers, zeroed without masks"


def cut_and_retrained() -> tuple[nn.Module, str]:
    pruned = sparsify(dense(), Action(ratio=0.5), (1, 8, 8)).module.train()
    digits = load("digits", (1, 8, 8)).train
    optimizer = torch.optim.SGD(pruned.parameters(), 0.05)
    for start in range(0, 96, 32):
        optimizer.zero_grad()
        inputs, labels = digits.inputs[start : start + 32], digits.labels[start : start + 32]
        F.cross_entropy(pruned(inputs), labels).backward()
        optimizer.step()
    return pruned.eval(), "50 % of the filters of 6 layers"


def probe(folder: Path, *options: object) -> dict[str, Any]:
    """Run the command on `dense.pt` and `pruned.pt` of a folder and return its JSON."""
    asked = ["probe", folder / "dense.pt", "--after", folder / "pruned.pt", *options]
    asked += ["--output", folder / "out", "--top", 1]
    result = CliRunner().invoke(main, [str(each) for each in asked])
    assert result.exit_code == 0, result.output
    assert "Verdict" in result.stdout
    found: dict[str, Any] = json.loads((folder / "out" / "diagnosis.json").read_text())
    return found


def check(found: dict[str, Any], networks: dict[str, nn.Module], data: Any) -> None:
    """Hold the columns of a diagnosis against the probes on two modules."""
    assert set(found["probes"]) <= set(PROBES)
    for name in found["probes"]:
        one = PROBES[name]
        for column, network in networks.items():
            by_hand = one.measure(network, data)
            told = found["probes"][name][column]["scalars"]
            for scalar, value in by_hand.scalars.items():
                near = 1e-3 if name == "curvature" else 1e-5  # Lanczos' tolerance
                expected = value.value and pytest.approx(value.value, rel=near, abs=1e-7)
                if scalar == "trace":  # its random vectors meet the parameters in another order
                    expected = pytest.approx(value.value, abs=6 * value.stderr)
                assert told[scalar]["value"] == expected, (name, column, scalar)


@pytest.mark.parametrize(
    "make", [cut_by_torch_pruning, masked_by_torch, zeroed_by_hand, cut_and_retrained]
)
def test_a_pair_of_files_is_named_and_measured(make: Any, tmp_path: Path) -> None:
    pruned, meaning = make()
    torch.save(dense().state_dict(), tmp_path / "dense.pt")
    torch.save(pruned.state_dict(), tmp_path / "pruned.pt")
    found = probe(tmp_path, "--data", "digits", "--samples", 8, "--probes", "gradient")
    assert found["action"]["structure"] == "given"
    assert meaning in found["action"]["meaning"]
    retrained = any("was retrained after the action" in note for note in found["notes"])
    assert retrained == (make is cut_and_retrained)
    # Zeros without masks are what the action left: they are held like masks.
    if make is zeroed_by_hand:
        wide = [n for n, p in pruned.named_parameters() if p.ndim == 4]
        set_masks(pruned, {name: pruned.get_parameter(name) != 0 for name in wide})
    data = pin(load("digits", (1, 8, 8)), 8)
    check(found, {"before": dense(), "after": pruned}, data)
    assert found["probes"]["gradient"]["recalibrated"] is not None


CODE = """
import torch
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1),
    )

def loaders():
    torch.manual_seed(1)
    images, labels = torch.randn(24, 1, 8, 8), torch.randint(0, 3, (24, 8, 8))
    labels[:, 0] = 255
    batches = [(images[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)]
    return batches, batches[:1]
"""


def test_a_pair_of_segmentation_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_segmentation.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_segmentation")
    try:
        torch.manual_seed(2)
        network = own.network().eval()
        pruned = copy.deepcopy(network)
        prune.l1_unstructured(pruned[3], "weight", 0.5)
        torch.save(network.state_dict(), "dense.pt")
        torch.save(pruned.state_dict(), "pruned.pt")
        code = ["--model", "own_segmentation:network", "--data", "own_segmentation:loaders"]
        found = probe(
            tmp_path, *code, "--task", "segmentation", "--samples", 16, "--probes", ",".join(PROBES)
        )
        train, _ = own.loaders()
    finally:
        sys.modules.pop("own_segmentation", None)
    assert "50 % of the weights of 1 layer, held by masks" in found["action"]["meaning"]
    data = pin(given_data((train, train), task=Segmentation()), 16)
    check(found, {"before": network, "after": pruned}, data)
