"""What a study came to: its rows by setting, over seeds, beside a paper's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from trainscope.studies.results import Row

RESULT = (
    *("dense", "pruned", "pruned_loss", "early", "ta", "final", "best", "speedup", "reached"),
    *("train_loss", "test_loss", "parameters", "flops", "flops_per_sample", "seconds"),
    *("pretraining_flops", "stage_epochs", "stage_flops"),
    *("status", "metric", "better", "digest", "start", "end", "base", "study"),
)
"""Columns that say what came out; what is no such column and no probe's says what was asked."""
SHOWN = ("dense", "pruned", "ta", "final")
DERIVED = ("schedule", "lr", "epochs", "base.digest", "base.lr", "base.epochs", "base.schedule")
"""Columns that follow from others."""


@dataclass(frozen=True)
class SettingRows:
    """Runs that differ in their seed alone.

    Attributes:
        asked: The columns that vary within the study, with this setting's values.
        rows: Its runs.
    """

    asked: Mapping[str, Any]
    rows: tuple[Row, ...]

    def value(self, column: str) -> tuple[float, float | None] | None:
        """Return a number's mean over the seeds and its standard deviation; None for no number."""
        found = [row[column] for row in self.rows if isinstance(row.get(column), int | float)]
        if not found:
            return None
        return mean(found), stdev(found) if len(found) > 1 else None


def settings_of(rows: Sequence[Row]) -> list[SettingRows]:
    """Return the settings of a study's rows, in their order."""
    varying = [name for name in _asked(rows) if len({str(row.get(name)) for row in rows}) > 1]
    named = {name.partition(".")[0] for name in varying if name.endswith(".name")}
    kept = [
        name for name in varying if name.endswith(".name") or name.partition(".")[0] not in named
    ]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(name)) for name in kept), []).append(row)
    return [
        SettingRows({name: held[0].get(name) for name in kept}, tuple(held))
        for held in groups.values()
    ]


def _asked(rows: Sequence[Row]) -> list[str]:
    """Return the columns that say what was asked, but the seeds."""
    probes = {c for c in (rows[0] if rows else ()) if c.startswith(("dense", "pruned", "epoch"))}
    left = {*RESULT, *DERIVED, *probes, "seed", "base.seed", "base.path"}
    return [name for name in (rows[0] if rows else ()) if name not in left]


def table(rows: Sequence[Row], shown: Sequence[str] = SHOWN) -> list[list[str]]:
    """Return a table of a study's settings, its first row the titles."""
    found = settings_of(rows)
    names = list(found[0].asked) if found else []
    title = [name.removesuffix(".name") for name in names]
    lines = [[*title, "runs", *shown]]
    for setting in found:
        cells = [_text(setting.asked[name]) for name in names]
        lines.append([*cells, str(len(setting.rows)), *(_number(setting.value(c)) for c in shown)])
    return lines


def beside_paper(rows: Sequence[Row], paper: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the published numbers with ours beside them, the first row the titles.

    Args:
        rows: Of the study.
        paper: Tables with "label", "value", and in "match" the columns of the runs that stand for
            it; "column" names the number, by default "final".
    """
    lines = [["row", "paper", "here", "runs"]]
    for each in paper:
        match, column = each.get("match", {}), each.get("column", "final")
        held = tuple(row for row in rows if all(row.get(n) == v for n, v in match.items()))
        ours = _number(SettingRows({}, held).value(column)) if held else "-"
        value = each.get("value")
        spread = f" ({each['spread']:g})" if "spread" in each else ""
        published = "-" if value is None else f"{value:.2f}{spread}"
        lines.append([str(each["label"]), published, ours, str(len(held))])
    return lines


def written(lines: Sequence[Sequence[str]]) -> str:
    """Write a table as Markdown, in columns of one width."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    rows = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])


def statuses(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many runs ended how."""
    return dict(Counter(row["status"] for row in rows))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(found: tuple[float, float | None] | None) -> str:
    if found is None:
        return "-"
    centre, spread = found
    return f"{centre:.2f}" if spread is None else f"{centre:.2f} ({spread:.2f})"
