"""FLOPs and parameters against published figures and against a count by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torchvision.models import get_model_weights

from trainscope.networks import registry
from trainscope.networks.cost import flops, layer_flops, parameters
from trainscope.networks.masks import set_masks
from trainscope.networks.meta import shapes_of
from trainscope.networks.rebuild import resize

# One of each family, and where sizes or groups differ, more.
TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "regnet_y_8gf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg16_bn",
    "vit_b_16",
]


@pytest.mark.parametrize("name", TORCHVISION)
def test_flops_and_parameters_are_those_that_torchvision_publishes(name):
    known = registry.architecture(name)
    module = known.skeleton()
    published = next(
        weights.meta
        for weights in get_model_weights(name)
        if weights.transforms.keywords["crop_size"] == known.input_shape[1]
    )
    assert flops(module, known.input_shape) / 1e9 == pytest.approx(published["_ops"], abs=5.1e-4)
    if name != "inception_v3":  # there, the published number has the auxiliary head in it
        assert parameters(module) == published["num_params"]


def _first_convs_cut(ratio: float) -> nn.Module:
    """ResNet-34 with the first convolution of every block cut, as in Wang et al., Table 4.

    Its other rows are in tests/sparsify/test_act.py.
    """
    module = registry.architecture("resnet34").skeleton(100)
    shapes = shapes_of(module.state_dict())
    for name in list(shapes):
        if not name.startswith("layer") or ".conv1." not in name:
            continue
        kept = max(shapes[name][0] - math.ceil(round(ratio * shapes[name][0], 9)), 1)
        block = name.removesuffix("conv1.weight")
        shapes[name] = (kept, *shapes[name][1:])
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{block}bn1.{leaf}"] = (kept,)
        after = shapes[f"{block}conv2.weight"]
        shapes[f"{block}conv2.weight"] = (after[0], kept, *after[2:])
    resize(module, shapes)
    return module


@pytest.mark.parametrize(
    ("ratio", "giga", "speedup"),
    [
        (0.0, 3.66, 1.0),
        (0.3, 2.59, 1.41),
        (0.5, 1.90, 1.93),
        (0.9, 0.48, 7.68),
    ],
)
def test_flops_of_pruned_resnet34_are_those_of_wang_et_al(ratio, giga, speedup):
    dense = flops(registry.architecture("resnet34").skeleton(100), (3, 224, 224))
    pruned = flops(_first_convs_cut(ratio), (3, 224, 224))
    assert round(pruned / 1e9, 2) == giga
    assert round(dense / pruned, 2) == speedup


def _small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5),
    )


BY_HAND = {"0": 64 * 8 * 3 * 9, "3": 16 * 8 * 2 * 9, "5": 8 * 16 * 5}


def test_layers_are_counted_as_by_hand():
    assert layer_flops(_small(), (3, 8, 8)) == BY_HAND
    assert flops(_small(), (3, 8, 8)) == sum(BY_HAND.values())


def test_a_masked_convolution_with_a_bias_counts_by_its_density():
    module = _small()
    mask = torch.zeros(8, 3, 3, 3, dtype=torch.bool)
    mask[:, 0] = True
    set_masks(module, {"0.weight": mask})
    assert layer_flops(module, (3, 8, 8)) == BY_HAND | {"0": BY_HAND["0"] // 3}


def test_masked_layers_count_by_their_density():
    module = _small()
    mask = torch.zeros(5, 128, dtype=torch.bool)
    mask[:, ::4] = True
    set_masks(module, {"5.weight": mask})
    assert layer_flops(module, (3, 8, 8)) == BY_HAND | {"5": BY_HAND["5"] // 4}
    assert flops(module, (3, 8, 8)) == sum(BY_HAND.values()) - BY_HAND["5"] * 3 // 4
    assert parameters(module) == parameters(_small()) - 5 * 96


def test_masks_of_torch_prune_count_too():
    module = _small()
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    module(torch.zeros(1, 3, 8, 8))
    assert layer_flops(module, (3, 8, 8)) == BY_HAND | {"0": BY_HAND["0"] // 2}


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)  # 16 tokens of 8 values
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_counted_and_its_products_belong_to_no_layer(training):
    module = _Attention().train(training)
    by_layer = layer_flops(module, (8, 4, 4))
    assert by_layer == {
        "attention": 16 * 8 * 24,
        "attention.out_proj": 16 * 8 * 8,
        "head": 8 * 3,
    }
    scores_and_values = 2 * 16 * 16 * 8
    assert flops(module, (8, 4, 4)) == sum(by_layer.values()) + scores_and_values


class _LooksAtValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        x = self.conv(x)
        return x.mean((2, 3)) if x.sum().item() < 1e9 else x.amax((2, 3))


def test_a_network_that_looks_at_values_is_counted_too():
    assert flops(_LooksAtValues(), (1, 4, 4)) == 4 * 2 * 9


def test_a_weight_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return F.linear(self.fc(x), self.fc.weight)

    assert layer_flops(Twice(), (4,)) == {"fc": 32}


def test_counting_leaves_no_trace():
    module = nn.Sequential(_small(), nn.Dropout(0.5)).train()
    calls = []
    module[0][0].register_forward_hook(lambda *_: calls.append(1))
    module[0][0].weight.requires_grad_(False)
    module[0][5].weight.grad = torch.ones(5, 128)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state, python, legacy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    flops(module, (3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], legacy[1])  # noqa: NPY002
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert all(part.training for part in module.modules())
    assert not module[0][0].weight.requires_grad
    assert torch.equal(module[0][5].weight.grad, torch.ones(5, 128))
    assert len(module[0][0]._forward_hooks) == 1
    assert not calls


def test_a_wrong_input_shape_raises():
    with pytest.raises(RuntimeError):
        flops(_small(), (3, 9, 9))


class _Used(nn.Module):
    """A layer as it is called, with one output."""

    def __init__(self, part, call):
        super().__init__()
        self.part, self.call = part, call

    def forward(self, inputs):
        return self.call(self.part, inputs)


def _first(part, inputs):
    return part(inputs)[0]


STEPS, WIDE, IN = 5, 7, 4
GATE = IN * WIDE + WIDE * WIDE
ATTENDED = 4 * STEPS * 8 * 8 + 2 * STEPS * STEPS * 8
KINDS = {
    "bilinear": (_Used(nn.Bilinear(4, 4, 3), lambda m, x: m(x, x)), (4,), 4 * 4 * 3),
    "bilinear, by step": (
        _Used(nn.Bilinear(4, 4, 3), lambda m, x: m(x, x)),
        (STEPS, 4),
        STEPS * 4 * 4 * 3,
    ),
    "attention": (
        _Used(nn.MultiheadAttention(8, 2, batch_first=True), lambda m, x: m(x, x, x)[0]),
        (STEPS, 8),
        ATTENDED,
    ),
    "rnn": (_Used(nn.RNN(IN, WIDE, batch_first=True), _first), (STEPS, IN), STEPS * GATE),
    "lstm": (_Used(nn.LSTM(IN, WIDE, batch_first=True), _first), (STEPS, IN), 4 * STEPS * GATE),
    "lstm with a projection": (
        _Used(nn.LSTM(IN, WIDE, proj_size=3, batch_first=True), _first),
        (STEPS, IN),
        STEPS * (4 * (IN * WIDE + 3 * WIDE) + 3 * WIDE),
    ),
    "gru, both ways, two layers": (
        _Used(nn.GRU(IN, WIDE, 2, bidirectional=True, batch_first=True), _first),
        (STEPS, IN),
        2 * 3 * STEPS * (GATE + 2 * WIDE * WIDE + WIDE * WIDE),
    ),
    "rnn cell": (nn.RNNCell(IN, WIDE), (IN,), GATE),
    "lstm cell": (_Used(nn.LSTMCell(IN, WIDE), _first), (IN,), 4 * GATE),
    "gru cell": (nn.GRUCell(IN, WIDE), (IN,), 3 * GATE),
    "transposed, 1-d": (nn.ConvTranspose1d(4, 6, 3, stride=2), (4, 5), 5 * 4 * 6 * 3),
    "transposed, grouped": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        (4, 5, 5),
        25 * 4 * 3 * 9,
    ),
    "transposed, 3-d": (nn.ConvTranspose3d(4, 6, 3), (4, 3, 3, 3), 27 * 4 * 6 * 27),
    "3-d": (nn.Conv3d(4, 6, 3), (4, 5, 5, 5), 27 * 4 * 6 * 27),
    "embedding": (_Used(nn.Embedding(10, 3), lambda m, x: m(x.long())), (STEPS,), 0),
    "matrix times vector": (
        _Used(nn.Linear(4, 3), lambda m, x: torch.addmv(m.bias, m.weight, x[0])),
        (4,),
        12,
    ),
    "vector times vector": (
        _Used(nn.Linear(4, 1), lambda m, x: torch.stack([m.weight[0] @ row for row in x])),
        (4,),
        4,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_is_counted_as_by_hand(kind):
    module, shape, by_hand = KINDS[kind]
    assert flops(module, shape) == by_hand


def test_a_masked_bilinear_layer_counts_by_its_density():
    module, shape, by_hand = KINDS["bilinear"]
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, 0] = True
    set_masks(module, {"part.weight": mask})
    assert flops(module, shape) == by_hand // 4
