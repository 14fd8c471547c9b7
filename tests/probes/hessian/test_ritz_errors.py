"""The bounds of Ritz values hold, on matrices that are small enough to know everything of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import seeded
from torch import Tensor

from trainscope.probes.hessian.density import Quadrature
from trainscope.probes.hessian.eigenvalues import largest_eigenvalues
from trainscope.probes.hessian.lanczos import Lanczos


def lanczos(matrix: Tensor, start: Tensor, steps: int, dtype: torch.dtype = torch.float64):
    krylov = Lanczos(lambda v: matrix @ v, start, seeded(0), dtype)
    for _ in range(steps):
        krylov.grow()
    return krylov


def largest(matrix: Tensor, start: Tensor, count: int, **options):
    given = {"tolerance": 1e-3, "generator": seeded(0), "dtype": torch.float64} | options
    return largest_eigenvalues(lambda v: matrix @ v, start, count, **given)


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_lone_ritz_value_has_its_residual() -> None:
    """Of diag(0, 2) and (1, 1) it is 1, and an eigenvalue is 1 away."""
    (ritz,) = lanczos(diagonal(0.0, 2.0), vector(1.0, 1.0), 1).parts()
    assert ritz.values == pytest.approx([1.0])
    assert ritz.residuals == pytest.approx([1.0])
    assert ritz.weights == pytest.approx([1.0])


SMALLEST, SMALLEST_OF_SEVERAL = 6.2666e-2, 1.2533141e-3
"""A normal variable is nearer to zero once in twenty times, and once in a thousand."""


def test_a_lone_ritz_value_is_not_converged_on() -> None:
    """The residual of 2 / 3 squared could be that of a far eigenvalue with a tiny part."""
    found = largest(diagonal(0.0, 1.0, 2.0), vector(1.0, 1.0, 1.0), 1, most_steps=1)
    expected = (2 / 3) ** 0.5 * 3**0.5 / SMALLEST / 2
    assert not found.converged
    assert found.errors == pytest.approx([expected], rel=0.03)
    assert found.smallest_error == pytest.approx(expected, rel=0.03)


def polynomial_root(
    matrix: Tensor, start: Tensor, steps: int, value: float, smallest: float
) -> float:
    """Return where above a Ritz value det(x - T) sqrt(w) first is the product of the betas."""
    krylov = lanczos(matrix, start, steps)
    t = np.diag(krylov.alphas) + np.diag(krylov.betas[:-1], 1) + np.diag(krylov.betas[:-1], -1)
    least = smallest / len(start) ** 0.5
    for x in value + np.geomspace(1e-10, 1e3, 2601):
        if abs(np.linalg.det(x * np.eye(steps) - t)) * least >= np.prod(krylov.betas):
            return float(x - value)
    raise AssertionError("no such place")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("steps", [3, 6, 9])
def test_two_errors_reach_to_where_the_polynomial_grows_large(steps: int, count: int) -> None:
    values = torch.cat([vector(4.0, 3.0, -6.0), torch.linspace(0, 0.5, 30, dtype=torch.float64)])
    start = torch.randn(33, generator=seeded(4), dtype=torch.float64)
    matrix = torch.diag(values)
    found = largest(matrix, start, count, most_steps=steps, tolerance=1e-9)
    least = SMALLEST if count == 1 else SMALLEST_OF_SEVERAL
    above = [polynomial_root(matrix, start, steps, value, least) for value in found.values]
    below = polynomial_root(-matrix, start, steps, -found.smallest, SMALLEST)
    assert 2 * found.errors == pytest.approx(above, rel=0.07)
    assert 2 * found.smallest_error == pytest.approx(below, rel=0.07)


def test_two_errors_of_the_largest_hold_in_most_spectra_and_starts() -> None:
    """Pairs, bands, clusters and power laws over a bulk: 95 % is promised, and more do hold."""
    generator, held = seeded(7), []
    for number in range(120):
        size = 400
        bulk = torch.randn(size, generator=generator, dtype=torch.float64)
        apart = 10.0 ** -(1 + 3 * torch.rand(1, generator=generator, dtype=torch.float64))
        ends = [
            torch.cat([torch.ones(1), (1 - apart).repeat(1 + number % 5)]),
            1 - apart * torch.arange(1 + number % 12),
            torch.linspace(0.5, 1, 40),
            torch.arange(1, 12) ** -0.5,
        ][number % 4]
        spectrum = 10.0 ** -(1.5 + number % 3) * bulk
        spectrum[: len(ends)] = ends
        start = torch.randn(size, generator=generator, dtype=torch.float64)
        found = largest_eigenvalues(
            lambda v, spectrum=spectrum: spectrum * v,
            start,
            1,
            tolerance=[1e-3, 1e-2][number // 4 % 2],
            generator=generator,
            dtype=torch.float64,
        )
        held.append(abs(found.values[0] - float(spectrum.max())) <= 2 * found.errors[0])
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize("seed", range(10))
def test_the_errors_of_confirmed_values_hold_in_clusters_of_eigenvalues(seed: int) -> None:
    generator = seeded(seed)
    values = torch.randint(0, 6, (60,), generator=generator).double()
    values += 0.05 * torch.rand(60, generator=generator, dtype=torch.float64)
    start = torch.randn(60, generator=generator, dtype=torch.float64)
    found = largest(torch.diag(values), start, 3)
    away = np.abs(found.values[:, None] - values.numpy()).min(1)
    assert found.converged
    assert (away <= found.errors).all()
    assert (found.errors <= 1e-3 * found.values).all()


def test_all_steps_leave_no_error() -> None:
    values = vector(1.0, 1.01, 2.0, 5.0, 5.001)
    ritz = lanczos(torch.diag(values), torch.ones(5, dtype=torch.float64), 5).parts()[0]
    assert ritz.values == pytest.approx(values.numpy(), rel=1e-9)
    assert ritz.residuals == pytest.approx(np.zeros(5), abs=1e-9)
    assert ritz.weights == pytest.approx(np.full(5, 0.2), rel=1e-6)


def test_the_weights_are_those_of_a_quadrature_of_the_start() -> None:
    """sum w f(x) = <v, f(A) v> for polynomials up to degree 2m - 1."""
    values = vector(0.5, 1.0, 2.0, 5.0, 7.0)
    start = vector(1.0, 2.0, 0.5, 1.0, 0.2)
    unit = start / start.norm()
    ritz = lanczos(torch.diag(values), start, 3).parts()[0]
    for degree in range(6):
        exact = float((unit.square() * values**degree).sum())
        assert float(ritz.weights @ ritz.values**degree) == pytest.approx(exact, rel=1e-12)


def test_the_basis_stays_orthonormal_beyond_convergence() -> None:
    """One eigenvalue 1e8 times the others makes plain Lanczos lose its orthogonality."""
    values = torch.cat([vector(1e8), torch.linspace(0.1, 1, 39, dtype=torch.float64)])
    start = torch.randn(40, generator=seeded(3), dtype=torch.float64)
    krylov = lanczos(torch.diag(values), start, 40)
    gram = krylov.basis @ krylov.basis.T
    assert float((gram - torch.eye(40)).abs().max()) < 1e-12
    found = krylov.values
    assert found == pytest.approx(np.sort(values.numpy()), rel=1e-7, abs=1e-6)


def test_no_error_is_finer_than_the_rounding_of_the_products() -> None:
    rounding = 4 * torch.finfo(torch.float32).eps * 5.0
    found = largest(diagonal(-5.0, 1.0, 2.0), vector(1.0, 1.0, 1.0), 2, dtype=torch.float32)
    assert found.converged
    assert found.values == pytest.approx([2.0, 1.0], abs=1e-6)
    assert found.errors == pytest.approx([rounding, rounding])
    assert (found.smallest, found.smallest_error) == pytest.approx((-5.0, rounding))


def test_the_smallest_has_an_error_of_its_own() -> None:
    """After a few steps the largest is known much better than the smallest."""
    values = torch.cat([vector(100.0), torch.linspace(0.0, 1.0, 60, dtype=torch.float64)])
    start = torch.randn(61, generator=seeded(1), dtype=torch.float64)
    found = largest(torch.diag(values), start, 1)
    assert found.converged
    assert found.errors[0] < 1e-3 * 100
    assert found.smallest_error > 10 * found.errors[0]


def test_every_value_must_be_within_the_tolerance_not_one_of_them() -> None:
    values = torch.cat([vector(100.0), torch.linspace(0.9, 1.0, 60, dtype=torch.float64)])
    start = torch.randn(61, generator=seeded(1), dtype=torch.float64)
    found = largest(torch.diag(values), start, 3, tolerance=1e-6, most_steps=8)
    assert found.errors[0] <= 1e-6 * 100
    assert not found.converged


def test_a_value_near_zero_counts_from_a_thousandth_of_the_largest() -> None:
    """The second largest is 0: its error could never be a share of itself."""
    rest = -torch.linspace(0.05, 1.0, 200, dtype=torch.float64)
    values = torch.cat([vector(1.0, 0.0), rest])
    start = torch.randn(202, generator=seeded(1), dtype=torch.float64)
    found = largest(torch.diag(values), start, 2, tolerance=1e-2, most_steps=60)
    assert found.converged
    assert found.values == pytest.approx([1.0, 0.0], abs=1e-5)


def test_an_eigenvalue_that_another_start_has_shown_is_waited_for() -> None:
    """The start has a part of 1e-9 along the largest eigenvector: it looks converged without."""
    values = torch.cat([vector(10.0, 5.0), torch.linspace(0.0, 1.0, 40, dtype=torch.float64)])
    start = torch.ones(42, dtype=torch.float64)
    start[0] = 1e-9
    blind = largest(torch.diag(values), start, 1)
    assert blind.values == pytest.approx([5.0], rel=1e-3)
    told = largest(torch.diag(values), start, 1, at_least=[9.999, 4.0])
    assert told.values == pytest.approx([10.0], rel=1e-3)
    assert told.krylov.steps > blind.krylov.steps


def test_several_values_are_confirmed_by_further_products() -> None:
    """The start has hardly a part along the second largest, which comes up late."""
    values = torch.cat([vector(10.0, 8.0, 5.0), torch.linspace(0.0, 1.0, 40, dtype=torch.float64)])
    start = torch.ones(43, dtype=torch.float64)
    start[1] = 1e-4
    found = largest(torch.diag(values), start, 2)
    assert found.converged
    assert found.values == pytest.approx([10.0, 8.0], rel=1e-3)


def test_fewer_ritz_values_than_asked_for_are_no_end() -> None:
    """Two steps of a matrix of rank 2 with a start inside are exact; three are asked for."""
    matrix = diagonal(4.0, 3.0, 2.0, 1.0, 0.0, 0.0)
    found = largest(matrix, torch.ones(6, dtype=torch.float64), 3, tolerance=0.5)
    assert len(found.values) == 3
    assert found.values == pytest.approx([4.0, 3.0, 2.0], rel=0.5)
    assert largest(diagonal(2.0, 1.0), vector(1.0, 1.0), 5).values == pytest.approx([2.0, 1.0])


def spectrum(kind: str, size: int, seed: int) -> np.ndarray:
    """Return eigenvalues, largest first; the top of most is a cluster."""
    rng = np.random.default_rng(seed)
    found = np.sort(0.5 * rng.random(size))
    if kind.startswith("cluster"):
        width = float(kind.split()[1])
        found[-5:] = 1 - width * rng.random(5)
        found[-1], found[-5] = 1, 1 - width
    elif kind == "power law":
        found = np.arange(1, size + 1.0) ** -1
    elif kind == "plateau":
        found[-size // 10 :] = 1 - 1e-3 * rng.random(size // 10)
    elif kind == "negative":
        found[: size // 2] = -10 * rng.random(size // 2)
    elif kind == "low rank":
        found[: size // 2] = 0
    return np.sort(found)[::-1].copy()


KINDS = [f"cluster 1e-{n}" for n in range(1, 7)] + ["power law", "plateau", "negative", "low rank"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_the_largest_holds_where_ritz_values_hide_the_gap(
    kind: str, dtype: torch.dtype
) -> None:
    """Residual squared over the gap of Ritz values is up to a thousand times too small here."""
    for size in (30, 120):
        for seed in range(3):
            exact = torch.tensor(spectrum(kind, size, seed)).to(dtype)
            start = torch.randn(size, generator=seeded(seed), dtype=torch.float64)
            found = largest_eigenvalues(
                lambda v, a=exact: (a * v.to(a.dtype)).double(),
                start,
                1,
                tolerance=1e-3,
                generator=seeded(seed),
                dtype=dtype,
            )
            assert found.converged
            assert abs(found.values[0] - float(exact[0])) <= found.errors[0]
            assert found.errors[0] <= 1.1e-3 * abs(found.values[0])
            assert abs(found.smallest - float(exact.min())) <= found.smallest_error


def test_equal_eigenvalues_are_shown_by_fresh_vectors() -> None:
    """The start sees 5, 1 and 0 once each; then its space is exhausted."""
    values = [5.0, 5.0, 5.0, 1.0, 1.0, *[0.0] * 40]
    start = torch.randn(45, generator=seeded(5), dtype=torch.float64)
    for count in (2, 3, 4, 6):
        found = largest(diagonal(*values), start, count)
        assert found.converged
        assert found.values == pytest.approx(values[:count], abs=1e-12)
    assert found.errors.max() < 1e-6
    assert found.krylov.steps < 14
    assert largest(diagonal(*values), start, 1).krylov.steps == 3


def test_of_an_exhausted_start_the_first_part_alone_is_a_quadrature() -> None:
    krylov = lanczos(diagonal(3.0, 3.0, 1.0, 1.0), vector(1.0, 1.0, 2.0, 0.0), 3)
    first, second = krylov.parts()
    assert first.values == pytest.approx([1.0, 3.0])
    assert first.weights == pytest.approx([2 / 3, 1 / 3])
    assert first.residuals == pytest.approx([0.0, 0.0])
    assert len(second.values) == 1
    assert second.weights == pytest.approx([1.0])
    read = Quadrature.of(krylov)
    assert read.now.values == pytest.approx([1.0, 3.0])
    assert read.earlier is read.now


def test_what_another_start_has_shown_need_only_be_met_to_the_tolerance() -> None:
    values = torch.cat([vector(10.0, 5.0), torch.linspace(0.0, 1.0, 40, dtype=torch.float64)])
    start = torch.randn(42, generator=seeded(2), dtype=torch.float64)
    met = largest(torch.diag(values), start, 1, at_least=[10.008])
    assert met.converged
    assert met.krylov.steps == largest(torch.diag(values), start, 1).krylov.steps
    assert not largest(torch.diag(values), start, 1, at_least=[10.02], most_steps=30).converged


def test_each_value_that_another_start_has_shown_must_be_met() -> None:
    values = torch.cat([vector(10.0, 5.0), torch.linspace(0.0, 1.0, 40, dtype=torch.float64)])
    start = torch.randn(42, generator=seeded(2), dtype=torch.float64)
    found = largest(torch.diag(values), start, 2, at_least=[9.0, 6.0], most_steps=30)
    assert not found.converged
    assert largest(torch.diag(values), start, 2, at_least=[9.0, 5.0], most_steps=30).converged


def test_a_quadrature_is_compared_with_that_of_two_steps_earlier() -> None:
    krylov = lanczos(torch.diag(torch.arange(9.0, dtype=torch.float64)), torch.ones(9), 5)
    read = Quadrature.of(krylov)
    assert len(read.now.values) == 5
    assert read.earlier.values == pytest.approx(krylov.parts(3)[0].values)
    assert Quadrature.of(lanczos(diagonal(1.0, 2.0, 3.0), torch.ones(3), 1)).size == 3


def test_the_smallest_is_that_of_all_parts() -> None:
    """The start sees -5 and 3; fresh vectors see 3 alone."""
    found = largest(diagonal(-5.0, *[3.0] * 30), torch.ones(31), 3)
    assert found.values == pytest.approx([3.0, 3.0, 3.0])
    assert found.smallest == pytest.approx(-5.0)
    assert found.smallest_error < 1e-12
