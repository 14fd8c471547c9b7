"""The Hessian as Adam sees it: each direction divided by the root of its mean squared gradient.

With the preconditioner P = diag(sqrt(v) + eps) held, a step of Adam is one of gradient descent with
momentum as a running mean, in coordinates scaled by sqrt(P). There the curvature is
P^-1/2 H P^-1/2, and the LR is stable up to 2 (1 + beta1) / (1 - beta1) over its largest eigenvalue
(Cohen et al. 2022). v is what Adam would hold after a warm-up at LR 0: the bias-corrected running
mean of squared minibatch gradients at these very weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.hessian.differences import DifferenceProduct
from trainscope.probes.hessian.eigenvalues import largest_eigenvalues
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.hessian.spectrum import not_symmetric
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NonFiniteError, derivative
from trainscope.records.numbers import number
from trainscope.records.standard_errors import widened
from trainscope.task import Batch
from trainscope.task.batches import beside
from trainscope.training.loop import training_batches
from trainscope.training.settings import Settings

MOST_BATCHES, FEWEST_BATCHES = 64, 4
PASSES = 16
"""Samples of the warm-up by default, as a multiple of the pinned ones, within the bounds above."""
GROUPS = 8
"""Parts of the warm-up whose spread says how well v is known."""
_WHOLE = (
    "; a batch is the whole training half, so v holds no noise of samples and moves with the first "
    "steps: the limit can be far too low"
)


@dataclass(frozen=True)
class SecondMoment:
    """Adam's v after a warm-up at LR 0, bias-corrected.

    Attributes:
        value: [survivors], float64.
        parts: The same of every GROUPS-th minibatch, [groups, survivors].
        shares: What each part counts for in `value`, [groups]; their sum is 1.
        words: What it was taken of.
    """

    value: Tensor
    parts: Tensor
    shares: list[float]
    words: str


@dataclass(frozen=True)
class Preconditioned:
    """The largest eigenvalue of P^-1/2 H P^-1/2.

    Attributes:
        value: In 1/weight, the inverse of what Adam's LR is measured in.
        error: Its standard error over the minibatches of the warm-up, to first order, with the
            bound of Lanczos and the error of the products added in square.
        method: How it was found, in words.
    """

    value: float
    error: float
    method: str


class NotKnownError(ProbeError):
    """The eigenvalue could not be had; its message is the reason."""


def preconditioned_eigenvalue(
    lent: Lent,
    weights: Measured,
    data: ProbeData,
    settings: Settings,
    product: MatrixProduct | DifferenceProduct,
    *,
    batches: int | None = None,
    tolerance: float = 1e-3,
    most_products: int = 100,
    product_error: float = 0.0,
) -> Preconditioned:
    """Return the largest eigenvalue of the curvature matrix as an adaptive optimizer sees it.

    Weights that no gradient of the warm-up reached are no directions: their v is 0, and the first
    gradient that reaches them makes another preconditioner.

    Args:
        lent: The network and data.
        weights: The parameters; all used by the loss.
        data: For the training half and the seed.
        settings: Of an adaptive optimizer.
        product: Products with the curvature matrix, found fit.
        batches: Minibatches of the warm-up; by default 4 to 64, as many as `PASSES` says.
        tolerance: Relative, of the eigenvalue.
        most_products: Give up after so many.
        product_error: The relative error of a product beyond rounding.

    Raises:
        NotKnownError: It did not converge, or the products are not those of a symmetric matrix.
        NonFiniteError: A gradient or a product is NaN or infinite.
    """
    moment = second_moment(lent, weights, data, settings, batches)
    root = moment.value.sqrt() + settings.eps
    reached, space = moment.value > 0, product.space
    if not float(space.total(reached.sum())):
        raise NotKnownError("no gradient of the warm-up reached a weight")
    scale = torch.where(reached, root.rsqrt(), torch.zeros_like(root))
    decay = settings.weight_decay if settings.optimizer == "adam" else 0.0

    def scaled(vector: Tensor) -> Tensor:
        inner = scale * vector.double()
        return scale * (product(inner) + decay * inner)

    generator = data.generator()
    start = space.random(generator)
    top = largest_eigenvalues(
        scaled,
        start,
        1,
        tolerance=tolerance,
        generator=generator,
        dtype=lent.weight.dtype,
        most_steps=most_products,
        space=space,
    )
    wrong = not_symmetric(top.krylov)
    if wrong is not None:
        raise NotKnownError(f"preconditioned, {wrong}")
    value = float(top.values[0])
    if not top.converged:
        raise NotKnownError(
            f"after {top.krylov.steps} products it is still uncertain by "
            f"{number(float(top.errors[0]))}"
        )
    along = torch.where(reached, top.krylov.top().square(), torch.zeros_like(root))
    sensitivity = along / (2 * moment.value.clamp_min(1e-300).sqrt() * root)
    moved = [
        share * float(space.total(sensitivity @ (part.double() - moment.value)))
        for share, part in zip(moment.shares, moment.parts, strict=True)
    ]
    count = len(moved)
    sampling = abs(value) * (sum(m * m for m in moved) * count / max(1, count - 1)) ** 0.5
    sampling = widened(sampling, count) if count > 1 else sampling
    errors = (sampling, float(top.errors[0]), product_error * abs(value))
    whole = data.train is not None and settings.batch_size >= len(data.train)
    left = round(float(space.total(weights.once((~reached).double()).sum())))
    out = f"; {left} weights that no gradient reached are left out" if left else ""
    return Preconditioned(
        value,
        sum(error * error for error in errors) ** 0.5,
        f"P = sqrt(v) + {settings.eps:g}, v of {moment.words}; Lanczos, {top.krylov.steps} "
        f"products{out}{_WHOLE if whole else ''}",
    )


def second_moment(
    lent: Lent, weights: Measured, data: ProbeData, settings: Settings, batches: int | None = None
) -> SecondMoment:
    """Return Adam's v at the weights as they are, from minibatches of the training's size.

    They are the first ones of the training half, as it would be trained on; without a training
    half, they are drawn from the pinned samples, each draw independent of the others.
    """
    count = batches or _batches(len(lent), settings.batch_size)
    beta2 = settings.betas[1]
    groups = min(GROUPS, count)
    parts = lent.weight.new_zeros(groups, sum(weights.held))
    shares = [0.0] * groups
    for turn, batch in enumerate(_minibatches(lent, data, settings, count)):
        gradient = _gradient(lent, weights, beside(batch, lent.weight), settings)
        share = beta2 ** (count - 1 - turn)
        parts[turn % groups] += share * gradient.square()
        shares[turn % groups] += share
    total = sum(shares)
    value = torch.zeros(parts.shape[1], dtype=torch.float64, device=parts.device)
    for part in parts:
        value += part.double() / total
    for part, share in zip(parts, shares, strict=True):
        if share:
            part /= share
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteError("the squared gradients of the warm-up overflow")
    where = "the pinned samples" if data.train is None else "the training half"
    words = f"{count} gradients of {settings.batch_size} samples of {where}, bias-corrected"
    return SecondMoment(value, parts, [share / total for share in shares], words)


def warmup_cost(pinned: int, settings: Settings, batches: int | None = None) -> int:
    """Return how many samples the warm-up passes forward, and backward."""
    return (batches or _batches(pinned, settings.batch_size)) * settings.batch_size


def _batches(pinned: int, size: int) -> int:
    return max(FEWEST_BATCHES, min(MOST_BATCHES, PASSES * pinned // size))


def _minibatches(lent: Lent, data: ProbeData, settings: Settings, count: int) -> Iterator[Batch]:
    if data.train is not None:
        for _, batch in training_batches(data.train, replace(settings, seed=data.seed), 0, count):
            yield batch
        return
    generator = data.generator()
    for _ in range(count):
        yield lent.task.select(
            lent.batch, torch.randint(len(lent), (settings.batch_size,), generator=generator)
        )


def _gradient(lent: Lent, weights: Measured, batch: Batch, settings: Settings) -> Tensor:
    """Return what Adam is given of a batch, [survivors]: clipped, with L2 where it has that."""
    size = lent.task.size(batch)
    total, terms = [torch.zeros_like(tensor) for tensor in weights.tensors], 0
    for indices in lent.shares(size):
        part = lent.task.select(batch, indices)
        losses = lent.losses(lent.outputs(part), part)
        found = derivative(losses.sum(), weights.tensors, materialize_grads=True)
        total = [a + b for a, b in zip(total, found, strict=True)]
        terms += losses.numel()
        lent.passes.add(backward=lent.task.size(part))
    total = lent.gradient(total)
    terms = round(float(lent.ranks.sum(torch.tensor(terms, dtype=torch.float64))))
    total = [each / max(1, terms) for each in total]
    if settings.clip is not None:
        norm = float(weights.squares(total).sum().sqrt())
        total = [each * min(1.0, settings.clip / (norm + 1e-6)) for each in total]
    gradient = weights.entries(total)
    if settings.optimizer == "adam":  # its weight decay is a part of the gradient
        gradient = gradient + settings.weight_decay * weights.entries(weights.tensors).detach()
    return gradient
