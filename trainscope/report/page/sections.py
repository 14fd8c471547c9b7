"""The first sections of the page: the verdict, the plots, the table of settings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainscope.comparison.comparison import MOST_ESTIMATES, Comparison
from trainscope.comparison.facts import (
    method_of,
    ratio_of,
    speedup_of,
)
from trainscope.comparison.optimizer_settings import schedule_text
from trainscope.comparison.settings import Setting
from trainscope.comparison.traps import Severity
from trainscope.records import Json
from trainscope.records.numbers import quantity
from trainscope.report.page.every_run import value_cell
from trainscope.report.page.markup import cell, escape, figure, listed, prose, swatch, table
from trainscope.report.series import capital, common, heading, ta_axis

LEADING = 4
"""Findings above the plots; the others follow them."""
FIRST_PLOTS = 2
MANY = 9
"""From so many settings on there is a box to find one."""


def verdict(comparison: Comparison) -> str:
    """Return the findings and how fair the comparison is: the first thing read."""
    facts = comparison.facts()
    leading = facts[:LEADING]
    items = "".join(f"<li>{prose(text)}</li>" for text in leading)
    parts = [f'<ol class="facts n{len(leading)}">{items}</ol>' if items else ""]
    fair = comparison.fairness
    if fair is not None:
        kind = " yes" if fair.fair else " one" if fair.one_network else ""
        parts.append(
            f'<p class="fair{kind}"><span class="badge">{escape(fair.strictest or "none")}</span>'
            f'<span>{prose(comparison.fairness_sentence())} <a href="#fairness">Why</a></span></p>'
        )
    return (
        '<section class="verdict" id="verdict" aria-labelledby="verdict-title">'
        f'<h2 id="verdict-title">Verdict</h2>{"".join(parts)}</section>'
    )


def more(comparison: Comparison) -> str:
    """Return the findings that follow the first plots, the estimates, and a count of the traps."""
    rest = comparison.facts()[LEADING:]
    rest += [held.sentence() for held in comparison.estimates[:MOST_ESTIMATES]]
    count = _count(comparison)
    return f'<div class="after">{listed(rest)}{count}</div>' if rest or count else ""


def _count(comparison: Comparison) -> str:
    """Return how many boxes the section of traps has, and how many of them are warnings."""
    total = len(comparison.traps)
    if not total:
        return ""
    warned = sum(trap.weight is Severity.WARNING for trap in comparison.traps)
    notes = total - warned
    puts = "puts" if warned == 1 else "put"
    if not notes:
        told = f" {puts} results in doubt."
    elif not warned:
        told = f", {'a note' if notes == 1 else 'all notes'}: no result is in doubt."
    else:
        rest = "is a note" if notes == 1 else "are notes"
        told = f": {warned} {puts} results in doubt, {notes} {rest}."
    return f'<p><a href="#traps">{total} trap{"" if total == 1 else "s"}</a>{told}</p>'


def bar(comparison: Comparison) -> str:
    """Return the settings as buttons that show and hide them in every plot."""
    chips = "".join(
        f'<button type="button" class="chip" data-setting="{k}" aria-pressed="true">{swatch(k)}'
        f'<span class="name">{escape(item.label)}</span>'
        + (f"<small>×{len(item.runs)}</small>" if len(item.runs) > 1 else "")
        + "</button>"
        for k, item in enumerate(comparison.groups)
    )
    many = len(comparison.groups) >= MANY
    find = (
        '<input type="search" id="filter" placeholder="find a setting" aria-label="Find a setting">'
        if many
        else ""
    )
    return (
        f'<div class="bar{" many" if many else ""}" role="group" '
        f'aria-label="Settings shown in the plots">{find}<div class="chips">{chips}</div>'
        '<button type="button" id="unfold" aria-expanded="false" hidden>▾ more</button>'
        '<button type="button" data-show="all">all</button>'
        '<button type="button" data-show="none">none</button>'
        '<label><input type="checkbox" id="seeds"> every run</label>'
        f'<label><input type="checkbox" id="full"> full range</label>{_first(comparison)}</div>'
    )


def _first(comparison: Comparison) -> str:
    """Return the box that shows the epochs that TA is taken over: later ones hide them."""
    if not comparison.ta_epochs:
        return ""
    return f'<label><input type="checkbox" id="first"> first {comparison.ta_epochs} epochs</label>'


def plots(found: Sequence[Json], between: str = "") -> str:
    """Return the places of all plots: the first two belong to the verdict, then comes `between`."""
    places = [
        figure(k, plot["title"], plot["note"], narrow=plot.get("narrow", False))
        for k, plot in enumerate(found)
    ]
    if not places:
        return between
    rest = "".join(places[FIRST_PLOTS:])
    return f'<div class="plots">{"".join(places[:FIRST_PLOTS])}</div>{between}' + (
        f'<h2 id="plots">More plots</h2><div class="plots">{rest}</div>' if rest else ""
    )


def settings(comparison: Comparison) -> str:
    """Return the table of settings."""
    if not comparison.groups:
        return ""
    stage, metric = comparison.ta_epochs, common(comparison.groups)
    heads = [
        *(("Setting", False), ("Runs", True), ("Method", False), ("Ratio", True)),
        *(("Speedup", True), ("LR schedule", False), ("Epochs", True)),
        (capital(ta_axis(metric, stage)), True),
        *((heading("Final", metric), True), ("FLOPs", True), ("Traps", True)),
    ]
    rows = (_setting_row(k, item, comparison) for k, item in enumerate(comparison.groups))
    return f'<h2 id="settings">Settings</h2>{table(heads, rows, "Settings")}'


def _setting_row(index: int, item: Setting, comparison: Comparison) -> str:
    run, ta = item.first, item.ta(comparison.ta_epochs)
    named = common(comparison.groups) is None
    flops = next((held.flops for held in item.runs if held.flops is not None), None)
    traps = sum(trap.label == item.label for trap in comparison.traps)
    ratio, speedup = ratio_of(run), speedup_of(run)
    text = schedule_text(run)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    stages = "<wbr>".join(
        f'<span class="nb">{escape(stage)}</span>' for stage in re.findall("[^,]+,?", text)
    )
    return (
        f'<tr><td class="s" data-v="{escape(item.label)}">{swatch(index)}{prose(item.label)}</td>'
        + cell(str(len(item.runs)), len(item.runs), kind="n")
        + cell(method_of(run) or "unknown")
        + cell("–" if ratio is None else f"{ratio:g}", ratio, kind="n")
        + cell("–" if speedup is None else f"{speedup:.2f}×", speedup, kind="n")
        + f"<td><code>{stages}</code></td>"
        + cell("–" if item.epochs is None else str(item.epochs), item.epochs, kind="n")
        + value_cell(item.metric, *(ta or (None, None)), named=named)
        + value_cell(item.metric, item.mean, item.spread, named=named)
        + cell("–" if flops is None else quantity(flops), flops, kind="n")
        + cell(str(traps) if traps else "", traps, kind="n")
        + "</tr>"
    )
