"""Which products of weights are affine in each single one, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from trainscope.data import ProbeData
from trainscope.probes import Curvature
from trainscope.probes.hessian.affine import custom_functions, not_affine

A = torch.arange(9.0).view(3, 3).requires_grad_()
B = (torch.ones(3, 3) * 2).requires_grad_()
C = torch.ones(3, requires_grad=True)
X = torch.eye(3)


@pytest.mark.parametrize(
    "value",
    [
        lambda: torch.addmm(A, X, A),  # what is only added does not multiply
        lambda: torch.addmm(C, A, B),
        lambda: F.conv1d((X + C)[None], B[:, :, None], C),
        lambda: (A + 1) * B,
        lambda: (A @ X) / 3,
        lambda: A / X.add(1),
        lambda: F.linear(X, A, C).relu(),
        lambda: (A * X).sum() + (A * 2).max(),
        lambda: X * 2,
    ],
)
def test_affine(value: Callable[[], Tensor]) -> None:
    assert not_affine(value()) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: torch.addmm(C, A, A), "Addmm multiplies it with itself"),
        (lambda: torch.addmm(X, A, A), "Addmm multiplies it with itself"),
        (lambda: A @ A.T, "Mm multiplies it with itself"),
        (lambda: (A + B) * A, "Mul multiplies it with itself"),
        (lambda: (B + A) * A, "Mul multiplies it with itself"),
        (lambda: (A * B) * A, "Mul multiplies it with itself"),
        (lambda: F.conv1d((A @ X)[None], A[:, :, None], C), "more than once"),
        (lambda: X / B, "not piecewise linear (Div)"),
        (lambda: A / B, "not piecewise linear (Div)"),
        (lambda: A.exp(), "not piecewise linear (Exp)"),
        (lambda: A**2, "not piecewise linear (Pow)"),
        (
            lambda: F.batch_norm(A, torch.zeros(3), torch.ones(3), C, C * 2, training=True),
            "statistics of the batch",
        ),
        (lambda: F.batch_norm(A, torch.zeros(3), torch.ones(3), A[0], C), "more than once"),
    ],
)
def test_not_affine(value: Callable[[], Tensor], words: str) -> None:
    assert words in str(not_affine(value()))


def test_an_eval_batch_norm_is_affine_in_each() -> None:
    gamma, beta = C, torch.zeros(3, requires_grad=True)
    assert not_affine(F.batch_norm(A, torch.zeros(3), torch.ones(3), gamma, beta)) is None


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g


def test_functions_of_ones_own_are_named_once() -> None:
    assert custom_functions(Doubled.apply(Doubled.apply(A)) + B) == ["Doubled"]
    assert custom_functions(A + B) == []
    assert "not piecewise linear (Doubled)" in str(not_affine(Doubled.apply(A)))


class Branching(nn.Module):
    """Takes samples one way or another by their own values, through the same weights."""

    def __init__(self, *, smooth: bool) -> None:
        super().__init__()
        self.first, self.last, self.smooth = nn.Linear(4, 5), nn.Linear(5, 3), smooth

    def forward(self, x):
        return torch.stack([self.one(each) for each in x])

    def one(self, x):
        hidden = self.first(x)
        return self.last(3 * hidden.tanh() if self.smooth and x[0] < 0 else hidden.relu())


@pytest.mark.parametrize("smooth", [True, False])
def test_a_trace_is_exact_only_where_every_sample_takes_a_linear_way(smooth: bool) -> None:
    """The first sample takes the piecewise linear one, whichever way the others take."""
    torch.manual_seed(0)
    network = Branching(smooth=smooth).double()
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3
    order = x[:, 0].argsort(descending=True)
    x, y = x[order], y[order]
    names = [name for name, _ in network.named_parameters()]
    sizes = [p.shape for p in network.parameters()]

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([size.numel() for size in sizes])
        own = {n: p.view(s) for n, p, s in zip(names, parts, sizes, strict=True)}
        return F.cross_entropy(functional_call(network, own, (x,)), y)

    flat = nn.utils.parameters_to_vector(network.parameters()).detach()
    true = float(torch.autograd.functional.hessian(loss, flat).trace())
    pinned = ProbeData("given", x, y)
    probe = Curvature(top=1, density_vectors=0, most_products=6, tolerance=0.2)
    found = probe.measure(network, pinned)
    method = found.notes["trace"]
    if smooth:
        assert "not exact because the network is not piecewise linear (Tanh)" in method
        assert abs(found.value("trace") - true) <= 4 * found.scalars["trace"].stderr
    else:
        assert method.startswith("exact: one backward pass for each of 3 classes")
        assert found.value("trace") == pytest.approx(true, rel=1e-10)
