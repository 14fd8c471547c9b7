"""The finished cells of `peers.py` as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Cell = Mapping[str, Any]


def best_peer(cell: Cell) -> dict[str, Any] | None:
    """Return the cheapest of the others whose answer is right enough, None where there is none."""
    right = [
        row
        for row in cell["results"][1:]
        if not row["who"].startswith(("trainscope", "a step"))
        and row["cpu"] is not None
        and (row["error"] or 0.0) <= cell["accepted"]
    ]
    return min(right, key=cost, default=None)


def cost(row: Mapping[str, Any]) -> float:
    """Return a result's cost: at equal error where that was asked for."""
    found: float = row["cpu"] if row["equal"] is None else row["equal"]
    return found


def ours(cell: Cell) -> dict[str, Any] | None:
    """Return trainscope's result, where there is one."""
    for row in cell["results"]:
        if row["who"] == "trainscope" and row["cpu"] is not None:
            return dict(row)
    return None


def ratio(cell: Cell) -> float | None:
    """Return trainscope's cost over the best peer's."""
    mine, other = ours(cell), best_peer(cell)
    return None if mine is None or other is None else cost(mine) / cost(other)


def heading(cell: Cell) -> str:
    """Return where the cells were measured."""
    clock = "the device's clock" if cell["device"] == "cuda" else "seconds of the processor"
    return (
        f"{cell['machine']}, torch {cell['torch']}, {cell['date']}; {clock}, medians of runs in "
        "turns, in units of one gradient of the mean loss over the same samples. The error against "
        "float64 stands in brackets."
    )


def markdown(cells: Iterable[Cell]) -> str:
    """Return a table a task, one row a network."""
    cells = list(cells)
    if not cells:
        return "Nothing is measured yet."
    lines = [heading(cells[-1])]
    for task in dict.fromkeys(cell["task"] for cell in cells):
        those = [cell for cell in cells if cell["task"] == task]
        lines += ["", f"**{those[0]['title']}**", ""]
        lines += [
            "| network | samples, threads | load | one gradient, s | trainscope | best peer | "
            "ratio | others |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(cell) for cell in those]
    return "\n".join(lines)


def _row(cell: Cell) -> str:
    unit = cell["results"][0]["cpu"] or float("nan")
    mine, best, over = ours(cell), best_peer(cell), ratio(cell)
    others = [
        row
        for row in cell["results"][1:]
        if row["who"] != "trainscope" and (best is None or row["who"] != best["who"])
    ]
    network = cell["network"] + ("" if cell["variant"] == "dense" else f", {cell['variant']}")
    failed = next((r["problem"] for r in cell["results"] if r["who"] == "trainscope"), "")
    columns = [
        network,
        f"{cell['samples']}, {cell['threads']}",
        f"{cell['load']:.1f}",
        f"{unit:.3g}",
        failed if mine is None else _figure(mine, unit),
        "none is right" if best is None else f"{best['who']} {_figure(best, unit)}",
        "" if over is None else f"**{over:.2f}**",
        "; ".join(f"{row['who']} {_figure(row, unit)}" for row in others),
    ]
    return "| " + " | ".join(columns) + " |"


def _figure(row: Mapping[str, Any], unit: float) -> str:
    if row["cpu"] is None:
        return f"not run: {row['problem']}".replace("|", "/")
    error = "" if row["error"] is None else f" ({row['error']:.1e})"
    memory = "" if row["megabytes"] is None else f", {row['megabytes']:.0f} MB"
    return f"{cost(row) / unit:.3g}{error}{memory}"
