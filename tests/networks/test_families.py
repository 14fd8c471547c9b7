"""Our own networks: their size as published, and their shortcuts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.networks.cost import flops, parameters
from trainscope.networks.families.resnet_cifar import BasicBlock
from trainscope.networks.registry import build, input_shape


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # He et al. (2016), Table 6; the batch norm's own parameters are in it
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet44", 0.66),
        ("resnet56", 0.85),
        ("resnet110", 1.7),
    ],
)
def test_sizes_are_those_of_he_et_al(name, millions):
    digits = 1 if name == "resnet110" else 2
    assert round(parameters(build(name)) / 1e6, digits) == millions


def test_vgg19_has_the_parameters_and_flops_of_the_pruning_papers():
    # Liu et al. (2017), Table 1: 20.04 M parameters and 7.97e8 FLOPs (two a multiply-add,
    # and a little for layers that we do not count).
    module = build("vgg19_cifar")
    assert round(parameters(module) / 1e6, 2) == 20.04
    assert 2 * flops(module, (3, 32, 32)) / 1e8 == pytest.approx(7.97, rel=2e-3)


def test_lenet5_has_61706_parameters():
    assert parameters(build("lenet5")) == 61_706


def test_digits_net_has_six_blocks_of_widths_16_32_64():
    module = build("digits_resnet")
    blocks = [part for part in module.modules() if isinstance(part, BasicBlock)]
    assert [block.conv2.out_channels for block in blocks] == [16, 16, 32, 32, 64, 64]


def test_the_shortcut_subsamples_and_pads_with_zeros_on_either_side():
    block = BasicBlock(2, 6, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 4:].any()


@pytest.mark.parametrize("name", ["digits_resnet", "lenet5"])
def test_networks_are_twice_differentiable(name):
    torch.manual_seed(0)
    module = build(name).eval()
    x = torch.randn(1, *input_shape(name))
    weights = list(module.parameters())
    loss = nn.functional.cross_entropy(module(x), torch.tensor([1]))
    grads = torch.autograd.grad(loss, weights, create_graph=True)
    products = torch.autograd.grad(sum((grad**2).sum() for grad in grads), weights)
    assert all(torch.isfinite(product).all() for product in products)
    assert any(product.abs().max() > 0 for product in products)
