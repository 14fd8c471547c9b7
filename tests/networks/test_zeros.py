"""Zeros that mean pruned, and zeros that do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from trainscope.errors import ActionError
from trainscope.networks import Network, masks_of, noticed, open_checkpoint, regrown
from trainscope.networks.network import digest
from trainscope.networks.registry import build
from trainscope.networks.zeros import find_zeros, zeros_in

SHAPE = (1, 28, 28)


def lenet(prune_layer=lambda module: None):
    """A LeNet pruned to zeros, without masks."""
    torch.manual_seed(0)
    network = build("lenet5")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            prune_layer(module)
            if prune.is_pruned(module):
                prune.remove(module, "weight")
    return network


def share(network):
    weights = [p for n, p in network.named_parameters() if n.endswith("weight")]
    return sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)


def two_of_four(module):
    groups = module.weight.detach().movedim(1, -1)
    if groups.shape[-1] % 4 == 0:
        small = groups.reshape(-1, 4).abs().argsort(dim=1)[:, :2]
        mask = torch.ones_like(groups.reshape(-1, 4)).scatter_(1, small, 0.0)
        prune.custom_from_mask(module, "weight", mask.view(groups.shape).movedim(-1, 1))


PRUNED = {
    "5 %": (lambda m: prune.l1_unstructured(m, "weight", 0.05), "unstructured"),
    "70 %": (lambda m: prune.l1_unstructured(m, "weight", 0.7), "unstructured"),
    "random": (lambda m: prune.random_unstructured(m, "weight", 0.5), "unstructured"),
    "99.5 %": (lambda m: prune.l1_unstructured(m, "weight", 0.995), "unstructured"),
    "filters": (lambda m: prune.ln_structured(m, "weight", 0.4, n=2, dim=0), "filter"),
    "inputs": (
        lambda m: m.weight.shape[1] > 3 and prune.ln_structured(m, "weight", 0.4, n=2, dim=1),
        "unstructured",
    ),
    "2:4": (two_of_four, "2:4"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", PRUNED)
def test_weights_pruned_to_zeros_are_told_and_masked(how, dtype):
    cut, structure = PRUNED[how]
    network = lenet(cut)
    network.load_state_dict({n: t.to(dtype).float() for n, t in network.state_dict().items()})
    opened = noticed(Network(network, "lenet5", SHAPE, 10))
    (before,) = opened.before
    assert (before.how, before.structure) == ("zeros", structure)
    assert before.share == pytest.approx(share(network))
    assert before.speedup > 1
    masks = masks_of(opened.module)
    for name, parameter in opened.module.named_parameters():
        if name.endswith("weight") and not parameter.all():
            assert torch.equal(masks[name], parameter != 0)
    assert masks_of(network) == {}  # the one given is not touched
    assert digest(opened.module) == digest(network)
    assert opened.notes[0].startswith(f"It came pruned: {before.gone:,} of its 61,470 weights")
    assert noticed(opened) is opened


def test_a_layer_with_few_zeros_counts_where_another_tells():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    with torch.no_grad():
        network[1].weight.view(-1)[[5, 700]] = 0
    assert not find_zeros(network).masks  # two of 10,000: no evidence
    prune.l1_unstructured(network[0], "weight", 0.9)
    prune.remove(network[0], "weight")
    found = find_zeros(network)
    assert [(each.name, each.before - each.after) for each in found.layers] == [
        ("0", 9000),
        ("1", 2),
    ]


def rounded(weight, levels, dim=None):
    """Return a weight on a grid of 2 * levels + 1 values, of all or of each output."""
    top = weight.abs().max() if dim is None else weight.abs().amax(dim=dim, keepdim=True)
    return torch.round(weight / top * levels) / levels * top


class Adapted(nn.Module):
    """An adapter, positions and biases that start at zero, and an embedding that is padded."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        self.base = nn.Linear(8, 8)
        self.lora_a = nn.Parameter(torch.randn(2, 8))
        self.lora_b = nn.Parameter(torch.zeros(8, 2))
        self.attention_biases = nn.Parameter(torch.zeros(2, 9))  # by head and distance
        self.norm = nn.LayerNorm((5, 8))
        nn.init.zeros_(self.norm.weight)
        self.head = nn.Linear(8, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


def dead_filter():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    with torch.no_grad():
        network[2].weight[3] = 0
    return network


def on_grid(levels, dim=None, layer=None):
    layer = layer or nn.Conv2d(64, 32, 3)
    with torch.no_grad():
        layer.weight.normal_()
        layer.weight.copy_(rounded(layer.weight, levels, dim))
    return layer


def ternary():
    layer = nn.Conv2d(64, 32, 3)
    with torch.no_grad():
        layer.weight.normal_()
        layer.weight.copy_(layer.weight.sign() * (layer.weight.abs() > 0.6))
    return layer


def identity():
    layer = nn.Linear(16, 16)
    nn.init.eye_(layer.weight)
    return layer


DENSE = {
    "fresh": lambda: build("digits_resnet"),
    "float16": lambda: build("lenet5").half().float(),
    "bfloat16": lambda: build("lenet5").bfloat16().float(),
    "int8": lambda: on_grid(127),
    "int8 by output": lambda: on_grid(127, (1, 2, 3)),
    "int8 depthwise": lambda: on_grid(127, (1, 2, 3), nn.Conv2d(64, 64, 3, groups=64)),
    "int4": lambda: on_grid(7),
    "ternary": ternary,
    "identity": identity,
    "one dead filter": dead_filter,
    "starting at zero": Adapted,
}


@pytest.mark.parametrize("kind", DENSE)
def test_zeros_that_chance_or_a_start_at_zero_explains_are_no_pruning(kind):
    torch.manual_seed(0)
    network = DENSE[kind]()
    assert not find_zeros(network).masks
    assert zeros_in({n: p for n, p in network.named_parameters() if n != "embed.weight"}) == ()


def test_what_is_zero_throughout_is_named_and_left_free():
    torch.manual_seed(0)
    assert find_zeros(Adapted()).blank == ("lora_b", "head")


@pytest.mark.parametrize("levels", [127, 7])
def test_pruning_shows_through_rounding(levels):
    torch.manual_seed(0)
    layer = on_grid(levels, (1, 2, 3))
    prune.l1_unstructured(layer, "weight", 0.9)
    prune.remove(layer, "weight")
    assert float((~find_zeros(layer).masks["weight"]).float().mean()) == pytest.approx(0.9, abs=0.1)


def test_sparse_tensors_are_looked_into_and_what_has_no_values_is_passed_over():
    torch.manual_seed(0)
    weight = torch.randn(20, 30) * (torch.rand(20, 30) < 0.3)
    found = zeros_in({"sparse": weight.to_sparse(), "meta": weight.to("meta")})
    assert [(each.name, each.after) for each in found] == [("sparse", int(weight.count_nonzero()))]


def test_padding_rows_of_a_pruned_embedding_are_not_masked():
    torch.manual_seed(0)
    embed = nn.Embedding(30, 8, padding_idx=0)
    with torch.no_grad():
        embed.weight[1:, :4] = 0
    mask = find_zeros(embed).masks["weight"]
    assert mask[0].all()
    assert not mask[1:, :4].any()


def test_masks_of_the_file_are_told_and_zeros_beside_them_are_not(tmp_path):
    network = lenet(lambda m: prune.l1_unstructured(m, "weight", 0.7))
    masked = lenet()
    for module in masked.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(module, "weight", 0.7)
    torch.save(masked.state_dict(), tmp_path / "masked.pt")
    torch.save(network.state_dict(), tmp_path / "zeros.pt")
    with_masks, with_zeros = (open_checkpoint(tmp_path / f"{n}.pt") for n in ("masked", "zeros"))
    assert [each.how for each in with_masks.before] == ["masks"]
    assert with_masks.before[0].layers == with_zeros.before[0].layers
    assert with_masks.before[0].ratio == with_zeros.before[0].ratio == 0.7
    for name, mask in masks_of(with_masks.module).items():
        assert torch.equal(mask, masks_of(with_zeros.module)[name])


def test_regrown_weights_are_free_and_the_rest_stays():
    network = noticed(Network(lenet(PRUNED["70 %"][0]), "lenet5", SHAPE, 10))
    free = regrown(network)
    assert masks_of(free.module) == {}
    assert masks_of(network.module)
    assert not free.before[0].held
    assert free.notes[-1].endswith("They are free to grow.")
    with pytest.raises(ActionError, match="nothing to regrow"):
        regrown(Network(lenet(), "lenet5", SHAPE, 10))
