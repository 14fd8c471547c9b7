"""`trainscope inspect`: what is in a checkpoint file, without running anything in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainscope.cli.options import Checkpoint
from trainscope.cli.printing import say_json, show

if TYPE_CHECKING:
    from rich.table import Table

    from trainscope.networks.inspection import Inspection
    from trainscope.records import PrunedBefore


@click.command("inspect")
@click.argument("checkpoint", type=Checkpoint(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
def command(checkpoint: Path, as_json: bool) -> None:
    """Say what is in CHECKPOINT, a file or a folder, without running anything in it.

    Names its format, architecture, tensors, sparsity and masks, what training left in it, and the
    classes that loading it in full would run.
    """
    from trainscope.networks.inspection import inspect_checkpoint

    found = inspect_checkpoint(checkpoint)
    if as_json:
        say_json(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        print_facts(found)


def print_facts(found: Inspection) -> None:
    """Print the facts, then a line for every tensor."""
    from rich.table import Table

    from trainscope.records.numbers import quantity

    facts = Table.grid(padding=(0, 2))
    told = "" if found.num_classes is None else f", {found.num_classes} classes"
    how = f" ({found.recognised}{told})" if found.architecture else ""
    left = {name: value for name, value in vars(found.remembered).items() if value is not None}
    for name, value in {
        "file": f"{found.path} ({found.size:,} bytes)",
        "format": found.format or "none that is known",
        "architecture": f"{found.architecture or 'not recognised'}{how}",
        "parameters": f"{quantity(found.parameters)} in {len(found.tensors)} tensors",
        "masks": str(found.masks) if found.masks else "none",
        "training left": ", ".join(f"{n} {v}" for n, v in left.items()) or "nothing",
        "classes": ", ".join(found.classes) or "none: loading it runs no code",
    }.items():
        facts.add_row(name, value)
        if name == "masks":
            for each in found.before:
                facts.add_row("pruned", _pruned(each))
    tables = [facts, _table(found)] if found.tensors else [facts]
    problem = [f"It cannot be probed: {found.problem}"] if found.problem else []
    show(*tables, *problem, *(f"• {note}" for note in found.notes), wide=None)


def _pruned(before: PrunedBefore) -> str:
    """Return in a few words what came pruned, and by how much."""
    what = {
        "masks": "of the weights, by masks",
        "zeros": "of the weights, to zeros without masks",
        "narrower": "of the outputs of narrower layers",
    }[before.how]
    faster = "" if before.speedup is None else f"; speedup {before.speedup:.2f}"
    return f"{100 * before.share:.1f} % {what} ({before.structure}{faster})"


def _table(found: Inspection) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor")
    table.add_column("shape")
    table.add_column("type")
    table.add_column("zeros", justify="right")
    for tensor in found.tensors:
        shape = " x ".join(map(str, tensor.shape)) or "one number"
        zeros = "not read" if tensor.zeros is None else f"{100 * tensor.zeros:.1f} %"
        table.add_row(tensor.name, shape, tensor.dtype, zeros)
    return table
