"""Every deterministic number of the numerical probes against a dense float64 reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import BUILDERS, Case, case, dense_case, seeded, student
from reference.dense import Dense
from torch import Tensor

from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.hessian.lanczos import Lanczos
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured

pytestmark = pytest.mark.usefixtures("one_thread")

TIGHT = 1e-10


@pytest.fixture(params=BUILDERS, scope="module")
def both(request: pytest.FixtureRequest) -> tuple[Case, Dense]:
    return case(request.param), dense_case(request.param)


def as_tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(got: Tensor | float, expected: Tensor | float) -> bool:
    got, expected = (torch.as_tensor(v, dtype=torch.float64) for v in (got, expected))
    scale = max(1.0, float(expected.abs().max()))
    return got.shape == expected.shape and float((got - expected).abs().max()) <= TIGHT * scale


def test_gradient(both: tuple[Case, Dense]) -> None:
    one, dense = both
    found = Gradient().measure(one.network, one.data)
    each = dense.sample_gradients()
    mean, count = each.mean(0), len(each)
    noise = (each - mean).square().sum() / (count - 1)
    signal = mean.square().sum() - noise / count
    assert close(found.value("norm"), mean.norm())
    assert close(found.value("loss"), dense.loss_at(dense.point))
    assert close(as_tensor(found.arrays["sample_norms"]), each.norm(dim=1))
    assert close(found.value("snr"), signal / noise)


def test_gradient_by_layer(both: tuple[Case, Dense]) -> None:
    one, dense = both
    found = Gradient().measure(one.network, one.data)
    sizes = [shape.numel() for shape in dense.shapes]
    squares: dict[str, float] = {}
    kept: dict[str, int] = {}
    mean = dense.sample_gradients().mean(0)
    for name, part, keep in zip(
        dense.names, mean.split(sizes), dense.keep.split(sizes), strict=True
    ):
        layer = name.rpartition(".")[0] or name
        squares[layer] = squares.get(layer, 0.0) + float(part.square().sum())
        kept[layer] = kept.get(layer, 0) + int(keep.sum())
    assert found.arrays["layers"] == list(squares)
    expected = as_tensor(list(squares.values())).sqrt()
    assert close(as_tensor(found.arrays["layer_norms"]), expected)
    rms = expected / as_tensor(list(kept.values())).sqrt()
    assert close(as_tensor(found.arrays["layer_rms"]), rms)
    names = zip(dense.names, dense.shapes, strict=True)
    wide = {name.rpartition(".")[0] or name for name, shape in names if len(shape) > 1}
    kinds = dict(zip(found.arrays["layers"], found.arrays["layer_kinds"], strict=True))
    assert kinds == {layer: "weights" if layer in wide else "norms" for layer in squares}


def test_the_errors_of_norm_and_signal_to_noise(both: tuple[Case, Dense]) -> None:
    one, dense = both
    found = Gradient().measure(one.network, one.data)
    each = dense.sample_gradients()
    ratios = []
    for i in range(len(each)):
        left = torch.cat([each[:i], each[i + 1 :]])
        noise = (left - left.mean(0)).square().sum() / (len(left) - 1)
        ratios.append((left.mean(0).square().sum() - noise / len(left)) / noise)
    values, count = torch.stack(ratios), len(ratios)
    error = ((count - 1) / count * (values - values.mean()).square().sum()).sqrt()
    assert close(found.scalars["snr"].stderr, student(count) * error)
    along = each @ each.mean(0) / each.mean(0).norm()
    assert close(found.scalars["norm"].stderr, student(count) * along.std() / count**0.5)


@pytest.mark.parametrize(("name", "one_class"), [("plain", False), ("tied", True)])
def test_unbiased_norm_and_noise_scale_are_said_where_they_are_known(
    name: str, one_class: bool
) -> None:
    one = case(name, samples=20)
    labels = torch.zeros_like(one.data.labels) if one_class else one.data.labels
    found = Gradient().measure(one.network, replace(one.data, labels=labels))
    each = Dense(one.network, one.data.inputs, labels).sample_gradients()

    def estimates(rows: Tensor) -> tuple[Tensor, Tensor]:
        noise = (rows - rows.mean(0)).square().sum() / (len(rows) - 1)
        signal = rows.mean(0).square().sum() - noise / len(rows)
        return signal, signal / noise

    count = len(each)
    left = [estimates(torch.cat([each[:i], each[i + 1 :]])) for i in range(count)]
    for name, value, others in zip(
        ("norm_unbiased", "noise_scale"),
        estimates(each),
        (torch.stack(o) for o in zip(*left, strict=True)),
        strict=True,
    ):
        spread = ((count - 1) / count * (others - others.mean()).square().sum()).sqrt()
        spread = student(count) * spread
        scalar = found.scalars[name]
        assert (scalar.value is None) == (not one_class)
        if value <= 2 * spread:
            assert scalar.value is None
            assert "cannot be told from its noise" in scalar.reason
            bound = float(value.clamp(min=0) + 2 * spread)
            assert f"{bound**0.5 if name == 'norm_unbiased' else 1 / bound:.3g}" in scalar.reason
        elif name == "norm_unbiased":
            assert close(scalar.value, value.sqrt())
            error = value.sqrt() - (value - spread).sqrt()
            assert scalar.stderr == pytest.approx(float(error), rel=1e-5)
        else:
            assert close(scalar.value, 1 / value)
            error = 1 / (value - spread) - 1 / value
            assert scalar.stderr == pytest.approx(float(error), rel=1e-5)


def test_singular_values(both: tuple[Case, Dense]) -> None:
    one, dense = both
    found = Jacobian().measure(one.network, one.data)
    expected = torch.linalg.svdvals(dense.input_jacobians())
    assert close(as_tensor(found.arrays["singular_values"]), expected)
    assert close(found.value("mean_jsv"), expected.mean())
    assert close(found.value("max_jsv"), expected.max())
    assert close(found.value("min_jsv"), expected.min())
    assert close(found.value("std_over_mean"), expected.std(correction=0) / expected.mean())
    error = student(len(expected)) * expected.mean(1).std() / len(expected) ** 0.5
    assert close(found.scalars["mean_jsv"].stderr, error)


@pytest.mark.parametrize("ggn", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_products(both: tuple[Case, Dense], ggn: bool, keep: bool) -> None:
    """A linear map that is right for vectors drawn at random is right for all."""
    one, dense = both
    matrix = dense.ggn() if ggn else dense.hessian()
    with evaluation(one.network, one.data) as lent:
        weights = measured(lent.network).used_by(lent.outputs(lent.some(0, 1)))
        product = MatrixProduct(lent, weights, ggn=ggn, keep=keep)
        for vector in torch.randn(2, product.size, dtype=torch.float64, generator=seeded(0)):
            assert close(product(vector), matrix @ vector)


@pytest.mark.parametrize("name", ["masked", "wide", "tied"])
def test_all_eigenvalues(name: str) -> None:
    one, dense = case(name), dense_case(name)
    with evaluation(one.network, one.data) as lent:
        product = MatrixProduct(lent, measured(lent.network), ggn=False, keep=True)
        start = torch.ones(product.size, dtype=torch.float64)
        krylov = Lanczos(product, start, one.data.generator(), torch.float64)
        while not krylov.full:
            krylov.grow()
    assert close(torch.from_numpy(krylov.values), torch.linalg.eigvalsh(dense.hessian()))


@pytest.mark.parametrize("ggn", [False, True])
def test_top_eigenvalues_are_within_their_tolerance(both: tuple[Case, Dense], ggn: bool) -> None:
    one, dense = both
    density_vectors = 2 * ((list(BUILDERS).index(one.name) + ggn) % 2)  # every pair of the three
    options = Curvature(top=2, tolerance=1e-4, ggn=ggn, density_vectors=density_vectors)
    found = options.measure(one.network, one.data)
    expected = torch.linalg.eigvalsh(dense.ggn() if ggn else dense.hessian()).flip(0)
    assert found.status == "ok"
    for got, error, value in zip(
        found.arrays["eigenvalues"], found.arrays["eigenvalue_errors"], expected, strict=False
    ):
        assert abs(got - value) <= 1e-4 * value
        assert error <= 1e-4 * got
    assert found.value("max_stable_lr") == pytest.approx(2 / found.value("top_eigenvalue"))
    smallest = found.scalars["smallest_eigenvalue"]
    if smallest.value is not None:
        assert abs(smallest.value - expected[-1]) <= 1e-3 * expected.abs().max()


def test_exact_trace(both: tuple[Case, Dense]) -> None:
    one, dense = both
    rough = Curvature(top=1, tolerance=0.5, density_vectors=0)
    found = replace(rough, ggn=True).measure(one.network, one.data)
    assert found.scalars["trace"].stderr is None
    assert close(found.value("trace"), dense.ggn().trace())
    found = rough.measure(one.network, one.data)
    exact = found.scalars["trace"].stderr is None
    assert exact == one.piecewise_linear
    assert ("not exact because" in found.notes["trace"]) != exact
    if not exact:
        return
    hessian = dense.hessian()
    assert close(found.value("trace"), hessian.trace())
    diagonal = torch.zeros(len(dense.point), dtype=torch.float64)
    diagonal[dense.keep] = hessian.diagonal()
    layers: dict[str, float] = {}
    for name, part in zip(
        dense.names, diagonal.split([s.numel() for s in dense.shapes]), strict=True
    ):
        layer = name.rpartition(".")[0] or name
        layers[layer] = layers.get(layer, 0.0) + float(part.sum())
    assert found.arrays["layers"] == list(layers)
    assert close(as_tensor(found.arrays["layer_traces"]), as_tensor(list(layers.values())))
