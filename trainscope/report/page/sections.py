"""The sections of the page, from the verdict to every number."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trainscope.records import Json, Run
from trainscope.records.page import diagnosis_html
from trainscope.records.rows import quantity
from trainscope.records.run import UNKNOWN
from trainscope.report.page.markup import cell, escape, figure, listed, prose, swatch, table
from trainscope.studies.comparison import MOST_ESTIMATES, Comparison
from trainscope.studies.facts import (
    final_accuracy,
    last_epoch,
    method_of,
    ratio_of,
    schedule_of,
    speedup_of,
)
from trainscope.studies.fairness import Check
from trainscope.studies.groups import Group
from trainscope.studies.traps import Weight

LEADING = 4
"""Findings above the plots; the others follow them."""
FIRST_PLOTS = 2
MANY = 9
BLANK = (("start", UNKNOWN), ("end", UNKNOWN))
"""Facts of a Run that are not worth a line where they are unknown."""
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
    warned = sum(trap.weight is Weight.WARNING for trap in comparison.traps)
    plural = "" if warned == 1 else "s"
    count = (
        f'<p><a href="#traps">{warned} trap{plural}</a> put results in doubt.</p>' if warned else ""
    )
    return f'<div class="after">{listed(rest)}{count}</div>' if rest or count else ""


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
        '<button type="button" data-show="all">all</button>'
        '<button type="button" data-show="none">none</button>'
        '<label><input type="checkbox" id="seeds"> every run</label>'
        '<label><input type="checkbox" id="full"> full range</label></div>'
    )


def plots(found: Sequence[Json], between: str = "") -> str:
    """Return the places of all plots: the first two belong to the verdict, then comes `between`."""
    places = [figure(k, plot["title"], plot["note"]) for k, plot in enumerate(found)]
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
    stage = comparison.ta_epochs
    heads = [
        *(("Setting", False), ("Runs", True), ("Method", False), ("Ratio", True)),
        *(("Speedup", True), ("LR schedule", False), ("Epochs", True)),
        (f"TA@{stage} [%]" if stage else "TA [%]", True),
        *(("Final [%]", True), ("FLOPs", True), ("Traps", True)),
    ]
    rows = (_setting_row(k, item, comparison) for k, item in enumerate(comparison.groups))
    return f'<h2 id="settings">Settings</h2>{table(heads, rows, "Settings")}'


def _setting_row(index: int, item: Group, comparison: Comparison) -> str:
    run, ta = item.first, item.ta(comparison.ta_epochs)
    flops = next((held.flops for held in item.runs if held.flops is not None), None)
    traps = sum(trap.label == item.label for trap in comparison.traps)
    ratio, speedup = ratio_of(run), speedup_of(run)
    schedule = schedule_of(run)
    text = "unknown" if schedule is None else str(schedule)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return (
        f'<tr><td class="s" data-v="{escape(item.label)}">{swatch(index)}{escape(item.label)}</td>'
        + cell(str(len(item.runs)), len(item.runs), kind="n")
        + cell(method_of(run) or "unknown")
        + cell("–" if ratio is None else f"{ratio:g}", ratio, kind="n")
        + cell("–" if speedup is None else f"{speedup:.2f}×", speedup, kind="n")
        + f"<td><code>{escape(text)}</code></td>"
        + cell("–" if item.epochs is None else str(item.epochs), item.epochs, kind="n")
        + cell(mean_spread(*ta) if ta else "–", ta[0] if ta else None, kind="n")
        + cell(mean_spread(item.mean, item.spread), item.mean, kind="n")
        + cell("–" if flops is None else quantity(flops), flops, kind="n")
        + cell(str(traps) if traps else "", traps, kind="n")
        + "</tr>"
    )


def mean_spread(mean: float | None, spread: float | None) -> str:
    """Return "97.8 ± 0.7", "97.80" for one run, or a dash."""
    if mean is None:
        return "–"
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"


def fairness(comparison: Comparison) -> str:
    """Return every comparison setup with the reasons against it, the pairs, and the advice."""
    fair = comparison.fairness
    if fair is None:
        return ""
    rungs = "".join(_rung(check) for check in fair.checks)
    advice = "".join(_advice(line) for line in fair.advice)
    advice += "".join(_advice(f"Run: {line}") for duel in comparison.duels for line in duel.missing)
    aside = (f"<h3>What would make it fair</h3>{advice}" if advice else "") + _pairs(comparison)
    return (
        '<h2 id="fairness">How fair is the comparison?</h2>'
        '<p class="aside">The comparison setups of Wang et al. (2023), Table 2, from the loosest '
        "to the strictest; S3.2 or stricter is recommended for pruning methods. What is unknown is "
        "not the same.</p>"
        f'<div class="two"><ul class="ladder">{rungs}</ul><div>{aside}</div></div>'
    )


def _rung(check: Check) -> str:
    kind = "yes" if check.holds else "" if check.applies else "na"
    reasons = "" if check.holds else f"<span>{escape('; '.join(check.reasons[:2]))}</span>"
    word = "holds" if check.holds else "fails" if check.applies else "does not apply"
    return (
        f'<li class="{kind}"><b>{check.setup}</b>'
        f"<span>{escape(check.meaning)}: {word}</span>{reasons}</li>"
    )


def _advice(line: str) -> str:
    if line.startswith("Run: "):
        command = escape(line.removeprefix("Run: "))
        copy = '<button type="button" data-copy>copy</button>'
        return f'<div class="todo"><code>{command}</code>{copy}</div>'
    return f'<p class="todo">{escape(line)}</p>'


def _pairs(comparison: Comparison) -> str:
    if len(comparison.groups) < 3 or not comparison.pairs:
        return ""
    labels = [item.label for item in comparison.groups]
    heads = "".join(f'<th scope="col">{k + 1}</th>' for k in range(len(labels) - 1))
    rows = []
    for i in range(1, len(labels)):
        cells = []
        for j in range(i):
            found = comparison.pairs[j, i]
            kind = "yes" if found.fair else "no"
            title = escape(f"{labels[j]} and {labels[i]}: {found.sentence()}")
            name = escape(found.strictest or "none")
            cells.append(f'<td class="{kind}" title="{title}">{name}</td>')
        blank = "<td></td>" * (len(labels) - 1 - i)
        head = f'<th scope="row">{i + 1} {escape(labels[i])}</th>'
        rows.append(f"<tr>{head}{''.join(cells)}{blank}</tr>")
    return (
        "<h3>Pair by pair</h3>"
        f'<p class="aside">1 is {escape(labels[0])}. Green pairs are as strict as S3.2.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Strictest setup of every pair">'
        f'<table class="pairs"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def traps(comparison: Comparison) -> str:
    """Return every trap with its evidence, the heavier ones first."""
    ordered = sorted(comparison.traps, key=lambda trap: trap.weight is not Weight.WARNING)
    items = "".join(
        f'<li class="{trap.weight}"><strong>{escape(trap.label)}: {escape(trap.name)}</strong>'
        f"<div>{prose(trap.sentence)}</div>"
        + (f"<small>{trap.runs[0]} of {trap.runs[1]} runs</small>" if trap.runs[1] > 1 else "")
        + "</li>"
        for trap in ordered
    )
    if not items:
        return '<h2 id="traps">Traps</h2><p>None of the known traps was found.</p>'
    return f'<h2 id="traps">Traps</h2><ul class="traps">{items}</ul>'


def diagnoses(comparison: Comparison) -> str:
    """Return the tables of Diagnoses."""
    items = "".join(
        f"<details><summary>{escape(d.network.architecture)}: {escape(d.action.meaning)} "
        f"({escape(d.action.criterion)})</summary>"
        f'<div class="scroll">{diagnosis_html(d)}</div></details>'
        for d in comparison.diagnoses
    )
    return (
        f'<h2 id="diagnoses">Before and after the sparsifying action</h2>{items}' if items else ""
    )


def runs(comparison: Comparison) -> str:
    """Return the table of runs, each with a box that shows it in the plots."""
    if not comparison.groups:
        return ""
    heads = [
        *(("", False), ("Setting", False), ("Seed", True), ("Final [%]", True)),
        *(("Best [%]", True), ("TA [%]", True), ("Epochs", True)),
        *(("LR time", True), ("Parameters", True), ("Base model", False), ("Status", False)),
    ]
    rows, number = [], 0
    for index, item in enumerate(comparison.groups):
        for run in item.runs:
            rows.append(_run_row(number, index, item, run))
            number += 1
    tall = len(rows) > 20
    return f'<h2 id="runs">Every run</h2>{table(heads, rows, "Every run", tall=tall)}'


def _run_row(number: int, index: int, item: Group, run: Run) -> str:
    final = final_accuracy(run)
    known = [r.test_accuracy for r in run.epochs if r.test_accuracy is not None]
    best = max(known, default=None)
    ta = run.trainability_accuracy() if len(run.epochs) > 1 else None
    time = run.lr_time if run.epochs else None
    done = last_epoch(run)
    name = escape(f"{item.label}, seed {run.seed}")
    return (
        f'<tr><td><input type="checkbox" data-run="{number}" checked '
        f'aria-label="Show {name}"></td>'
        f'<td class="s" data-v="{escape(item.label)}">{swatch(index)}{escape(item.label)}</td>'
        + cell("–" if run.seed is None else str(run.seed), run.seed, kind="n")
        + cell("–" if final is None else f"{final:.2f}", final, kind="n")
        + cell("–" if best is None else f"{best:.2f}", best, kind="n")
        + cell("–" if ta is None else f"{ta:.2f}", ta, kind="n")
        + cell("–" if done is None else str(done), done, kind="n")
        + cell("–" if time is None else f"{time:.4g}", time, kind="n")
        + cell(
            "–" if run.parameters is None else quantity(run.parameters), run.parameters, kind="n"
        )
        + cell(run.base[:12])
        + cell(f"{run.kind}, {run.status}", kind="s")
        + "</tr>"
    )


def exact(comparison: Comparison) -> str:
    """Return the exact settings of every setting, as its first run has them."""
    items = "".join(
        f"<details><summary>{escape(item.label)}</summary><dl>{_facts(item)}</dl></details>"
        for item in comparison.groups
    )
    return f'<h2 id="exact">Exact settings</h2>{items}' if items else ""


def _facts(item: Group) -> str:
    raw = item.first.as_dict()
    for name in ("epochs", "measurements", "schema", "seed", "status"):
        raw.pop(name, None)
    pruning = raw.get("pruning")
    if pruning and pruning.get("action"):
        action = pruning.pop("action")
        raw["action"] = action["meaning"]
        raw["layers"] = ", ".join(
            f"{layer['name']} {layer['before']} → {layer['after']}" for layer in action["layers"]
        )
    raw["seeds"] = [run.seed for run in item.runs]
    bases = list(dict.fromkeys(run.base for run in item.runs))
    raw["base"] = bases[0] if len(bases) == 1 else bases
    return "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_written(value))}</dd>"
        for name, value in raw.items()
        if value not in (None, "", [], {}) and (name, value) not in BLANK
    )


def _written(value: object) -> str:
    if isinstance(value, dict):
        held = {k: v for k, v in value.items() if v not in (None, [], {})}
        return ", ".join(f"{name.replace('_', ' ')} {_written(v)}" for name, v in held.items())
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False).strip("[]")
