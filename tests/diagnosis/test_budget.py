"""Measuring within a budget of time: what is measured in part, and what stays when time is up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from trainscope import diagnose, pace
from trainscope.data import ProbeData
from trainscope.diagnosis import budget, clock, effort, examine
from trainscope.diagnosis.effort import Effort, pass_seconds
from trainscope.errors import ProbeError
from trainscope.probes import trainability_accuracy
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.probe import Need, Probe
from trainscope.records import Cost, Diagnosis, Measurement, Scalar
from trainscope.report.page.diagnosis_page import diagnosis_page
from trainscope.report.table import diagnosis_table

pytestmark = pytest.mark.usefixtures("one_thread")


def _net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * 16, 5),
        )  # fmt: skip


def _loader(count: int = 64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 1, 8, 8, generator=generator)
    return [(inputs, torch.arange(count) % 5)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("2m", 120),
        ("1.5h", 5400),
        ("3", 3),
        (7.5, 7.5),
        (1e-6, 1e-6),
        ("2 min", 120),
        (".5m", 30),
    ],
)
def test_budgets_are_read(text: str | float, seconds: float) -> None:
    assert clock.parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["none", None, "None"])
def test_no_budget_is_no_limit(text: str | None) -> None:
    assert clock.parse_budget(text) is None


@pytest.mark.parametrize("text", ["", "soon", "-1m", "0", "1e99", "2 weeks", "nan"])
def test_no_budgets_are_refused(text: str) -> None:
    with pytest.raises(ProbeError, match="is no budget"):
        clock.parse_budget(text)


def _numbers(found: Diagnosis) -> dict[str, object]:
    return {
        f"{name} {column} {scalar}": value.value
        for name, columns in found.probes.items()
        for column in ("before", "after")
        for scalar, value in getattr(columns, column).scalars.items()
    }


def test_time_enough_measures_what_no_budget_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (Gradient(), Jacobian(), Curvature(top=2))
    data = _loader()
    whole = diagnose(_net(), ratio=0.5, data=data, probes=kinds, budget=None)
    monkeypatch.setattr(clock, "SPEED", 1e-3)  # so that it does not look cheap
    parts = diagnose(_net(), ratio=0.5, data=data, probes=kinds, budget=1e6)
    assert _numbers(parts) == _numbers(whole)
    assert not any("in part" in note for note in parts.notes)


def test_what_costs_least_is_measured_first_and_the_table_keeps_its_order() -> None:
    said: list[Diagnosis] = []
    kinds = [Curvature(top=1, density_vectors=0), Gradient()]
    found = diagnose(
        _net(), ratio=0.5, data=_loader(), probes=kinds, budget=None, update=said.append
    )
    assert [list(each.probes) for each in said] == [["gradient"], ["curvature", "gradient"]]
    assert list(found.probes) == ["curvature", "gradient"]


def test_a_short_time_measures_all_columns_on_the_same_few_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "SPEED", 1.0)
    monkeypatch.setattr(budget, "LATE", 1e9)
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 1e9)
    monkeypatch.setattr(budget.Measuring, "_seconds", lambda *_: 0.9e9)
    monkeypatch.setattr(budget.Measuring, "_further", lambda *_: None)
    said: list[Diagnosis] = []
    found = diagnose(
        _net(),
        ratio=0.5,
        data=_loader(),
        probes=[Jacobian(), Gradient()],
        budget=1e-6,
        update=said.append,
    )
    for column in (found.probes["jacobian"].before, found.probes["jacobian"].after):
        assert len(column.arrays["singular_values"]) == 2
    (note,) = [note for note in found.notes if "in part" in note]
    assert "Jacobian singular values: on 2 of 64 pinned samples" in note
    assert [list(each.probes) for each in said] == [["gradient"], ["jacobian", "gradient"]]
    two = ProbeData("data", *(each[:2] for each in _pinned(found)))
    expected = Jacobian().measure(_net().eval(), two)
    assert found.probes["jacobian"].before.value("mean_jsv") == pytest.approx(
        expected.value("mean_jsv")
    )


def _pinned(found: Diagnosis) -> tuple[torch.Tensor, torch.Tensor]:
    ((inputs, labels),) = _loader()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(found.seed))
    return inputs[order], labels[order]


def test_samples_that_were_asked_for_are_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "SPEED", 1.0)
    monkeypatch.setattr(budget, "LATE", 1e9)
    found = diagnose(
        _net(), ratio=0.5, data=_loader(), probes=["jacobian"], samples=20, budget=1e-6
    )
    assert len(found.probes["jacobian"].after.arrays["singular_values"]) == 20


def _ten_steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(clock, "SPEED", 1.0)
    monkeypatch.setattr(budget, "LATE", 1e9)
    return {"ratio": 0.5, "data": (_loader(2000), _loader(600))}


def _first_looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Have first looks alone be taken, with 100 s left before each."""
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 100.0)
    monkeypatch.setattr(budget.Measuring, "_further", lambda *_: None)
    monkeypatch.setattr(budget, "pass_seconds", lambda *_: 1.0)
    return _ten_steps(monkeypatch)


def test_a_network_is_tested_alone_where_there_is_no_time_to_retrain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = _ten_steps(monkeypatch)
    found = diagnose(_net(), probes=["trainability_accuracy"], budget=1e-6, **options)
    columns = found.probes["trainability_accuracy"]
    assert columns.after is not None
    assert columns.after.status == "ok"
    assert "on 256 of 600 test samples; not retrained" in columns.after.notes["tested"]
    assert list(columns.after.scalars) == ["start_accuracy"]
    assert any("accuracy alone, on 256 samples, without retraining" in n for n in found.notes)
    assert any(line.startswith("Test accuracy") for line in found.verdict)
    assert diagnosis_table(found) is not None
    assert "test accuracy, not retrained" in diagnosis_page(found)


def test_more_is_measured_by_what_the_first_look_took(monkeypatch: pytest.MonkeyPatch) -> None:
    options = _ten_steps(monkeypatch)
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 100.0)

    def learn(self: budget.Measuring, probe: Probe, level: int) -> None:
        self._level[probe.name] = level
        self._clock.rates[probe.name] = 100.0 / self._plans[probe.name][4].work

    monkeypatch.setattr(budget, "pass_seconds", lambda *_: None)  # nothing is known beforehand
    monkeypatch.setattr(budget.Measuring, "_learn", learn)
    found = diagnose(_net(), probes=["trainability_accuracy"], budget=1e-6, **options)
    columns = found.probes["trainability_accuracy"]
    assert "first 100 steps" in columns.before.notes["accuracy"]
    assert columns.after is not None
    assert "first 100 steps" in columns.after.notes["accuracy"]


def test_what_comes_last_is_begun_with_as_much_as_half_of_the_time_is_enough_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first look would be thrown away, and the dear first look of another says nothing."""
    options = _first_looks(monkeypatch)
    measured: list[str] = []

    def measure(
        self: budget.Measuring, probe: Probe, effort: Effort, _: float | None, **__: bool
    ) -> bool:
        measured.append(effort.said)
        slow = Measurement(probe.name, cost=Cost(seconds=1e6))
        self._keep(probe.name, dict.fromkeys(self.modules, slow))
        # Two columns of the last probe's 20 steps are to take half of the time.
        work = self._plans["trainability_accuracy"][2].work
        self._clock.timed = 49.0 / 2 / clock.SLACK / work
        return True

    monkeypatch.setattr(budget.Measuring, "_measure", measure)
    diagnose(_net(), probes=["trainability_accuracy", "gradient"], budget=1e-6, **options)
    assert measured == ["on 2 of 256 pinned samples", "20 steps, tested on 256 samples"]


def test_a_first_look_that_takes_more_than_its_share_has_what_the_others_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = _first_looks(monkeypatch)
    share = 0.75
    measured: list[str] = []

    def measure(
        self: budget.Measuring, probe: Probe, effort: Effort, _: float | None, **__: bool
    ) -> bool:
        measured.append(probe.name)
        self._keep(probe.name, dict.fromkeys(self.modules, Measurement(probe.name)))
        work = self._plans["curvature"][0].work
        self._clock.timed = share * 100.0 / 2 / clock.SLACK / work
        self._clock.rates["trainability_accuracy"] = 1e-9
        return True

    monkeypatch.setattr(budget.Measuring, "_measure", measure)
    probes = ["trainability_accuracy", "curvature", "gradient"]
    diagnose(_net(), probes=probes, budget=1e-6, **options)
    assert measured == ["gradient", "trainability_accuracy", "curvature"]
    share, measured[:] = 1.01, []
    found = diagnose(_net(), probes=probes, budget=1e-6, **options)
    assert measured == ["gradient", "trainability_accuracy"]
    assert "more than is left of the budget" in str(found.probes["curvature"].before.reason)


def test_columns_count_as_they_took_so_far() -> None:
    measuring = clock.Clock(1.0, 1, columns=3, begun=0.0)
    assert measuring.times() == 3
    measuring.took["curvature"] = [30.0, 0.0, 0.0]  # not all of them were measured
    assert measuring.times() == 3
    measuring.took |= {"gradient": [8.0, 3.0, 3.0], "jacobian": [2.0, 1.0, 1.0]}
    assert measuring.times() == pytest.approx(1.8)


def test_fewer_are_tested_of_a_network_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    options = _ten_steps(monkeypatch)
    each = 6 * 9 * 36 + 6 * 6 * 9 * 16 + 6 * 16 * 5  # multiply-adds
    for afforded, tested in ((300, 256), (160, 160), (1, 32)):
        monkeypatch.setattr(trainability_accuracy, "TESTED_WORK", afforded * each)
        found = diagnose(_net(), probes=["trainability_accuracy"], budget=1e-6, **options)
        words = found.probes["trainability_accuracy"].before.notes["tested"]
        assert f"on {tested} of 600 test samples; not retrained" in words


def test_a_plain_pass_is_timed_and_leaves_no_trace() -> None:
    network = _net().train()
    ((inputs, labels),) = _loader()
    assert (pass_seconds(network, ProbeData("data", inputs, labels)) or 0.0) > 0
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert pass_seconds(network, ProbeData("data", inputs[:, :, :2], labels)) is None


@pytest.mark.parametrize(("long", "passes"), [(1e9, 2), (1e-9, 1)])
def test_a_pass_that_takes_long_is_timed_once(
    long: float, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effort, "LONG", long)
    network, calls = _net(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    ((inputs, labels),) = _loader()
    pass_seconds(network, ProbeData("data", inputs, labels))
    assert len(calls) == passes


def _whole_time(
    monkeypatch: pytest.MonkeyPatch, rate: Callable[[Sequence[Effort], int], float]
) -> None:
    """Let time stand still, and a measurement of a level teach a rate."""

    def learn(self: budget.Measuring, probe: Probe, level: int) -> None:
        self._level[probe.name] = level
        self._clock.rates[probe.name] = rate(self._plans[probe.name], level)

    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 100.0)
    monkeypatch.setattr(budget.Measuring, "_expected", lambda *_: math.inf)
    monkeypatch.setattr(budget.Measuring, "_learn", learn)


def test_a_slow_start_of_one_probe_keeps_no_other_from_its_first_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _whole_time(monkeypatch, lambda plan, level: 1e9)
    found = diagnose(
        _net(), ratio=0.5, data=_loader(), probes=["gradient", "jacobian"], budget=100.0
    ).probes
    assert found["jacobian"].after.status == "ok"
    assert len(found["jacobian"].after.arrays["singular_values"]) >= 2


def test_what_took_long_at_its_start_alone_is_measured_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of every level the next one would just fit, and none beyond it.
    _whole_time(monkeypatch, lambda plan, level: 99.0 / plan[min(level + 1, len(plan) - 1)].work)
    found = diagnose(_net(), ratio=0.5, data=_loader(), probes=["jacobian"], budget=100.0)
    assert len(found.probes["jacobian"].after.arrays["singular_values"]) == 64


def test_a_first_look_that_is_too_long_says_what_would_make_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = _ten_steps(monkeypatch)
    found = diagnose(
        _net(), probes=["gradient", "trainability_accuracy"], budget=1e-6, **options
    ).probes["trainability_accuracy"]
    assert found.before.status == "skipped"
    assert "a first look (accuracy alone" in (found.before.reason or "")
    assert "--budget none" in (found.before.reason or "")


@dataclass(frozen=True)
class Slow:
    """A probe that ends in its own way in the column of a network."""

    ends: type[BaseException] | None
    name: ClassVar[str] = "slow"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        if network[2].out_channels < 6 and self.ends is not None:  # type: ignore[index,union-attr]
            raise self.ends
        pace.tick(forward=len(data))
        return Measurement("slow", scalars={"x": Scalar(1.0)})

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        return Cost(forward=1000 * len(data))  # it comes last


@pytest.mark.parametrize("ends", [KeyboardInterrupt, pace.OverTimeError])
def test_what_is_known_stays_when_a_measurement_ends_early(
    ends: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "SPEED", 1.0)
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 1e9)
    monkeypatch.setattr(budget.Measuring, "_seconds", lambda *_: 0.9e9)
    probes = ["gradient", Slow(ends)]
    found = examine(_net(), ratio=0.5, data=_loader(), probes=probes, budget=1.0)
    columns = found.diagnosis.probes["slow"]
    assert found.interrupted == (ends is KeyboardInterrupt)
    assert found.diagnosis.probes["gradient"].after.status == "ok"
    assert columns.before.value("x") == 1.0
    assert columns.after is not None
    assert columns.after.status == "skipped"
    why = "interrupted" if found.interrupted else "the budget of 1s was over"
    assert why in (columns.after.reason or "")
    (part,) = [note for note in found.diagnosis.notes if "in part" in note]
    assert "slow: on 2 of 64 pinned samples" in part
    assert Diagnosis.from_json(found.diagnosis.to_json()).probes["slow"].after is not None


def test_an_interrupt_before_anything_is_known_ends_all() -> None:
    @dataclass(frozen=True)
    class Never(Slow):
        def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(_net(), ratio=0.5, data=_loader(), probes=[Never(None)])


def test_a_piece_of_work_ends_at_its_deadline_and_tells_its_share() -> None:
    told: list[float] = []
    with pace.paced(pace.Pace(10.0, None, told.append)):
        pace.tick(forward=1)
        pace.tick(backward=2)
    assert told == [0.1, 0.5]
    pace.tick(forward=1)  # nobody listens
    assert len(told) == 2
    with pytest.raises(pace.OverTimeError), pace.paced(pace.Pace(10.0, -1.0)):
        pace.tick(forward=1)


def test_probes_leave_no_trace_when_their_time_is_up() -> None:
    network = _net().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ((inputs, labels),) = _loader()
    for probe in (Gradient(), Jacobian(), Curvature()):
        with pytest.raises(pace.OverTimeError), pace.paced(pace.Pace(1.0, -1.0)):
            probe.measure(network, ProbeData("data", inputs, labels))
        assert network.training
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
        assert all(not m._forward_hooks for m in network.modules())
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def _shares() -> Iterator[float]:
    yield from (0.1, 0.5, 1.0)


def test_the_bar_grows() -> None:
    from io import StringIO

    from rich.console import Console

    from trainscope.cli.progress import Telling

    shown: list[str] = []

    class Status:
        def update(self, text: object) -> None:
            shown.append(str(text))

    telling = Telling(Console(file=StringIO()), Status())  # type: ignore[arg-type]
    telling("curvature, before")
    for share in _shares():
        telling._last = 0.0
        telling.share(share)
    assert shown[0] == "curvature, before"
    assert [line.count("#") for line in shown[1:]] == [2, 12, 24]
    assert "s left" in shown[1]
    assert "s left" not in shown[3]


def test_time_that_one_probe_has_no_use_for_is_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 450 s two dear probes have 8 samples each at once; the rest goes where it is enough."""
    each, spent = {"gradient": 0.01, "curvature": 12.0, "jacobian": 13.0}, [0.0]
    measured: list[tuple[str, int]] = []

    def seconds(_: budget.Measuring, probe: Probe, effort: Effort) -> float:
        return each[probe.name] * len(effort.data)

    def measure(
        self: budget.Measuring, probe: Probe, effort: Effort, _: float | None, **__: bool
    ) -> bool:
        measured.append((probe.name, len(effort.data)))
        spent[0] += seconds(self, probe, effort)
        self._keep(probe.name, {"before": Measurement(probe.name)})
        return True

    monkeypatch.setattr(budget, "pass_seconds", lambda *_: 1e-9)
    monkeypatch.setattr(budget.Measuring, "_expected", lambda *_: 1e9)
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 450.0 - spent[0])
    monkeypatch.setattr(budget.Measuring, "_seconds", seconds)
    monkeypatch.setattr(budget.Measuring, "_measure", measure)
    diagnose(_net(), data=_loader(), probes=list(each), budget=450.0)
    assert measured[:3] == [("gradient", 8), ("curvature", 8), ("jacobian", 8)]
    assert ("gradient", 64) in measured
    assert spent[0] <= 450
    reached = dict(measured)
    left = {name: 450 - spent[0] - each[name] * 2 * count for name, count in reached.items()}
    assert all(left[name] < 0 or count == 64 for name, count in reached.items())


@pytest.mark.parametrize("way", ["told", "nothing"])
def test_each_column_of_what_tells_parts_has_its_share_of_the_time(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is cut short leaves the others their time, and all say what they have."""

    @dataclass(frozen=True)
    class Parts(Slow):
        tells_parts: ClassVar[bool] = True

        def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
            work = pace._PRESENT.get()
            assert work is not None
            assert work.deadline is not None
            given.append(work.deadline - now[0])
            now[0] += given[-1]  # all of it
            if len(given) == 1:
                pace.cut_short(pace.OverTimeError(), tells=way == "told")
            return Measurement("slow", scalars={"x": Scalar(float(len(given)))})

    given: list[float] = []
    now = [1000.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(budget.Measuring, "_expected", lambda *_: 1e9)
    monkeypatch.setattr(clock.Clock, "times", lambda _: 4.0)
    monkeypatch.setattr(budget, "LATE_AT_LAST", 1.0)
    modules = dict.fromkeys(("before", "after", "recalibrated"), _net())
    data = ProbeData("data", *_loader()[0])
    measuring = budget.Measuring([Parts(None)], modules, data, 1, 120.0, lambda _: None)
    measuring.run()
    assert given == pytest.approx([30.0, 45.0, 45.0])
    columns = measuring.measured["slow"]
    if way == "told":
        assert columns.before.value("x") == 1.0
    else:
        assert "budget of 2m was over" in (columns.before.reason or "")
    assert columns.after is not None
    assert columns.recalibrated is not None
    assert columns.after.value("x") == 2.0
    assert columns.recalibrated.value("x") == 3.0
    assert "slow" not in measuring._level  # it is not measured further


def test_an_interrupt_keeps_a_later_column_where_the_first_told_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = [pace.OverTimeError(), None, KeyboardInterrupt()]

    @dataclass(frozen=True)
    class Parts(Slow):
        tells_parts: ClassVar[bool] = True

        def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
            error = ends.pop(0)
            if error is not None:
                raise error
            return Measurement("slow", scalars={"x": Scalar(1.0)})

    monkeypatch.setattr(budget.Measuring, "_expected", lambda *_: 1e9)
    modules = dict.fromkeys(("before", "after", "recalibrated"), _net())
    data = ProbeData("data", *_loader()[0])
    measuring = budget.Measuring([Parts(None)], modules, data, 1, 120.0, lambda _: None)
    measuring.run()
    columns = measuring.measured["slow"]
    assert measuring.stopped
    assert columns.after is not None
    assert columns.recalibrated is not None
    assert columns.after.value("x") == 1.0
    assert "interrupted" in (columns.before.reason or "")
    assert "interrupted" in (columns.recalibrated.reason or "")


def test_what_is_tested_alone_comes_before_what_takes_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Retraining comes last, but the test in its place is cheap."""
    options = _first_looks(monkeypatch)
    measured: list[str] = []

    def measure(
        self: budget.Measuring, probe: Probe, effort: Effort, _: float | None, **__: bool
    ) -> bool:
        measured.append(effort.said)
        self._keep(probe.name, dict.fromkeys(self.modules, Measurement(probe.name)))
        return True

    def seconds(self: budget.Measuring, probe: Probe, effort: Effort) -> float:
        plan = self._plans[probe.name]
        if probe.name == "curvature":
            return {2: 20.0, 4: 40.0, 8: 79.0}.get(len(effort.data), 1e3)
        return retraining if effort is not plan[0] else 1.0

    monkeypatch.setattr(budget.Measuring, "_measure", measure)
    monkeypatch.setattr(budget.Measuring, "_seconds", seconds)
    rough = "the top eigenvalue alone, to 1 %, and no density"
    retraining = 51.0  # more than half of 100 s
    diagnose(_net(), probes=["trainability_accuracy", "curvature"], budget=1e-6, **options)
    assert measured == [
        "accuracy alone, on 256 samples, without retraining",
        f"on 8 of 256 pinned samples, {rough}",
    ]
    retraining, measured[:] = 15.0, []
    diagnose(_net(), probes=["trainability_accuracy", "curvature"], budget=1e-6, **options)
    assert measured == [f"on 2 of 256 pinned samples, {rough}", ""]
