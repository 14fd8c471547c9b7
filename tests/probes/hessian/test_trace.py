"""Traces by hand: on a linear network and on a diagonal matrix, with the same random signs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import seeded
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.gradients.sample_gradients import SampleGradients
from trainscope.probes.hessian.lanczos import Lanczos
from trainscope.probes.hessian.trace import (
    deflated_hutchinson,
    exact_gauss_newton,
    sampled_gauss_newton,
)
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.records.standard_errors import widened


def linear() -> tuple[nn.Module, ProbeData]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Linear(4, 3).double()
    inputs = torch.randn(5, 4, generator=seeded(1), dtype=torch.float64)
    return network, ProbeData("l", inputs, torch.tensor([0, 1, 2, 1, 0]), batch_size=2)


def test_the_gauss_newton_trace_of_a_linear_network() -> None:
    """It is the mean of (1 - sum p²) (|x|² + 1), by hand."""
    network, data = linear()
    p = network(data.inputs).softmax(1).detach()
    spread = 1 - p.square().sum(1)
    weight = float((spread * data.inputs.square().sum(1)).mean())
    bias = float(spread.mean())
    with evaluation(network, data) as lent:
        found = exact_gauss_newton(lent, SampleGradients(lent, measured(network), None), 3)
    assert found.value == pytest.approx(weight + bias, rel=1e-12)
    assert found.parameters.tolist() == pytest.approx([weight, bias], rel=1e-12)
    assert found.stderr is None


def test_the_sampled_trace_is_the_mean_over_random_signs() -> None:
    network, data = linear()
    draws = 4
    generator, totals = seeded(7), []
    for _ in range(draws):
        total = torch.zeros(2, dtype=torch.float64)
        for inputs in data.inputs.split(2):
            p = network(inputs).softmax(1).detach()
            signs = torch.randint(0, 2, p.shape, generator=generator) * 2 - 1
            root = torch.zeros_like(p)
            for c in range(3):
                root += signs[:, c, None] * p[:, c, None].sqrt() * (torch.eye(3)[c] - p)
            size = root.square().sum(1)
            total += torch.stack([(size * inputs.square().sum(1)).sum(), size.sum()])
        totals.append(total / 5)
    each = torch.stack(totals)
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), None)
        found = sampled_gauss_newton(lent, gradients, draws, seeded(7))
    assert found.value == pytest.approx(float(each.sum(1).mean()), rel=1e-12)
    assert found.stderr == pytest.approx(widened(float(each.sum(1).std()) / 2, 4), rel=1e-12)
    assert found.parameters.tolist() == pytest.approx(each.mean(0).tolist(), rel=1e-12)


def symmetric(size: int) -> Tensor:
    matrix = torch.randn(size, size, generator=seeded(2), dtype=torch.float64)
    return matrix + matrix.T


def test_outside_the_krylov_space_the_trace_is_sampled() -> None:
    matrix, draws = symmetric(6), 3
    krylov = Lanczos(lambda v: matrix @ v, torch.ones(6), seeded(0), torch.float64)
    for _ in range(2):
        krylov.grow()
    basis = krylov.basis
    inside = float((basis @ matrix @ basis.T).trace())
    outside = torch.eye(6, dtype=torch.float64) - basis.T @ basis
    generator, samples = seeded(3), []
    for _ in range(draws):
        signs = (torch.randint(0, 2, (6,), generator=generator) * 2 - 1).double()
        samples.append(float(signs @ outside @ matrix @ outside @ signs))
    values = torch.tensor(samples, dtype=torch.float64)
    found = deflated_hutchinson(lambda v: matrix @ v, krylov, draws, seeded(3))
    assert found.value == pytest.approx(inside + float(values.mean()), rel=1e-10)
    assert found.stderr == pytest.approx(
        widened(float(values.std()) / draws**0.5, draws), rel=1e-10
    )


def test_a_whole_space_has_an_exact_trace_an_exhausted_one_has_not() -> None:
    matrix = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    first = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    krylov = Lanczos(lambda v: matrix @ v, first, seeded(0), torch.float64)
    krylov.grow()
    assert krylov.exhausted
    found = deflated_hutchinson(lambda v: matrix @ v, krylov, 2, seeded(0))
    assert found.value == 6.0
    assert 0 < found.stderr < 1e-14  # rounding alone
    assert "estimated" in found.method
    while not krylov.full:
        krylov.grow()
    found = deflated_hutchinson(lambda v: matrix @ v, krylov, 2, seeded(0))
    assert found.value == pytest.approx(6.0)
    assert found.stderr is None


def test_few_directions_left_are_taken_exactly() -> None:
    matrix = symmetric(6)
    krylov = Lanczos(lambda v: matrix @ v, torch.ones(6), seeded(0), torch.float64)
    krylov.grow()
    found = deflated_hutchinson(lambda v: matrix @ v, krylov, 5, seeded(3))
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-10)
    assert found.stderr is None


def test_batches_do_not_change_the_trace() -> None:
    network, data = linear()
    found = []
    for size in (1, 3, 5):
        with evaluation(network, replace(data, batch_size=size)) as lent:
            gradients = SampleGradients(lent, measured(network), None)
            found.append(exact_gauss_newton(lent, gradients, 3).value)
    assert found == pytest.approx([found[0]] * 3, rel=1e-12)
