"""The pieces that the numerical probes are built of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import BUILDERS, Plain, Residual, case, seeded
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.gradients.sample_gradients import SampleGradients
from trainscope.probes.hessian.affine import not_affine
from trainscope.probes.jacobians import singular_values as singular
from trainscope.probes.subject.behaviour import checked_once
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.folding import ConvNorm, folded
from trainscope.probes.subject.footprint import footprint
from trainscope.probes.subject.parameters import measured

pytestmark = pytest.mark.usefixtures("one_thread")


def test_small_singular_values_survive_a_condition_of_1e8() -> None:
    count, size, places = 3, 6, 500
    exact = torch.logspace(0, -8, size, dtype=torch.float64)
    left, right = (
        torch.linalg.qr(torch.randn(count, n, size, dtype=torch.float64, generator=seeded(n))).Q
        for n in (size, places)
    )
    matrices = left @ torch.diag(exact) @ right.transpose(1, 2)
    found = singular.singular_values(matrices)
    assert float((found / exact - 1).abs().max()) < 1e-6
    gram = torch.linalg.eigvalsh(matrices @ matrices.transpose(1, 2)).flip(1).abs().sqrt()
    assert float((gram / exact - 1).abs().max()) > 1e-3  # what the Gram matrix would have lost


@pytest.mark.parametrize(
    "shape", [(5, 3, 200), (2, 3, 3), (4, 7, 2), (2, 1, 9), (1, 20, 81), (3, 4, 5)]
)
def test_blocks_change_nothing(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = torch.randn(shape, generator=seeded(1), dtype=torch.float64)
    expected = torch.linalg.svdvals(matrices)
    for size in (1, 4096, 2**24):
        monkeypatch.setattr(singular, "BLOCK_BYTES", size)
        assert torch.allclose(singular.singular_values(matrices), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "count"), [("plain", 2), ("residual", 2), ("masked", 2)])
def test_folding_keeps_the_function_and_its_derivatives(name: str, count: int) -> None:
    one = case(name)
    network = one.network.eval()
    model = folded(network, one.data.task, one.data.inputs[:2])
    assert sum(isinstance(module, ConvNorm) for module in model.modules()) == count
    parameters = list(network.parameters())
    grads = []
    for each in (network, model):
        loss = F.cross_entropy(each(one.data.inputs), one.data.labels)
        grads.append((loss, *torch.autograd.grad(loss, parameters)))
    for got, expected in zip(*grads, strict=True):
        assert torch.allclose(got, expected, rtol=0, atol=1e-13)


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Reused(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.bn1(x) + x  # the convolution's own output is used too
        return self.fc(F.relu(self.bn2(self.conv2(F.relu(x)))).mean((2, 3)))


def test_what_cannot_be_folded_is_left() -> None:
    one = case("plain")
    branching = Branching().double().eval()
    assert folded(branching, one.data.task, one.data.inputs[:2]) is branching
    model = folded(Reused().double().eval(), one.data.task, one.data.inputs[:2])
    assert sum(isinstance(module, ConvNorm) for module in model.modules()) == 1
    hooked = one.network.eval()
    hooked.bn1.register_forward_hook(lambda *_: None)
    assert folded(hooked, one.data.task, one.data.inputs[:2]) is hooked


def test_which_networks_are_affine_in_each_weight() -> None:
    for name, (_, piecewise_linear) in BUILDERS.items():
        one = case(name)
        assert (not_affine(one.network.eval()(one.data.inputs)) is None) == piecewise_linear


def test_what_is_not_affine_is_named() -> None:
    one = case("plain")
    assert "statistics of the batch" in not_affine(one.network.train()(one.data.inputs))
    one = case("tied")
    assert "more than once" in not_affine(one.network(one.data.inputs))
    one = case("attention")
    assert "LayerNorm" in not_affine(one.network(one.data.inputs))
    weight = torch.randn(3, 3, requires_grad=True)
    other = torch.randn(3, 3, requires_grad=True)
    assert not_affine(torch.relu(weight @ other)) is None
    assert not_affine(weight.T.contiguous() * weight) is not None
    assert not_affine(other / weight) is not None
    assert not_affine(weight / 3 + weight) is None
    assert not_affine(weight.sigmoid()) is not None


@pytest.mark.parametrize("name", BUILDERS)
def test_three_ways_to_one_sample_gradient(name: str) -> None:
    one = case(name)
    with evaluation(one.network, one.data) as lent:
        weights = measured(lent.network).used_by(lent.outputs(lent.some(0, 1)))
        gradients = SampleGradients(lent, weights, None)
        along = weights.keep(
            [torch.randn(t.shape, dtype=t.dtype, generator=seeded(2)) for t in weights.tensors]
        )
        if name in ("plain", "residual", "masked", "frozen", "unused"):
            assert gradients.method == "layer rules"

        def cotangents(logits: Tensor, _: object) -> list[list[Tensor]]:
            return [[logits.detach().softmax(1)], [logits.detach().sin()]]

        ways = [gradients(lent.batch, cotangents, along)]
        for method in ("vectorised", "one by one"):
            gradients.method = method
            ways.append(gradients(lent.batch, cotangents, along))
            assert gradients.method == method or name == "recurrent"  # vmap knows no GRU
    for squares, dots in ways[1:]:
        assert torch.allclose(squares, ways[0][0], rtol=1e-11, atol=1e-13)
        assert torch.allclose(dots, ways[0][1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("method", ["layer rules", "vectorised"])
@pytest.mark.parametrize("name", BUILDERS)
def test_one_pass_has_the_mean_and_the_products_with_it(name: str, method: str) -> None:
    one = case(name)
    data = replace(one.data, batch_size=len(one.data))

    def cotangents(logits: Tensor, _: object) -> list[list[Tensor]]:
        return [[logits.detach().sin()]]

    with evaluation(one.network, data) as lent:
        weights = measured(lent.network).used_by(lent.outputs(lent.some(0, 1)))
        gradients = SampleGradients(lent, weights, None)
        if method == "layer rules" and gradients.method != method:
            return  # it has layers without a rule
        gradients.method = method
        found = gradients.with_mean(lent.batch, cotangents)
        if found is None:
            assert gradients.method == "one by one"  # vmap knows no GRU
            return
        outputs = lent.outputs(lent.batch)
        mean = torch.autograd.grad(outputs, weights.tensors, outputs.detach().sin() / len(lent))
        gradients.method = "one by one"
        squares, dots = gradients(lent.batch, cotangents, weights.keep(mean))
    assert torch.allclose(found[0], squares, rtol=1e-11, atol=1e-13)
    assert torch.allclose(found[1], dots, rtol=1e-11, atol=1e-13)
    for got, expected in zip(found[2], weights.keep(mean), strict=True):
        assert torch.allclose(got.view_as(expected), expected, rtol=1e-11, atol=1e-13)


class Twice(Residual):
    """A layer whose weight is also used behind its back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.fc.weight.sum()


def test_rules_that_do_not_fit_are_not_used() -> None:
    one = case("residual")
    network = Twice().double()
    with evaluation(network, one.data) as lent:
        weights = measured(network).used_by(lent.outputs(lent.some(0, 1)))
        assert SampleGradients(lent, weights, None).method == "vectorised"


class ByValue(Plain):
    """What vmap cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if float(x.detach().abs().max()) > 0 else 2.0) + (
            self.fc.bias.sum()
        )


def test_networks_that_look_at_values_are_taken_one_by_one() -> None:
    one = case("plain")
    with evaluation(ByValue().double(), one.data) as lent:
        weights = measured(lent.network).used_by(lent.outputs(lent.some(0, 1)))
        gradients = SampleGradients(lent, weights, None)
        squares, _ = gradients(lent.batch, lambda z, _: [[z.detach().softmax(1)]])
        assert gradients.method == "one by one"
        assert squares.shape == (len(weights.names), len(lent))


def test_footprint_is_what_autograd_keeps() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )
    found = footprint(network, ProbeData("zeros", torch.zeros(7, 2, 6, 6)))
    assert found.classes == 5
    # The input, and the output of the convolution's ReLU, in float32.
    assert found.graph == 4 * (2 * 36 + 4 * 36)

    class Unfollowed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            """Look at a value, which the meta device does not have."""
            return super().forward(x if x.sum() >= 0 else -x)

    unfollowed = Unfollowed(*network)
    assert footprint(unfollowed, ProbeData("zeros", torch.zeros(7, 2, 6, 6))) == found
    assert footprint(network, ProbeData("", torch.zeros(7, 3, 6, 6))).graph is None


def test_flatten_and_unflatten_are_inverse() -> None:
    weights = measured(case("masked").network)
    vector = torch.randn(weights.survivors, dtype=torch.float64, generator=seeded(3))
    pieces = weights.unflatten(vector)
    assert torch.equal(weights.flatten(pieces), vector)
    assert all(torch.equal(a, b) for a, b in zip(weights.keep(pieces), pieces, strict=True))


class Counting(nn.Flatten):
    """Counts its calls, also those of copies."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return rows."""
        Counting.calls += 1
        return super().forward(x)


def test_a_network_is_followed_once_for_samples_of_one_shape() -> None:
    one, other = (nn.Sequential(Counting(), nn.Linear(4, 2)) for _ in range(2))
    data = ProbeData("", torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))
    square = ProbeData("", torch.randn(6, 2, 2), torch.zeros(6, dtype=torch.int64))

    def calls(network: nn.Module, data: ProbeData) -> int:
        before = Counting.calls
        footprint(network, data)
        return Counting.calls - before

    whole, each = footprint(one, data), calls(one, data)
    assert each > 0
    with checked_once():
        assert [calls(network, data) for network in (one, other, one)] == [each, each, 0]
        assert calls(one, data.first(2)) == 0
        assert footprint(one, data.first(2)) == whole
        assert calls(one, square) == each
    assert [calls(one, data), calls(one, data)] == [each, each]
