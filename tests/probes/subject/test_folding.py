"""Folding of batch norms with statistics that matter, and where it must not be done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.probes.subject.folding import ConvNorm, folded
from trainscope.task import Classification

INPUTS = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(network: nn.Module) -> nn.Module:
    """Return a network in eval mode with parameters, statistics and eps far from the usual."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.3
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        for tensor in tensors:
            if tensor.is_floating_point():
                with torch.no_grad():
                    tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator))
    return network.double().eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_with_every_part_of_a_norm(affine: bool, bias: bool) -> None:
    network = drawn(nn.Sequential(nn.Conv2d(2, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine)))
    model = folded(network, Classification(), INPUTS)
    assert any(isinstance(module, ConvNorm) for module in model.modules())
    parameters = list(network.parameters())
    conv, norm = network
    inverse = 1 / (norm.running_var + 0.3).sqrt()
    by_hand = (conv(INPUTS) - norm.running_mean[:, None, None]) * inverse[:, None, None]
    if affine:
        by_hand = by_hand * norm.weight[:, None, None] + norm.bias[:, None, None]
    outs = by_hand, model(INPUTS)
    assert torch.allclose(*outs, rtol=0, atol=1e-13)
    grads = [torch.autograd.grad(out.sin().sum(), parameters) for out in outs]
    for got, expected in zip(*grads, strict=True):
        assert torch.allclose(got, expected, rtol=0, atol=1e-11)


class Flat(nn.Module):
    """Its images are viewed as rows, which only one layout allows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.out(x.view(x.shape[0], -1))


@pytest.mark.parametrize(
    "kind", [Flat, lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))]
)
def test_channels_lie_last_in_float32_where_the_network_takes_that(kind: Callable[[], nn.Module]):
    """Two inputs make 96 numbers of 54 weights, which are too few."""
    network, inputs = drawn(kind()).float(), INPUTS.float()
    model = folded(network, Classification(), inputs)
    (norm,) = (module for module in model.modules() if isinstance(module, ConvNorm))
    last = torch.channels_last if isinstance(network, nn.Sequential) else torch.contiguous_format
    assert norm.layout is last
    few = folded(network, Classification(), inputs, samples=2)
    (plain,) = (module for module in few.modules() if isinstance(module, ConvNorm))
    assert plain.layout is torch.contiguous_format
    outs = network(inputs), model(inputs)
    assert torch.allclose(*outs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(out.sin().sum(), [*network.parameters()]) for out in outs]
    for got, expected in zip(*grads, strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)


class ConvTwice(nn.Module):
    """A convolution whose two outputs go through the norm, and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(x)))


class NormTwice(ConvTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.norm(self.conv(x))))


class Counting(ConvTwice):
    """Each call gives another result, which a trace cannot know."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(self.conv(x)) * (1 + 1e-9 * self.calls)


class Writing(ConvTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.mul_(2)))


def of_batch() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))


@pytest.mark.parametrize("build", [ConvTwice, NormTwice, Counting, of_batch])
def test_what_folding_would_change_is_left(build: Callable[[], nn.Module]) -> None:
    network = drawn(build())
    assert folded(network, Classification(), INPUTS) is network


@pytest.mark.parametrize("hook", ["forward_pre", "full_backward", "full_backward_pre", "forward"])
def test_a_hook_of_any_kind_keeps_a_network_as_it_is(hook: str) -> None:
    network = drawn(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)))
    getattr(network[0], f"register_{hook}_hook")(lambda *_: None)
    assert folded(network, Classification(), INPUTS) is network


def test_the_inputs_that_folding_is_checked_on_are_not_changed() -> None:
    inputs = INPUTS.clone()
    network = drawn(Writing())
    assert folded(network, Classification(), inputs) is not network
    assert torch.equal(inputs, INPUTS)


def test_a_norm_is_folded_where_activations_outweigh_the_weights_before_it() -> None:
    """The first convolution returns 72 numbers a sample for 36 weights, the second 16 for 288."""
    network = drawn(
        nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Conv2d(2, 16, 3, stride=6, bias=False),
            nn.BatchNorm2d(16),
        )
    )
    many = [folded(network, Classification(), INPUTS, samples) for samples in (1, 17, 18)]
    counts = [sum(isinstance(m, ConvNorm) for m in model.modules()) for model in many]
    assert counts == [1, 1, 2]
