"""Networks of one's own that make their weights of parts, with the files that they saved."""

from __future__ import annotations

import sys

import pytest
import torch

from trainscope.errors import CheckpointError
from trainscope.networks import open_checkpoint, parameters, save_checkpoint
from trainscope.networks.masks import masks_of

CODE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", (torch.arange(48).reshape(8, 6) % 3 > 0).float())
    def forward(self, weight):
        return weight * self.mask

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 2.0))
    def forward(self, weight):
        return weight * self.scale

def plain():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

def changed(change):
    network = plain()
    change(network[0])
    return network

def registered(part):
    return lambda layer: parametrize.register_parametrization(layer, "weight", part())

def weight_norm(): return changed(parametrizations.weight_norm)
def hooked_norm(): return changed(nn.utils.weight_norm)
def spectral(): return changed(parametrizations.spectral_norm)
def hooked_spectral(): return changed(nn.utils.spectral_norm)
def orthogonal(): return changed(parametrizations.orthogonal)
def scaled(): return changed(registered(Scaled))
def masked(): return changed(registered(Masked))
def pruned(): return changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5))
def pruned_bias():
    network = pruned()
    prune.l1_unstructured(network[0], "bias", 0.5)
    return network
for made in (plain, weight_norm, hooked_norm, spectral, hooked_spectral, orthogonal, scaled,
             masked, pruned, pruned_bias):
    made.input_shape = (6,)
"""
KINDS = ("weight_norm", "hooked_norm", "spectral", "hooked_spectral", "orthogonal", "scaled")
MASKED = ("masked", "pruned", "pruned_bias")
INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    (tmp_path / "parts_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("parts_net", None)


def trained(kind):
    """Return a network of a kind with other weights than its factory gives, in eval mode."""
    import parts_net

    torch.manual_seed(3)
    network = getattr(parts_net, kind)()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network(INPUTS)  # a step of the power iteration
    return network.eval()


def opened(tmp_path, network, kind, start=""):
    state = {f"{start}{name}": value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    return open_checkpoint(tmp_path / "net.pt", model=f"parts_net:{kind}", input_shape=(6,))


@pytest.mark.parametrize("start", ["", "module.", "model."])
@pytest.mark.parametrize("kind", [*KINDS, *MASKED])
def test_a_network_takes_its_own_file(tmp_path, kind, start):
    """It was refused: weights that stand in parts were put together before they were loaded."""
    network = trained(kind)
    found = opened(tmp_path, network, kind, start)
    assert torch.equal(found.module(INPUTS), network(INPUTS))
    save_checkpoint(tmp_path / "ours.pt", found)
    again = open_checkpoint(tmp_path / "ours.pt", model=f"parts_net:{kind}")
    assert torch.equal(again.module(INPUTS), network(INPUTS))


@pytest.mark.parametrize("kind", ["weight_norm", "hooked_norm", *MASKED])
def test_a_plain_network_takes_what_can_be_put_together(tmp_path, kind):
    network = trained(kind)
    found = opened(tmp_path, network, "plain")
    assert torch.allclose(found.module(INPUTS), network(INPUTS), atol=1e-6)
    if kind in MASKED:
        zeros = int((found.module[0].weight == 0).sum() + (found.module[0].bias == 0).sum())
        assert zeros == {"masked": 16, "pruned": 24, "pruned_bias": 28}[kind]


@pytest.mark.parametrize("kind", ["pruned", "pruned_bias"])
def test_masks_of_torch_in_a_network_of_ones_own_are_masks(tmp_path, kind):
    found = opened(tmp_path, trained(kind), kind)
    held = {name: int((~mask).sum()) for name, mask in masks_of(found.module).items()}
    gone = {"0.weight_orig": 24, **({"0.bias_orig": 4} if kind == "pruned_bias" else {})}
    assert held == gone
    assert parameters(found.module) == 83 - sum(gone.values())  # 48 + 8 + 24 + 3


@pytest.mark.parametrize("kind", ["spectral", "orthogonal", "scaled"])
def test_what_only_code_puts_together_says_how(tmp_path, kind):
    with pytest.raises(CheckpointError, match=r"'0\.weight' is made by .* give the network with"):
        opened(tmp_path, trained(kind), "plain")
