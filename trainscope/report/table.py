"""A Diagnosis as a table on the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainscope.records import Diagnosis
from trainscope.records.action import speedup
from trainscope.records.numbers import quantity
from trainscope.report.rows import has_recalibrated, notes, rows
from trainscope.report.terminal import section


def diagnosis_table(diagnosis: Diagnosis) -> RenderableType:
    """Return the network, the action, the numbers, the verdict and what is missing."""
    return Group(
        _heading(diagnosis),
        Text(),
        _numbers(diagnosis),
        *section("Verdict", diagnosis.verdict),
        *section("Notes", notes(diagnosis), "dim"),
    )


def _heading(diagnosis: Diagnosis) -> Text:
    network, action, data = diagnosis.network, diagnosis.action, diagnosis.data
    text = Text()
    text.append(network.architecture, "bold")
    text.append(f"  base model {network.digest[:12]}, {network.recognised}\n")
    if action is None:
        text.append(
            f"{quantity(network.parameters)} parameters, {quantity(network.flops)} FLOPs; measured "
            "as it is, without a sparsifying action\n"
        )
    else:
        text.append(action.meaning, "bold")
        text.append(
            f"  ({action.structure}, {action.scope}, {action.criterion})\n"
            f"{quantity(network.parameters)} → {quantity(action.parameters)} parameters, "
            f"{quantity(network.flops)} → {quantity(action.flops)} FLOPs, "
            f"speedup {speedup(action)}\n"
        )
    text.append(
        f"measured on {data.name}, {data.samples} pinned samples, {data.labels} labels, "
        f"seed {diagnosis.seed}"
    )
    return text


def _numbers(diagnosis: Diagnosis) -> Table:
    heads = ["before", "after", "after, BN\nrecalibrated", "after /\nbefore"]
    kept = [0, 1, 2, 3] if has_recalibrated(diagnosis) else [0, 1, 3]
    if diagnosis.action is None:
        heads[0], kept = "value", [0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for place in kept:
        table.add_column(heads[place], justify="right")
    probe = ""
    for row in rows(diagnosis):
        if row.probe != probe:
            if probe:
                table.add_row()
            probe = row.probe
            table.add_row(Text(probe, "bold"))
        cells = (Text(row.cells[place]) for place in kept)
        table.add_row(Text(f"  {row.label}"), *cells)
    return table
