"""Networks, batches and losses as people outside write them, against dense float64 references."""

from __future__ import annotations

import copy
import re
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainscope
from trainscope.data import ProbeData
from trainscope.errors import TrainscopeError
from trainscope.probes.gradient import Gradient
from trainscope.probes.hooks import ProbeHook
from trainscope.sparsify import Action

SAMPLES, CLASSES = 16, 5
GENERATOR = torch.Generator().manual_seed(1)
INPUTS = torch.randn(SAMPLES, 6, generator=GENERATOR)
TOKENS = torch.randint(0, 20, (SAMPLES, 4), generator=GENERATOR)
LABELS = torch.randint(0, CLASSES, (SAMPLES,), generator=GENERATOR)


class Two(nn.Module):
    """Two layers; what is odd is in the classes below."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.c(torch.tanh(self.a(x)))


class WithInteger(Two):
    """Holds an integer parameter, as tables of indices are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.arange(3), requires_grad=False)


class WithLock(Two):
    """Holds what no copy can be made of, in a container too."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.held = threading.Lock(), {"locks": [threading.Lock()]}


class Autocast(Two):
    """Computes in bfloat16 by itself."""

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class Sparse(nn.Module):
    """Its embedding has sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.c = nn.Embedding(20, 6, sparse=True), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.c(torch.tanh(self.e(x)).mean(1))


class LossInside(Two):
    """Returns the loss of the batch, and nothing else."""

    def forward(self, x, y):
        return F.cross_entropy(super().forward(x), y)


class Divides(Two):
    """Takes bytes."""

    def forward(self, x):
        return super().forward(x.to(self.a.weight.dtype) / 255)


class Frozen(Two):
    """Runs its first part without gradients."""

    def forward(self, x):
        with torch.no_grad():
            hidden = torch.tanh(self.a(x))
        return self.c(hidden)


class Constant(Two):
    """Ignores its input."""

    def forward(self, x):
        return super().forward(torch.zeros_like(x))


class Complex(nn.Module):
    """Has complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 8, dtype=torch.cfloat), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.c(self.a(x.to(torch.cfloat)).abs())


def made(kind):
    torch.manual_seed(0)
    return kind()


def dense(network, reference):
    """Return the norm of the gradient and the top eigenvalue of the Hessian of a mean loss."""
    wide = copy.deepcopy(network).double()
    for module in wide.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = False
    weights = [p for p in wide.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(reference(wide), weights, create_graph=True)
    flat = torch.cat([slope.flatten() for slope in slopes])
    rows = [torch.autograd.grad(each, weights, retain_graph=True) for each in flat]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    return float(flat.detach().norm()), float(torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1])


def held_against(network, data, reference, tolerance=1e-4, **options):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = trainscope.measure(
        network, data=data, probes=["gradient", "curvature"], samples=SAMPLES, **options
    )
    norm, top = dense(network, reference)
    assert found["gradient"].value("norm") == pytest.approx(norm, rel=tolerance)
    assert found["curvature"].value("top_eigenvalue") == pytest.approx(top, rel=tolerance)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    return found


def cross_entropy(inputs=INPUTS):
    wide = inputs.double() if inputs.is_floating_point() else inputs
    return lambda wide_network: F.cross_entropy(wide_network(wide), LABELS)


@pytest.mark.parametrize("kind", [WithInteger, Sparse])
def test_odd_weights_are_measured(kind):
    inputs = TOKENS if kind is Sparse else INPUTS
    network = made(kind)
    held_against(network, [(inputs, LABELS)], cross_entropy(inputs))
    assert all(m.sparse for m in network.modules() if isinstance(m, nn.Embedding))


def test_what_cannot_be_copied_is_shared_and_the_rest_is_copied():
    network = made(WithLock)
    lock = network.lock
    held_against(made(Two), [(INPUTS, LABELS)], cross_entropy())
    found = trainscope.diagnose(
        network, action=Action("unstructured", ratio=0.5), data=[(INPUTS, LABELS)], samples=SAMPLES
    )
    assert found.probes["gradient"].after.status == "ok"
    assert network.lock is lock
    assert not any((p == 0).any() for p in network.parameters() if p.ndim == 2)


def test_attributes_with_tensors_that_cannot_be_copied_are_refused_by_name():
    class Cell:
        def __init__(self) -> None:
            self.tensor, self.lock = torch.zeros(3), threading.Lock()

    network = made(Two)
    network.cell = Cell()
    with pytest.raises(TrainscopeError, match=r"attribute 'cell' cannot .*: take that out of it"):
        trainscope.measure(network, data=[(INPUTS, LABELS)], samples=SAMPLES)


def test_a_network_that_computes_in_bfloat16_is_measured():
    held_against(made(Autocast), [(INPUTS, LABELS)], cross_entropy(), tolerance=1e-2)


def test_a_loss_that_the_network_returns_is_one_term():
    network = made(LossInside)
    found = held_against(
        network,
        [{"x": INPUTS, "y": LABELS}],
        lambda wide: wide(INPUTS.double(), LABELS),
        loss=lambda outputs, batch: outputs,
    )
    assert found["gradient"].scalars["snr"].value is None
    assert "one batch" in found["gradient"].notes["batch"]


def test_bytes_are_taken_by_a_network_that_takes_them():
    images = (INPUTS * 40 + 120).clamp(0, 255).to(torch.uint8)
    held_against(made(Divides), [(images, LABELS)], cross_entropy(images.double()))
    with pytest.raises(TrainscopeError, match=r"of torch.uint8: give floating-point inputs"):
        trainscope.measure(made(Two), data=[(images, LABELS)])


@pytest.mark.parametrize(
    "batch",
    [
        (INPUTS, F.one_hot(LABELS, CLASSES).float()),
        {"image": INPUTS, "label": LABELS, "name": ["a.png"] * SAMPLES},
    ],
    ids=["one-hot labels", "a dictionary with one tensor"],
)
def test_batches_of_other_makes_are_read(batch):
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    held_against(network, [batch], cross_entropy())


def test_a_jacobian_without_derivatives_is_no_zero():
    found = trainscope.measure(made(Frozen), data=[(INPUTS, LABELS)], probes=["jacobian"])
    assert found["jacobian"].status == "skipped"
    assert "no derivative by them" in (found["jacobian"].reason or "")
    constant = trainscope.measure(made(Constant), data=[(INPUTS, LABELS)], probes=["jacobian"])
    assert constant["jacobian"].value("mean_jsv") == 0


def test_complex_weights_leave_the_jacobian():
    network = made(Complex)
    found = trainscope.measure(network, data=[(INPUTS, LABELS)], samples=SAMPLES)
    for probe in ("gradient", "curvature"):
        assert "'a.weight' is complex" in (found[probe].reason or "")
    weight, bias = (part.detach().to(torch.cdouble) for part in network.a.parameters())
    head = copy.deepcopy(network.c).double()

    def forward(x):
        return head(F.linear(x.to(torch.cdouble), weight, bias).abs())

    rows = [torch.autograd.functional.jacobian(forward, x) for x in INPUTS.double()]
    true = torch.stack([torch.linalg.svdvals(row) for row in rows]).mean()
    assert found["jacobian"].value("mean_jsv") == pytest.approx(float(true), rel=1e-4)


def test_lazy_layers_are_refused_until_they_have_shapes():
    network = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(CLASSES))
    said = "'0.weight' has no shape yet.*: put a batch through the network first"
    with pytest.raises(TrainscopeError, match=said):
        trainscope.measure(network, data=[(INPUTS, LABELS)])
    with pytest.raises(TrainscopeError, match=said):
        Gradient().measure(network, ProbeData("r", INPUTS, LABELS))
    network(INPUTS)
    held_against(network, [(INPUTS, LABELS)], cross_entropy())


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ([(INPUTS, LABELS)], {"loss": nn.MSELoss}, r"class MSELoss: give one of it"),
        ([(INPUTS, F.one_hot(LABELS, CLASSES))], {}, r"labels.argmax\(1\)"),
        ([(INPUTS, torch.full((SAMPLES, CLASSES), 0.2))], {}, "loss=torch.nn.CrossEntropyLoss"),
        ([{"pixels": INPUTS, "label": LABELS}], {}, r"entries \('pixels'\) go to the arguments"),
    ],
)
def test_what_does_not_fit_says_what_to_do(data, options, said):
    with pytest.raises(TrainscopeError, match=said):
        trainscope.measure(made(Two), data=data, **options)


class IntegerFirst(nn.Module):
    """Its first parameter is a table of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.arange(3), requires_grad=False)
        self.two = Two()

    def forward(self, x):
        return self.two(x)


@pytest.mark.parametrize("kind", [IntegerFirst, Sparse])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_odd_weights_are_retrained(kind, optimizer):
    inputs = TOKENS if kind is Sparse else INPUTS
    data = ([(inputs.repeat(4, 1), LABELS.repeat(4))], [(inputs, LABELS)])
    found = trainscope.diagnose(
        made(kind),
        action=Action("unstructured", ratio=0.5, scope="all"),
        data=data,
        samples=SAMPLES,
        probes=["trainability_accuracy"],
        optimizer=optimizer,
        retrain_epochs=1,
    )
    for column in (
        found.probes["trainability_accuracy"].before,
        found.probes["trainability_accuracy"].after,
    ):
        assert 0 <= column.value("ta") <= 100


def test_sparse_gradients_train_as_dense_ones():
    data = ([(TOKENS.repeat(4, 1), LABELS.repeat(4))], [(TOKENS, LABELS)])
    dense_one = made(Sparse)
    dense_one.e.sparse = False
    options = {"data": data, "probes": ["trainability_accuracy"], "samples": SAMPLES}
    one, other = (
        trainscope.measure(network, retrain_epochs=2, **options)["trainability_accuracy"]
        for network in (made(Sparse), dense_one)
    )
    assert one.arrays == other.arrays


def test_complex_weights_are_ranked_by_no_criterion():
    with pytest.raises(TrainscopeError, match="weights of a are complex"):
        trainscope.diagnose(
            made(Complex),
            action=Action(ratio=0.5),
            data=[(INPUTS, LABELS)],
            samples=SAMPLES,
        )


def test_a_second_network_of_another_kind_is_refused():
    other = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, CLASSES))
    with pytest.raises(TrainscopeError, match=r"Sequential does not run on inputs of shape 6"):
        trainscope.diagnose(made(Two), after=other, data=[(INPUTS, LABELS)], samples=SAMPLES)


def test_a_hook_waits_for_shapes():
    network = nn.Sequential(nn.LazyLinear(8), nn.LazyLinear(CLASSES))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(TrainscopeError, match=r"'0.weight' has no shape yet"):
        ProbeHook(["gradient"], data=[(INPUTS, LABELS)]).attach(network, optimizer)


class ForgetsItself(nn.Module):
    """Holds batch norm in eval mode, by a `train` that returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.b, self.c = nn.Conv2d(4, 4, 3), nn.Linear(64, CLASSES)

    def train(self, mode=True):
        super().train(mode)
        self.n.eval()

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.n(self.a(x))))).flatten(1))


@pytest.mark.parametrize("action", [Action(ratio=0.5), Action("unstructured", ratio=0.5)])
def test_a_train_that_returns_nothing_does_no_harm(action):
    images = torch.randn(SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    network = made(ForgetsItself)
    found = trainscope.diagnose(
        network,
        action=action,
        data=([(images, LABELS)], [(images, LABELS)]),
        probes=["gradient", "trainability_accuracy"],
        samples=SAMPLES,
        retrain_epochs=1,
    )
    wide = copy.deepcopy(network).double()
    wide.eval()
    loss = F.cross_entropy(wide(images.double()), LABELS)
    slopes = torch.autograd.grad(loss, list(wide.parameters()))
    norm = float(torch.cat([slope.flatten() for slope in slopes]).norm())
    assert found.probes["gradient"].before.value("norm") == pytest.approx(norm, rel=1e-4)
    assert found.probes["trainability_accuracy"].after.status == "ok"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_has_no_numbers_or_cannot_be_looked_into_is_refused():
    with pytest.raises(TrainscopeError, match=r"'a.weight' is on the meta device"):
        trainscope.measure(made(Two).to("meta"), data=[(INPUTS, LABELS)])
    with pytest.raises(TrainscopeError, match=r"is TorchScript, into which nothing can look"):
        trainscope.measure(torch.jit.script(made(Two)), data=[(INPUTS, LABELS)])


class FailsInTraining(Two):
    """Wants what is only there in its own loop."""

    def forward(self, x):
        if self.training:
            raise KeyError("mixup")
        return super().forward(x)


def with_norm():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


@pytest.mark.parametrize(
    ("make", "train", "test", "said"),
    [
        (FailsInTraining, 64, LABELS, "the network fails on a training batch of 64: KeyError"),
        (Frozen, 64, LABELS, None),
        (with_norm, 1, LABELS, "the network fails on a training batch of 1: ValueError"),
        (Two, 64, LABELS + 2, "the loss fails on a test batch of 16: .*less than the network's"),
    ],
)
def test_what_fails_in_retraining_is_a_reason(make, train, test, said):
    data = ([(INPUTS.repeat(4, 1)[:train], LABELS.repeat(4)[:train])], [(INPUTS, test)])
    found = trainscope.measure(
        made(make), data=data, probes=["trainability_accuracy"], samples=SAMPLES
    )["trainability_accuracy"]
    if said is None:
        assert found.status == "ok"
    else:
        assert found.status == "skipped"
        assert re.match(said, found.reason or "")
