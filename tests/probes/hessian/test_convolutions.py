"""Convolutions that are differentiated twice, against torch's own second derivative in float64."""

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

from trainscope.probes.hessian.convolutions import twice_differentiable

LAYERS = {
    "plain": lambda: nn.Conv2d(3, 4, 3),
    "no bias": lambda: nn.Conv2d(3, 4, 3, bias=False),
    "strided, padded, dilated": lambda: nn.Conv2d(3, 4, 3, stride=2, padding=(1, 2), dilation=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1),
    "one dimension": lambda: nn.Conv1d(3, 4, 5, stride=2),
    "three dimensions": lambda: nn.Conv3d(2, 3, 2, padding=1),
    "padded by a word": lambda: nn.Conv2d(3, 4, 3, padding="same"),
    "reflected": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
}
AXES = {"one dimension": 1, "three dimensions": 3}


class Two(nn.Module):
    """A layer, something that bends, a second layer of the same kind, and a mean of squares."""

    def __init__(self, first: nn.Module, axes: int) -> None:
        super().__init__()
        self.first = first
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.second = kind(first.out_channels, 2, 2)

    def forward(self, images):
        return self.second(torch.tanh(self.first(images))).square().mean()


def products(network, images, vectors, within):
    """Return the gradient and a product with the Hessian."""
    weights = [p for p in network.parameters() if p.requires_grad]
    with within:
        out = network(images)
    first = grad(out, weights, create_graph=True)
    kept = [grad(first, weights, vectors, retain_graph=True) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    return [*first, *kept[0]]


@pytest.mark.parametrize("frozen", ["nothing", "weight", "bias", "first layer"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradient_and_product_are_torchs(name, frozen):
    torch.manual_seed(0)
    axes = AXES.get(name, 2)
    network = Two(LAYERS[name](), axes).double()
    images = torch.randn(
        3,
        network.first.in_channels,
        *{1: [80], 2: [12, 11], 3: [9, 8, 7]}[axes],
        dtype=torch.float64,
    )
    for part in {"weight": ["weight"], "bias": ["bias"], "first layer": ["weight", "bias"]}.get(
        frozen, []
    ):
        if (parameter := getattr(network.first, part)) is not None:
            parameter.requires_grad_(False)
    vectors = [torch.randn_like(p) for p in network.parameters() if p.requires_grad]
    expected = products(network, images, vectors, torch.enable_grad())
    found = products(network, images, vectors, twice_differentiable())
    for got, right in zip(found, expected, strict=True):
        assert torch.allclose(got, right, rtol=1e-11, atol=1e-14)


def test_the_input_s_derivatives_are_torchs():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    images = torch.randn(2, 2, 9, 9, dtype=torch.float64, requires_grad=True)
    along = torch.randn_like(images)

    def product(within):
        with within:
            out = conv(images).pow(3).sum()
        first = grad(out, images, create_graph=True)
        return grad(first, [images, *conv.parameters()], along)

    for got, right in zip(
        product(twice_differentiable()), product(torch.enable_grad()), strict=True
    ):
        assert torch.allclose(got, right, rtol=1e-11)


class Checkpointed(Two):
    """The same, its first half worked out anew in the backward pass."""

    def forward(self, images):
        held = checkpoint(lambda x: torch.tanh(self.first(x)), images, use_reentrant=False)
        return self.second(held).square().mean()


class Mixed(Two):
    """The same, its first half in bfloat16."""

    def forward(self, images):
        with torch.autocast("cpu", torch.bfloat16):
            held = torch.tanh(self.first(images))
        return self.second(held.to(images.dtype)).square().mean()


@pytest.mark.parametrize("kind", [Checkpointed, Mixed])
def test_networks_that_do_more_in_their_passes_have_torchs_products(kind):
    torch.manual_seed(0)
    network = kind(nn.Conv2d(2, 3, 3, padding=1), 2)
    images = torch.randn(3, 2, 9, 9)
    vectors = [torch.randn_like(p) for p in network.parameters()]
    expected = products(network, images, vectors, torch.enable_grad())
    found = products(network, images, vectors, twice_differentiable())
    for got, right in zip(found, expected, strict=True):
        assert torch.allclose(got, right, rtol=1e-4, atol=1e-6)


def names(tensor):
    """Return the names of the nodes of a graph."""
    found, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            found.add(node.name())
            waiting += [parent for parent, _ in node.next_functions]
    return found


def test_what_is_not_one_batch_of_plain_tensors_stays_torchs():
    conv = nn.Conv2d(1, 2, 3)
    with twice_differentiable():
        assert "ConvolutionBackward0" not in names(conv(torch.randn(2, 1, 9, 9)))
        assert "ConvolutionBackward0" in names(conv(torch.randn(2, 1, 8, 8)))  # a small one
        assert conv(torch.randn(1, 9, 9)).shape == (2, 7, 7)
        assert "ConvolutionBackward0" in names(conv(torch.randn(1, 9, 9)))
        each = torch.func.vmap(conv)(torch.randn(4, 1, 1, 9, 9))
        assert "ConvolutionBackward0" in names(each)
        assert each.shape == (4, 1, 2, 7, 7)
        with pytest.raises(RuntimeError, match="expected input"):
            conv(torch.randn(2, 3, 9, 9))
    assert "ConvolutionBackward0" in names(conv(torch.randn(2, 1, 9, 9)))
