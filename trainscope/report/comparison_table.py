"""A comparison on the terminal: the settings, the verdict, the traps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Parts
from rich.table import Table
from rich.text import Text

from trainscope.comparison.comparison import Comparison
from trainscope.comparison.facts import method_of, ratio_of, speedup_of
from trainscope.comparison.optimizer_settings import schedule_text
from trainscope.comparison.settings import Setting
from trainscope.comparison.traps import Severity
from trainscope.records import Metric
from trainscope.records.numbers import quantity
from trainscope.report.series import common, heading, mean_spread, ta_axis
from trainscope.report.table import diagnosis_table
from trainscope.report.terminal import bullet, section

MOST_ROWS = 40
"""More settings than this are on the page, not on the terminal: those that end best are here."""
MOST_TRAPS = 12
LONGEST_SCHEDULE = 40
NOTHING = "–"
LEAST_NAME = 24
"""Letters that the name of a setting is given at least, where it has so many."""
SETTING, LR = "setting", "LR schedule"
EXTRA = (LR, "FLOPs", "speedup")
"""Columns that a narrow terminal does without, the first one first; the page has them all."""


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return the table of settings, the verdict, traps, advice and notes."""
    parts: list[RenderableType] = []
    if comparison.groups:
        parts += [_Settings(comparison)]
    lines = comparison.verdict() if comparison.groups else []  # a Diagnosis brings its own
    parts += section("Verdict", lines)
    parts += _traps(comparison)
    fair = comparison.fairness
    missing = [f"Run: {line}" for duel in comparison.duels for line in duel.missing]
    if fair is not None:
        parts += section("What would make it fair", (*fair.advice, *missing))
    for diagnosis in comparison.diagnoses:
        parts += [Text(), diagnosis_table(diagnosis)]
    return Parts(*parts, *section("Notes", comparison.notes, "dim"))


@dataclass(frozen=True)
class _Settings:
    """The table of settings, fitted to the terminal when it is printed.

    Names of settings wrap. A number never does, for a part of it says nothing: where it is narrow,
    whole columns are left out, and named.
    """

    comparison: Comparison

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        groups, stage = self.comparison.groups, self.comparison.ta_epochs
        shown: Sequence[Setting] = groups
        if len(groups) > MOST_ROWS:
            best = sorted(range(len(groups)), key=lambda k: -groups[k].quality)[:MOST_ROWS]
            shown = [groups[k] for k in sorted(best)]
        metric = common(groups)
        rows = [_cells(item, stage, metric) for item in shown]
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        widths[SETTING] = min(widths[SETTING], LEAST_NAME)
        left_out = []
        full = sum(widths.values()) + 2 * len(widths)
        for name in (
            "FLOPs",
            ta_axis(metric, stage),
        ):  # a column of nothing goes first, without a word
            if full > options.max_width and all(row.get(name) == NOTHING for row in rows):
                full -= widths.pop(name) + 2
        for name in EXTRA:
            if name in widths and sum(widths.values()) + 2 * len(widths) > options.max_width:
                del widths[name]
                left_out.append(name)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in widths:
            if name == SETTING:
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="left" if name == LR else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(row[name]) for name in widths))
        notes = [f"left out where it is narrow: {', '.join(left_out)}"] if left_out else []
        if len(groups) > len(shown):
            notes.append(f"{len(shown)} of {len(groups)} settings, those that end best")
        methods = {method_of(item.first) for item in groups}
        method = methods.pop() if len(methods) == 1 else None
        if method not in (None, "dense"):
            table.title = f"pruned by {method}"
        table.caption = "; ".join(notes) or None
        table.title_justify = table.caption_justify = "left"
        yield table


def _cells(item: Setting, stage: int | None, metric: Metric | None) -> dict[str, str]:
    """Return a setting's row, by the names of the columns.

    Args:
        item: The setting.
        stage: N of the trainability.
        metric: What all settings are told by; None where the cells name the metric.
    """
    final = NOTHING if item.mean is None else _mean(item, metric, item.mean, item.spread)
    run, ta = item.first, item.ta(stage)
    ratio, speedup, text = ratio_of(run), speedup_of(run), schedule_text(run)
    flops = next((held.flops for held in item.runs if held.flops is not None), None)
    return {
        SETTING: item.label,
        "runs": str(len(item.runs)),
        "ratio": NOTHING if ratio is None else f"{ratio:g}",
        "speedup": NOTHING if speedup is None else f"{speedup:.2f}×",
        LR: text if len(text) <= LONGEST_SCHEDULE else text[: LONGEST_SCHEDULE - 1] + "…",
        "epochs": NOTHING if item.epochs is None else str(item.epochs),
        ta_axis(metric, stage): NOTHING if ta is None else _mean(item, metric, *ta),
        heading("final", metric): final,
        "FLOPs": NOTHING if flops is None else quantity(flops),
    }


def _mean(item: Setting, metric: Metric | None, mean: float, spread: float | None) -> str:
    if metric is None:
        return f"{item.metric.name} {item.metric.written(mean, 2, spread)}"
    return mean_spread(metric, mean, spread)


def _traps(comparison: Comparison) -> list[RenderableType]:
    heavy = [trap for trap in comparison.traps if trap.weight is Severity.WARNING]
    if not heavy:
        return []
    parts = section("Traps", [f"{t.label}: {t.name}. {t.sentence}" for t in heavy[:MOST_TRAPS]])
    rest = len(heavy) - MOST_TRAPS
    if rest > 0:
        parts.append(bullet(f"and {rest} more; see --output or --json", "dim"))
    return parts
