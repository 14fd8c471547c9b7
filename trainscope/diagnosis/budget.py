"""Measuring within a budget of time: a first look at everything, then as much as there is time for.

What a probe measures is chosen from what was measured to cost, once for all columns, so that they
stay comparable. What is known is handed on after every probe, and stays where the time is up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from trainscope.data import ProbeData
from trainscope.diagnosis.clock import Clock, budget_text
from trainscope.diagnosis.effort import MANY, Effort, fewer, pass_seconds, passes
from trainscope.diagnosis.measuring import expected, measured, measured_both
from trainscope.diagnosis.opening import Progress, SharedProgress
from trainscope.pace import OverTimeError, Pace, paced
from trainscope.probes import Probe, lacking
from trainscope.probes.abilities import tells_parts
from trainscope.probes.probe import Need
from trainscope.probes.processes.ranks import present
from trainscope.probes.scalar_spec import described
from trainscope.records import Columns, Measurement
from trainscope.records.columns import COLUMNS

LATE = 1.5
"""A measurement is given up where it takes so many times what it was given."""
LATE_AT_LAST = 1.1
"""The same where nothing else is to come."""
MOST = 0.8
"""The share of the time left that the last first look may be expected to take."""
MORE = "give more with --budget (budget=), or --budget none"
INTERRUPTED = "it was interrupted before this was measured"

Update = Callable[[Mapping[str, Columns]], None]
"""Called with all that is known, whenever that has become more."""


@dataclass
class Measuring:
    """The measurements of one diagnosis, as they become known.

    Attributes:
        probes: What is measured, in the order of the table.
        modules: The network of each column.
        data: The pinned samples.
        flops: Multiply-adds of one sample of the base network.
        budget: Seconds; None for as long as it takes.
        tell: Told what is done next, and as a `SharedProgress` how far that is.
        fixed: The number of pinned samples was asked for, so that all of them are measured on.
        update: Called whenever more is known.
        measured: The columns of each probe that has some.
        stopped: Ctrl-C ended it.
    """

    probes: Sequence[Probe]
    modules: Mapping[str, nn.Module | None]
    data: ProbeData
    flops: int
    budget: float | None
    tell: Progress
    fixed: bool = False
    update: Update | None = None
    measured: dict[str, Columns] = field(default_factory=dict)
    stopped: bool = False
    _plans: dict[str, list[Effort]] = field(default_factory=dict)
    _level: dict[str, int] = field(default_factory=dict)
    _parts: dict[str, str] = field(default_factory=dict)

    @property
    def _budget(self) -> str:
        """The budget in words."""
        return f"the budget of {budget_text(self.budget or 0)}"

    def run(self) -> None:
        """Measure; Ctrl-C ends it, and what is known by then stays.

        Raises:
            KeyboardInterrupt: It came before anything was measured.
        """
        there = sum(module is not None for module in self.modules.values())
        budget = math.inf if self.budget is None else self.budget
        self._clock = Clock(budget, self.flops, there, time.perf_counter())
        try:
            with present().together():
                self._all()
        except KeyboardInterrupt:
            if not self.measured:
                raise
            self.stopped = True
        for probe in self.probes:
            if probe.name not in self.measured:
                self._keep_part(probe, {}, INTERRUPTED)
        self.measured = {probe.name: self.measured[probe.name] for probe in self.probes}

    def _all(self) -> None:
        base = self.modules["before"]
        assert base is not None
        able = []
        for probe in self.probes:
            whole = Effort(probe, self.data, 1.0)
            if lacking(probe, self.data) is not None:
                self._measure(probe, whole, None)
                continue
            able.append(probe)
            cost = probe.estimate(base, self.data)
            whole = replace(whole, work=passes(cost))
            self._plans[probe.name] = [
                *fewer(probe, base, self.data, samples=not self.fixed),
                whole,
            ]
            self.tell(f"{probe.name} will cost {expected(cost)} a column")
        if self.budget is None or self._expected(able) <= self.budget / 2:
            for probe in sorted(able, key=lambda each: self._plans[each.name][-1].work):
                self._measure(probe, self._plans[probe.name][-1], None)
            return
        self._clock.timed = present().first(pass_seconds(base, self.data))
        # The cheapest look first, and what retrains last: a test alone says little of trainability.
        order: list[Probe] = []
        late = []
        while len(order) < len(able):
            waiting = [probe for probe in able if probe not in order]
            probe = min(waiting, key=lambda each: self._dearness(each, len(waiting)))
            order.append(probe)
            if not self._first(probe, len(waiting)):
                late.append(probe)
        # What would take too much of the time at its turn has what the others left of it.
        for probe in late:
            self._first(probe, 1)
        # A few samples of each probe before many of one.
        few = {probe.name: self._few(probe) for probe in order}
        for probe in sorted(
            order, key=lambda each: self._seconds(each, self._plans[each.name][few[each.name]])
        ):
            self._further(probe, 1, few[probe.name])
        for place, probe in enumerate(order):
            self._further(probe, len(order) - place)
        # What one probe had no use for is another's, first that of the fewest samples.
        while True:
            known = dict(self._level)
            for probe in sorted(order, key=self._samples):
                self._further(probe, 1)
            if self._level == known:
                return

    def _few(self, probe: Probe) -> int:
        """Return the place of the least way to measure a probe on as many samples as are worth it.

        It is the first of all where fewer are pinned, or samples do not count.
        """
        plan = self._plans[probe.name]
        return next((i for i, each in enumerate(plan) if len(each.data) >= MANY), 0)

    def _samples(self, probe: Probe) -> int:
        """Return how many samples a probe was measured on so far; none of a test in its place."""
        level = self._level.get(probe.name, 0)
        if level == 0 and Need.TRAINING in probe.needs:
            return 0
        return len(self._plans[probe.name][level].data)

    def _first(self, probe: Probe, left: int) -> bool:
        """Take a first look, or all of what cannot be taken in part; tell whether it was begun."""
        plan = self._plans[probe.name]
        seconds = self._seconds(probe, plan[0])
        allowed = self._clock.remaining() if left == 1 else self._clock.remaining() / 2
        level = self._look(probe, left)
        deadline = None
        if len(plan) > 1:  # what is asked for by its number is not cut
            # What a short measurement took is mostly its start: only where both that and the
            # network's size say that there is no time is none tried.
            fewest = min(seconds, plan[0].work * self._clock.guess())
            if self._clock.rates and fewest > max(allowed, 0.0):
                self._keep_part(
                    probe,
                    {},
                    f"a first look ({plan[0].said}) would take about {_long(fewest)}, more than "
                    f"is left of {self._budget}: {MORE}",
                )
                return False
            late = LATE
            if level or tells_parts(plan[level].probe):
                late = LATE_AT_LAST if left == 1 else MOST
            deadline = max(late * self._clock.remaining(), LATE * 0.25 * (self.budget or 0))
        if self._measure(probe, plan[level], deadline, first=True):
            self._learn(probe, level)
        return True

    def _dearness(self, probe: Probe, left: int) -> tuple[bool, float, float]:
        """Return by what the order of first looks goes: whether it retrains, seconds, and work."""
        level = self._look(probe, left)
        effort = self._plans[probe.name][level]
        retrains = Need.TRAINING in probe.needs and level > 0
        return retrains, self._seconds(probe, effort), effort.work

    def _look(self, probe: Probe, left: int) -> int:
        """Return the place of the way that a first look takes, of a probe that is one of so many.

        It is the least of all, or as many samples as are worth it where the probe's share of the
        time is enough for them. What retrains, and what comes last, takes as much as half of the
        time is enough for, so that it need not begin anew.
        """
        plan, remaining = self._plans[probe.name], self._clock.remaining()
        if not self._clock.knows():
            return 0
        share = MOST * remaining if left == 1 else remaining / (left + 1)
        half = remaining / 2 if left == 1 or Need.TRAINING in probe.needs else 0.0
        few = self._few(probe)
        allowed = [max(share if place <= few else 0.0, half) for place in range(len(plan))]
        return max(
            (
                place
                for place in range(len(plan))
                if self._seconds(probe, plan[place]) <= allowed[place]
            ),
            default=0,
        )

    def _further(self, probe: Probe, left: int, most: int | None = None) -> None:
        """Measure more of a probe, as long as its share of the time left is enough for that.

        What took longer than its start shows better what still more would take.

        Args:
            probe: Which.
            left: Among how many the time left is shared.
            most: The most that is measured of it, by its place among the probe's ways.
        """
        kept = self._clock.remaining() * (1 - 1 / left)
        while probe.name in self._level:
            plan, now = self._plans[probe.name], self._level[probe.name]
            share = self._clock.remaining() - kept
            ways = range(now + 1, len(plan) if most is None else most + 1)
            fits = [i for i in ways if self._seconds(probe, plan[i]) <= share]
            if not fits:
                return
            limit = share * (LATE if left > 1 else LATE_AT_LAST)
            if not self._measure(probe, plan[fits[-1]], limit):
                self._clock.learn_at_least(probe.name, limit, plan[fits[-1]].work)
                return
            self._learn(probe, fits[-1])

    def _measure(
        self, probe: Probe, effort: Effort, seconds: float | None, *, first: bool = False
    ) -> bool:
        """Measure all columns; tell whether that came to an end within the seconds.

        What a first look has found by then is kept, and what it has not is skipped.
        """
        deadline = None if seconds is None else time.perf_counter() + seconds
        share = self.tell.share if isinstance(self.tell, SharedProgress) else None
        on = f" ({effort.said})" if effort.said else ""
        columns: dict[str, Measurement | None] = dict.fromkeys(self.modules)
        # What is cut short tells something: each column then has its share of the time.
        shares = first and tells_parts(effort.probe) and present().count == 1
        late: OverTimeError | None = None
        waiting = [name for name, module in self.modules.items() if module is not None]
        try:
            while waiting:
                column, until = waiting[0], deadline
                if deadline is not None and shares:
                    times = self._clock.times() if column == "before" else len(waiting)
                    now = time.perf_counter()
                    until = now + (deadline - now) / times
                self.tell(f"{probe.name}, {column}{on}")
                pace = Pace(effort.work, until, share, partial=present().count == 1)
                try:
                    with paced(pace), present().together():
                        columns |= self._of(column, effort)
                    if pace.cut is not None:
                        raise pace.cut
                except OverTimeError as error:
                    if not shares:
                        raise
                    late = error
                waiting = [each for each in waiting[1:] if columns[each] is None]
            if late is not None:
                raise late
        except OverTimeError:
            if first:
                why = f"{self._budget} was over before this was measured"
                self._keep_part(probe, columns, f"{why}: {MORE}", effort.said)
            return False
        except KeyboardInterrupt:
            if probe.name not in self.measured and any(columns.values()):
                self._keep_part(probe, columns, INTERRUPTED, effort.said)
            raise
        self._keep(probe.name, columns)
        return True

    def _of(self, column: str, effort: Effort) -> dict[str, Measurement]:
        """Measure a column, and the recalibrated one with it where both are had at once."""
        module, recalibrated = self.modules[column], self.modules.get("recalibrated")
        assert module is not None
        if column == "after" and recalibrated is not None:
            both = measured_both(effort.probe, module, recalibrated, effort.data)
            if both is not None:
                return {"after": both[0], "recalibrated": both[1]}
        return {column: measured(effort.probe, module, effort.data)}

    def _keep(self, name: str, columns: Mapping[str, Measurement | None]) -> None:
        before, after, recalibrated = (columns.get(column) for column in COLUMNS)
        assert before is not None
        self.measured[name] = Columns(before, after, recalibrated)
        self._clock.took[name] = [
            each.cost.seconds for each in (before, after, recalibrated) if each is not None
        ]
        if self.update is not None:
            self.update(
                {p.name: self.measured[p.name] for p in self.probes if p.name in self.measured}
            )

    def _keep_part(
        self,
        probe: Probe,
        columns: Mapping[str, Measurement | None],
        reason: str,
        said: str = "",
    ) -> None:
        """Keep the columns that are done, and for each other one the reason why it is not."""
        self._parts[probe.name] = said
        missing = Measurement.skipped(probe.name, reason)
        kept = {
            name: None if module is None else columns.get(name) or missing
            for name, module in self.modules.items()
        }
        self._keep(probe.name, kept)

    def _learn(self, probe: Probe, level: int) -> None:
        """Take note of what a way to measure took."""
        self._level[probe.name] = level
        self._clock.learn(probe.name, self._plans[probe.name][level].work)

    def _seconds(self, probe: Probe, effort: Effort) -> float:
        """Return the seconds that a way to measure all columns is expected to take."""
        return self._clock.seconds(probe.name, effort.work)

    def _expected(self, probes: Sequence[Probe]) -> float:
        return sum(self._seconds(probe, self._plans[probe.name][-1]) for probe in probes)

    def remarks(self) -> list[str]:
        """Return what was measured in part, and what would make the rest, each one sentence."""
        less = [
            f"{described(probe.name).heading(self.data.task.metric)}: {said}"
            for probe in self.probes
            if (said := self._said(probe.name))
        ]
        found = []
        if less:
            found.append(
                f"Within {self._budget}, in part: {'; '.join(less)}. "
                "--budget (budget=) takes more time, and none all that it needs."
            )
        if self.stopped:
            found.append("The measurement was interrupted: numbers are those known by then.")
        return found

    def _said(self, name: str) -> str:
        columns = self.measured.get(name)
        measured = [] if columns is None else [columns.before, columns.after, columns.recalibrated]
        if all(column is None or not column.scalars for column in measured):
            return ""  # each column says why there is nothing in it
        level = self._level.get(name)
        return self._parts.get(name, "") if level is None else self._plans[name][level].said


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
