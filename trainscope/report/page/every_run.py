"""The sections that leave nothing out: every run, and the exact settings."""

from __future__ import annotations

import json

from trainscope.comparison.comparison import Comparison
from trainscope.comparison.facts import final_value, last_epoch
from trainscope.comparison.settings import Setting
from trainscope.records import Metric, Run
from trainscope.records.numbers import quantity
from trainscope.records.run import UNKNOWN
from trainscope.report.page.markup import cell, escape, prose, swatch, table
from trainscope.report.series import capital, common, heading, mean_spread, ta_axis

BLANK = (("start", UNKNOWN), ("end", UNKNOWN))
"""Facts of a Run that are not worth a line where they are unknown."""


def runs(comparison: Comparison) -> str:
    """Return the table of runs, each with a box that shows it in the plots."""
    if not comparison.groups:
        return ""
    metric = common(comparison.groups)
    heads = [
        *(("", False), ("Setting", False), ("Seed", True), (heading("Final", metric), True)),
        *((heading("Best", metric), True), (capital(ta_axis(metric)), True), ("Epochs", True)),
        *(("LR time", True), ("Parameters", True), ("Base model", False), ("Status", False)),
    ]
    rows, number = [], 0
    for index, item in enumerate(comparison.groups):
        for run in item.runs:
            rows.append(_run_row(number, index, item, run, named=metric is None))
            number += 1
    tall = len(rows) > 20
    return f'<h2 id="runs">Every run</h2>{table(heads, rows, "Every run", tall=tall)}'


def _run_row(number: int, index: int, item: Setting, run: Run, *, named: bool) -> str:
    final = final_value(run)
    best = run.metric.best(r.test_metric for r in run.epochs if r.test_metric is not None)
    ta = run.trainability_accuracy() if len(run.epochs) > 1 else None
    time = run.lr_time if run.epochs else None
    done = last_epoch(run)
    name = escape(f"{item.label}, seed {run.seed}")
    return (
        f'<tr><td><input type="checkbox" data-run="{number}" checked '
        f'aria-label="Show {name}"></td>'
        f'<td class="s" data-v="{escape(item.label)}">{swatch(index)}{prose(item.label)}</td>'
        + cell("–" if run.seed is None else str(run.seed), run.seed, kind="n")
        + value_cell(run.metric, final, named=named)
        + value_cell(run.metric, best, named=named)
        + value_cell(run.metric, ta, named=named)
        + cell("–" if done is None else str(done), done, kind="n")
        + cell("–" if time is None else f"{time:.4g}", time, kind="n")
        + cell(
            "–" if run.parameters is None else quantity(run.parameters), run.parameters, kind="n"
        )
        + cell(run.base[:12])
        + cell(f"{run.kind}, {run.status}", kind="nb")
        + "</tr>"
    )


def value_cell(
    metric: Metric, value: float | None, spread: float | None = None, *, named: bool
) -> str:
    """Return a cell of a test value, with its metric's name and unit where heads do not say it."""
    if named and value is not None:
        text = f"{metric.name} {metric.written(value, 2, spread)}"
    else:
        text = mean_spread(metric, value, spread)
    return cell(text, value, kind="n")


def exact(comparison: Comparison) -> str:
    """Return the exact settings of every setting, as its first run has them."""
    items = "".join(
        f"<details><summary>{escape(item.label)}</summary><dl>{_facts(item)}</dl></details>"
        for item in comparison.groups
    )
    return f'<h2 id="exact">Exact settings</h2>{items}' if items else ""


def _facts(item: Setting) -> str:
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
