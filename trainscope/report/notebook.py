"""Results as pieces of HTML for notebooks, without scripts or styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch

from trainscope.comparison.comparison import Comparison
from trainscope.convergence import Estimate
from trainscope.networks import Network, parameters
from trainscope.records import Diagnosis, Measurement, Measurements, Run, Status
from trainscope.records.action import speedup
from trainscope.records.numbers import estimate, number, quantity
from trainscope.records.retrained import retrained
from trainscope.records.text import escape
from trainscope.report.rows import description, has_recalibrated, reasons, rows

MOST_EPOCHS = 8
"""Epochs of a Run that are shown, the last ones."""
MOST_SETTINGS = 30
"""Settings of a Comparison that are shown."""


@singledispatch
def shown(thing: object) -> str:
    """Return a result as HTML; of what is no result, its one line."""
    return f"<pre>{escape(repr(thing))}</pre>"


@shown.register
def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Return the action, the table, the verdict and the reasons."""
    action, network = diagnosis.action, diagnosis.network
    heads = ["", "before", "after", "after, batch norm recalibrated", "after / before"]
    kept = [0, 1, 2, 3, 4] if has_recalibrated(diagnosis) else [0, 1, 2, 4]
    size = f"{quantity(network.parameters)} parameters, {quantity(network.flops)} FLOPs"
    if action is None:
        heads[1], kept = "value", [0, 1]
    else:
        size = (
            f"{quantity(network.parameters)} → {quantity(action.parameters)} parameters, "
            f"{quantity(network.flops)} → {quantity(action.flops)} FLOPs, "
            f"speedup {speedup(action)}"
        )
    body, probe = [], ""
    for row in rows(diagnosis):
        if row.probe != probe:
            probe = row.probe
            body.append(f'<tr><th colspan="{len(kept)}">{escape(probe)}</th></tr>')
        cells = (row.label, *row.cells)
        body.append(_row([cells[k] for k in kept]))
    data = diagnosis.data
    where = f"{data.name}, {data.samples} samples, {data.labels} labels"
    return "\n".join(
        (
            f"<h4>{escape(diagnosis.title)}</h4>",
            f"<p>{escape(size)}; {escape(where)}</p>",
            _table([heads[k] for k in kept], body),
            _list(diagnosis.verdict),
            *_small(reasons(diagnosis)),
        )
    )


@shown.register
def measurement_html(measured: Measurement) -> str:
    """Return the numbers of one probe, and what must be known beside them."""
    said, metric, body = description(measured.probe), retrained(measured).metric, []
    for name, scalar in measured.scalars.items():
        value = "–"
        if scalar.value is not None:
            error = scalar.stderr
            value = number(scalar.value) if error is None else estimate(scalar.value, error)
        body.append(_row([said.label(name, metric), value, scalar.unit, scalar.reason or ""]))
    ended = [] if measured.status is Status.OK else [f"{measured.status}: {measured.reason}"]
    notes = [f"{name}: {text}" for name, text in measured.notes.items()]
    numbers = _table(["", "value", "unit", ""], body) if body else ""
    return "\n".join((f"<h4>{escape(said.title)}</h4>", numbers, *_small([*ended, *notes])))


@shown.register
def measurements_html(measured: Measurements) -> str:
    """Return the numbers of several probes, and what was said of the network and the data."""
    return "\n".join((*map(measurement_html, measured.values()), *_small(measured.notes)))


@shown.register
def run_html(run: Run) -> str:
    """Return what was trained, where it ended, and its last epochs."""
    metric, mean = run.metric, run.trainability()
    final, n = run.final_metric, "" if mean.epochs is None else f", N = {mean.epochs}"
    done = run.epochs[-1].epoch if run.epochs else 0
    facts = [
        ("network", run.architecture),
        ("data", run.data),
        ("LR schedule", run.schedule),
        ("epochs", f"{done}" if run.total is None else f"{done} of {run.total}, {run.status}"),
        (f"final test {metric.name}", None if final is None else metric.written(final, 2)),
        (f"trainability {metric.name}{n}", _written(run, mean.value)),
    ]
    if run.pruning is not None and run.pruning.action is not None:
        done_to = run.pruning.action
        facts.append(("pruned", f"{done_to.meaning}; speedup {speedup(done_to)}"))
    body = [
        _row([str(e.epoch), f"{e.lr:g}", _loss(e.train_loss), _written(run, e.test_metric)])
        for e in run.epochs[-MOST_EPOCHS:]
    ]
    heads = ["epoch", "LR", "training loss", f"test {metric.name}"]
    last = _table(heads, body) if body else ""
    return "\n".join((f"<h4>Run: {escape(run.kind)}</h4>", _facts(facts), last, *_small(run.notes)))


@shown.register
def comparison_html(comparison: Comparison) -> str:
    """Return the settings, what they show, and how fair the comparison is."""
    body = []
    for item in comparison.groups[:MOST_SETTINGS]:
        metric = item.first.metric
        finals = [run.final_metric for run in item.runs if run.final_metric is not None]
        mean = sum(finals) / len(finals) if finals else None
        cells = [item.label, str(len(item.runs)), _written(item.first, mean), metric.name]
        body.append(_row(cells))
    settings = _table(["setting", "runs", "final", "metric"], body) if body else ""
    more = len(comparison.groups) - MOST_SETTINGS
    fair = comparison.fairness
    lines = [*comparison.facts(), *(trap.sentence for trap in comparison.traps)]
    return "\n".join(
        (
            "<h4>Comparison</h4>",
            settings,
            *_small([f"and {more} settings more"] if more > 0 else []),
            f"<p>{escape(fair.sentence())}</p>" if fair is not None else "",
            _list(lines),
            *_small(comparison.notes),
        )
    )


@shown.register
def estimate_html(found: Estimate) -> str:
    """Return the epochs until the target, and what they rest on."""
    extra = found.extra_epochs.in_words(more=found.per)
    facts = [
        ("target", found.metric.written(found.target)),
        ("first passage", found.first_passage.in_words(found.per)),
        (f"extra {found.per}s", f"{extra}, {found.level:.0%} interval in brackets"),
        ("reachable", f"with probability {found.reachable:.2f}"),
        ("status", str(found.status)),
    ]
    if not found.is_known:
        facts = [facts[0], ("first passage", "unknown"), facts[-1]]
    return "\n".join(("<h4>Estimate</h4>", _facts(facts), f"<p>{escape(found.explanation)}</p>"))


@shown.register
def network_html(network: Network) -> str:
    """Return what a network is and how it was opened."""
    classes = network.num_classes
    facts = [
        ("architecture", network.architecture),
        ("recognised", network.recognised),
        ("format", network.format),
        ("one input", "x".join(map(str, network.input_shape))),
        ("classes", None if classes is None else str(classes)),
        ("parameters", quantity(parameters(network.module))),
        *(("pruned before", each.sentence()) for each in network.before),
    ]
    return "\n".join(("<h4>Network</h4>", _facts(facts), *_small(network.notes)))


def _written(run: Run, value: float | None) -> str:
    return "" if value is None else run.metric.written(value, 2)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(heads: Sequence[str], body: Iterable[str]) -> str:
    names = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _facts(pairs: Iterable[tuple[str, str | None]]) -> str:
    lines = (_row([name, value]) for name, value in pairs if value)
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _small(lines: Iterable[str]) -> list[str]:
    return [f"<p><small>{escape(line)}</small></p>" for line in lines]
