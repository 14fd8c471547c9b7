"""Curvature where double backward is missing or wrong, and gradients of unusual networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.dense import Dense
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import weight_norm

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.probe import Probe, attempt

pytestmark = pytest.mark.usefixtures("one_thread")


class Square(torch.autograd.Function):
    """x², whose second derivative torch takes for zero where its message should have been."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * g


class Severed(Square):
    """Its second derivative is wrong, and symmetric."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].detach() * g


class Proper(Square):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * g


class Half(Severed):
    """A gradient that is not one: no scalar has it, so its matrix is not symmetric."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.where(ctx.saved_tensors[0] > 0, 3, 1) * ctx.saved_tensors[0] ** 3 * g


class Net(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.act, self.fc = nn.Linear(5, 4), act, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.first(x)))


class Normed(nn.Module):
    """Weight norm written out, for the reference; the weights are the parametrisation's."""

    def __init__(self, normed: nn.Module) -> None:
        super().__init__()
        self.fused = normed

    def forward(self, x: Tensor) -> Tensor:
        layer = self.fused[0]
        g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        weight = g * v / v.square().sum(1, keepdim=True).sqrt()
        return self.fused[2](torch.tanh(F.linear(x, weight, layer.bias)))


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.centres = nn.Linear(5, 4), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.fc(x), self.centres)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().double()


def normed() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3))


@pytest.fixture
def data() -> ProbeData:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    return ProbeData("n", inputs, torch.randint(0, 3, (12,), generator=generator), batch_size=5)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], str]] = {
    "hardsigmoid": (
        lambda: Net(nn.Hardsigmoid()),
        lambda n: _with(n, lambda x: F.relu6(x + 3) / 6),
        "hardsigmoid_backward is not implemented",
    ),
    "once": (lambda: Net(Square.apply), lambda n: _with(n, torch.square), "Square is "),
    "severed": (lambda: Net(Severed.apply), lambda n: _with(n, torch.square), "Severed is "),
    "weight norm": (normed, Normed, "not symmetric"),
}


def _with(network: nn.Module, act: Callable[[Tensor], Tensor]) -> nn.Module:
    plain = Net(act).double()
    plain.load_state_dict(network.state_dict())
    return plain


@pytest.mark.parametrize("ggn", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_differences_stand_in_for_double_backward(kind: str, ggn: bool, data: ProbeData) -> None:
    build, written_out, words = CASES[kind]
    network = seeded(build)
    reference = Dense(written_out(network), data.inputs, data.labels)
    matrix = reference.ggn() if ggn else reference.hessian()
    eigenvalues = torch.linalg.eigvalsh(matrix)
    for each, tolerance in ((network, 1e-6), (seeded(build).float(), 1e-3)):
        probe = Curvature(top=1, tolerance=1e-6, density_vectors=0, ggn=ggn)
        found = probe.measure(each, data)
        assert found.status == "ok", found.reason
        if not ggn or kind == "hardsigmoid":  # the Gauss-Newton matrix has first derivatives only
            assert words in found.notes["products"]
            assert "relative error" in found.notes["products"]
        top = found.scalars["top_eigenvalue"]
        assert top.value == pytest.approx(float(eigenvalues[-1]), rel=tolerance)
        trace = found.scalars["trace"]
        room = 4 * (trace.stderr or 0) + tolerance * float(eigenvalues.abs().sum())
        assert abs(trace.value - float(eigenvalues.sum())) <= room


@pytest.mark.parametrize(
    "build",
    [lambda: Net(Proper.apply), Distances, lambda: Net(torch.tanh)],
    ids=["custom", "distances", "tanh"],
)
def test_double_backward_that_is_right_is_used(
    build: Callable[[], nn.Module], data: ProbeData
) -> None:
    network = seeded(build)
    found = Curvature(tolerance=1e-6).measure(network, data)
    assert "products" not in found.notes
    top = torch.linalg.eigvalsh(Dense(network, data.inputs, data.labels).hessian())[-1]
    assert found.value("top_eigenvalue") == pytest.approx(float(top), rel=1e-6)


def test_what_is_no_matrix_is_skipped_and_the_rest_stands(data: ProbeData) -> None:
    class OneDtype(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(nn.Hardsigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return self.net.float()(x.float())

    found = Curvature().measure(seeded(lambda: Net(Half.apply)), data)
    assert found.status == "skipped"
    assert "do no better: the products" in found.reason
    found = Curvature().measure(OneDtype(), replace(data, inputs=data.inputs.float()))
    assert found.status == "skipped"
    assert "dtype" in found.reason
    for network in (seeded(lambda: Net(Half.apply)), OneDtype()):
        for probe in (Gradient(), Jacobian()):
            assert attempt(probe, network, data).status == "ok"


def test_a_backward_pass_that_does_not_exist_is_a_reason(data: ProbeData) -> None:
    def clobbering(x: Tensor) -> Tensor:
        y = x.exp()
        return y + y.mul_(2)  # torch cannot differentiate what was written over

    for probe in (Gradient(), Jacobian(), Curvature()):
        found = attempt(probe, Net(clobbering).double(), data)
        assert found.status == "skipped"
        assert "inplace operation" in found.reason


class Scaled(nn.Module):
    """A parameter without dimensions, in a network that vmap follows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.logit_scale = nn.Linear(5, 3), nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.logit_scale.exp()


def test_a_parameter_without_dimensions(data: ProbeData) -> None:
    network = seeded(Scaled)
    found = Gradient().measure(network, data)
    each = Dense(network, data.inputs, data.labels).sample_gradients()
    assert found.value("norm") == pytest.approx(float(each.mean(0).norm()), rel=1e-10)
    assert found.arrays["sample_norms"] == pytest.approx(each.norm(dim=1).tolist(), rel=1e-10)
    assert "logit_scale" in found.arrays["layers"]


@pytest.mark.parametrize("classes", [3, 200])
def test_one_by_one_with_many_samples_and_classes(classes: int, data: ProbeData) -> None:
    """Each sample gets its own label, also where vmap cannot follow."""

    class ByValue(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            scale = 1.0 if float(x.detach().abs().max()) > 0 else 2.0
            return F.linear(x, self.weight.sin(), self.bias) * scale  # which no rule covers

    network = seeded(lambda: nn.Sequential(ByValue(5, 4), nn.Tanh(), ByValue(4, classes)))
    found = Gradient().measure(network, data)
    assert found.notes["per-sample gradients"] == "one by one"
    each = Dense(network, data.inputs, data.labels).sample_gradients()
    assert found.arrays["sample_norms"] == pytest.approx(each.norm(dim=1).tolist(), rel=1e-10)


def test_nothing_to_differentiate_by(data: ProbeData) -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3] * 2

    frozen = seeded(Scaled).requires_grad_(False)
    for network in (Bare(), frozen):
        for probe in (Gradient(), Curvature()):
            found = probe.measure(network, data)
            assert (found.status, "trainable" in found.reason) == ("skipped", True)
        assert Jacobian().measure(network, data).status == "ok"
    assert Jacobian().measure(Bare(), data).value("mean_jsv") == pytest.approx(2)


@pytest.mark.parametrize("probe", [Gradient(), Curvature()], ids=lambda p: p.name)
def test_a_constant_loss_is_told(probe: Probe, data: ProbeData) -> None:
    data = replace(data, labels=torch.zeros(12, dtype=torch.int64))
    found = probe.measure(nn.Linear(5, 1), data)
    assert found.status == "skipped"
    assert "one output, whose softmax is always 1" in found.reason
    assert not found.scalars
    assert Jacobian().measure(nn.Linear(5, 1), data).status == "ok"


@pytest.mark.parametrize("size", [1e19, 1.6e38])
def test_numbers_too_large_for_float32_are_a_reason(size: float, data: ProbeData) -> None:
    """Logits are finite; the loss or a square of the gradient is not."""
    network = nn.Linear(5, 3)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3, 5) * size)
    inputs = data.inputs.sign() * (size if size < 1e30 else 2)
    found = Gradient().measure(network, replace(data, inputs=inputs))
    assert found.status == "non-finite values"
    assert "infini" in found.reason
    assert not found.scalars
    json.dumps(
        Curvature().measure(network, replace(data, inputs=inputs)).to_json(), allow_nan=False
    )


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda x: (x, x), "returns 2 parts .* none is called 'logits'"),
        (lambda x: {"a": x, "b": x}, "returns a dictionary of 'a', 'b'"),
        (lambda x: x.sum(), r"returns \(\) for"),
        (lambda x: x[:, None], r"returns \(8, 1, 5\)"),
        (lambda x: x[1:], r"returns \(7, 5\) for 8"),
    ],
)
def test_what_is_not_logits_is_said(
    network: Callable[[Tensor], object], words: str, data: ProbeData
) -> None:
    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> object:
            return network(x)

    for probe in (Gradient(), Jacobian(), Curvature()):
        with pytest.raises(ProbeError, match=words):
            probe.measure(Wrapped(), data)
        found = attempt(probe, Wrapped(), data)
        assert (found.status, "wrap" in found.reason) == ("skipped", True)


def test_a_squeezed_batch_of_one_is_taken(data: ProbeData) -> None:
    class Squeezing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze()

    plain, squeezing = nn.Linear(5, 3).double(), Squeezing(5, 3).double()
    squeezing.load_state_dict(plain.state_dict())
    told = ((Gradient(), "norm"), (Jacobian(), "mean_jsv"), (Curvature(), "top_eigenvalue"))
    for probe, number in told:
        for size in (1, 5):
            sized = replace(data, batch_size=size)
            assert probe.measure(squeezing, sized).value(number) == pytest.approx(
                probe.measure(plain, sized).value(number)
            )
            assert probe.measure(squeezing, sized).status == "ok"


def test_bugs_pass() -> None:
    class Buggy(Gradient):
        def measure(self, network: nn.Module, data: ProbeData) -> Any:
            raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        attempt(Buggy(), nn.Linear(1, 1), ProbeData("x", torch.zeros(1, 1)))
