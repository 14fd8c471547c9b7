"""What a search for eigenvalues has to say when it is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainscope import pace
from trainscope.data import ProbeData, TensorSplit
from trainscope.diagnosis import clock, examine
from trainscope.pace import CUT
from trainscope.probes.curvature import Curvature
from trainscope.probes.hessian.eigenvalues import TELLS, Eigenvalues, largest_eigenvalues
from trainscope.probes.hessian.few_vectors import PlainLanczos
from trainscope.probes.hessian.lanczos import Lanczos
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.records import Measurement, Status
from trainscope.records.retrained import retrained
from trainscope.report.rows import reasons
from trainscope.sparsify import Action
from trainscope.training.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread")

ENDS = [KeyboardInterrupt, pace.OverTimeError]
SIZE = 400


@dataclass
class Ending:
    """A diagonal matrix whose product ends in its own way after so many."""

    values: Tensor
    after: int
    ends: type[BaseException]
    made: int = 0

    def __call__(self, vector: Tensor) -> Tensor:
        if self.made == self.after:
            raise self.ends
        self.made += 1
        return self.values * vector


def matrix(seed: int) -> Tensor:
    """Return eigenvalues as networks have them: most near zero, and few large ones."""
    drawn = torch.Generator().manual_seed(seed)
    bulk = torch.randn(SIZE - 5, generator=drawn, dtype=torch.float64).abs() ** 3
    top = 20 + 80 * torch.rand(5, generator=drawn, dtype=torch.float64)
    return torch.cat([bulk, top])


def search(product: Callable[[Tensor], Tensor], seed: int, **options: Any) -> Eigenvalues:
    drawn = torch.Generator().manual_seed(1000 + seed)
    start = torch.randn(SIZE, generator=drawn, dtype=torch.float64)
    given = {"tolerance": 1e-9, "generator": drawn, "dtype": torch.float64, **options}
    return largest_eigenvalues(product, start, 1, **given)


def taking() -> pace.Pace:
    return pace.Pace(1e9, partial=True)


@pytest.mark.parametrize("ends", ENDS)
def test_a_search_that_is_cut_short_says_what_its_products_say(ends: type[BaseException]) -> None:
    values = matrix(0)
    with pace.paced(taking()) as work:
        found = search(Ending(values, 4, ends), 0)
        assert pace.was_cut_short()
    assert isinstance(work.cut, ends)
    whole = search(lambda v: values * v, 0, most_steps=4)
    assert found.cut
    assert not found.converged
    assert not whole.cut
    assert found.krylov.steps == 4
    assert found.values[0] == whole.values[0]
    assert found.errors[0] == whole.errors[0] > 0


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("after", range(TELLS))
def test_too_few_products_say_nothing(after: int, ends: type[BaseException]) -> None:
    with pytest.raises(ends), pace.paced(taking()) as work:
        search(Ending(matrix(0), after, ends), 0)
    assert work.cut is None


def test_nobody_who_asks_for_no_part_gets_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        search(Ending(matrix(0), 5, KeyboardInterrupt), 0)
    with pytest.raises(KeyboardInterrupt), pace.paced(pace.Pace(1e9)):
        search(Ending(matrix(0), 5, KeyboardInterrupt), 0)


def test_a_second_interruption_is_not_held_back() -> None:
    with pace.paced(pace.Pace(1e9, deadline=1.0, partial=True)) as work:
        pace.cut_short(pace.OverTimeError())
        assert work.deadline is None
        with pytest.raises(KeyboardInterrupt):
            pace.cut_short(KeyboardInterrupt())
        assert isinstance(work.cut, pace.OverTimeError)
    assert not pace.was_cut_short()


def test_an_interruption_after_the_product_adds_no_half_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes while the product is made orthogonal, or between a step's two numbers."""
    values, real, calls = matrix(0), Lanczos._orthogonalise, [0]

    def ending(self: Lanczos, rest: Tensor, parts: Tensor) -> float:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return real(self, rest, parts)

    monkeypatch.setattr(Lanczos, "_orthogonalise", ending)
    with pace.paced(taking()):
        found = search(lambda v: values * v, 0)
    monkeypatch.undo()
    assert found.krylov.steps == 4
    assert found.values[0] == search(lambda v: values * v, 0, most_steps=4).values[0]


def test_two_vectors_add_no_half_of_a_step_either(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Curvature(top=1, lean=True, density_vectors=0, tolerance=1e-9)
    real, calls = PlainLanczos._scale, [0]

    def ending(self: PlainLanczos) -> float:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(PlainLanczos, "_scale", ending)
    with pace.paced(taking()):
        found = probe.measure(*pinned())
    monkeypatch.undo()
    whole = replace(probe, most_products=4).measure(*pinned())
    assert "4 products" in found.notes["eigenvalues"]
    assert found.value("top_eigenvalue") == whole.value("top_eigenvalue")


@pytest.mark.parametrize("after", [3, 4, 6, 8])
def test_errors_of_what_was_cut_short_hold(after: int) -> None:
    held = []
    for seed in range(60):
        values = matrix(seed)
        with pace.paced(taking()):
            found = search(Ending(values, after, KeyboardInterrupt), seed)
        held.append(0 <= float(values.max()) - found.values[0] <= 2 * found.errors[0])
    assert np.mean(held) >= 0.9


def pinned() -> tuple[nn.Module, ProbeData]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).double().eval()
    inputs = torch.randn(16, 6, dtype=torch.float64)
    return network, ProbeData("random", inputs, torch.arange(16) % 4, batch_size=16)


@dataclass
class Clock:
    """A pace that ends the work at its n-th tick."""

    ends: type[BaseException]
    at: int
    ticks: int = field(default=0)

    def tell(self, share: float) -> None:
        self.ticks += 1
        if self.ticks == self.at:
            raise self.ends


@contextmanager
def ending(ends: type[BaseException], at: int) -> Iterator[pace.Pace]:
    work = pace.Pace(1e9, tell=Clock(ends, at).tell, partial=True)
    with pace.paced(work):
        yield work


def _whole(probe: Curvature) -> tuple[Measurement, int]:
    """Return what a probe measures in peace, and in how many ticks."""
    clock = Clock(KeyboardInterrupt, -1)
    with pace.paced(pace.Pace(1e9, tell=clock.tell)):
        found = probe.measure(*pinned())
    return found, clock.ticks


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("lean", [False, True])
def test_curvature_that_is_cut_short_keeps_what_it_has(
    lean: bool, ends: type[BaseException]
) -> None:
    """Wherever that happens, what is told is true, and what is not says why."""
    settings = Settings(optimizer="adam")
    probe = Curvature(top=1, lean=lean, blocks=True, settings=settings, warmup=2, density_steps=6)
    whole, ticks = _whole(probe)
    truth = whole.value("top_eigenvalue")
    assert truth is not None
    seen = set()
    for at in range(1 + ENDS.index(ends), ticks + 1, 5):
        try:
            with ending(ends, at) as work:
                found = probe.measure(*pinned())
        except ends:
            seen.add("nothing")
            continue
        assert work.cut is not None
        scalars = found.scalars
        top = scalars["top_eigenvalue"]
        assert top.value is not None
        assert top.stderr is not None
        assert abs(top.value - truth) <= 2 * top.stderr + 1e-9
        missing = {name for name, scalar in scalars.items() if scalar.reason == CUT}
        if found.status is Status.NOT_CONVERGED:
            assert "cut short" in (found.reason or "")
            assert "density_x" not in found.arrays
            assert "max_stable_lr_adam" in missing or lean
            seen.add("eigenvalue")
        if "trace" in missing:
            assert scalars["trace"].value is None
            seen.add("no trace")
        if "cut short" in found.notes["blocks"]:
            assert len(found.arrays.get("blocks", [])) < len(whole.arrays["blocks"])
            seen.add("blocks")
        if "max_stable_lr_adam" in missing:
            seen.add("adam")
    expected = {"nothing", "eigenvalue", "blocks"}
    assert seen >= (expected if lean else expected | {"no trace", "adam"})


def halves() -> tuple[nn.Module, ProbeData]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(96, 1, 4, 4)
    labels = (inputs.mean((1, 2, 3)) > 0).long()
    train = TensorSplit(inputs[:64], labels[:64], (0.0,), (1.0,))
    test = TensorSplit(inputs[64:], labels[64:], (0.0,), (1.0,))
    return network, ProbeData("made up", inputs[:8], labels[:8], train=train, test=test)


@pytest.mark.parametrize("ends", ENDS)
def test_retraining_that_is_cut_short_keeps_the_learning_rates_that_are_done(
    ends: type[BaseException],
) -> None:
    probe = TrainabilityAccuracy(epochs=2, lrs=(0.1, 0.01), settings=Settings(batch_size=16))
    clock = Clock(KeyboardInterrupt, -1)
    with pace.paced(pace.Pace(1e9, tell=clock.tell)):
        whole = probe.measure(*halves())
    first = replace(probe, lrs=(0.1,)).measure(*halves())
    seen = set()
    for at in range(1, clock.ticks + 1):
        network, data = halves()
        try:
            with ending(ends, at):
                found = probe.measure(network, data)
        except ends:
            seen.add("nothing")
            continue
        finally:
            assert all(map(torch.equal, network.parameters(), halves()[0].parameters()))
        assert found.value("start_accuracy") == whole.value("start_accuracy")
        assert found.scalars["ta@1e-2"].reason == CUT
        lrs = retrained(found).lrs
        seen.add(len(lrs))
        if lrs:
            assert {**found.arrays, **first.arrays} == found.arrays
            assert found.notes == first.notes
            assert found.value("ta@1e-1") == found.value("ta") == whole.value("ta@1e-1")
        else:
            assert found.scalars["ta"].reason == CUT
            assert found.notes["tested"].endswith("not retrained")
    assert seen == {"nothing", 0, 1}


@pytest.mark.parametrize("ends", ENDS)
def test_a_diagnosis_shows_what_the_column_at_hand_had(
    ends: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = pinned()
    loader = [(data.inputs, data.labels)]
    probe = Curvature(top=1, density_vectors=0)
    real, count = Curvature.measure, [0]

    def measure(self: Curvature, network: nn.Module, data: ProbeData) -> Measurement:
        count[0] += 1
        if count[0] < 2:
            return real(self, network, data)
        work = pace._PRESENT.get()
        assert work is not None
        work.tell = Clock(ends, 12).tell
        return real(self, network, data)

    monkeypatch.setattr(Curvature, "measure", measure)
    monkeypatch.setattr(clock, "SPEED", 1e-3)
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 1e9)
    action = Action(structure="unstructured", ratio=0.5, scope="all")
    found = examine(network, action=action, data=loader, probes=[probe], budget=1.0)
    columns = found.diagnosis.probes["curvature"]
    assert found.interrupted == (ends is KeyboardInterrupt)
    assert columns.before.status is Status.OK
    assert columns.after is not None
    assert columns.after.status is Status.NOT_CONVERGED
    assert columns.after.value("top_eigenvalue") is not None
    said = reasons(found.diagnosis)
    assert any(line.startswith("Loss curvature (after): not converged: after ") for line in said)


def test_a_trace_that_nobody_asked_for_was_left_out_and_not_cut_short() -> None:
    probe = Curvature(top=1, density_vectors=0, trace_vectors=0)
    _, ticks = _whole(probe)
    with ending(KeyboardInterrupt, ticks - 1) as work:
        found = probe.measure(*pinned())
    assert work.cut is not None
    assert "left out" in (found.scalars["trace"].reason or "")
