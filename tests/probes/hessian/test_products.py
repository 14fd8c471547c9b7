"""Products with the Hessian and the Gauss-Newton matrix of a network of twenty weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import seeded
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.curvature import Curvature
from trainscope.probes.hessian import convolutions
from trainscope.probes.hessian import trace as traces
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.hessian.streamed_products import StreamedProduct
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.sparsify.masks import set_masks


def tiny() -> tuple[nn.Module, ProbeData, Tensor]:
    """Return a network, five samples in batches of two, and its mask of survivors, flat."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    keep = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.bool)
    set_masks(network, {"0.weight": keep})
    inputs = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    data = ProbeData("t", inputs, torch.tensor([0, 1, 2, 2, 0]), batch_size=2)
    kept = torch.cat([keep.flatten(), torch.ones(15, dtype=torch.bool)])
    return network, data, kept


def matrices(network: nn.Module, data: ProbeData) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient, the Hessian and the Gauss-Newton matrix by all weights."""
    shapes = {n: p.shape for n, p in network.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def logits(flat: Tensor) -> Tensor:
        parts = zip(shapes.items(), flat.split(sizes), strict=True)
        weights = {name: part.view(shape) for (name, shape), part in parts}
        return torch.func.functional_call(network, weights, (data.inputs,))

    def loss(flat: Tensor) -> Tensor:
        return F.cross_entropy(logits(flat), data.labels)

    point = torch.cat([p.detach().flatten() for p in network.parameters()])
    jacobian = torch.func.jacrev(logits)(point)
    p = logits(point).softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    ggn = torch.einsum("nci,ncd,ndj->ij", jacobian, inner, jacobian) / len(p)
    return torch.func.grad(loss)(point), torch.func.jacrev(torch.func.grad(loss))(point), ggn


@pytest.mark.parametrize("ggn", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_products_are_those_of_the_dense_matrix(ggn: bool, keep: bool) -> None:
    network, data, kept = tiny()
    _, hessian, gauss_newton = matrices(network, data)
    matrix = (gauss_newton if ggn else hessian)[kept][:, kept]
    with evaluation(network, data) as lent:
        product = MatrixProduct(lent, measured(network), ggn=ggn, keep=keep)
        before = (lent.passes.forward, lent.passes.backward)
        for seed in range(2):
            vector = torch.randn(19, generator=seeded(seed), dtype=torch.float64)
            assert torch.allclose(product(vector), matrix @ vector, rtol=0, atol=1e-14)
        assert product.count == 2
        graphs = 1 if keep else 2  # a graph of its own for each product, unless it is kept
        assert lent.passes.forward - before[0] == 5 * graphs
        assert lent.passes.backward - before[1] == 5 * (graphs + 4)


def test_a_product_that_overflows_is_no_product() -> None:
    network, data, _ = tiny()
    with evaluation(network.float(), replace(data, inputs=data.inputs.float())) as lent:
        product = MatrixProduct(lent, measured(network), ggn=False, keep=True)
        with pytest.raises(NonFiniteError, match="NaN or infinite"):
            product(torch.full((19,), 3e38))


class Signed(nn.Linear):
    """A weight whose gradient is zero everywhere, and has none of its own."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        self.gate = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gate.sign()


@pytest.mark.parametrize("ggn", [False, True])
def test_a_weight_without_a_gradient_has_no_curvature(ggn: bool) -> None:
    data = tiny()[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Signed().double()
    _, hessian, gauss_newton = matrices(network, data)
    with evaluation(network, data) as lent:
        weights = measured(network).used_by(lent.outputs(lent.look))
        product = MatrixProduct(lent, weights, ggn=ggn, keep=True)
        vector = torch.ones(product.size, dtype=torch.float64)
        expected = (gauss_newton if ggn else hessian) @ vector
        assert torch.allclose(product(vector), expected, rtol=0, atol=1e-14)
    assert product.size == 12


def images() -> tuple[nn.Module, ProbeData]:
    """Return a network on images that are large enough for convolutions of our own, and data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1, groups=2)),
            *(nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        )
    inputs = torch.randn(5, 1, 19, 19, generator=seeded(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 0])
    return network.double().eval(), ProbeData("t", inputs, labels, batch_size=2)


@pytest.mark.parametrize("ggn", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_products_of_images_are_those_of_the_dense_matrix(
    ggn: bool, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = images()
    matrix = matrices(network, data)[2 if ggn else 1]
    made: list[int] = []

    def counted(*given: object) -> Tensor | None:
        found = ours(*given)
        made.append(found is not None)
        return found

    ours = convolutions._call
    monkeypatch.setattr(convolutions, "_call", counted)
    with evaluation(network, data) as lent:
        weights = measured(network)
        vector = torch.randn(weights.survivors, generator=seeded(2), dtype=torch.float64)
        if streamed:
            pieces = weights.unflatten(vector)
            into = [torch.zeros_like(piece) for piece in pieces]
            StreamedProduct(lent, weights, ggn=ggn, keep=True).add(pieces, into)
            found = weights.flatten(into)
        else:
            found = MatrixProduct(lent, weights, ggn=ggn, keep=True)(vector)
    assert made == [True, True] * 3  # two convolutions of three batches
    assert torch.allclose(found, matrix @ vector, rtol=1e-9, atol=1e-12)


def test_graphs_that_are_let_go_of_are_built_again() -> None:
    network, data = images()
    with evaluation(network, data) as lent:
        product = MatrixProduct(lent, measured(network), ggn=False, keep=True)
        vector = torch.randn(product.size, generator=seeded(2), dtype=torch.float64)
        first, passes = product(vector), lent.passes.forward
        product(vector)
        assert lent.passes.forward == passes
        product.release()
        assert torch.equal(product(vector), first)
        assert lent.passes.forward == passes + 5


def test_curvature_holds_no_graph_while_it_takes_gradients_of_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[int] = []
    products: list[MatrixProduct] = []
    begun, traced = MatrixProduct.__init__, traces.exact_gauss_newton

    def begin(self: MatrixProduct, *given: object, **options: object) -> None:
        products.append(self)
        begun(self, *given, **options)

    def trace(*given: object) -> object:
        held.extend(len(product._kept) for product in products)
        return traced(*given)

    monkeypatch.setattr(MatrixProduct, "__init__", begin)
    monkeypatch.setattr(traces, "exact_gauss_newton", trace)
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    data = tiny()[1]
    assert Curvature().measure(network, data).value("trace") is not None
    assert held == [0]
