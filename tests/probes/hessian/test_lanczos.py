"""Lanczos where it is exhausted, asymmetric, or large; and when the eigenvalues' search stops."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from cases import seeded
from torch import Tensor

from trainscope.probes.hessian import eigenvalues, lanczos
from trainscope.probes.hessian.eigenvalues import largest_eigenvalues
from trainscope.probes.hessian.lanczos import Lanczos, Ritz


def grown(matrix: Tensor, start: Tensor, steps: int, dtype: torch.dtype = torch.float64) -> Lanczos:
    krylov = Lanczos(lambda v: matrix @ v.double(), start, seeded(0), dtype)
    for _ in range(steps):
        krylov.grow()
    return krylov


def symmetric(size: int) -> Tensor:
    matrix = torch.randn(size, size, generator=seeded(9), dtype=torch.float64)
    return matrix + matrix.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_space_is_float32_at_least_and_as_good(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values over eight decades, as a Hessian's: a basis that is not orthogonal repeats the top."""
    exact = torch.logspace(2, -6, 400, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(400, 400, generator=seeded(3), dtype=torch.float64)).Q
    matrix, start = (q * exact) @ q.T, torch.randn(400, generator=seeded(1), dtype=torch.float64)
    whole = grown(matrix, start, 60)
    assert whole.basis.dtype == torch.float64
    monkeypatch.setattr(lanczos, "SMALL", 4)
    large = grown(matrix, start, 60, dtype)
    assert large.basis.dtype == torch.float32
    gap = (large.basis @ large.basis.T - torch.eye(60)).abs().max()
    assert float(gap) < 1e-5
    assert large.values[-5:] == pytest.approx(exact[:5].flip(0).numpy(), rel=2e-6)


@pytest.mark.usefixtures("one_thread")
def test_the_vectors_of_a_million_weights_are_of_length_one() -> None:
    """Added up in float32 on one thread, a norm of so many is off by 1e-4, and so is symmetry."""
    size = lanczos.SMALL * 3 // 2
    values = torch.linspace(-1, 3, size).square()
    start = torch.randn(size, generator=seeded(1), dtype=torch.float64)
    krylov = Lanczos(lambda v: values * v, start, seeded(0), torch.float32)
    for _ in range(4):
        krylov.grow()
    lengths = krylov.basis.double().norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0] * 4, abs=1e-6)
    assert krylov.symmetric


def test_sums_over_millions_of_single_precision_numbers_keep_the_basis_orthogonal() -> None:
    size = 3_000_000
    values = torch.linspace(0.1, 1, size)
    start = torch.rand(size, generator=seeded(1)) + 1  # of one sign: plain sums lose most
    krylov = Lanczos(lambda v: values * v, start, seeded(0), torch.float32)
    for _ in range(4):
        krylov.grow()
    assert krylov.basis.dtype == torch.float32
    basis = krylov.basis.double()
    assert float((basis @ basis.T - torch.eye(4)).abs().max()) < 2e-6
    assert krylov.skew < 1e-5


def test_a_vector_that_is_nearly_in_the_space_is_orthogonalised_again() -> None:
    """One pass leaves what it rounds of the part along the space, here as much as the rest."""
    krylov = grown(symmetric(30), torch.randn(30, generator=seeded(1)), 4)
    outside = krylov.outside(torch.randn(30, generator=seeded(2), dtype=torch.float64))
    vector = 1e14 * krylov.basis[0] + outside
    length = krylov._orthogonalise(vector, krylov._parts(vector))
    assert length == pytest.approx(float(vector.norm()))
    assert float((krylov.basis @ vector).abs().max()) < 1e-12 * length


def test_a_small_space_is_float64_whatever_the_network_is() -> None:
    assert grown(symmetric(5), torch.ones(5), 2, torch.float32).basis.dtype == torch.float64


def test_rounding_ends_a_space_that_noise_would_go_on_with() -> None:
    """A matrix of rank 2, with products as rough as float32 makes them."""
    values = torch.zeros(40, dtype=torch.float64)
    values[:2] = torch.tensor([1e3, 1.0])
    start = torch.randn(40, generator=seeded(1), dtype=torch.float64)
    noise = 1e-6 * torch.randn(40, generator=seeded(2), dtype=torch.float64)
    krylov = Lanczos(lambda v: values * v + noise, start, seeded(0), torch.float32)
    for _ in range(3):
        krylov.grow()
    assert krylov.exhausted
    assert krylov.values == pytest.approx([0.0, 1.0, 1e3], abs=1e-3)
    krylov.grow()
    assert krylov.betas[2] == 0


def test_fresh_vectors_are_orthogonal_and_of_the_given_generator() -> None:
    matrix = torch.diag(torch.tensor([2.0] * 3 + [1.0] * 3, dtype=torch.float64))
    state = torch.random.get_rng_state()
    first, second = (grown(matrix, torch.ones(6), 6) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.basis, second.basis)
    assert float((first.basis @ first.basis.T - torch.eye(6)).abs().max()) < 1e-12
    assert first.values == pytest.approx([1, 1, 1, 2, 2, 2])
    assert [len(part.values) for part in first.parts()] == [2, 2, 2]


def test_exhausted_is_the_last_step_not_an_earlier_one() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0, 5.0], dtype=torch.float64))
    krylov = grown(matrix, torch.tensor([1.0, 0, 0, 0]), 1)
    assert krylov.exhausted
    krylov.grow()
    assert not krylov.exhausted


@pytest.mark.parametrize(("scale", "off"), [(1.0, 0.0), (1e-6, 0.0), (1.0, 1e-2), (1e-6, 1e-8)])
def test_asymmetry_counts_by_the_size_of_the_matrix(scale: float, off: float) -> None:
    matrix = -scale * torch.diag(torch.arange(1.0, 9.0, dtype=torch.float64))
    matrix[0, 5] += off
    krylov = grown(matrix, torch.ones(8), 8)
    assert krylov.symmetric == (off == 0)


def test_asymmetry_that_was_seen_once_is_not_forgotten() -> None:
    """The first pair of vectors is orthogonal under a symmetric matrix; later ones hide it."""
    matrix = torch.diag(torch.arange(8.0, dtype=torch.float64))
    crooked = matrix.clone()
    crooked[0, 7] += 0.5
    count = 0

    def product(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return (crooked if count == 3 else matrix) @ v

    krylov = Lanczos(product, torch.ones(8), seeded(0), torch.float64)
    seen = []
    for _ in range(8):
        krylov.grow()
        seen.append(krylov.skew)
    assert seen[2] > 1e-3
    assert seen == sorted(seen)
    assert not krylov.symmetric


def scripted(monkeypatch: pytest.MonkeyPatch, reaches: Iterable[float], count: int, **options):
    """Search the diagonal 1 to 40 with errors that are given, one for each step."""
    given = iter(reaches)

    def reach(ritz: Ritz, wanted: int, least: float) -> np.ndarray:
        return np.full(len(ritz.values), 0.0 if wanted < count else next(given))

    monkeypatch.setattr(eigenvalues, "reach", reach)
    values = torch.arange(1.0, 41.0, dtype=torch.float64)
    start = torch.randn(40, generator=seeded(0), dtype=torch.float64)
    settings = {"tolerance": 1e-3, "generator": seeded(0), "dtype": torch.float64} | options
    return largest_eigenvalues(lambda v: values * v, start, count, **settings)


def test_a_search_of_one_stops_at_the_first_step_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide, known = 99.0, 0.0
    assert scripted(monkeypatch, [wide, wide, known, wide], 1).krylov.steps == 3
    found = scripted(monkeypatch, [known] * 9, 1, least_steps=5)
    assert (found.krylov.steps, found.converged) == (5, True)
    found = scripted(monkeypatch, [wide] * 9, 1, most_steps=6)
    assert (found.krylov.steps, found.converged) == (6, False)


def test_several_must_be_known_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """For three steps, one and two more; a step that is not known begins anew."""
    wide, known = 99.0, 0.0
    reaches = [known, known, known, wide, *[known] * 9]
    assert scripted(monkeypatch, reaches, 2).krylov.steps == 7
    assert scripted(monkeypatch, [known] * 20, 2).krylov.steps == 4
