import copy
import re

import pytest
import torch
import torch.nn.functional as F
from reference.zeroed import lived_in, zeroed
from torch import nn

from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.inner import dependent, exported, inner, traced

SHAPE = (3, 4, 4)


class Between(nn.Module):
    """An operation between two convolutions."""

    def __init__(self, operation, channels=8):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.conv = nn.Conv2d(6, 8, 1)
        self.operation = operation
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.twin = nn.Conv2d(8, 8, 1)
        self.after = nn.Conv2d(channels, 5, 1)
        self.fc = nn.Linear(5, 2)

    def forward(self, inputs):
        features = self.operation(self, self.conv(torch.relu(self.stem(inputs))))
        return self.fc(self.after(features).mean((2, 3)))


# Each keeps zero at zero, as the reference needs.
FOLLOWED = {
    "permute": lambda net, x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
    "transpose": lambda net, x: x.transpose(1, 3).transpose(-1, 1),
    "squeeze": lambda net, x: x.unsqueeze(1).squeeze(1).unsqueeze(-1).squeeze(-1),
    "slice": lambda net, x: x[:, :, ::2, 1:],
    "index": lambda net, x: x[:, :, 0].unsqueeze(-1),
    "pad": lambda net, x: F.pad(x, (1, 1, 1, 0)),
    "resize": lambda net, x: F.interpolate(x, scale_factor=2),
    "numbers": lambda net, x: (2 * x / 3).neg().clamp(min=0).mul_(0.5),
    "expand_as": lambda net, x: x.mean((2, 3), keepdim=True).expand_as(x) * x,
    "expand": lambda net, x: x.amax((2, 3), keepdim=True).expand(-1, -1, 4, 4),
    "view": lambda net, x: x.view(x.size(0), x.shape[1], -1).unsqueeze(-1),
    "flatten": lambda net, x: x.flatten(2).unsqueeze(-1),
    "unflatten": lambda net, x: x.mean((2, 3)).view(x.shape[0], -1, 1, 1),
    "pool": lambda net, x: F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1),
    "maximum": lambda net, x: torch.maximum(x, 2 * x),
    "one map": lambda net, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
}

BLOCKED = {
    "softmax": (lambda net, x: x.softmax(1), 8, "feed the operation softmax"),
    "some channels": (lambda net, x: x[:, :4], 4, "feed the operation getitem"),
    "chunks": (lambda net, x: torch.cat(x.chunk(2, 1)[0:1], 1), 4, "split into parts"),
    "unlike halves": (lambda net, x: torch.cat(x.chunk(2, 1)[::-1], 1), 8, "split into parts"),
    "flip": (lambda net, x: x.flip(1), 8, "feed the operation flip"),
    "channel pad": (lambda net, x: F.pad(x, (0, 0, 0, 0, 1, 1)), 10, "feed the operation pad"),
    "mean": (lambda net, x: x.mean(1, keepdim=True), 1, "feed the operation mean"),
    "parameter": (lambda net, x: x * net.scale, 8, "feed the operation mul"),
    "width": (lambda net, x: x.view(-1, 8, 4, 4), 8, "a width written into the code"),
    "residual": (lambda net, x: x + net.twin(torch.relu(x)), 8, "a residual addition"),
    "difference": (lambda net, x: net.twin(torch.relu(x)) - x, 8, "a residual addition"),
}


@pytest.mark.parametrize("way", [traced, exported])
def test_a_sum_of_what_one_layer_made_is_an_activation_and_no_residual_addition(way):
    network = lived_in(Between(lambda net, x: torch.tanh(x + 0.1 * torch.pow(x, 3))))
    names = [candidate.name for candidate in way(network, SHAPE).candidates]
    assert names == ["conv", "after"]


HALVED = {
    "chunk": lambda net, x: x.chunk(2, 1)[0] * torch.relu(x.chunk(2, 1)[1]),
    "unpacked": lambda net, x: torch.mul(*x.chunk(2, dim=1)),
    "glu": lambda net, x: F.glu(x, 1),
    "GLU": lambda net, x: nn.GLU(1)(x),
}


@pytest.mark.parametrize("name", HALVED)
def test_both_halves_of_gated_channels_go_together(name):
    torch.manual_seed(0)
    network = lived_in(Between(HALVED[name], 4))
    done = sparsify(network, Action(ratio=0.5, criterion="random"), SHAPE)
    gone = done.removed["conv"]
    assert len(gone) == 4
    assert {place + 4 for place in gone[:2]} == set(gone[2:])
    assert (done.module.conv.out_channels, done.module.after.in_channels) == (4, 2)
    inputs = torch.randn(2, *SHAPE, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-12


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed_through(name):
    torch.manual_seed(0)
    network = lived_in(Between(FOLLOWED[name]))
    done = sparsify(network, Action(ratio=0.5, criterion="random"), SHAPE)
    assert done.module.conv.out_channels == done.module.after.in_channels == 4
    inputs = torch.randn(2, *SHAPE, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-12


@pytest.mark.parametrize("name", BLOCKED)
def test_what_cannot_be_followed_is_left_alone_with_its_reason(name):
    operation, channels, why = BLOCKED[name]
    cutter = inner(Between(operation, channels), SHAPE)
    assert [candidate.name for candidate in cutter.candidates] == ["after"]
    assert re.search(why, cutter.spared["conv"])


@pytest.mark.parametrize("name", [*FOLLOWED, *BLOCKED])
def test_the_ways_around_a_trace_follow_the_same_operations(name):
    torch.manual_seed(0)
    operation, channels, _ = BLOCKED.get(name) or (FOLLOWED[name], 8, "")
    network = lived_in(Between(operation, channels))
    expected = [candidate.name for candidate in traced(network, SHAPE).candidates]
    assert expected == (["after"] if name in BLOCKED else ["conv", "after"])
    for way in (exported, dependent):
        cutter = way(copy.deepcopy(network), SHAPE)
        assert [candidate.name for candidate in cutter.candidates] == expected


class Gate(nn.Module):
    """Squeeze-and-excitation with linear layers, as much public code has it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.conv = nn.Conv2d(6, 8, 1)
        self.squeeze = nn.Linear(8, 4)
        self.excite = nn.Linear(4, 8)
        self.after = nn.Conv2d(8, 5, 1)
        self.fc = nn.Linear(5, 2)

    def forward(self, inputs):
        value = self.conv(torch.relu(self.stem(inputs)))
        batch, channels, _, _ = value.size()
        gate = F.adaptive_avg_pool2d(value, 1).view(batch, channels)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(gate)))).view(
            batch, channels, 1, 1
        )
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.after(value * gate), 1), 1))


def test_a_linear_gate_follows_the_convolution_that_it_scales():
    torch.manual_seed(0)
    network = lived_in(Gate())
    done = sparsify(network, Action(ratio=0.5), SHAPE)
    assert [layer.name for layer in done.record.layers] == ["conv", "excite", "after"]
    inputs = torch.randn(2, *SHAPE, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-12
