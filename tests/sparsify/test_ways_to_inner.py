"""The three ways to the inner filters give the same ones, and their cuts are exact."""

import copy

import pytest
import torch
from reference.foreign_networks import NETWORKS
from reference.zeroed import lived_in, zeroed
from torch import nn

from trainscope.errors import ActionError
from trainscope.networks.example import tensors_of
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.channels import UntraceableError
from trainscope.sparsify.inner import dependent, exported, inner, traced


def found(cutter):
    return {(c.name, c.layers, c.count, c.chunks) for c in cutter.candidates}


def built(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return lived_in(make()), shape


class Sized(nn.Module):
    """Looks at a size, which torch.fx cannot trace and torch.export can."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        if inputs.shape[-1] < 2:
            raise ValueError("the image is too small")
        return self.network(inputs)


class Choosy(Sized):
    """Looks at a value, which neither can."""

    def forward(self, inputs):
        return self.network(inputs if inputs.sum() < 1e9 else -inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ways_find_the_same_filters_and_cut_them_exactly(name):
    network, shape = built(name)
    ways = [traced, exported, dependent]
    if name == "u-net":  # it looks at sizes
        with pytest.raises(UntraceableError):
            traced(network, shape)
        del ways[0]
    inputs, every = torch.randn(3, *shape, dtype=torch.float64), []
    for way in ways:
        own = copy.deepcopy(network)
        cutter = way(own, shape)
        every.append(found(cutter))
        removed = cutter.cut({c.name: some_of(c) for c in cutter.candidates})
        check_exact(network, removed, own.eval(), inputs)
    assert every[0]
    assert every.count(every[0]) == len(every)


def some_of(candidate):
    part = candidate.count // candidate.chunks
    return torch.arange(candidate.count).view(-1, part)[:, part // 3 : 2 * part // 3].flatten()


def check_exact(network, removed, cut, inputs):
    """Compare with the dense network whose filters are zero, their biases and norms too."""
    with torch.no_grad():
        dense, expected, got = (
            tensors_of(net(inputs)) for net in (network, zeroed(network, removed), cut)
        )
    assert got.keys() == expected.keys()
    for place, right in expected.items():
        assert (got[place] - right).abs().max() < 1e-10 * dense[place].abs().max()
    assert any((got[place] - dense[place]).abs().max() > 1e-6 for place in got)


@pytest.mark.parametrize("name", ["mixture", "u-net"])
@pytest.mark.parametrize("wrap", [Sized, Choosy])
def test_a_network_that_cannot_be_traced_is_cut_all_the_same(name, wrap, capfd):
    network, shape = built(name)
    network = wrap(network)
    done = sparsify(network, Action(ratio=0.4), shape)
    how = "were found with torch.export" if wrap is Sized else "groups that Torch-Pruning found"
    assert "torch.fx cannot trace" in done.notes[0]
    assert how in done.notes[0]
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    check_exact(network, done.removed, done.module, inputs)
    assert capfd.readouterr() == ("", "")  # torch prints graphs that it gives up


def test_filters_whose_zeros_turn_into_numbers_are_cut_too():
    layers = [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Sigmoid(), nn.Conv2d(6, 2, 1)]
    torch.manual_seed(0)
    for way in (traced, exported, dependent):
        cutter = way(lived_in(nn.Sequential(*layers)), (3, 4, 4))
        assert [c.name for c in cutter.candidates] == ["1"]


def test_a_width_written_into_the_code_is_found_by_trial():
    network, shape = built("by hand")
    for way in (exported, dependent):
        cutter = way(copy.deepcopy(network), shape)
        assert [c.name for c in cutter.candidates] == ["middle", "free"]
        assert "a trial cut of its outputs does not run" in cutter.spared["fixed"]


class Shifted(nn.Module):
    """Channels that change their places where Torch-Pruning sees an elementwise operation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.rolled = nn.Conv2d(4, 6, 1)
        self.plain = nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, inputs):
        features = self.plain(torch.roll(self.rolled(self.stem(inputs)), 2, 1))
        return self.last(features if features.sum() < 1e9 else -features)


def test_a_cut_that_would_be_wrong_is_found_by_trial():
    torch.manual_seed(0)
    cutter = inner(lived_in(Shifted()), (3, 4, 4))
    assert [c.name for c in cutter.candidates] == ["plain"]
    assert cutter.spared["rolled"] == "a trial cut of its outputs changed more than those"


class Recurrent(nn.Module):
    """An LSTM reads one convolution: Torch-Pruning cannot follow that one, and can the other."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.inner = nn.Conv2d(4, 6, 1)
        self.read = nn.Conv2d(6, 6, 1)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, inputs):
        features = self.read(torch.relu(self.inner(self.stem(inputs)))).flatten(2)
        if features.sum() > 1e9:
            features = -features
        return self.head(self.lstm(features.transpose(1, 2))[0])


def test_a_layer_that_torch_pruning_cannot_follow_is_left_alone_by_itself():
    torch.manual_seed(0)
    network = lived_in(Recurrent())
    done = sparsify(network, Action(ratio=0.5), (3, 4, 4))
    assert [layer.name for layer in done.record.layers] == ["inner"]
    assert "left alone: read (Torch-Pruning cannot follow its outputs)" in " ".join(done.notes)
    check_exact(network, done.removed, done.module, torch.randn(2, 3, 4, 4).double())


def test_masks_and_modes_survive_the_way_through_torch_pruning():
    network, shape = built("mixture")
    network = Choosy(network).train()
    masked = sparsify(network, Action("unstructured", 0.5, scope="all"), shape).module
    done = sparsify(masked, Action(ratio=0.4), shape)
    assert done.module.training
    weight, mask = done.module.network.left.weight, done.module.network.left.weight_mask
    assert mask.shape == weight.shape
    assert torch.equal(weight != 0, mask)


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, inputs):
        mean = self.conv(inputs).mean((2, 3))
        return self.fc(mean if mean.sum() > 0 else -mean)


def test_where_no_way_works_the_error_names_all_three():
    class Detached(Nothing):
        def forward(self, inputs):
            if inputs.sum() > 1e9:
                return inputs
            return super().forward(inputs.detach()).detach()

    with pytest.raises(ActionError, match=r"nothing can be pruned.* conv: the first convolution"):
        inner(Nothing(), (3, 8, 8))
    with pytest.raises(
        ActionError, match=r"torch\.fx cannot trace .*torch\.export cannot export .*Torch-Pruning"
    ):
        inner(Detached(), (3, 8, 8))
