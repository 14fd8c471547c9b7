"""Every task's numbers against dense float64 references made from plain formulas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import student
from reference.plain import Plain
from task_cases import BUILDERS, TaskCase, task_case

from trainscope.data import ProbeData
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.hessian.differences import DifferenceProduct
from trainscope.probes.hessian.lanczos import Lanczos
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.jacobians.rows import Jacobians
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured

TIGHT = 1e-10


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=BUILDERS, scope="module")
def both(request: pytest.FixtureRequest) -> tuple[TaskCase, Plain]:
    one = task_case(request.param)
    return one, Plain(one)


@pytest.fixture(params=["classification", "tagging", "regression, huber"])
def one_of_three(request: pytest.FixtureRequest) -> tuple[TaskCase, Plain]:
    one = task_case(request.param)
    return one, Plain(one)


def pinned(one: TaskCase, batch_size: int = 2) -> ProbeData:
    """Return the batch as pinned samples; no batch size here divides any number of samples."""
    return ProbeData("", batch=one.batch, task=one.task, batch_size=batch_size)


def close(got: object, expected: object, tight: float = TIGHT) -> bool:
    one, two = (torch.as_tensor(v, dtype=torch.float64) for v in (got, expected))
    scale = max(1.0, float(two.abs().max()))
    return one.shape == two.shape and float((one - two).abs().max()) <= tight * scale


def test_gradient(both: tuple[TaskCase, Plain]) -> None:
    one, plain = both
    found = Gradient().measure(one.network, pinned(one))
    each = plain.sample_gradients
    mean, count = each.mean(0), len(each)
    noise = (each - mean).square().sum() / (count - 1)
    signal = mean.square().sum() - noise / count
    assert found.status == "ok"
    assert close(found.value("norm"), mean.norm())
    assert close(found.value("loss"), plain.loss_at(plain.point))
    assert close(found.arrays["sample_norms"], each.norm(dim=1))
    assert close(found.value("snr"), signal / noise)
    out = plain.outputs_at(plain.point)
    sums = torch.stack([plain.sample_sum(out, i) for i in range(one.count)])
    counts = torch.tensor([len(one.sample(out, i)) for i in range(one.count)]).double()
    left = (sums - counts * sums.sum() / counts.sum()) * one.count / plain.terms
    assert close(found.scalars["loss"].stderr, student(one.count) * left.std() / one.count**0.5)


@pytest.mark.parametrize("ggn", [False, True])
def test_products(both: tuple[TaskCase, Plain], ggn: bool) -> None:
    """A linear map that is right for vectors drawn at random is right for all."""
    one, plain = both
    matrix = plain.ggn if ggn else plain.hessian
    with evaluation(one.network, pinned(one)) as lent:
        look = lent.look
        weights = measured(lent.network).used_by(lent.losses(lent.outputs(look), look))
        assert list(weights.names) == plain.names
        fresh = MatrixProduct(lent, weights, ggn=ggn, keep=False)
        start, other = torch.randn(2, fresh.size, dtype=torch.float64)
        assert close(fresh(start), matrix @ start)
        assert close(fresh(other), matrix @ other)
        product = MatrixProduct(lent, weights, ggn=ggn, keep=True)
        assert close(product(start), matrix @ start)
        assert close(product(other), matrix @ other)


def test_all_eigenvalues(one_of_three: tuple[TaskCase, Plain]) -> None:
    one, plain = one_of_three
    with evaluation(one.network, pinned(one)) as lent:
        look = lent.look
        weights = measured(lent.network).used_by(lent.losses(lent.outputs(look), look))
        product = MatrixProduct(lent, weights, ggn=False, keep=True)
        start = torch.randn(product.size, dtype=torch.float64)
        krylov = Lanczos(product, start, pinned(one).generator(), torch.float64)
        while not krylov.full:
            krylov.grow()
    assert close(torch.from_numpy(krylov.values), torch.linalg.eigvalsh(plain.hessian))


@pytest.mark.parametrize("ggn", [False, True])
def test_differences(both: tuple[TaskCase, Plain], ggn: bool) -> None:
    one, plain = both
    matrix = plain.ggn if ggn else plain.hessian
    with evaluation(one.network, pinned(one)) as lent:
        look = lent.look
        weights = measured(lent.network).used_by(lent.losses(lent.outputs(look), look))
        product = DifferenceProduct(lent, weights, ggn=ggn, generator=pinned(one).generator())
        start = torch.randn(product.size, dtype=torch.float64)
        assert product.error < 1e-6
        assert close(product(start), matrix @ start, 1e-7)
        assert close(product.gradient(), plain.sample_gradients.mean(0)[plain.keep])


def test_the_probe_of_curvature(both: tuple[TaskCase, Plain]) -> None:
    one, plain = both
    options = Curvature(tolerance=1e-6, trace_vectors=8, density_steps=4)
    found = options.measure(one.network, pinned(one))
    assert found.status == "ok", found.reason
    matrix = plain.hessian
    values = torch.linalg.eigvalsh(matrix)
    assert close(found.value("top_eigenvalue"), values[-1], 1e-6)
    trace = found.scalars["trace"]
    slack = 1e-9 if trace.stderr is None else 5 * trace.stderr + 1e-9
    assert abs(trace.value - float(matrix.trace())) <= slack


def test_singular_values(both: tuple[TaskCase, Plain]) -> None:
    one, plain = both
    found = Jacobian().measure(one.network, pinned(one))
    expected = torch.linalg.svdvals(plain.jacobians)
    assert close(found.arrays["singular_values"], expected)
    assert close(found.value("mean_jsv"), expected.mean())
    error = student(one.count) * expected.mean(1).std() / one.count**0.5
    assert close(found.scalars["mean_jsv"].stderr, error)


def test_a_sketch_keeps_sums_of_squares_in_expectation() -> None:
    """Q Q' is the identity in expectation, Q being orthonormal columns times sqrt(C / k)."""
    one = task_case("language, dictionaries")
    expected = Plain(one).jacobians.square().sum((1, 2))
    options = Jacobian(most_outputs=5, sketch=3)
    found = options.measure(one.network, pinned(one))
    assert "3 random combinations of the 6 outputs" in found.notes["sketch"]
    values = torch.tensor(found.arrays["singular_values"], dtype=torch.float64)
    assert values.shape[1] == 3
    with evaluation(one.network, pinned(one)) as lent:
        draws = []
        for seed in range(60):
            jacobians = Jacobians(lent, memory=2**20, most_outputs=5, sketch=3)
            drawn = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)).double()
            jacobians._sketch = torch.linalg.qr(drawn).Q * 2**0.5
            parts = list(jacobians.alone(len(lent)))
            draws.append(torch.cat([part.rows for part in parts]).square().sum((1, 2)))
    squares = torch.stack(draws)
    error = squares.std(0) / len(squares) ** 0.5
    assert bool(((squares.mean(0) - expected).abs() <= 4 * error).all())
