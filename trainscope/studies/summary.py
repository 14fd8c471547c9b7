"""What a study came to: its rows by setting, over seeds, beside a paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from trainscope.records.metric import LOWER
from trainscope.studies.results import Row

RESULT = (
    *("dense", "pruned", "pruned_loss", "early", "ta", "final", "best", "speedup", "reached"),
    *("train_loss", "test_loss", "parameters", "flops", "flops_per_sample", "seconds"),
    *("pretraining_flops", "stage_epochs", "stage_flops"),
    *("status", "metric", "better", "digest", "start", "end", "base", "study"),
    *("search.of", "search.place", "search.slot", "stopped"),
)
"""Columns that say what came out; what is no such column and no probe's says what was asked."""
SHOWN = ("dense", "pruned", "ta", "final")
SEARCHED = ("runs", "stopped", "best recipe", "lr", "final")
DERIVED = (
    "kind",
    "schedule",
    "lr",
    "epochs",
    "base.digest",
    "base.lr",
    "base.epochs",
    "base.schedule",
)
"""Columns that follow from others."""
FOLLOWING = ("shape", "min_lr", "warmup", "weights")
"""Columns that may follow from the names in a study."""


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


@dataclass(frozen=True)
class PaperRow:
    """A published number, for ours to stand beside.

    Attributes:
        label: What the paper calls its row.
        under: The heading of its column, where the paper has several.
        value: The number; None where the paper has none.
        spread: Its standard deviation.
        column: Which of a run's numbers stands beside it.
        match: Columns of the runs that do, with their values; without any no run does.
    """

    label: str
    under: str = ""
    value: float | None = None
    spread: float | None = None
    column: str = "final"
    match: Mapping[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> str:
        """The number as a cell of a table."""
        if self.value is None:
            return "-"
        spread = "" if self.spread is None else f" ({self.spread:.2f})"
        return f"{self.value:.2f}{spread}"


def settings_of(rows: Sequence[Row]) -> list[SettingRows]:
    """Return the settings of a study's rows, in their order."""
    varying = [name for name in _asked(rows) if len({str(row.get(name)) for row in rows}) > 1]
    named = {name.partition(".")[0] for name in varying if name.endswith(".name")}
    kept = [
        name for name in varying if name.endswith(".name") or name.partition(".")[0] not in named
    ]
    groups = _groups(rows, kept)
    for name in FOLLOWING:  # what a name stands for need not be said again
        fewer = [each for each in kept if each != name]
        if name in kept and named and len(_groups(rows, fewer)) == len(groups):
            kept, groups = fewer, _groups(rows, fewer)
    return [
        SettingRows({name: held[0].get(name) for name in kept}, tuple(held))
        for held in groups.values()
    ]


def _groups(rows: Sequence[Row], kept: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(name)) for name in kept), []).append(row)
    return groups


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


def best_of_searches(rows: Sequence[Row]) -> list[list[str]]:
    """Return the best run of every search in a table, its first row the titles; [] without any."""
    held: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("search.of") is not None:
            held.setdefault(row["search.of"], []).append(row)
    firsts = [each[0] for each in held.values()]
    asked = [name for name in (*_asked(rows), "seed") if name != "recipe"]
    names = [name for name in asked if len({str(row.get(name)) for row in firsts}) > 1]
    lines = [[*(name.removesuffix(".name") for name in names), *SEARCHED]] if held else []
    for each in held.values():
        ended = [row for row in each if row["final"] is not None]
        better = min if each[0]["better"] == LOWER else max
        best = better(ended, key=lambda row: float(row["final"])) if ended else {}
        stopped = sum(row.get("stopped") is not None for row in each)
        cells = [_text(each[0].get(name)) for name in names]
        found = [_text(best.get("recipe")), _text(best.get("lr")), _text(best.get("final"))]
        lines.append([*cells, str(len(each)), str(stopped), *found])
    return lines


def beside_paper(rows: Sequence[Row], paper: Sequence[PaperRow]) -> list[list[str]]:
    """Return the published numbers with ours beside them, the first row the titles.

    As in a paper, what has one label stands in one row, in a pair of columns for each heading.

    Args:
        rows: Of the study.
        paper: What was published.
    """
    several = len({each.under for each in paper}) > 1
    under = [each.under or each.column * several for each in paper]
    headings = list(dict.fromkeys(under))
    cells: dict[str, dict[str, tuple[str, str]]] = {}
    named: dict[str, dict[str, None]] = {}
    for each, heading in zip(paper, under, strict=True):
        held = tuple(r for r in rows if all(r.get(n) == v for n, v in each.match.items()))
        ours = _number(SettingRows({}, held).value(each.column)) if each.match and held else "-"
        cells.setdefault(each.label, {})[heading] = (each.published, ours)
        names = named.setdefault(each.label, {})
        names |= {str(r.get("recipe.name") or r["recipe"]): None for r in held if each.match}
    there = any(names and list(names) != [label] for label, names in named.items())
    title = ["row of the paper", *(["run here"] if there else [])]
    lines = [[*title, *(f"{h} {who}".strip() for h in headings for who in ("paper", "here"))]]
    for label, found in cells.items():
        pairs = [cell for heading in headings for cell in found.get(heading, ("-", "-"))]
        lines.append([label, *([" / ".join(named[label]) or "-"] if there else []), *pairs])
    return lines


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
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


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(found: tuple[float, float | None] | None) -> str:
    if found is None:
        return "-"
    centre, spread = found
    return f"{centre:.2f}" if spread is None else f"{centre:.2f} ({spread:.2f})"
