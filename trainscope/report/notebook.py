"""A Diagnosis as a piece of HTML, for notebooks."""

from __future__ import annotations

from trainscope.records import Diagnosis
from trainscope.records.action import speedup
from trainscope.records.numbers import quantity
from trainscope.records.text import escape
from trainscope.report.rows import has_recalibrated, reasons, rows


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Return the action, the table, the verdict and the reasons, without scripts or styles."""
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
        body.append("<tr>" + "".join(f"<td>{escape(cells[k])}</td>" for k in kept) + "</tr>")
    parts = [
        f"<h4>{escape(diagnosis.title)}</h4>",
        f"<p>{size}; {escape(diagnosis.data.name)}, "
        f"{diagnosis.data.samples} samples, {escape(diagnosis.data.labels)} labels</p>",
        "<table><thead><tr>" + "".join(f"<th>{heads[k]}</th>" for k in kept) + "</tr></thead>",
        "<tbody>" + "".join(body) + "</tbody></table>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in diagnosis.verdict) + "</ul>",
    ]
    parts += [f"<p><small>{escape(line)}</small></p>" for line in reasons(diagnosis)]
    return "\n".join(parts)
