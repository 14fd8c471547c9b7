"""A probe leaves no trace, also when it raises midway."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BUILDERS, case
from torch import nn

from trainscope.errors import ProbeError
from trainscope.probes.activity import Activity
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.probe import Probe
from trainscope.probes.subject.untouched import untouched
from trainscope.probes.tangent_kernel import TangentKernel

pytestmark = pytest.mark.usefixtures("one_thread")

LIGHT = {"top": 1, "tolerance": 0.1, "trace_vectors": 2}
PROBES: list[Probe] = [Gradient(), Jacobian(), Curvature(density_steps=3, **LIGHT)]
PROBES += [Curvature(ggn=True, density_vectors=0, **LIGHT)]
PROBES += [TangentKernel(samples=2), Activity()]


def state(network: nn.Module) -> list[object]:
    """Everything a probe may disturb, tensors as bytes, with the identity of what must stay."""
    out: list[object] = [torch.get_rng_state().tolist(), random.getstate()]
    legacy = np.random.get_state()  # noqa: NPY002
    out += [legacy[1].tolist(), legacy[2:]]
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        out.append((name, id(tensor), tensor.data_ptr(), tensor.stride(), tensor.requires_grad))
        out.append(tensor.detach().numpy().tobytes())
        out.append((id(tensor.grad), None if tensor.grad is None else tensor.grad.tolist()))
    for name, module in network.named_modules():
        keys = {k: id(v) for k, v in vars(module).items() if not isinstance(v, bool)}
        tables = [(k, [*v.items()]) for k, v in vars(module).items() if isinstance(v, dict)]
        plain = [(k, list(map(id, dict(v).values()))) for k, v in tables]
        out += [name, module.training, keys, [(k, list(dict(v))) for k, v in tables], plain]
    return out


def disturbed(name: str) -> tuple[nn.Module, object]:
    """A case with gradients, mixed modes and a hook."""
    one = case(name)
    network = one.network
    F.cross_entropy(network(one.data.inputs.clone()), one.data.labels).backward()
    first = next(iter(network.children()))
    first.eval()
    if name != "residual":  # with and without what keeps batch norm from being folded
        first.register_forward_hook(lambda module, args, out: None)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    return network, one.data


@pytest.mark.parametrize("probe", PROBES, ids=repr)
@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_is_left_behind(probe: Probe, name: str) -> None:
    network, data = disturbed(name)
    before = state(network)
    found = probe.measure(network, data)
    assert found.status == "ok"
    assert state(network) == before
    probe.estimate(network, data)
    assert state(network) == before


@contextmanager
def failing_at(call: int) -> Iterator[None]:
    """Make the call-th gradient computation raise."""
    plain, count = torch.autograd.grad, 0

    def grad(*args: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count == call:
            raise InjectedError
        return plain(*args, **options)

    torch.autograd.grad = grad
    try:
        yield
    finally:
        torch.autograd.grad = plain


class InjectedError(Exception):
    pass


@pytest.mark.parametrize("probe", PROBES[:-1], ids=repr)
@pytest.mark.parametrize("name", ["plain", "masked", "frozen"])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_nothing_is_left_behind_by_a_failure(probe: Probe, name: str, call: int) -> None:
    network, data = disturbed(name)
    before = state(network)
    with failing_at(call), pytest.raises(InjectedError):
        probe.measure(network, data)
    assert state(network) == before


@pytest.mark.parametrize("probe", PROBES, ids=repr)
def test_nothing_is_left_behind_by_a_network_that_raises(probe: Probe) -> None:
    network, data = disturbed("plain")
    calls: list[int] = []

    def hook(*_: object) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise InjectedError

    network.fc.register_forward_hook(hook)
    before = state(network)
    with pytest.raises(ProbeError, match=r"fails on a batch of .* in layer 'fc': InjectedError"):
        probe.measure(network, data)
    assert state(network) == before


def vandalise(network: nn.Module) -> None:
    """Do everything that a careless third-party probe might."""
    network.requires_grad_(False)
    network.train()
    network.conv1.register_forward_hook(lambda *_: None)
    network.conv1.weight.grad = torch.ones_like(network.conv1.weight)
    with torch.no_grad():
        network.conv1.weight.zero_()
    network.bn1.running_mean = torch.zeros(4)
    network.conv2.weight.data = torch.randn(4, 2, 3, 3)
    network.fc = nn.Identity()
    network.bn2.register_buffer("extra", torch.zeros(1))
    network.conv2.new_attribute = 1
    torch.manual_seed(9)
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002


@pytest.mark.parametrize("fail", [False, True])
def test_a_vandal_is_undone(fail: bool) -> None:
    network, _ = disturbed("plain")
    before = state(network)

    def work() -> None:
        with untouched(network) as lent:
            assert not lent.training
            assert all(p.grad is None for p in lent.parameters())
            vandalise(lent)
            if fail:
                raise InjectedError

    if fail:
        with pytest.raises(InjectedError):
            work()
    else:
        work()
    assert state(network) == before


def test_nan_bits_survive() -> None:
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.view(torch.int32)[0, 0] = 0x7FC00001 + 5
    before = network.weight.detach().view(torch.int32).clone()
    with untouched(network), torch.no_grad():
        network.weight.fill_(float("nan"))
    assert torch.equal(network.weight.detach().view(torch.int32), before)


@dataclass
class Counters:
    passes: int = 0
    seen: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    passes: int = 0


class Meter:
    """A plain class of the network's own file."""

    def __init__(self) -> None:
        self.total = torch.zeros(2)


class Holder(nn.Module):
    """Holds one of everything, and moves it in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(72, 3)
        self.generator = torch.Generator().manual_seed(3)
        self.numpy = np.random.default_rng(3)
        self.python = random.Random(3)
        self.plain = torch.zeros(1)
        self.array = np.zeros(2)
        self.values: list[object] = [torch.zeros(1), {"n": 0}]
        self.nested = {"a": {"n": 0, "t": (torch.zeros(1), [0])}}
        self.last = deque([0], maxlen=2)
        self.ids = {1}
        self.found: dict[str, list[int]] = defaultdict(list)
        self.space = SimpleNamespace(n=0)
        self.counters, self.slotted, self.meter = Counters(), Slotted(), Meter()
        self.unseen = [nn.Linear(2, 2)]  # not in the module tree

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand(1, generator=self.generator)
        self.numpy.random()
        self.python.random()
        self.plain += 1
        self.array += 1
        self.values[0].add_(1)
        self.values[1]["n"] += 1
        self.values.append(x.mean())
        self.nested["a"]["n"] += 1
        self.nested["a"]["t"][0].add_(1)
        self.nested["a"]["t"][1].append(1)
        self.nested["b"] = {}
        self.last.append(len(x))
        self.last.append(len(x))
        self.ids.add(len(x) + 7)
        self.found["x"].append(1)
        self.space.n += 1
        self.space.more = 1
        self.counters.passes += 1
        self.counters.seen.append(1)
        self.slotted.passes += 1
        self.meter.total += 1
        with torch.no_grad():
            self.unseen[0].weight.zero_()
        return self.fc(x.flatten(1))


def held(network: Holder) -> list[object]:
    return [
        network.generator.get_state().tolist(),
        network.numpy.bit_generator.state,
        network.python.getstate(),
        network.plain.tolist(),
        network.array.tolist(),
        [repr(value) for value in network.values],
        repr(network.nested),
        list(network.last),
        sorted(network.ids),
        dict(network.found),
        vars(network.space) | {},
        (network.counters.passes, list(network.counters.seen), network.slotted.passes),
        network.meter.total.tolist(),
        network.unseen[0].weight.tolist(),
        [id(network.values), id(network.values[0]), id(network.nested["a"]), id(network.last)],
    ]


@pytest.mark.parametrize("probe", PROBES[:3], ids=repr)
def test_what_modules_hold_comes_back(probe: Probe) -> None:
    network, data = Holder().double(), case("plain").data
    before = held(network)
    assert probe.measure(network, data).status == "ok"
    assert held(network) == before
    network(data.inputs)  # each of these is moved by a pass, or the test would show nothing
    assert all(a != b for a, b in zip(held(network)[:-1], before[:-1], strict=True))


def test_what_a_failing_network_holds_comes_back() -> None:
    class Failing(Holder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise InjectedError

    network, data = Failing().double(), case("plain").data
    before = held(network)
    with pytest.raises(ProbeError, match="InjectedError"):
        Gradient().measure(network, data)
    assert held(network) == before


def test_a_holder_of_itself_ends() -> None:
    network = nn.Linear(2, 1)
    network.me = {"self": network, "table": []}
    network.me["table"].append(network.me)
    with untouched(network):
        network.me["table"].append(1)
    assert network.me["table"] == [network.me]
