"""Networks of one's own that make their weights of parts, with the files that they saved."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import trainscope
from trainscope.errors import CheckpointError
from trainscope.networks import flops, open_checkpoint, parameters, regrown, save_checkpoint
from trainscope.networks.masks import masks_of
from trainscope.records import LayerChange

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
    said = f"It came pruned: masks hold {sum(gone.values())} weights at zero, and they stay there."
    assert found.notes.count(said) == 1
    assert parameters(found.module) == 83 - sum(gone.values())  # 48 + 8 + 24 + 3


@pytest.mark.parametrize("kind", ["spectral", "orthogonal", "scaled"])
def test_what_only_code_puts_together_says_how(tmp_path, kind):
    with pytest.raises(CheckpointError, match=r"'0\.weight' is made by .* give the network with"):
        opened(tmp_path, trained(kind), "plain")


def test_the_masks_of_a_parametrization_are_masks(tmp_path):
    """A network with them was dense: its parameters and FLOPs were those of all weights."""
    found = opened(tmp_path, trained("masked"), "masked")
    held = {name: int((~mask).sum()) for name, mask in masks_of(found.module).items()}
    assert held == {"0.parametrizations.weight.original": 16}
    assert parameters(found.module) == 83 - 16
    assert flops(found.module, (6,)) == 48 + 24 - 16
    plain = opened(tmp_path, trained("masked"), "plain")
    assert flops(plain.module, (6,)) == 48 + 24 - 16


def test_a_weight_that_a_parametrization_masks_can_grow_again(tmp_path):
    network = trained("masked")
    free = regrown(opened(tmp_path, network, "masked"))
    assert torch.equal(free.module(INPUTS), network(INPUTS))
    with torch.no_grad():
        free.module[0].parametrizations.weight.original.fill_(1)
    assert bool((free.module[0].weight == 1).all())
    assert parameters(free.module) == 83


class Dropping(nn.Module):
    """Drops where its mask is 1, or scales what it keeps."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.register_buffer("mask", (torch.arange(48).reshape(8, 6) % 3 == 0).float())

    def forward(self, weight):
        return weight * (1 - self.mask) if self.scale is None else weight * self.mask * self.scale


@pytest.mark.parametrize("scale", [None, 2.0])
def test_another_parametrization_with_a_mask_is_no_mask(scale):
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    parametrize.register_parametrization(network[0], "weight", Dropping(scale))
    assert not masks_of(network)
    assert parameters(network) == 83


def test_a_pair_whose_second_is_masked_by_a_parametrization():
    """It was said that nothing was pruned."""
    import parts_net

    dense, pruned = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), trained("masked")
    with torch.no_grad():
        dense[0].weight.copy_(pruned[0].parametrizations.weight.original)
        for mine, other in ((dense[0].bias, pruned[0].bias), (dense[2].bias, pruned[2].bias)):
            mine.copy_(other)
        dense[2].weight.copy_(pruned[2].weight)
    assert isinstance(pruned[0].parametrizations.weight[0], parts_net.Masked)
    data = INPUTS.repeat(4, 1), torch.arange(20) % 3
    found = trainscope.diagnose(dense, after=pruned, data=data, probes=["gradient"], samples=8)
    assert found.action.layers == (LayerChange("0", 48, 32),)
    assert found.action.meaning.endswith("weights of 1 layer, held by masks")
    assert (found.action.parameters, found.action.flops) == (67, 56)


def test_the_state_of_torchs_sparsifier_has_the_masks(tmp_path):
    sparsity = pytest.importorskip("torch.ao.pruning")
    network = trained("plain")
    dense = {name: value.clone() for name, value in network.state_dict().items()}
    sparsifier = sparsity.WeightNormSparsifier(0.5, (1, 1), 1)
    sparsifier.prepare(network, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    torch.save(
        {"model": network.state_dict(), "sparsifier": sparsifier.state_dict()}, tmp_path / "ao.pt"
    )
    found = open_checkpoint(tmp_path / "ao.pt", model="parts_net:plain", input_shape=(6,))
    assert torch.equal(found.module(INPUTS), network(INPUTS))
    assert int((found.module[0].weight == 0).sum()) == 24
    kept = found.module[0].weight != 0
    assert torch.equal(found.module[0].weight[kept], dense["0.weight"][kept])
    assert masks_of(network).keys() == {"0.parametrizations.weight.original"}
