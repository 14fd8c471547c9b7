"""Layers that multiply by what their code computes of their weight."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.errors import ActionError
from trainscope.networks.masks import masks_of
from trainscope.networks.weights import weights_in
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.computed import computes_weights, losing_zeros

SHAPE = (3, 8, 8)


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al., 2019), as in BiT and NFNets."""

    def weight_used(self):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return (self.weight - mean) / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5)

    def forward(self, x):
        return F.conv2d(x, self.weight_used(), self.bias, padding=1)


class Scaled(nn.Linear):
    """An equalised learning rate: zeros stay zeros."""

    def forward(self, x):
        return F.linear(x, 0.5 * self.weight, self.bias)


class Normalised(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight), self.bias)


class Positive(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.softplus(self.weight), self.bias)


class Rounded(nn.Linear):
    """In another dtype, and called in its own way, by torch's own weight."""

    def forward(self, x):
        return F.linear(x, self.weight.half().float(), self.bias)


class Network(nn.Module):
    def __init__(self, convolution=nn.Conv2d, linear=nn.Linear):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = convolution(8, 8, 3, padding=1)
        self.c = convolution(8, 8, 3, padding=1)
        self.d = nn.Conv2d(8, 6, 1)
        self.h = linear(6, 6)
        self.l = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        return self.l(F.relu(self.h(F.relu(self.d(x)).mean((2, 3)))))


@pytest.mark.parametrize(
    ("network", "lost"),
    [
        (Network(), set()),
        (Network(Standardised), {"b.weight", "c.weight"}),
        (Network(linear=Scaled), set()),
        (Network(linear=Normalised), set()),
        (Network(linear=Rounded), set()),
        (Network(linear=Positive), {"h.weight"}),
    ],
)
def test_where_zeros_do_not_stay_zeros_is_seen(network, lost):
    assert losing_zeros(network, weights_in(network), SHAPE) == lost
    assert computes_weights(network, SHAPE) is not (
        type(network.b) is nn.Conv2d and type(network.h) is nn.Linear
    )


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_what_would_not_be_zero_is_left_alone_and_named(structure):
    ratio = 0.5 if structure == "unstructured" else None
    done = sparsify(Network(Standardised), Action(structure, ratio=ratio, scope="all"), SHAPE)
    assert {"b.weight", "c.weight"}.isdisjoint(masks_of(done.module))
    assert any("b, c (its code computes another weight" in note for note in done.notes)
    assert done.record.reached < 0.3


def test_a_network_of_such_layers_alone_is_refused():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Standardised(8, 8, 3), nn.Flatten(), nn.Linear(512, 3)
    )
    with pytest.raises(ActionError, match="its code computes another weight of it"):
        sparsify(network, Action("unstructured", ratio=0.5), SHAPE)


def test_filters_are_cut_where_what_reads_them_is_no_other_for_it():
    """One that standardises over what is left after the cut would be another function."""
    network = Network(Standardised).double().eval()
    done = sparsify(network, Action(ratio=0.5), SHAPE)
    assert set(done.removed) == {"c", "d"}
    assert any("left alone: b" in note for note in done.notes)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    whole = copy.deepcopy(network)
    with torch.no_grad():
        whole.d.weight[:, list(done.removed["c"])] = 0
        whole.h.weight[:, list(done.removed["d"])] = 0
        assert torch.allclose(done.module(x), whole(x), rtol=1e-12, atol=1e-14)


class Sideways(nn.Module):
    """GPT-2's linear layer: its weight is [in, out], behind its input."""

    def __init__(self, into, out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(into, out) / into**0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x):
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("positions", range(4, 20))
def test_inputs_of_the_weights_own_shape_are_not_taken_for_it(positions):
    """As many rows as outputs: the activations have the shape of the weight, or its transpose's."""
    torch.manual_seed(0)
    network = nn.Sequential(Sideways(16, 24), nn.ReLU(), Sideways(24, 16)).eval()
    assert not computes_weights(network, (positions, 16))
    assert losing_zeros(network, weights_in(network), (positions, 16)) == set()
