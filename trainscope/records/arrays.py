"""What the arrays of a measurement must be like for whoever draws or compares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MORE = ("ntk", "activity")
"""Probes of ours that are run where they are asked for."""
PROBES = ("trainability_accuracy", "gradient", "jacobian", "curvature")
"""The probes that are run unless others are asked for, in the order of tables.

Their arrays are known; another package may give the same names to others.
"""
TEXTS = ("layers", "layer_kinds")
"""Arrays of names."""
ROWS = ("singular_values", "epoch_accuracies", "epoch_losses")
"""Arrays of rows of numbers."""
GAPS = ("layer_norms", "layer_rms", "layer_traces", "epoch_losses")
"""Arrays with None where a number could not be had."""
NUMBERS = (*ROWS, *GAPS, "lrs", "density_x", "density_y", "eigenvalues", "sample_norms")
BESIDE = {
    **dict.fromkeys(("layer_norms", "layer_rms", "layer_traces", "layer_kinds"), "layers"),
    **dict.fromkeys(("epoch_accuracies", "epoch_losses"), "lrs"),
    **dict.fromkeys(("density_y", "density_stderr"), "density_x"),
    "density_x": "density_y",
}
"""Which array each array stands beside, value by value."""


def check_arrays(arrays: Mapping[str, Any], probe: str) -> None:
    """See that arrays which are known by their names hold what these say.

    Args:
        arrays: By name; of names that are not known, nothing is asked.
        probe: Of the measurement; of one of another package nothing is asked either.

    Raises:
        ValueError: One has no numbers where numbers belong, no names, no rows, or another length
            than the one that it stands beside.
    """
    if probe not in PROBES:
        return
    for name, values in arrays.items():
        where = f"the array {name} of the probe {probe}"
        if not isinstance(values, list):
            raise ValueError(f"{where} is no list")
        if name in TEXTS and not all(isinstance(each, str) for each in values):
            raise ValueError(f"{where} holds something else than names")
        if name in ROWS and not all(isinstance(each, list) and each for each in values):
            raise ValueError(f"{where} holds something else than rows of numbers")
        if name in NUMBERS:
            flat = [each for row in values for each in row] if name in ROWS else values
            if not all(_is_number(each) or (each is None and name in GAPS) for each in flat):
                raise ValueError(f"{where} holds something else than numbers")
            if name == "singular_values" and min(flat, default=0) < 0:
                raise ValueError(f"{where} holds a negative number")
        other = BESIDE.get(name)
        held = () if other is None else arrays.get(other, ())
        if other is not None and isinstance(held, list | tuple) and len(held) != len(values):
            raise ValueError(f"{where} has {len(values)} values, and {other} has {len(held)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
