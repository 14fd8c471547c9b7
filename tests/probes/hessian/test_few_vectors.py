"""The ends of a spectrum, its density and blocks of the matrix, from two vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import BUILDERS, Case, case, dense_case
from peak_bytes import PeakBytes
from reference.dense import Dense
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.networks import undo
from trainscope.networks.masks import set_masks
from trainscope.probes.curvature import Curvature
from trainscope.probes.hessian import few_vectors
from trainscope.probes.hessian.blocks import blocks_of
from trainscope.probes.hessian.few_vectors import PlainLanczos
from trainscope.probes.hessian.streamed_products import StreamedProduct
from trainscope.probes.subject import streamed
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.training.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=BUILDERS, scope="module")
def both(request: pytest.FixtureRequest) -> tuple[Case, Dense]:
    return case(request.param), dense_case(request.param)


def tiny() -> tuple[nn.Module, ProbeData]:
    """Return a network of twenty weights, some of them masked, and five samples, two a batch."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    keep = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.bool)
    set_masks(network, {"0.weight": keep})
    inputs = torch.randn(5, 2, dtype=torch.float64)
    return network, ProbeData("t", inputs, torch.tensor([0, 1, 2, 2, 0]), batch_size=2)


def stack(seed: int = 0) -> tuple[nn.Module, ProbeData]:
    """A network whose weights take far more than what a sample leaves in it."""
    torch.manual_seed(seed)
    layers = [part for _ in range(8) for part in (nn.Linear(48, 48), nn.Tanh())]
    network = nn.Sequential(*layers, nn.LayerNorm(48), nn.Linear(48, 3)).eval()
    return network, ProbeData("random", torch.randn(4, 48), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("ggn", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_products_are_added_to_what_is_there(ggn: bool, keep: bool) -> None:
    network, data = tiny()
    dense = Dense(network, data.inputs, data.labels)
    matrix = dense.ggn() if ggn else dense.hessian()
    drawn = torch.Generator().manual_seed(0)
    vector, start = torch.randn(2, len(matrix), generator=drawn, dtype=torch.float64)
    with evaluation(network, data) as lent:
        weights = measured(network)
        product = StreamedProduct(lent, weights, ggn=ggn, keep=keep)
        into = weights.unflatten(start.clone())
        for _ in range(3):
            product.add(weights.unflatten(vector), into)
        found = weights.flatten(into)
    assert torch.allclose(found, start + 3 * matrix @ vector, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ggn", [False, True])
def test_the_top_and_the_smallest_eigenvalue(both: tuple[Case, Dense], ggn: bool) -> None:
    one, dense = both
    matrix = dense.ggn() if ggn else dense.hessian()
    exact = torch.linalg.eigvalsh(matrix)
    found = Curvature(lean=True, ggn=ggn, density_vectors=0).measure(one.network, one.data)
    assert found.status == "ok", found.reason
    top = found.scalars["top_eigenvalue"]
    assert abs(top.value - float(exact[-1])) <= top.stderr <= 1.1e-3 * top.value
    assert found.arrays["eigenvalues"] == [top.value]
    low = found.scalars["smallest_eigenvalue"]
    if low.value is not None:
        assert abs(low.value - float(exact[0])) <= low.stderr
    assert "two at a time" in found.notes["vectors"]


@pytest.mark.parametrize("name", ["plain", "attention"])
def test_estimates_of_the_trace_scatter_as_they_say(name: str) -> None:
    one = case(name)
    exact = float(dense_case(name).hessian().trace())
    inside, errors = 0, []
    for seed in range(9):
        data = ProbeData("t", one.data.inputs, one.data.labels, seed=seed)
        probe = Curvature(lean=True, density_vectors=3, density_steps=1, tolerance=0.5)
        trace = probe.measure(one.network, data).scalars["trace"]
        errors.append((trace.value - exact) / trace.stderr)
        inside += abs(errors[-1]) <= 2
    assert inside >= 8
    assert 0.4 < float(np.std(errors)) < 1.6


def test_the_density_is_that_of_a_basis() -> None:
    one = case("attention")
    options = {"density_vectors": 3, "density_steps": 24, "top": 1, "tolerance": 0.01}
    plain = Curvature(lean=True, **options).measure(one.network, one.data)
    whole = Curvature(lean=False, **options).measure(one.network, one.data)
    for found in (plain, whole):
        width = np.gradient(np.array(found.arrays["density_x"]))
        assert float((np.array(found.arrays["density_y"]) * width).sum()) == pytest.approx(
            1, abs=0.01
        )
    low, high = whole.arrays["density_x"][0], whole.arrays["density_x"][-1]
    grid = np.linspace(low, high, 400)
    first, second = (
        np.interp(grid, f.arrays["density_x"], f.arrays["density_y"]) for f in (plain, whole)
    )
    assert float(np.abs(first - second).sum() * (grid[1] - grid[0])) < 0.4


def test_rounding_makes_copies_of_the_top_and_nothing_above_it() -> None:
    one = case("plain")
    network = one.network.float()
    data = ProbeData("t", one.data.inputs.float(), one.data.labels)
    exact = Dense(one.network.double(), one.data.inputs, one.data.labels).hessian()
    top = float(torch.linalg.eigvalsh(exact)[-1])
    network.float()
    with evaluation(network, data) as lent:
        product = StreamedProduct(lent, measured(network), ggn=False, keep=True)
        run = PlainLanczos(product, torch.Generator().manual_seed(0), check=True)
        while run.steps < 80 and not run.exhausted:
            run.grow()
    assert float(run.ritz().values[-1]) == pytest.approx(top, rel=1e-4)
    assert run.symmetric
    assert 0 < run.skew < 1e-3 * run.betas[0]


class Lopsided(torch.autograd.Function):
    """The square of a tensor whose second derivative is not symmetric."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * grad * (x + (x.cumsum(-1) - x.cumsum(-1).detach()))


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Lopsided.apply(self.first(x)))


def test_products_that_are_not_symmetric_are_refused() -> None:
    torch.manual_seed(0)
    data = ProbeData("t", torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0]))
    found = Curvature(lean=True).measure(Wrong(), data)
    assert found.status == "skipped"
    assert "not symmetric" in found.reason
    assert "lean=False" in found.reason


def test_without_double_backward_the_way_out_is_named() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 2))
    data = ProbeData("t", torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0]))
    found = Curvature(lean=True).measure(network, data)
    assert found.status == "skipped"
    assert "lean=False" in found.reason
    assert Curvature(lean=False).measure(network, data).status == "ok"


def test_the_top_eigenvalue_takes_two_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "LARGE", 0)
    for module in (streamed, few_vectors):
        monkeypatch.setattr(module, "BLOCK", 256)
    network, data = stack()
    one = ProbeData("random", data.inputs[:1], data.labels[:1])
    size = sum(p.nbytes for p in network.parameters())
    probe = Curvature(lean=True, density_vectors=2, density_steps=4, tolerance=0.3, top=1)
    with PeakBytes(*network.parameters(), *network.buffers()) as peak:
        found = probe.measure(network, one)
    assert found.status == "ok", found.reason
    # Two vectors, one tensor's gradient, and the graph of one sample.
    assert 2 * size < peak.most < 2.6 * size
    basis = Curvature(lean=False, density_vectors=2, density_steps=4, tolerance=0.3, top=1)
    expected = basis.measure(network, one).scalars["top_eigenvalue"]
    top = found.scalars["top_eigenvalue"]
    assert abs(top.value - expected.value) <= top.stderr + expected.stderr


def test_a_basis_that_is_too_large_is_not_held() -> None:
    network, data = stack()
    probe = Curvature(density_vectors=0, tolerance=0.3, top=1, settings=Settings(optimizer="adam"))
    assert "vectors" not in probe.measure(network, data).notes
    small = Curvature(
        density_vectors=0, tolerance=0.3, basis=2**20, settings=Settings(optimizer="adam")
    ).measure(network, data)
    assert "lean=False" in small.notes["vectors"]
    assert "lean=False" in small.scalars["max_stable_lr_adam"].reason


@pytest.mark.parametrize("seed", range(4))
def test_in_bfloat16_the_error_holds_what_rounding_does(seed: int) -> None:
    network, data = stack(seed)
    network.bfloat16()
    found = Curvature(lean=True, density_vectors=0, tolerance=0.02).measure(network, data)
    exact = Curvature(top=1, density_vectors=0).measure(network.double(), data)
    top, true = found.scalars["top_eigenvalue"], exact.scalars["top_eigenvalue"]
    assert abs(top.value - true.value) <= top.stderr
    assert top.stderr >= 4 * torch.finfo(torch.bfloat16).eps * top.value
    assert "bfloat16" in found.notes["rounding"]


def test_blocks_are_those_of_the_dense_matrix(both: tuple[Case, Dense]) -> None:
    one, dense = both
    ggn = one.name in ("masked", "tied", "recurrent")
    matrix = dense.ggn() if ggn else dense.hessian()
    probe = Curvature(
        top=1, density_vectors=0, blocks=True, ggn=ggn, tolerance=1e-3, trace_vectors=32
    )
    found = probe.measure(one.network, one.data)
    names = found.arrays["blocks"]
    assert len(names) == len(set(names)) > 1
    own = {dense.names[i]: b for b, at in blocks_of(dense.names, True).items() for i in at}
    owner = [own[name] for name, keep in _entries(dense) for _ in range(keep)]
    for i, name in enumerate(names):
        inside = torch.tensor([block == name for block in owner])
        inner = matrix[inside][:, inside]
        assert found.arrays["block_weights"][i] == int(inside.sum())
        exact = torch.linalg.eigvalsh(inner)
        error = found.arrays["block_eigenvalue_errors"][i]
        assert abs(found.arrays["block_eigenvalues"][i] - float(exact[-1])) <= error + 1e-9
        spread = found.arrays["block_trace_errors"][i]
        assert abs(found.arrays["block_traces"][i] - float(inner.trace())) <= 5 * spread + 1e-9
    assert sum(found.arrays["block_weights"]) == len(matrix)


def _entries(dense: Dense) -> list[tuple[str, int]]:
    sizes = [shape.numel() for shape in dense.shapes]
    rows = zip(dense.names, dense.shapes, dense.keep.split(sizes), strict=True)
    return [(name, int(keep.sum())) for name, _, keep in rows]


def test_blocks_by_the_networks_lists_and_by_patterns() -> None:
    names = ["embed.weight", "h.0.up.weight", "h.0.up.bias", "h.1.up.weight", "scale", "0.weight"]
    assert blocks_of(names, True) == {
        "embed": [0],
        "h.0": [1, 2],
        "h.1": [3],
        "scale": [4],
        "0": [5],
    }
    assert blocks_of(names, "h.*.weight, scale") == {"h.*.weight": [1, 3], "scale": [4]}
    with pytest.raises(ProbeError, match=r"'x\*'.*embed\.weight"):
        blocks_of(names, "h.0.*,x*")
    with pytest.raises(ProbeError, match="no parameter"):
        blocks_of(names, " , ")


def test_a_pattern_measures_one_block_alone() -> None:
    one = case("attention")
    probe = Curvature(top=1, density_vectors=0, trace_vectors=2, blocks="mlp.*")
    found = probe.measure(one.network, one.data)
    assert found.arrays["blocks"] == ["mlp.*"]
    whole = replace(probe, blocks=True).measure(one.network, one.data)
    parts = [i for i, name in enumerate(whole.arrays["blocks"]) if name.startswith("mlp")]
    # Interlacing: no diagonal block of a block has a larger eigenvalue.
    assert all(
        whole.arrays["block_eigenvalues"][i] <= found.arrays["block_eigenvalues"][0] * 1.002
        for i in parts
    )
