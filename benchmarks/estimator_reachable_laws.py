"""Curves that are drawn from laws, of which it is known whether a target is ever reached.

A target comes within `HORIZON` times what was watched, or it does not. The start and the end of a
law, its time beside what is watched, the records watched, their noise and the training loss are
drawn; the targets lie at fixed shares of what is lacking, whatever becomes of the curve, so that
nothing of the answer is in the question.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainscope.convergence import LearningCurve
from trainscope.convergence.asymptote import HORIZON
from trainscope.convergence.passage import running_maximum
from trainscope.records import Metric
from trainscope.records.metric import ACCURACY

Floats = NDArray[np.float64]
Shape = Callable[[Floats], Floats]
Law = Callable[[np.random.Generator, float, float], Shape]
"""From random numbers, where the law starts and where it ends (percent), to the law over t/tau."""

DRAWN = 400
"""Curves of each law."""
SHARES = (0.03, 0.1, 0.2, 0.4, 0.8)
"""Of what the best so far lacks of 100 %: the targets of a percentage."""
GAINS = (0.02, 0.06, 0.15, 0.3, 0.6)
"""Of what the curve has risen: the targets of any other metric."""
SCORE = Metric("score", "", "higher")
ASIDE_LAWS = ("stretched exponential", "two time scales", "plateau, then a jump")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        curve: What was watched.
        target: In the metric's unit.
        reached: Whether it comes within what was looked at.
        until: The last epoch that was looked at; None for `HORIZON` times what was watched.
        reference: The run at a larger LR.
        without: Problems that the calibration leaves out.
    """

    curve: LearningCurve
    target: float
    reached: bool
    until: float | None = None
    reference: LearningCurve | None = None
    without: tuple[str, ...] = ()


def _exponential(rng: np.random.Generator, start: float, top: float) -> Shape:
    return lambda t: top - (top - start) * np.exp(-t)


def _power(rng: np.random.Generator, start: float, top: float) -> Shape:
    power = rng.uniform(0.4, 1.5)
    return lambda t: top - (top - start) * (1 + t) ** -power


def _hill(rng: np.random.Generator, start: float, top: float) -> Shape:
    power = rng.uniform(0.8, 2.5)
    return lambda t: start + (top - start) * t**power / (1 + t**power)


def _logarithm(rng: np.random.Generator, start: float, top: float) -> Shape:
    # `top` is where it stands at t = 10: it has no ceiling but that of its metric.
    pace = (top - start) / np.log(11)
    return lambda t: start + pace * np.log1p(t)


def _stretched(rng: np.random.Generator, start: float, top: float) -> Shape:
    power = rng.uniform(0.35, 0.8)
    return lambda t: top - (top - start) * np.exp(-(t**power))


def _two_scales(rng: np.random.Generator, start: float, top: float) -> Shape:
    fast, slower = rng.uniform(0.5, 0.9), 10 ** rng.uniform(1, 2)
    return lambda t: top - (top - start) * (fast * np.exp(-t) + (1 - fast) * np.exp(-t / slower))


def _jump(rng: np.random.Generator, start: float, top: float) -> Shape:
    rest = rng.uniform(0.3, 0.7) * (top - start)
    at = 10 ** rng.uniform(0.3, 2.0)
    jump = top - start - rest
    return lambda t: start + rest * -np.expm1(-t) + jump / (1 + (np.maximum(t, 1e-9) / at) ** -6.0)


LAWS: dict[str, Law] = {
    "saturating exponential": _exponential,
    "power law": _power,
    "Hill": _hill,
    "logarithm": _logarithm,
    "stretched exponential": _stretched,
    "two time scales": _two_scales,
    "plateau, then a jump": _jump,
}


def drawn(*, aside: bool, metric: Metric = ACCURACY) -> dict[str, list[Question]]:
    """Return the questions of every law that is, or is not, put aside."""
    names = [name for name in LAWS if (name in ASIDE_LAWS) == aside]
    return {f"drawn {name}": _of_law(name, metric) for name in names}


def _of_law(name: str, metric: Metric) -> list[Question]:
    """Return the questions of one law: noise, losses and lengths watched are drawn."""
    percent = metric.unit == "%"
    rng = np.random.default_rng(zlib.crc32(name.encode()) + (not percent))
    found: list[Question] = []
    for _ in range(DRAWN):
        top = rng.uniform(50, 99)
        start = rng.uniform(2, 0.7 * top)
        law = LAWS[name](rng, start, top)
        count = round(10 ** rng.uniform(0.9, 1.9))
        scales = 10 ** rng.uniform(-0.4, 1.0)  # watched, in units of the law's own time
        noise = float(rng.choice([0.0, 0.3, 1.0, 2.0]))
        time = np.arange(HORIZON * count + 1)
        clean = law(time * scales / count)
        values = clean + noise * rng.normal(size=len(time))
        if percent:
            values = np.clip(values, 0, 100)
        loss = _loss(rng, clean[: count + 1], time[: count + 1] * scales / count)
        curve = LearningCurve(time[: count + 1], values[: count + 1], 1e-3, loss, metric=metric)
        now = float(running_maximum(values[1 : count + 1])[-1])
        best = float(running_maximum(values[1:])[-1])
        found.extend(
            Question(curve, target, best >= target, without=(f"drawn {name}",))
            for target in targets(now, float(values[0]), percent=percent)
        )
    return found


def _loss(rng: np.random.Generator, clean: Floats, time: Floats) -> Floats | None:
    """Return a training loss, or none: tied to the accuracy, or spent whatever that does."""
    told = str(rng.choice(["none", "tied", "spent"]))
    if told == "none":
        return None
    if told == "tied":
        return np.asarray(2.3 * np.maximum(100.01 - clean, 0.01) / 100)
    return np.asarray(2.3 * (1 + time) ** -rng.uniform(0.5, 2.0))


def targets(now: float, start: float, *, percent: bool) -> list[float]:
    """Return the targets of a curve that rises, from its best so far and its start."""
    if percent:
        return [now + share * (100 - now) for share in SHARES if now < 100]
    return [now + gain * (now - start) for gain in GAINS if now > start]
