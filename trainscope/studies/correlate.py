"""Which number, known before retraining, goes with what retraining ends at, and how far it could.

Each column is correlated over candidates with the mean of what their retrainings ended at. Beside
the coefficients stand two ratios of Feng et al. (2024), and the ceiling that the noise of
retraining sets to any predictor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainscope.errors import RecordError
from trainscope.records.metric import HIGHER, LOWER
from trainscope.studies.association import NAMES, Floats, Ints, Name, association, tau_parts
from trainscope.studies.ceiling import FEWEST_REPEATED, attainable, repeated
from trainscope.studies.columns import Candidates, Row, candidates, direction
from trainscope.studies.correlation import (
    TOGETHER,
    Coefficient,
    Correlation,
    NoiseCeiling,
    Predictor,
)
from trainscope.studies.resampling import DRAWS, Bounds, bounds, p_value
from trainscope.studies.together import left_out_predictions

FEWEST = 3
"""Candidates from which on anything is told."""
OF_METRIC = ("dense", "pruned", "early", "ta", "final", "best")
"""Columns of a study that hold values of its metric."""


def correlate(
    rows: Sequence[Row],
    target: str = "final",
    known: Sequence[str] | None = None,
    *,
    group: Sequence[str] = (),
    within: Sequence[str] = (),
    better: str | None = None,
    directions: Mapping[str, str] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Correlation:
    """Correlate what was known before retraining with what it ended at.

    Args:
        rows: One a retraining, by column.
        target: The column of what retraining ended at: of the last epoch, not of the best one.
        known: Columns, or patterns of them; by default all numbers whose names do not say that
            they are of the end.
        group: The columns that name a candidate; rows that share them are its retrainings, whose
            ends are averaged, and candidates are what is resampled.
        within: The columns that name a stratum: candidates are compared within strata alone.
        better: "higher" or "lower" of the target; by default as its name says, else "higher".
        directions: The same of columns, by name.
        level: The probability that intervals hold, in (0, 1).
        draws: Bootstrap samples of an interval.
        seed: Of everything drawn.

    Raises:
        RecordError: A column is missing or holds text, there are fewer than three candidates, or
            an argument is out of range.
    """
    for name, value in {"": better, **(directions or {})}.items():
        if value not in (HIGHER, LOWER, None):
            of = f" of '{name}'" if name else ""
            raise RecordError(f"the better direction{of} is higher or lower, not {value!r}")
    if not 0 < level < 1:
        raise RecordError(f"the level of intervals is between 0 and 1, not {level:g}")
    found = candidates(rows, target, known, group=group, within=within)
    if len(found.names) < FEWEST:
        raise RecordError(
            f"{len(found.names)} candidates have a number in '{target}', and a correlation needs "
            f"{FEWEST} or more"
        )
    said = better or _said(rows, target) or direction(target)
    wanted = said or HIGHER
    sure = _Sure(level, draws, seed)
    own = {name: _said(rows, name) or direction(name) for name in found.known}
    told = {name: (directions or {}).get(name) or way for name, way in own.items()}
    each = [_predictor(found, name, told[name], wanted, sure) for name in found.known]
    together, ceiling = _together(found, each, wanted, sure), _ceiling(found, sure)
    return Correlation(
        target,
        wanted,
        len(found.names),
        sum(map(len, found.ends)),
        found.strata_names if within else (),
        level,
        tuple(sorted(each, key=lambda one: -one.strength)),
        together,
        ceiling,
        _notes(found, each, together, ceiling, target, said),
    )


def _said(rows: Sequence[Row], column: str) -> str | None:
    """Return what a study's rows say of their metric, where a column is of its values."""
    words = {row.get("better") for row in rows}
    if column not in OF_METRIC or len(words) != 1:
        return None
    word = words.pop()
    return str(word) if word in (HIGHER, LOWER) else None


@dataclass(frozen=True, slots=True)
class _Sure:
    level: float
    draws: int
    seed: int

    def bounds(self, statistic: object, strata: Ints) -> Bounds | None:
        return bounds(
            statistic,  # type: ignore[arg-type]
            strata,
            level=self.level,
            draws=self.draws,
            seed=self.seed,
        )


def _coefficient(value: float, held: Bounds | None, p: float | None, how: str) -> Coefficient:
    if held is None:
        return Coefficient(value, p=p, p_method=how)
    return Coefficient(value, held.low, held.high, p, held.method, how)


def _predictor(
    found: Candidates, column: str, better: str | None, wanted: str, sure: _Sure
) -> Predictor:
    places = np.flatnonzero(np.isfinite(found.known[column]))
    kept = found.of(places)
    x, y, strata = kept.known[column], kept.target, kept.strata
    why = _why_not(x, y, strata, column)
    if why:
        return Predictor(column, len(places), better, reason=why)
    coefficients = {}
    for name in NAMES:

        def statistic(weights: Floats, name: Name = name) -> Floats:
            return association(name, x, y, weights, strata)

        value = float(association(name, x, y, strata=strata)[0])
        p, how = p_value(name, x, y, strata, seed=sure.seed)
        coefficients[name] = _coefficient(value, sure.bounds(statistic, strata), p, how)
    if better is None:
        return Predictor(column, len(places), None, coefficients)
    rising = (1 if better == HIGHER else -1) * x
    quality = (1 if wanted == HIGHER else -1) * y
    return Predictor(
        column,
        len(places),
        better,
        coefficients,
        anomaly=_anomaly(rising, quality, strata),
        counterexample=_counterexample(rising, quality, strata),
    )


def _why_not(x: Floats, y: Floats, strata: Ints, column: str) -> str:
    if len(x) < FEWEST:
        return f"{len(x)} candidates have a number in it, and {FEWEST} are needed"
    parts = [strata == stratum for stratum in np.unique(strata)]
    where = "" if len(parts) == 1 else " within a stratum"
    if not any(np.ptp(x[part]) > 0 for part in parts):
        return f"it is the same for all candidates{where}"
    if not any(np.ptp(y[part]) > 0 for part in parts):
        return f"all candidates{where} that have it end alike"
    if not any(np.ptp(x[part]) > 0 and np.ptp(y[part]) > 0 for part in parts):
        return "it varies only in strata whose candidates all end alike"
    return ""


def _anomaly(rising: Floats, quality: Floats, strata: Ints) -> float:
    """Return the share of candidates that end better than their stratum's first in the column.

    Where several share the first place, the mean over them.
    """
    better = 0.0
    for stratum in np.unique(strata):
        held = strata == stratum
        first = quality[held][rising[held] == rising[held].max()]
        better += float(np.mean([np.sum(quality[held] > one) for one in first]))
    return better / len(rising)


def _counterexample(rising: Floats, quality: Floats, strata: Ints) -> float | None:
    """Return the discordant share of the pairs that differ in both; None where there is none."""
    ordered = float(tau_parts(rising, quality, np.ones((1, len(rising))), strata)[0][0])
    both = 0.0
    for stratum in np.unique(strata):
        x, y = rising[strata == stratum], quality[strata == stratum]
        both += float(np.sum((x[:, None] != x) & (y[:, None] != y)))
    return (1 - ordered / both) / 2 if both else None


def _together(
    found: Candidates, each: Sequence[Predictor], wanted: str, sure: _Sure
) -> Predictor | None:
    whole = [one.column for one in each if not one.reason and one.candidates == len(found.names)]
    kinds = len(np.unique(found.strata))
    if len(whole) < 2 or len(found.names) < 2 * (len(whole) + kinds):
        return None
    columns, y, strata = np.stack([found.known[n] for n in whole]), found.target, found.strata
    predicted = left_out_predictions(columns, y, np.ones((1, len(y))), strata)[0]
    kept: dict[bytes, Floats] = {}  # all three coefficients are of the same samples

    def statistic(weights: Floats, name: Name) -> Floats:
        key = weights.tobytes()
        if key not in kept:
            kept[key] = left_out_predictions(columns, y, weights, strata)
        return association(name, y, kept[key], weights, strata)

    coefficients = {
        name: _coefficient(
            float(association(name, predicted, y, strata=strata)[0]),
            sure.bounds(lambda weights, name=name: statistic(weights, name), strata),
            None,  # under no association the coefficient of left-out predictions is below 0
            "",
        )
        for name in NAMES
    }
    if not math.isfinite(coefficients["kendall"].value):
        return None
    return Predictor(f"{TOGETHER} ({', '.join(whole)})", len(y), wanted, coefficients)


def _ceiling(found: Candidates, sure: _Sure) -> NoiseCeiling | None:
    places = np.array([k for k, end in enumerate(found.ends) if len(end) > 1], np.int64)
    if len(places) < FEWEST_REPEATED:
        return None
    kept = found.of(places)
    another, reached = {}, {}
    # The values to predict are means of so many retrainings.
    many = len(found.ends) / sum(1 / len(end) for end in found.ends)
    for name in NAMES:

        def statistic(weights: Floats, name: Name = name) -> Floats:
            return repeated(name, kept.ends, weights, kept.strata)

        value = float(statistic(np.ones((1, len(places))))[0])
        if not math.isfinite(value):
            return None
        held = sure.bounds(statistic, kept.strata)
        another[name] = _coefficient(value, held, None, "")
        reached[name] = Coefficient(
            attainable(name, value, many),
            None if held is None else attainable(name, held.low, many),
            None if held is None else attainable(name, held.high, many),
            interval_method="" if held is None else held.method,
        )
    return NoiseCeiling(len(places), sum(map(len, kept.ends)), another, reached)


def _notes(
    found: Candidates,
    each: Sequence[Predictor],
    together: Predictor | None,
    ceiling: NoiseCeiling | None,
    target: str,
    better: str | None,
) -> tuple[str, ...]:
    notes = []
    if "best" in target.lower():
        notes.append(
            f"{target} is of the best epoch by its name, which was chosen on the data that it is "
            "measured on, so it is too good: correlate with the last epoch for a result"
        )
    if better is None:
        notes.append(
            f"which direction of {target} is better is not known by its name, and higher was "
            "taken: say it with --better"
        )
    if found.without_end:
        lost = found.without_end
        notes.append(
            f"{lost} of {found.rows} retrainings have no number in {target} and are left out"
            ": those that diverge are then missing from every figure"
        )
    short = [one for one in each if not one.reason and one.candidates < len(found.names)]
    notes += [
        f"{one.column} is missing for {len(found.names) - one.candidates} of "
        f"{len(found.names)} candidates, so its coefficients are of the others"
        for one in short[:6]
    ]
    if ceiling is None and any(len(end) > 1 for end in found.ends):
        notes.append(
            "too few candidates that could be told apart were retrained twice, so the ceiling of "
            "any predictor is not known: retrain more of them"
        )
    if all(len(end) == 1 for end in found.ends):
        notes.append(
            "no candidate was retrained twice, so the noise of retraining, and with it the "
            "ceiling of any predictor, is not known: retrain candidates with two seeds or more; "
            "where a table has such rows, name the columns that they share with --group (group=)"
        )
    if together is not None and short:
        notes.append(f"{TOGETHER} leaves out what is missing for some candidates")
    return tuple(notes)
