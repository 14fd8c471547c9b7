"""Putting the page of one Diagnosis together: verdict, numbers, figures, layers, notes."""

from __future__ import annotations

from trainscope.records import ActionRecord, Diagnosis
from trainscope.records.action import speedup
from trainscope.records.metric import ACCURACY
from trainscope.records.numbers import quantity
from trainscope.records.retrained import retrained
from trainscope.report.page.markup import cell, escape, figure, listed, prose, table
from trainscope.report.page.measured import measured_plots
from trainscope.report.page.shell import shell
from trainscope.report.rows import has_recalibrated, notes, rows
from trainscope.sparsify.given import GIVEN

LEADING = 4
"""Sentences of the verdict in boxes of their own; the others follow them."""
MOST_ROWS = 32
"""A figure of more layers stands beside all others, not beside one."""


def diagnosis_page(diagnosis: Diagnosis) -> str:
    """Return the whole page of one Diagnosis, for people; the JSON beside it is for programs."""
    plots = measured_plots(diagnosis)
    places = "".join(
        figure(k, plot["title"], plot["note"], high=len(plot.get("names", ())) > MOST_ROWS)
        for k, plot in enumerate(plots)
    )
    told = notes(diagnosis)
    body = "".join(
        (
            _verdict(diagnosis),
            _numbers(diagnosis),
            f'<h2 id="plots">Figures</h2><div class="plots measured">{places}</div>'
            if places
            else "",
            "" if diagnosis.action is None else _layers(diagnosis.action),
            f'<h2 id="notes">Notes</h2>{listed(told)}' if told else "",
            _exact(diagnosis),
        )
    )
    data = {"settings": [], "runs": [], "first": None, "on": [], "plots": plots}
    return shell(diagnosis.title, _subtitle(diagnosis), body, data, _footer(diagnosis))


def _subtitle(diagnosis: Diagnosis) -> str:
    data, action = diagnosis.data, diagnosis.action
    parts = [
        "as it stands, without a sparsifying action"
        if action is None
        else f"speedup {speedup(action)}",
        f"measured on {data.name}, {data.samples} pinned samples, {data.labels} labels",
        f"base model {diagnosis.network.digest[:12]}",
    ]
    return " · ".join(parts)


def _footer(diagnosis: Diagnosis) -> str:
    """Return what numbers are in, for those that are there."""
    parts = ["± is one standard error, widened for few samples: two of them hold about 95 %"]
    trained = diagnosis.probes.get("trainability_accuracy")
    metric = None if trained is None else retrained(trained.before).metric
    if metric == ACCURACY:
        parts.append("accuracies are top-1, in percent")
    elif metric is not None:
        parts.append(f"of the test {metric.name} a {metric.better} value is better")
    gradient = diagnosis.probes.get("gradient")
    loss = None if gradient is None else gradient.before.scalars.get("loss")
    if loss is None or loss.unit == "nats":
        parts.append("losses are in nats")
    return f"{'; '.join([*parts, 'FLOPs are multiply-adds'])}."


def _verdict(diagnosis: Diagnosis) -> str:
    leading, rest = diagnosis.verdict[:LEADING], diagnosis.verdict[LEADING:]
    items = "".join(f"<li>{prose(text)}</li>" for text in leading)
    return (
        '<section class="verdict" id="verdict" aria-labelledby="verdict-title">'
        f'<h2 id="verdict-title">Verdict</h2><ol class="facts n{len(leading)}">{items}</ol>'
        f'<div class="after">{listed(rest)}</div></section>'
    )


def _numbers(diagnosis: Diagnosis) -> str:
    """Return every number in up to four columns, a heading a probe."""
    heads = ["before", "after", "after, BN recalibrated", "after / before"]
    kept = [0, 1, 2, 3] if has_recalibrated(diagnosis) else [0, 1, 3]
    if diagnosis.action is None:
        heads[0], kept = "value", [0]
    body, probe = [], ""
    for row in rows(diagnosis):
        if row.probe != probe:
            probe = row.probe
            name = f'<th scope="rowgroup" colspan="{len(kept) + 1}">{escape(probe)}</th>'
            body.append(f'<tr class="probe">{name}</tr>')
        cells = "".join(cell(row.cells[k], kind="n") for k in kept)
        hint = f' title="{row.better} is better"' if row.better else ""
        body.append(f'<tr><th scope="row"{hint}>{escape(row.label)}</th>{cells}</tr>')
    one = "" if diagnosis.action else " one"
    columns = "".join(f'<th scope="col" class="n">{heads[k]}</th>' for k in kept)
    return (
        f'<h2 id="numbers">Numbers</h2><div class="scroll{one}" tabindex="0" role="region" '
        f'aria-label="Every number"><table class="numbers"><thead><tr><th></th>{columns}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _layers(action: ActionRecord) -> str:
    """Return what was done to which layer, and what was left alone and why."""
    unit = "filters" if action.structure == "filter" or action.scope == "cut" else "weights"
    unit = "units" if action.heads is not None or action.blocks is not None else unit
    heads = [("Layer", False), (f"{unit} before", True), ("after", True), ("gone", True)]
    changed = (
        f'<tr><td class="s">{escape(layer.name)}</td>'
        + cell(f"{layer.before:,}", layer.before, kind="n")
        + cell(f"{layer.after:,}", layer.after, kind="n")
        + _gone(layer.before, layer.after)
        + "</tr>"
        for layer in action.layers
    )
    parts = [f'<h2 id="layers">What was done to which layer</h2><p>{_done(action)}</p>']
    if action.layers:
        parts.append(table(heads, changed, "Layers that were pruned", tall=True))
    if action.left_alone:
        left = (
            f'<tr><td class="s">{escape(each.name)}</td>'
            + cell(f"{100 * each.share:.3g} %", each.share, kind="n")
            + cell(each.reason)
            + "</tr>"
            for each in action.left_alone
        )
        heads = [("Left alone", False), ("of the parameters", True), ("because", False)]
        parts.append(f"<h3>Left alone</h3>{table(heads, left, 'Layers left alone', tall=True)}")
    return "".join(parts)


def _done(action: ActionRecord) -> str:
    how = ", ".join(filter(None, (action.structure, action.scope, action.criterion)))
    if action.structure == GIVEN:
        how = f"by another tool, worked out from the two networks; what went: {action.criterion}"
    return f"{prose(action.meaning)} ({escape(how)})."


def _gone(before: int, after: int) -> str:
    share = 1 - after / before if before else 0.0
    bar = f'<i class="share" style="width:{60 * share:.1f}px"></i>'
    return f'<td class="n" data-v="{share!r}">{bar}{100 * share:.1f} %</td>'


def _exact(diagnosis: Diagnosis) -> str:
    """Return sizes, and what a repetition needs."""
    network, action = diagnosis.network, diagnosis.action
    rest = "" if action is None else f" → {quantity(action.parameters)}"
    cost = "" if action is None else f" → {quantity(action.flops)}"
    shape = "x".join(map(str, network.input_shape))
    pairs = {
        "network": f"{network.architecture}, {network.recognised}".rstrip(", "),
        "weights": f"SHA-256 {network.digest}",
        "one input": shape,
        "parameters": f"{quantity(network.parameters)}{rest}",
        "FLOPs": f"{quantity(network.flops)}{cost}",
        "seed": str(diagnosis.seed),
        **diagnosis.environment,
    }
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items() if value
    )
    return (
        "<h2>To repeat it</h2><details><summary>Network, versions and options</summary>"
        f"<dl>{items}</dl></details>"
    )
