"""Networks whose layers mask their weights by their own code, as those of many papers do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trainscope
from trainscope.networks.cost import flops, parameters
from trainscope.networks.masks import masks_of
from trainscope.networks.own_code import own_code
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.masks import hold_masks

SHAPE = (3, 8, 8)
KINDS = [
    ("mask", "buffer"),
    ("weight_mask", "buffer"),
    ("pruning_mask", "buffer"),
    ("mask", "parameter"),
    ("weight_mask", "parameter"),
]


class Masked(nn.Conv2d):
    """Multiplies its weight by a mask that it keeps as a buffer or as a frozen parameter."""

    def __init__(self, *sizes, leaf="mask", kind="buffer", **options):
        super().__init__(*sizes, **options)
        self.leaf, ones = leaf, torch.ones_like(self.weight)
        if kind == "buffer":
            self.register_buffer(leaf, ones)
        else:
            self.register_parameter(leaf, nn.Parameter(ones, requires_grad=False))

    def forward(self, x):
        return F.conv2d(x, self.weight * getattr(self, self.leaf), self.bias, padding=1)


class Network(nn.Module):
    def __init__(self, leaf, kind):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = Masked(8, 8, 3, padding=1, leaf=leaf, kind=kind)
        self.c = Masked(8, 8, 3, padding=1, leaf=leaf, kind=kind)
        self.d = nn.Conv2d(8, 8, 1)
        self.l = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))))
        return self.l(x.mean((2, 3)))


def pruned(leaf, kind, share=0.8):
    """Return a network with 80 % of two layers masked, and the values under the masks kept."""
    network = Network(leaf, kind).double().eval()
    for layer in (network.b, network.c):
        size = layer.weight.abs().flatten()
        least = size.kthvalue(int(share * size.numel())).values
        getattr(layer, leaf).data.copy_(layer.weight.abs() > least)
    return network


def effective(layer):
    return layer.weight * getattr(layer, layer.leaf) if isinstance(layer, Masked) else layer.weight


def by_hand(network):
    """Return surviving parameters, and multiply-adds by density."""
    layers = [network.a, network.b, network.c, network.d, network.l]
    alive = [int((effective(layer) != 0).sum()) for layer in layers]
    biases = sum(layer.bias.numel() for layer in layers)
    places = [*[SHAPE[1] * SHAPE[2]] * 4, 1]
    adds = sum(count * place for count, place in zip(alive, places, strict=True))
    return sum(alive) + biases, adds


@pytest.mark.parametrize(("leaf", "kind"), KINDS)
def test_parameters_and_flops_are_those_of_what_survives(leaf, kind):
    network = pruned(leaf, kind)
    assert (parameters(network), flops(network, SHAPE)) == by_hand(network)
    assert set(masks_of(network)) == {"b.weight", "c.weight"}


@pytest.mark.parametrize(("leaf", "kind"), KINDS)
def test_what_was_done_is_worked_out(leaf, kind):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(16, *SHAPE, generator=generator), torch.arange(16) % 4
    dense, after = Network(leaf, kind).double(), pruned(leaf, kind)
    found = trainscope.diagnose(dense, after=after, data=data, probes=["gradient"])
    assert found.action.meaning == "80 % of the weights of 2 layers, held by masks"
    assert (found.action.parameters, found.action.flops) == by_hand(after)


@pytest.mark.parametrize(("leaf", "kind"), KINDS)
@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_more_weights_go_after_those_that_are_gone(leaf, kind, structure):
    network = pruned(leaf, kind)
    ratio = 0.9 if structure == "unstructured" else None
    done = sparsify(network, Action(structure, ratio=ratio), SHAPE)
    change = {layer.name: (layer.before, layer.after) for layer in done.record.layers}
    for name in ("b", "c"):
        alive = effective(getattr(done.module, name)) != 0
        before = effective(getattr(network, name))
        assert change[name] == (int((before != 0).sum()), int(alive.sum()))
        assert not bool((alive & (before == 0)).any())
        if ratio is not None:  # the smallest of those that were left
            assert int(alive.sum()) == alive.numel() - round(0.9 * alive.numel() + 0.4)
            assert before[alive].abs().min() >= before[~alive].abs().max()
    assert (done.record.parameters, done.record.flops) == by_hand(done.module)


@pytest.mark.parametrize(("leaf", "kind"), KINDS)
def test_filters_are_ranked_by_what_survives_and_cut_with_their_masks(leaf, kind):
    network = pruned(leaf, kind)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    done = sparsify(network, Action(ratio=0.5), SHAPE)
    whole = copy.deepcopy(network)
    for name in ("b", "c"):
        size = effective(getattr(network, name)).abs().mean((1, 2, 3))
        assert set(done.removed[name]) == set(size.argsort()[:4].tolist())
    with torch.no_grad():
        for name, gone in done.removed.items():
            layer = getattr(whole, name)
            layer.weight[list(gone)] = layer.bias[list(gone)] = 0
    assert torch.allclose(done.module(x), whole(x), rtol=1e-12, atol=1e-14)
    assert (done.record.parameters, done.record.flops) == by_hand(done.module)


@pytest.mark.parametrize(("leaf", "kind"), KINDS)
def test_masks_of_both_kinds_hold_in_training(leaf, kind):
    done = sparsify(pruned(leaf, kind), Action("unstructured", ratio=0.9), SHAPE)
    network = done.module.train()
    before = {n: effective(getattr(network, n)) == 0 for n in ("b", "c", "d")}
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-2)
    hold_masks(network, optimizer)
    for _ in range(3):
        network(torch.randn(4, *SHAPE, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    for name, zero in before.items():
        assert bool((effective(getattr(network, name))[zero] == 0).all())


def test_a_buffer_that_is_no_mask_is_let_be():
    class Other(nn.Conv2d):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.register_buffer("mask_scale", torch.full_like(self.weight, 0.3))

        def forward(self, x):
            return F.conv2d(x, self.weight * self.mask_scale, self.bias)

    assert masks_of(nn.Sequential(Other(3, 4, 3))) == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_whose_code_runs_is_told_of_any_module():
    plain, patched, own = nn.Linear(2, 2), nn.Linear(2, 2), Masked(2, 2, 3)
    patched.forward = lambda x: F.linear(x, patched.weight.abs())
    script = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    assert [own_code(each) for each in (plain, patched, own, script)] == [False, True, True, False]
    assert masks_of(script) == {}
