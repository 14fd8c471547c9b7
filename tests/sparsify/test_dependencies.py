"""Torch-Pruning's graph within limits: what it cannot follow is left alone, or gives way."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from reference.zeroed import PlainNet, lived_in, zeroed
from torch import nn

from trainscope.errors import ActionError
from trainscope.networks.masks import masks_of, set_masks
from trainscope.sparsify import Action, dependencies, sparsify
from trainscope.sparsify.coupled import TORN

ALL = Action(ratio=0.5, scope="all")


class Attention(nn.Module):
    """Counts its channels in its own code: heads of a fixed size."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).view(len(x), -1, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(len(x), -1, self.heads * self.size))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = Attention(width, 2)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.mlp(x)


class Transformer(nn.Module):
    """Without norms, so that a cut is the network with those channels at zero."""

    def __init__(self, width=8):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.zeros(1, 4, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.blocks(x).mean(1))


def test_modules_whose_code_counts_channels_are_left_alone_and_the_rest_is_cut():
    torch.manual_seed(0)
    network = Transformer().double()
    done = sparsify(network, ALL, (3, 8, 8))
    cut = {layer.name for layer in done.record.layers}
    assert {"patches", "blocks.0.mlp.0", "blocks.1.attention.proj"} <= cut
    assert not any("qkv" in name for name in cut)
    assert any("qkv" in note and TORN in note for note in done.notes)
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-12


def test_a_parameter_that_was_cut_along_is_not_said_to_be_left_alone():
    torch.manual_seed(0)
    done = sparsify(Transformer(), ALL, (3, 8, 8))
    assert done.module.position.shape == (1, 4, 4)
    assert not any("position" in note for note in done.notes)
    assert "position" not in {left.name for left in done.record.left_alone}


def test_a_network_that_fails_outside_of_any_module_of_its_own_gives_way():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.two(self.one(x)).view(-1, 6))

    done = sparsify(Flat(), ALL, torch.randn(3, 4))
    assert done.notes[0].startswith("scope all gave way to scope inner: the pruned Flat does not")
    assert {layer.name for layer in done.record.layers} == {"one"}


def test_groups_with_more_channels_than_any_layer_has_are_given_up_at_once(monkeypatch):
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer(
        [2, 2], 8, [2, 2], [1, 2], [2, 2], stochastic_depth_prob=0.0, num_classes=5
    )
    mapped = []
    plain = dependencies.Dependencies._map
    monkeypatch.setattr(
        dependencies.Dependencies,
        "_map",
        lambda self, mapping, places: mapped.append(plain(self, mapping, places)) or mapped[-1],
    )
    network = lived_in(swin)
    done = sparsify(network, ALL, (3, 16, 16))
    assert max(map(len, mapped)) <= 64  # the widest layer's channels
    assert any("couples more channels to it than any layer has" in note for note in done.notes)
    inputs = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-9


def test_a_concatenation_of_unknown_sizes_is_passed_over(monkeypatch):
    from torch_pruning import ops
    from torch_pruning.dependency import index_mapping, shape_infer

    node = SimpleNamespace(
        type=ops.OPTYPE.CONCAT, grad_fn=None, module=SimpleNamespace(concat_sizes=[4, None])
    )
    monkeypatch.setattr(shape_infer, "infer_in_channels_recursively", lambda *_, **__: 8)
    own = index_mapping.update_concat_index_mapping
    with dependencies._unknown_sizes():
        index_mapping.update_concat_index_mapping(None, node)
    assert index_mapping.update_concat_index_mapping is own
    assert not hasattr(node.module, "offsets")


def test_scope_all_gives_way_to_inner_where_the_time_is_up(monkeypatch):
    monkeypatch.setattr(dependencies, "SECONDS", -1.0)
    torch.manual_seed(0)
    network = PlainNet()
    mask = torch.ones_like(network.fc2.weight, dtype=torch.bool)
    mask[0] = False
    set_masks(network, {"fc2.weight": mask})
    done = sparsify(network, ALL, (3, 8, 8))
    assert done.record.scope == "inner"
    assert "inner convolution" in done.record.meaning
    assert done.notes[0].startswith("scope all gave way to scope inner: to find the coupled")
    assert torch.equal(masks_of(done.module)["fc2.weight"], mask)
    assert done.record.layers == sparsify(network, Action(ratio=0.5), (3, 8, 8)).record.layers


def test_what_torch_pruning_raises_within_a_cut_is_a_sentence(monkeypatch):
    def fail(*_):
        raise IndexError("index 48 is out of bounds")

    monkeypatch.setattr("trainscope.sparsify.coupled.CoupledCutter.cut", fail)
    with pytest.raises(ActionError, match=r"cannot be cut \(IndexError: index 48"):
        sparsify(PlainNet(), ALL, (3, 8, 8))
