"""The spectrum of a curvature matrix, from products that were found fit for it.

Products come from double backward. Where torch has none, or has a wrong one, which shows in that
they are not symmetric, they are differences of gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.pace import INTERRUPTIONS, cut_short
from trainscope.probes.hessian.density import Quadrature
from trainscope.probes.hessian.differences import DifferenceProduct
from trainscope.probes.hessian.eigenvalues import TELLS, Eigenvalues, cut_off, largest_eigenvalues
from trainscope.probes.hessian.lanczos import Lanczos
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.hessian.spaces import length_of
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NotDifferentiableError

SUSPECT = 1e-2
"""A product of a network with backward passes of its own may differ by this share from a difference
of gradients, which sees the kinks of ReLUs otherwise."""


@dataclass(frozen=True)
class Wanted:
    """What is to be found; the names are `Curvature`'s, and `keep` is `MatrixProduct`'s."""

    ggn: bool
    keep: bool
    top: int
    tolerance: float
    most_products: int
    density_vectors: int
    density_steps: int


@dataclass(frozen=True)
class Spectrum:
    """What Lanczos found, and the products that it found it with.

    Attributes:
        product: The matrix.
        top: Its eigenvalues.
        runs: What the random vectors say of its density.
        generator: Where it stands after them.
        error: The relative error of a product beyond rounding.
        products: How they were made, where not by double backward.
    """

    product: MatrixProduct | DifferenceProduct
    top: Eigenvalues
    runs: list[Quadrature]
    generator: torch.Generator
    error: float = 0.0
    products: str = ""


class NoMatrixError(ProbeError):
    """There are no products with a symmetric matrix; its message is the reason."""


def find_spectrum(
    lent: Lent, weights: Measured, data: ProbeData, wanted: Wanted, custom: list[str]
) -> Spectrum:
    """Return the ends and the density of the spectrum.

    Args:
        lent: The network and data.
        weights: The parameters; all used by the loss.
        data: For the seed of random vectors.
        wanted: What is to be found.
        custom: The names of `torch.autograd.Function`s in the network's graph. One that takes
            values out of the graph in its backward pass has a second derivative that is wrong and
            may still be symmetric, so a product is compared with a difference first.

    Raises:
        NoMatrixError: Neither way makes products with a symmetric matrix.
    """
    try:
        product = MatrixProduct(lent, weights, ggn=wanted.ggn, keep=wanted.keep)
        doubt = _off(product, lent, weights, data, wanted, custom) if custom else None
        if doubt is None:
            found = _grow(product, lent, data.generator(), wanted)
            doubt = not_symmetric(found.top.krylov)
        if doubt is None:
            return found
    except NotDifferentiableError as error:
        doubt = f"the gradient cannot be differentiated once more ({error})"
    try:
        other = DifferenceProduct(lent, weights, ggn=wanted.ggn, generator=data.generator())
    except ProbeError as error:
        raise NoMatrixError(
            f"{doubt}, and differences of the gradient cannot be taken ({error})"
        ) from error
    found = _grow(other, lent, data.generator(), wanted)
    again = not_symmetric(found.top.krylov)
    if again is None and other.error > wanted.tolerance:
        again = f"their relative error is {other.error:.2g}"
    if again is not None:
        raise NoMatrixError(f"{doubt}, and differences of the gradient do no better: {again}")
    how = (
        f"central differences of the gradient in float64, relative error {other.error:.1g}, "
        f"because {doubt}"
    )
    return replace(found, error=other.error, products=how)


def _off(
    product: MatrixProduct,
    lent: Lent,
    weights: Measured,
    data: ProbeData,
    wanted: Wanted,
    custom: list[str],
) -> str | None:
    """Return how far one product is from a difference of gradients, where that is too far."""
    try:
        other = DifferenceProduct(lent, weights, ggn=wanted.ggn, generator=data.generator())
    except ProbeError:  # a network of one dtype; its products must still be symmetric
        return None
    vector = product.space.random(data.generator())
    got, expected = product(vector), other(vector)
    space = product.space
    gap, size = length_of(space, got - expected), length_of(space, expected)
    if gap <= SUSPECT * size:
        return None
    return (
        f"the double backward of {', '.join(custom)} is {gap / size if size else 1:.0%} off from "
        "differences of the gradient"
    )


def _grow(
    product: MatrixProduct | DifferenceProduct,
    lent: Lent,
    generator: torch.Generator,
    wanted: Wanted,
) -> Spectrum:
    """Return the eigenvalues and the density's runs; the last run serves both.

    Interrupted, the run at hand tells what it can of the eigenvalues, and there is no density.
    """
    space = product.space
    runs: list[Quadrature] = []
    for _ in range(wanted.density_vectors - 1):
        krylov = Lanczos(product, space.random(generator), generator, lent.weight.dtype, space)
        try:
            while krylov.steps < wanted.density_steps and not krylov.exhausted:
                krylov.grow()
        except INTERRUPTIONS as error:
            cut_short(error, tells=krylov.steps >= TELLS)
            top = cut_off(krylov, wanted.top, wanted.tolerance)
            return Spectrum(product, top, [], generator)
        runs.append(Quadrature.of(krylov))
    # Not the gradient: it shows the top eigenvectors two products sooner, and hides others longer.
    top = largest_eigenvalues(
        product,
        space.random(generator),
        wanted.top,
        tolerance=wanted.tolerance,
        generator=generator,
        dtype=lent.weight.dtype,
        most_steps=wanted.most_products,
        least_steps=wanted.density_steps if wanted.density_vectors else 1,
        at_least=runs[0].now.values[::-1].tolist() if runs else None,
        space=space,
    )
    if top.cut:
        runs = []
    elif wanted.density_vectors:
        runs.append(Quadrature.of(top.krylov))
    return Spectrum(product, top, runs, generator)


def not_symmetric(krylov: Lanczos) -> str | None:
    """Return what is wrong with products that are not those of a symmetric matrix."""
    if krylov.symmetric:
        return None
    return (
        "the products with the curvature matrix are not symmetric (<u, Hv> and <v, Hu> differ by "
        f"{krylov.skew:.2g} for unit vectors, the largest <u, Hu> is "
        f"{max(map(abs, krylov.alphas)):.2g})"
    )
