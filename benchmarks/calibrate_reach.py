"""Fit how the probability that a curve watched alone reaches a level goes with what it shows.

`calibrate_estimator.py` calls it. Of a curve that was drawn it is known whether a level comes
within the horizon. Of a run that was recorded it is known whether it came by the end: the
likelihood of that is the probability to reach it at all times that to reach it by then, if it is
reached, which the errors of the forecast tell. Nothing that is put aside is looked at. Every kind
of question (drawn; levels at fixed shares; levels of a larger LR) counts the same, and in it every
problem. Of each problem the shift of the weights is kept that leaving it out brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from estimator_protocol import read_deepobs
from estimator_reachable_cases import pairs, recorded, runs_of
from estimator_reachable_laws import Question, drawn
from numpy.typing import NDArray
from scipy.optimize import minimize

from trainscope.convergence.asymptote import HORIZON, chances
from trainscope.convergence.calibration import load
from trainscope.convergence.forecast import forecast
from trainscope.convergence.scale import shared_scale
from trainscope.convergence.stage import first_stage

Floats = NDArray[np.float64]
SHRINKAGE = 1e-3
"""Of the weights beside the first, towards 0."""
LEAST = 1e-4


@dataclass(frozen=True)
class Known:
    """Questions of one problem: columns [N, 4], reached [N], by then if ever [N], weight [N]."""

    problem: str
    columns: Floats
    reached: Floats
    by_then: Floats
    weight: Floats


def known(problem: str, asked: Sequence[Question], weight: float) -> Known:
    """Return what is known of the questions of one problem, which together have a weight."""
    rows: list[tuple[Floats, float, float]] = []
    for question in asked:
        curve = question.curve.on(shared_scale([question.curve]))
        stage = first_stage(curve)
        assert stage is not None
        level = np.array([curve.scale.quality(question.target)])
        told = forecast(stage, None, level)
        end = HORIZON * stage.time[-1] if question.until is None else question.until
        z = told.error(float(np.log(end)))
        by_then = load(*question.without)["alone"].below(z)[0]
        rows.append((chances(stage, level).columns()[0], float(question.reached), float(by_then)))
    columns, reached, ends = (np.array(column) for column in zip(*rows, strict=True))
    return Known(problem, columns, reached, ends, np.full(len(rows), weight / len(rows)))


def fit(parts: Sequence[Known]) -> Floats:
    """Return the weights [4] that make what became of the questions most likely."""
    x = np.concatenate([part.columns for part in parts])
    reached, by_then, weight = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("reached", "by_then", "weight")
    )
    weight = weight / weight.sum()

    def loss(b: Floats) -> tuple[float, Floats]:
        r = 1 / (1 + np.exp(-(x @ b)))
        p = np.clip(r * by_then, LEAST, 1 - LEAST)
        value = -weight @ np.where(reached > 0, np.log(p), np.log(1 - p))
        slope = -weight * (reached / p - (1 - reached) / (1 - p)) * by_then * r * (1 - r)
        penalty = SHRINKAGE * np.append(0.0, b[1:])
        return float(value + penalty @ b), x.T @ slope + 2 * penalty

    found: Floats = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    return found


def fitted(groups: Sequence[dict[str, list[Question]]]) -> dict[str, Any]:
    """Return the weights from all problems, and the shifts without each."""
    parts = [
        known(name.partition(",")[0], asked, 1 / len(group))
        for group in groups
        for name, asked in group.items()
    ]
    whole = fit(parts)
    shifts = {}
    for name in sorted({part.problem for part in parts}):
        others = fit([part for part in parts if part.problem != name])
        shifts[name] = (others - whole).round(4).tolist()
    return {"all": whole.round(4).tolist(), "without": shifts}


def reach(deepobs: Path, own: Path | None) -> dict[str, Any]:
    """Return the weights of percentages, from what is not put aside."""
    runs = [*runs_of(own, aside=False), *read_deepobs(deepobs)]
    return fitted([drawn(aside=False), recorded(runs), pairs(runs)])
