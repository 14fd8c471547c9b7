"""A correlation on the terminal: the columns, the ceiling, the notes."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainscope.report.correlation_display import label_of
from trainscope.report.terminal import section
from trainscope.studies.association import LABELS
from trainscope.studies.correlation import Coefficient, Correlation, Predictor

MOST_ROWS = 40


def correlation_table(found: Correlation) -> RenderableType:
    """Return the table of columns, what the noise lets anything reach, and the notes."""
    parts: list[RenderableType] = [_heading(found), Text(), _columns(found)]
    if ceiling := ceiling_lines(found):
        parts += [Text(), *map(Text, ceiling)]
    without = [each for each in found.predictors if each.reason]
    notes = [f"{each.column} has no coefficient: {each.reason}" for each in without[:12]]
    notes += found.notes
    return Group(*parts, *section("Notes", notes, "dim"))


def ceiling_lines(found: Correlation) -> list[str]:
    """Return sentences about how far anything could predict the end."""
    ceiling = found.ceiling
    if ceiling is None:
        return []
    again, reached = ceiling.another["kendall"], ceiling.attainable["kendall"]
    return [
        f"Ceiling: Kendall tau of one retraining with another of the same candidate is "
        f"{_written(again)} ({ceiling.candidates} candidates, {ceiling.retrainings} retrainings); "
        f"a number without noise could have {_written(reached)}, the ends being normal."
    ]


def row_of(each: Predictor) -> list[str]:
    """Return the cells of one column's row."""
    tau = each.coefficients["kendall"]
    return [
        label_of(each),
        f"{tau.value:+.2f}",
        "–" if tau.low is None else f"{tau.low:+.2f} to {tau.high:+.2f}",
        _p(tau.p),
        *(f"{each.coefficients[name].value:+.2f}" for name in ("spearman", "pearson")),
        *("–" if v is None else f"{100 * v:.0f} %" for v in (each.anomaly, each.counterexample)),
        str(each.candidates),
    ]


def heads(found: Correlation) -> list[str]:
    """Return the heads of the columns of `row_of`."""
    level = f"{100 * found.level:g} % interval"
    return [
        *("known before", "tau-b", level, "p", "rho", "r"),
        *("anomalies", "counterexamples", "candidates"),
    ]


def _columns(found: Correlation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads(found)):
        table.add_column(head, justify="right" if place else "left")
    rows = [each for each in found.predictors if each.coefficients]
    for each in (*([found.together] if found.together else []), *rows[:MOST_ROWS]):
        table.add_row(*(Text(cell) for cell in row_of(each)))
    return table


def _heading(found: Correlation) -> Text:
    text = Text()
    text.append(f"{found.target}", "bold")
    text.append(
        f" ({found.better} is better) of {found.candidates} candidates, {found.retrainings} "
        f"retrainings\n{LABELS['kendall']}, {LABELS['spearman']} and {LABELS['pearson']} over "
        "candidates"
    )
    if found.strata:
        count = len(found.strata)
        text.append(f", compared within {count} strata: {', '.join(found.strata[:6])}")
    return text


def _written(each: Coefficient) -> str:
    if each.low is None or each.high is None:
        return f"{each.value:.2f}"
    return f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
