"""Layers that are not to be cut or masked, for their weight is computed or TorchScript's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from trainscope.networks.copies import whole_copy
from trainscope.sparsify import Action, sparsify


def network(middle):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        middle,
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).eval()


@pytest.mark.parametrize("norm", [spectral_norm, weight_norm])
def test_what_is_left_alone_is_told_with_its_share(norm):
    given = network(norm(nn.Conv2d(8, 8, 3, padding=1)))
    inside = sum(p.numel() for name, p in given[2].named_parameters() if name != "bias")
    share = 100 * inside / sum(p.numel() for p in given.parameters())
    done = sparsify(given, Action(ratio=0.5), (3, 8, 8))
    (note,) = [note for note in done.notes if "its weight is parametrised" in note]
    told = float(note.rsplit("), ", 1)[1].split(" %")[0])
    assert told == pytest.approx(share, abs=0.5)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("structure", ["unstructured", "2:4", "filter"])
def test_parts_in_torchscript_are_left_alone_and_the_rest_is_pruned(structure):
    given = network(torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())))
    done = sparsify(given, Action(structure, None if ":" in structure else 0.5), (3, 8, 8))
    assert any("left alone: 2.0.weight" in note for note in done.notes)
    kept = done.module.get_submodule("2.0").weight
    assert torch.equal(kept, given.get_submodule("2.0").weight)
    if structure != "filter":
        assert (done.module[3].weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_copy_of_torchscript_trains_as_the_network_itself():
    given = network(torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())))
    given.get_submodule("2.0").bias.requires_grad_(False)
    copied = whole_copy(given)
    wanted = [p.requires_grad for p in given.parameters()]
    assert [p.requires_grad for p in copied.parameters()] == wanted
    torch.manual_seed(0)
    inputs, before = torch.randn(4, 3, 8, 8), given.get_submodule("2.0").weight.clone()
    for each in (given, copied):
        optimizer = torch.optim.SGD([p for p in each.parameters() if p.requires_grad], 0.1)
        each(inputs).square().sum().backward()
        optimizer.step()
        if each is given:
            assert torch.equal(copied.get_submodule("2.0").weight, before)  # no weight is shared
    for one, other in zip(given.parameters(), copied.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(before, given.get_submodule("2.0").weight)
