"""The trace of the loss's Hessian or Gauss-Newton matrix: exact where that can be, else sampled.

The Gauss-Newton matrix is the mean over samples of J' M J, with J the Jacobian of the logits by the
weights and M = diag(p) - p p' at the softmax p. M is the sum over classes c of r_c r_c' with
r_c = sqrt(p_c) (e_c - p), so its trace is the mean over samples of the sum over classes of the
squared norm of the sample's gradient of <r_c, logits>: exact, layer by layer, in C passes. Where
every logit is affine in each single weight (see `affine`), that is the trace of the Hessian too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainscope.probes.gradients.sample_gradients import SampleGradients, wholly
from trainscope.probes.hessian.lanczos import Lanczos
from trainscope.probes.hessian.products import MatrixProduct, Product
from trainscope.probes.hessian.spectrum import Spectrum
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.records.standard_errors import widened
from trainscope.task import Batch, Outputs
from trainscope.task.batches import tensors


@dataclass(frozen=True)
class Trace:
    """A trace.

    Attributes:
        value: The trace.
        stderr: Its standard error; None where it is exact.
        parameters: Each parameter's part, [parameters]; None where that is not known.
        method: How it was found, in a sentence.
    """

    value: float
    stderr: float | None
    parameters: Tensor | None
    method: str


def trace_of(
    lent: Lent,
    weights: Measured,
    spectrum: Spectrum,
    graph: int | None,
    *,
    affine: bool,
    vectors: int,
    exact_classes: int,
) -> Trace:
    """Return the trace, exact where that can be had and costs no more than it is worth.

    Args:
        lent: The network and data.
        weights: The parameters; all used by the loss.
        spectrum: The matrix, and the Krylov space of its top.
        graph: Bytes that one sample's graph takes, None where unknown.
        affine: Every logit is affine in each single weight.
        vectors: Random vectors where the trace is estimated.
        exact_classes: With more classes than this an exact one costs too much.

    Raises:
        NonFiniteError: It is no finite number.
    """
    generator = spectrum.generator
    if not affine:
        trace = deflated_hutchinson(spectrum.product, spectrum.top.krylov, vectors, generator)
    else:
        if isinstance(spectrum.product, MatrixProduct):
            spectrum.product.release()
        own, everything = wholly(lent, weights)
        gradients = SampleGradients(own, everything, graph)
        classes = lent.behaviour.classes or 0
        if classes <= exact_classes:
            trace = exact_gauss_newton(own, gradients, classes)
        else:
            trace = sampled_gauss_newton(own, gradients, vectors, generator)
    if not math.isfinite(trace.value):
        raise NonFiniteError("the trace of the curvature matrix overflows")
    return trace


def exact_gauss_newton(lent: Lent, gradients: SampleGradients, classes: int) -> Trace:
    """Return the trace of the Gauss-Newton matrix, exactly, in one backward pass a class."""
    total = torch.zeros(len(gradients.measured.names), dtype=torch.float64)
    for batch in lent.batches(gradients.chunk(classes)):
        total += gradients(batch, _class_roots)[0].sum(1).cpu()
    parts = lent.total(total) / len(lent)
    method = f"exact: one backward pass for each of {classes} classes, {gradients.method}"
    return Trace(float(parts.sum()), None, parts, method)


def sampled_gauss_newton(
    lent: Lent, gradients: SampleGradients, draws: int, generator: torch.Generator
) -> Trace:
    """Return an estimate of the trace of the Gauss-Newton matrix from random signs of classes.

    For signs s, the expected squared norm of the gradient of <sum_c s_c r_c, logits> is the trace's
    part of the sample. The standard error is over `draws` independent draws, widened for few.
    """
    shape = len(lent), lent.behaviour.classes or 1
    signs = torch.stack(
        [torch.randint(0, 2, shape, generator=generator) * 2 - 1 for _ in range(draws)]
    )
    totals = torch.zeros(draws, len(gradients.measured.names), dtype=torch.float64)
    for indices in lent.shares(len(lent), gradients.chunk(1)):
        roots = partial(_signed_roots, signs[:, indices])
        batch = lent.task.select(lent.batch, indices)
        totals += gradients.apart(batch, roots, draws).sum(2).cpu()
    each = lent.total(totals) / len(lent)
    totals = each.sum(1)
    method = f"estimated from {draws} random combinations of the classes, {gradients.method}"
    error = widened(float(totals.std() / draws**0.5), draws)
    return Trace(float(totals.mean()), error, each.mean(0), method)


def deflated_hutchinson(
    product: Product, krylov: Lanczos, draws: int, generator: torch.Generator
) -> Trace:
    """Return an estimate of a matrix's trace, exact on a Krylov space and sampled outside it.

    With Q the space's basis, tr A = tr Q' A Q + tr (1 - QQ') A (1 - QQ'). The first term is the sum
    of Lanczos' diagonal; the second is sampled with random signs (Hutchinson 1989), whose spread
    the large eigenvalues no longer widen (as in Hutch++, Meyer et al. 2021). Where no more
    directions are left than vectors would be drawn, the space is grown to the whole one instead.
    The standard error is at least the products' rounding.
    """
    if krylov.size - krylov.steps <= draws:
        while not krylov.full:
            krylov.grow()
    inside = sum(krylov.alphas)
    if krylov.full:
        return Trace(inside, None, None, "exact: the Krylov space is the whole space")
    found = []
    for _ in range(draws):
        outside = krylov.outside(krylov.space.signs(generator))
        found.append(krylov.dot(outside, product(outside)))
    values = torch.tensor(found, dtype=torch.float64)
    method = f"estimated: exact on {krylov.steps} Krylov vectors, {draws} random vectors outside"
    value = inside + float(values.mean())
    spread = widened(float(values.std()) / draws**0.5, draws)
    error = max(spread, krylov.rounding * abs(value))
    return Trace(value, error, None, method)


def _class_roots(outputs: Outputs, _: Batch) -> list[list[Tensor]]:
    """Return sqrt(p_c) (e_c - p) for every class c, [N, C] each."""
    p = _softmax(outputs)
    unit = torch.eye(p.shape[1], dtype=p.dtype, device=p.device).unsqueeze(1)
    return [[each] for each in p.T.sqrt().unsqueeze(2) * (unit - p)]


def _signed_roots(signs: Tensor, outputs: Outputs, _: Batch) -> list[list[Tensor]]:
    """Return sum_c s_c sqrt(p_c) (e_c - p), [N, C], for each row of signs s, [draws, N, C]."""
    p = _softmax(outputs)
    weighted = signs.to(p) * p.sqrt()
    return [[each] for each in weighted - p * weighted.sum(2, keepdim=True)]


def _softmax(outputs: Outputs) -> Tensor:
    """Return the softmax of outputs whose only tensor are logits."""
    (logits,) = tensors(outputs)
    return logits.detach().softmax(1)
