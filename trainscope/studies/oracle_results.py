"""What a study came to that tried which filters stay: the oracle's choice, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import filter as filter_names
from statistics import mean
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.metric import LOWER
from trainscope.studies.correlate import correlate
from trainscope.studies.correlation import Correlation
from trainscope.studies.results import Row
from trainscope.studies.summary import SettingRows, settings_of

KNOWN = ("oracle_loss", "pruned", "pruned_loss", "early", "ta", "pruned.*")
"""What is correlated with the end, of what the rows have."""
SHOWN = 5
"""Candidates that are printed, of the lowest loss and of the highest."""
NUMBERS = ("pruned_loss", "pruned", "ta", "final")


def known_in(rows: Sequence[Row]) -> list[str]:
    """Return the patterns of `KNOWN` that columns of some rows fit."""
    there = {name for row in rows for name in row}
    return [pattern for pattern in KNOWN if filter_names(there, pattern)]


def tried_in(rows: Sequence[Row]) -> list[SettingRows]:
    """Return the candidates of a study by their pruned train loss; [] where it tried none."""
    if len({row.get("action.kept") for row in rows} - {None}) < 2:
        return []
    found = [each for each in settings_of(rows) if each.rows[0].get("action.kept") is not None]
    return sorted(found, key=_loss)


def tried_table(found: Sequence[SettingRows]) -> list[list[str]]:
    """Return those of the lowest and of the highest loss in a table, its first row the titles."""
    names = [name for name in found[0].asked if name != "action.kept" or len(found[0].asked) == 1]
    lines = [[*(name.removesuffix(".name") for name in names), "runs", *NUMBERS]]
    shown: list[SettingRows | None] = [*found]
    if len(found) > 2 * SHOWN:
        shown = [*found[:SHOWN], None, *found[-SHOWN:]]
    for each in shown:
        if each is None:
            lines.append(["…", *[""] * (len(lines[0]) - 1)])
            continue
        values = (each.value(column) for column in NUMBERS)
        cells = ["-" if value is None else f"{value[0]:.2f}" for value in values]
        lines.append([*(str(each.asked[name]) for name in names), str(len(each.rows)), *cells])
    return lines


def choice_line(found: Sequence[SettingRows]) -> str:
    """Say where the candidate of the lowest loss ends among the others."""
    ends = [value[0] for each in found if (value := each.value("final")) is not None]
    best, end = found[0], found[0].value("final")
    loss = best.value("pruned_loss")
    if loss is None or end is None or len(ends) < 2:
        return "Of no candidate both the pruned train loss and the end are known yet."
    row = best.rows[0]
    lower = row["better"] == LOWER
    above = sum(each < end[0] if lower else each > end[0] for each in ends)
    named = str(row.get("action.name") or row["action.kept"])
    return (
        f"The lowest pruned train loss, {loss[0]:.3g}, is that of {named}, which oracle pruning "
        f"keeps. Its retrainings end at a mean test {row['metric']} of {end[0]:.2f}; {above} of "
        f"{len(ends) - 1} other candidates end better ({100 * above / (len(ends) - 1):.0f} %)."
    )


def correlated(rows: Sequence[Row]) -> Correlation | None:
    """Correlate what was known of the candidates with their ends; None for fewer than three.

    Candidates are compared within what else the study varies, like recipes.
    """
    found = tried_in(rows)
    held: list[dict[str, Any]] = [row for each in found for row in each.rows]
    others = [name for name in (found[0].asked if found else ()) if not name.startswith("action.")]
    ours = ["start", *others]
    try:
        return correlate(held, known=known_in(held), group=ours, within=others) if held else None
    except RecordError:  # too few have ended
        return None


def _loss(each: SettingRows) -> float:
    values = [row["pruned_loss"] for row in each.rows if row.get("pruned_loss") is not None]
    return mean(values) if values else float("inf")
