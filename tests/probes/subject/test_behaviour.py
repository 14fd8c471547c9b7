"""Networks that do not do what probes rely on are found out, named, and measured as they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BUILDERS, Plain, case
from reference.dense import Dense
from torch import Tensor, nn

from trainscope.data import ProbeData, TensorSplit
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.probe import Probe
from trainscope.probes.subject.behaviour import behaviour_of, checked_once
from trainscope.probes.subject.untouched import untouched
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy

pytestmark = pytest.mark.usefixtures("one_thread")

PROBES: list[Probe] = [Gradient(), Jacobian(), Curvature()]


class Small(nn.Module):
    """Convolution, something, ReLU, mean, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.odd = nn.Identity()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.odd(self.conv(x))).mean((2, 3)))


class Always(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3)


class Depth(nn.Module):
    """Stochastic depth that is rare, from any source of random numbers."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 if self.draw() < 0.3 else x


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.state = {"generators": [torch.Generator().manual_seed(1)]}

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape, generator=self.state["generators"][0])


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * self.seen


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.detach().abs().max()


class Shifted(nn.Module):
    """Each sample gets something of the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * x.roll(1, 0)


class Numbered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(1, len(x) + 1).view(-1, 1, 1, 1)


class Late(nn.Module):
    """Only samples behind the third get something of another."""

    def forward(self, x: Tensor) -> Tensor:
        return x if len(x) < 5 else torch.cat([x[:3], x[3:] + 0.3 * x[:1]])


class Rare(nn.Module):
    """What the last sample of several becomes is another thing in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = [0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        scale = torch.ones(len(x), 1, 1, 1)
        scale[-1] = 1 + (self.calls[0] if len(x) > 1 else 1)
        return x * scale


class Pairs(nn.Module):
    """Does not take one sample."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            raise ValueError("at least two views")
        return x + x.mean(0)


RANDOM = {
    "functional dropout": (Always, "the layer 'odd' (Always) draws random"),
    "torch": (lambda: Depth(lambda: float(torch.rand(()))), "the layer 'odd' (Depth) draws"),
    "python": (lambda: Depth(random.random), "the layer 'odd' (Depth) draws"),
    "numpy": (lambda: Depth(np.random.rand), "the layer 'odd' (Depth) draws"),
    "own generator": (Own, "the layer 'odd' (Own) draws"),
    "state": (Counting, "the layer 'odd' (Counting) keeps a state"),
    "state, of one sample": (Rare, "the layer 'odd' (Rare) keeps a state"),
}
COUPLED = {
    "batch norm": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        "the layer 'odd' (BatchNorm2d without running statistics) mixes them",
    ),
    "centred": (Centred, "the layer 'odd' (Centred) mixes them"),
    "largest": (Largest, "the layer 'odd' (Largest) mixes them"),
    "shifted": (Shifted, "the layer 'odd' (Shifted) mixes them"),
    "numbered": (Numbered, "the layer 'odd' (Numbered) mixes them"),
    "late": (Late, "the layer 'odd' (Late) mixes them"),
    "pairs": (Pairs, "a batch of one is not taken"),
}


def with_odd(odd: nn.Module, samples: int = 6, **options: int) -> tuple[nn.Module, ProbeData]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small()
        network.odd = odd
        inputs = torch.randn(samples, 2, 6, 6)
        labels = torch.randint(0, 3, (samples,))
    return network.double().eval(), ProbeData("odd", inputs.double(), labels, **options)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_network_is_refused_and_its_layer_named(kind: str) -> None:
    build, words = RANDOM[kind]
    network, data = with_odd(build())
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    for probe in PROBES:
        found = probe.measure(network, data)
        assert found.status == "skipped"
        assert words in found.reason, found.reason
        assert not found.scalars


def test_the_forward_method_itself_is_named() -> None:
    class Net(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.dropout(F.relu(self.conv(x)).mean((2, 3)), 0.5))

    found = Gradient().measure(Net(), with_odd(nn.Identity())[1])
    assert "the forward method of Net draws random" in found.reason


def test_random_numbers_without_effect_are_said_and_do_no_harm() -> None:
    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            return x

    network, data = with_odd(Drawing())
    plain, _ = with_odd(nn.Identity())
    for probe in PROBES:
        found = probe.measure(network, data)
        assert found.status == "ok"
        assert "changed no output" in found.notes["random"]
        assert found.scalars == probe.measure(plain, data).scalars


@pytest.mark.parametrize("kind", COUPLED)
def test_samples_that_depend_on_each_other_are_named(kind: str) -> None:
    build, words = COUPLED[kind]
    network, data = with_odd(build())
    found = Gradient().measure(network, data)
    assert found.status == "ok"
    assert words in found.notes["batch"], found.notes["batch"]
    assert "running statistics" not in found.notes["mode"]
    for name in ("norm_unbiased", "snr", "noise_scale"):
        assert "depends on its batch" in found.scalars[name].reason
    assert "sample_norms" not in found.arrays


@pytest.mark.parametrize("kind", ["batch norm", "centred", "shifted"])
def test_a_coupled_network_is_measured_as_one_batch(kind: str) -> None:
    """Against dense references of the whole batch, with any batch size."""
    network, data = with_odd(COUPLED[kind][0]())
    dense = Dense(network, data.inputs, data.labels)
    point = dense.point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(dense.loss_at(point), point)
    inputs = data.inputs.clone()
    full = torch.autograd.functional.jacobian(lambda x: dense.network(x.clone()), inputs)
    own = torch.stack([full[i, :, i].flatten(1) for i in range(len(inputs))])
    for size in (1, 4, 128):
        sized = replace(data, batch_size=size)
        found = Gradient().measure(network, sized)
        assert found.value("norm") == pytest.approx(float(gradient.norm()), rel=1e-10)
        assert found.value("loss") == pytest.approx(float(dense.loss_at(dense.point)), rel=1e-10)
        found = Jacobian().measure(network, sized)
        assert found.value("mean_jsv") == pytest.approx(
            float(torch.linalg.svdvals(own).mean()), rel=1e-10
        )
        assert found.scalars["mean_jsv"].stderr is None
    eigenvalues = torch.linalg.eigvalsh(dense.hessian())
    found = Curvature(tolerance=1e-6).measure(network, replace(data, batch_size=2))
    assert found.value("top_eigenvalue") == pytest.approx(float(eigenvalues[-1]), rel=1e-6)
    trace = found.scalars["trace"]
    assert abs(trace.value - float(eigenvalues.sum())) <= 4 * (trace.stderr or 1e-9)
    assert "mixes them" in found.notes["trace"]


@pytest.mark.parametrize("name", BUILDERS)
def test_ordinary_networks_are_neither(name: str) -> None:
    one = case(name)
    network = one.network.float()
    with untouched(network):
        data = replace(one.data, inputs=one.data.inputs.float())
        found = behaviour_of(network, data.batch, data)
    assert (found.random, found.coupled, found.draws) == (None, None, False)


def test_rounding_that_grows_is_no_coupling() -> None:
    """Statistics as stale as after a cut make float32 depend on how many samples there are."""

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype == torch.float32:  # a kernel that rounds otherwise for one sample
                return x * (1 + (1e-3 if len(x) == 1 else 0))
            return x

    network, data = with_odd(Noisy())
    found = Gradient().measure(network.float(), data)
    assert found.status == "ok"
    assert "batch" not in found.notes


def test_a_network_is_looked_at_once_for_all_probes() -> None:
    class Watched(Plain):
        passes: list[int] = []  # noqa: RUF012

        def forward(self, x: Tensor) -> Tensor:
            if x.device.type != "meta":
                self.passes.append(len(x))
            return super().forward(x)

    one = case("plain", samples=10)
    network = Watched().double().eval()

    def spent(probe: Probe) -> int:
        Watched.passes.clear()
        probe.measure(network, one.data)
        return sum(Watched.passes)

    alone = spent(Jacobian())
    with checked_once():
        first, second = spent(Jacobian()), spent(Jacobian())
        other = Watched().double().eval()
        with untouched(other):
            assert behaviour_of(other, one.data.batch, one.data).classes == 3
    assert alone == first
    # Eight samples, these again in three parts, and one for what so light a network leaves.
    assert first - second == 8 + 1 + 1 + 6 + 1


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_the_pinned_samples_stay_what_they_are(probe: Probe) -> None:
    one = case("writing")
    before = one.data.inputs.clone()
    first = probe.measure(one.network, one.data)
    assert torch.equal(one.data.inputs, before)
    assert probe.measure(one.network, one.data).scalars == first.scalars


def halves(samples: int = 12) -> tuple[TensorSplit, TensorSplit]:
    data = case("writing", samples=samples).data
    split = TensorSplit(data.inputs.float(), data.labels, (0.0, 0.0), (1.0, 1.0))
    return split, split


def test_trainability_of_networks_that_are_odd() -> None:
    train, test = halves()
    data = replace(case("writing").data, train=train, test=test)
    probe = TrainabilityAccuracy(epochs=1)
    found = probe.measure(case("writing").network.float(), data)
    assert found.status == "ok"
    assert torch.equal(train.inputs, halves()[0].inputs)
    network, _ = with_odd(Always())
    found = probe.measure(network.float(), data)
    assert found.status == "ok"
    assert "the layer 'odd' (Always) draws random" in found.notes["random"]
    network, _ = with_odd(Centred())
    assert "batches of 512" in probe.measure(network.float(), data).notes["batch"]
    broken, _ = with_odd(nn.Identity())
    with torch.no_grad():
        broken.fc.bias[0] = float("inf")
    found = probe.measure(broken.float(), data)
    assert found.status == "non-finite values"
    assert found.value("start_accuracy") is None
    assert "NaN or infinite" in found.scalars["start_accuracy"].reason
    one_output = nn.Sequential(nn.Flatten(), nn.Linear(72, 1))
    found = probe.measure(one_output, replace(data, labels=torch.zeros_like(data.labels)))
    assert (found.status, "one output" in found.reason) == ("skipped", True)
