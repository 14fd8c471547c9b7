"""Estimates against the exact value, and what the curvature probe does where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import Plain, case, dense_case, seeded
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.curvature import Curvature
from trainscope.probes.hessian.density import Quadrature, spectral_density
from trainscope.probes.hessian.eigenvalues import largest_eigenvalues
from trainscope.probes.hessian.lanczos import Lanczos

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = range(8)


@pytest.mark.parametrize("name", ["tied", "attention"])
def test_estimated_trace_is_within_four_standard_errors(name: str) -> None:
    one = case(name)
    exact = float(dense_case(name).hessian().trace())
    probe = Curvature(top=1, tolerance=0.5, density_vectors=0, trace_vectors=16)
    errors = []
    for seed in SEEDS:
        trace = probe.measure(one.network, replace(one.data, seed=seed)).scalars["trace"]
        assert abs(trace.value - exact) < 4 * trace.stderr
        errors.append((trace.value - exact) / trace.stderr)
    # Without bias and with a true standard error these are nearly standard normal.
    assert abs(np.mean(errors)) < 4 / len(SEEDS) ** 0.5
    assert 0.5 < np.std(errors) < 2


def test_trace_by_random_classes_is_within_four_standard_errors() -> None:
    one = case("plain")
    exact = float(dense_case("plain").hessian().trace())
    probe = Curvature(top=1, tolerance=0.5, density_vectors=0, exact_classes=2, trace_vectors=16)
    errors = []
    for seed in SEEDS:
        found = probe.measure(one.network, replace(one.data, seed=seed))
        trace = found.scalars["trace"]
        assert abs(trace.value - exact) < 4 * trace.stderr
        errors.append((trace.value - exact) / trace.stderr)
        assert sum(found.arrays["layer_traces"]) == pytest.approx(trace.value)
    assert abs(np.mean(errors)) < 4 / len(SEEDS) ** 0.5
    assert 0.5 < np.std(errors) < 2


def test_the_trace_can_be_left_out() -> None:
    one = case("plain")
    whole = Curvature(top=2).measure(one.network, one.data)
    found = Curvature(top=2, trace_vectors=0).measure(one.network, one.data)
    assert found.scalars["trace"].value is None
    assert "trace_vectors=0" in (found.scalars["trace"].reason or "")
    assert found.arrays["eigenvalues"] == whole.arrays["eigenvalues"]
    assert "layer_traces" not in found.arrays
    assert found.cost.backward < whole.cost.backward
    with pytest.raises(ProbeError, match="blocks have a trace"):
        Curvature(trace_vectors=0, blocks=True).measure(one.network, one.data)


def random_symmetric(size: int) -> Tensor:
    matrix = torch.randn(size, size, dtype=torch.float64, generator=seeded(5))
    return (matrix + matrix.T) / 2


def test_density_is_within_four_standard_errors() -> None:
    size, vectors = 24, 32
    matrix = random_symmetric(size)
    exact = torch.linalg.eigvalsh(matrix).numpy()
    outside = total = 0
    for seed in SEEDS:
        generator = seeded(seed)
        runs = []
        for _ in range(vectors):
            start = torch.randn(size, generator=generator, dtype=torch.float64)
            krylov = Lanczos(lambda v: matrix @ v, start, generator, torch.float64)
            while krylov.steps < size:
                krylov.grow()
            runs.append(Quadrature.of(krylov))
        density = spectral_density(runs, share=0.05)
        bumps = np.exp(-0.5 * ((density.x[:, None] - exact) / density.width) ** 2)
        expected = bumps.mean(1) / (density.width * np.sqrt(2 * np.pi))
        outside += int((np.abs(density.y - expected) > 4 * density.stderr + 1e-6).sum())
        total += len(density.x)
        assert np.trapezoid(density.y, density.x) == pytest.approx(1, abs=1e-3)
    assert outside <= 1e-3 * total


def test_few_lanczos_steps_give_the_moments_of_the_density() -> None:
    one = case("plain")
    hessian = dense_case("plain").hessian()
    means = []
    for seed in SEEDS:
        probe = Curvature(
            top=1,
            tolerance=0.5,
            density_vectors=4,
            density_steps=4,
            exact_classes=0,
            trace_vectors=2,
        )
        found = probe.measure(one.network, replace(one.data, seed=seed))
        nodes, weights = found.arrays["density_nodes"], found.arrays["density_weights"]
        each = [float(np.dot(n, w)) for n, w in zip(nodes, weights, strict=True)]
        assert all(sum(w) == pytest.approx(1) for w in weights)
        means.append((np.mean(each), np.std(each, ddof=1) / len(each) ** 0.5))
    exact = float(hessian.trace()) / len(hessian)
    pulls = [(mean - exact) / error for mean, error in means]
    assert abs(np.mean(pulls)) < 4 / len(SEEDS) ** 0.5 * np.std(pulls)


def test_the_same_seed_gives_the_same_bits() -> None:
    one = case("attention")
    first, second = (Curvature().measure(one.network, one.data) for _ in range(2))
    assert first.scalars == second.scalars
    assert first.arrays == second.arrays


def test_an_eigenvalue_that_the_start_does_not_see_is_found() -> None:
    matrix = torch.diag(torch.tensor([5.0, 4.0, 3.0, 1.0, 0.0], dtype=torch.float64))
    blind = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    options = {"tolerance": 1e-9, "generator": seeded(0), "dtype": torch.float64}
    found = largest_eigenvalues(lambda v: matrix @ v, blind, 2, at_least=[5.0, 4.0], **options)
    assert found.values == pytest.approx([5, 4])
    krylov = Lanczos(lambda v: matrix @ v, blind, seeded(0), torch.float64)
    while not krylov.full:
        krylov.grow()
    assert krylov.values == pytest.approx([0, 1, 3, 4, 5])
    assert krylov.betas[3] == 0


def test_repeated_and_zero_eigenvalues() -> None:
    for diagonal in ([2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0]):
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        start = torch.ones(len(diagonal), dtype=torch.float64)
        krylov = Lanczos(lambda v, m=matrix: m @ v, start, seeded(0), torch.float64)
        while not krylov.full:
            krylov.grow()
        assert krylov.values == pytest.approx(sorted(diagonal))


def test_too_few_products_are_not_converged() -> None:
    one = case("plain")
    found = Curvature(most_products=2, density_vectors=0).measure(one.network, one.data)
    assert found.status == "not converged"
    assert "2 products" in found.reason
    assert found.value("trace") is not None


def test_no_positive_eigenvalue_means_no_largest_stable_lr() -> None:
    one = case("plain")
    with torch.no_grad():
        one.network.fc.weight.zero_()
        one.network.fc.bias.copy_(torch.tensor([1000.0, 0.0, 0.0]))
    data = replace(one.data, labels=torch.zeros_like(one.data.labels))
    found = Curvature().measure(one.network, data)
    assert found.value("top_eigenvalue") == 0
    assert found.value("max_stable_lr") is None
    assert "not positive" in found.scalars["max_stable_lr"].reason
    assert found.value("trace") == 0


def test_batches_count_by_their_size() -> None:
    one = case("residual")
    values = [
        Curvature(tolerance=1e-9).measure(one.network, replace(one.data, batch_size=size))
        for size in (1, 4, 6)
    ]
    for found in values[1:]:
        for name in ("top_eigenvalue", "trace"):
            assert found.value(name) == pytest.approx(values[0].value(name), rel=1e-8)


def test_large_graphs_are_built_again() -> None:
    one = case("plain")
    kept = Curvature().measure(one.network, one.data)
    again = Curvature(memory=0).measure(one.network, one.data)
    assert again.value("top_eigenvalue") == pytest.approx(kept.value("top_eigenvalue"), rel=1e-12)
    assert again.cost.forward > 5 * kept.cost.forward


def test_float32_agrees_with_float64() -> None:
    one = case("masked")
    single = Plain()
    single.load_state_dict(
        {k: v.float() for k, v in one.network.state_dict().items() if "mask" not in k}
    )
    for name, mask in one.network.named_buffers():
        if name.endswith("_mask"):
            layer, _, leaf = name.rpartition(".")
            single.get_submodule(layer).register_buffer(leaf, mask)
    found = Curvature().measure(single, one.data)
    exact = Curvature(tolerance=1e-9).measure(one.network, one.data)
    for name in ("top_eigenvalue", "trace"):
        assert found.value(name) == pytest.approx(exact.value(name), rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"top": 0}, {"tolerance": 0.0}, {"density_vectors": -1}, {"trace_vectors": 1}],
)
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ProbeError, match=rf"curvature: {next(iter(options))} is "):
        Curvature(**options)


def test_estimate_is_near_the_cost() -> None:
    one = case("plain", samples=32, batch_size=8)
    for probe in (Curvature(), Curvature(memory=0)):
        expected = probe.estimate(one.network, one.data)
        cost = probe.measure(one.network, one.data).cost
        assert expected.backward / 2.5 < cost.backward < 2.5 * expected.backward
        assert expected.memory > 0


def test_more_eigenvalues_than_weights() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).double()
    data = ProbeData("x", torch.ones(3, 1, 1, 1), torch.tensor([0, 1, 1]))
    found = Curvature(top=5).measure(network, data)
    assert found.status == "ok"
    assert len(found.arrays["eigenvalues"]) == 2
