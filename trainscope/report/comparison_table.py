"""A comparison on the terminal: the settings, the verdict, the traps."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trainscope.records.rows import quantity
from trainscope.report.table import diagnosis_table
from trainscope.studies.comparison import Comparison
from trainscope.studies.facts import method_of, ratio_of, schedule_of, speedup_of
from trainscope.studies.traps import Weight

MOST_ROWS = 40
"""More settings than this are on the page, not on the terminal: those that end highest are here."""
MOST_TRAPS = 12
LONGEST_SCHEDULE = 40


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return the table of settings, the verdict, traps, advice and notes."""
    parts: list[RenderableType] = []
    if comparison.groups:
        parts += [_settings(comparison), Text()]
    lines = comparison.verdict() if comparison.groups else []  # a Diagnosis brings its own
    if lines:
        parts.append(Text("Verdict", style="bold"))
        parts += [_bullet(line) for line in lines]
    parts += _traps(comparison)
    fair = comparison.fairness
    missing = [f"Run: {line}" for duel in comparison.duels for line in duel.missing]
    if fair is not None and (fair.advice or missing):
        parts += [Text(), Text("What would make it fair", style="bold")]
        parts += [_bullet(line) for line in (*fair.advice, *missing)]
    for diagnosis in comparison.diagnoses:
        parts += [Text(), diagnosis_table(diagnosis)]
    if comparison.notes:
        parts += [Text(), Text("Notes", style="bold")]
        parts += [_bullet(line, "dim") for line in comparison.notes]
    return Group(*parts)


def _settings(comparison: Comparison) -> Table:
    stage = comparison.ta_epochs
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    for name in ("runs", "ratio", "speedup"):
        table.add_column(name, justify="right")
    table.add_column("LR schedule", overflow="ellipsis", no_wrap=True)
    table.add_column("epochs", justify="right")
    table.add_column(f"TA@{stage} [%]" if stage else "TA [%]", justify="right", no_wrap=True)
    table.add_column("final [%]", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    groups = comparison.groups
    shown = groups
    if len(groups) > MOST_ROWS:
        best = sorted(groups, key=lambda item: -(item.mean or 0.0))[:MOST_ROWS]
        shown = tuple(item for item in groups if item in best)
    for item in shown:
        run, ta = item.first, item.ta(stage)
        ratio, speedup, schedule = ratio_of(run), speedup_of(run), schedule_of(run)
        text = "unknown" if schedule is None else str(schedule)
        flops = next((held.flops for held in item.runs if held.flops is not None), None)
        table.add_row(
            Text(item.label),
            str(len(item.runs)),
            "–" if ratio is None else f"{ratio:g}",
            "–" if speedup is None else f"{speedup:.2f}×",
            text if len(text) <= LONGEST_SCHEDULE else text[: LONGEST_SCHEDULE - 1] + "…",
            "–" if item.epochs is None else str(item.epochs),
            "–" if ta is None else _mean(*ta),
            _mean(item.mean, item.spread),
            "–" if flops is None else quantity(flops),
        )
    if len(groups) > len(shown):
        table.caption = f"{len(shown)} of {len(groups)} settings, those that end highest"
    methods = {method_of(item.first) for item in groups}
    method = methods.pop() if len(methods) == 1 else None
    if method not in (None, "dense"):
        table.title = f"pruned by {method}"
        table.title_justify = table.caption_justify = "left"
    return table


def _mean(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"


def _traps(comparison: Comparison) -> list[RenderableType]:
    heavy = [trap for trap in comparison.traps if trap.weight is Weight.WARNING]
    if not heavy:
        return []
    parts: list[RenderableType] = [Text(), Text("Traps", style="bold")]
    parts += [_bullet(f"{t.label}: {t.name}. {t.sentence}") for t in heavy[:MOST_TRAPS]]
    rest = len(heavy) - MOST_TRAPS
    if rest > 0:
        parts.append(_bullet(f"and {rest} more; see --output or --json", "dim"))
    return parts


def _bullet(line: str, style: str = "") -> Padding:
    return Padding(Text(f"• {line}", style), (0, 0, 0, 1))
