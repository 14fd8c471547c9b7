"""What half precision does to a number: its rounding, as a part of the number's error.

A sum over many products averages their rounding out, but what the layers of a network round is the
same for all that comes after it. Held against float64, norms of gradients are off by up to half of
what is stated here.
"""

from __future__ import annotations

import math

import torch

NARROW = frozenset({torch.float16, torch.bfloat16})


def rounding_of(dtype: torch.dtype) -> float:
    """Return the relative rounding that an error must hold; 0 in float32, where it is no part."""
    return torch.finfo(dtype).eps / 2 if dtype.itemsize < 4 else 0.0


def rounding_note(dtype: torch.dtype) -> dict[str, str]:
    """Return what a reader of numbers in half precision must know, for a Measurement's notes."""
    share = rounding_of(dtype)
    if not share:
        return {}
    word = str(dtype).removeprefix("torch.")
    return {
        "rounding": f"computed in {word}, with sums in float64; standard errors hold its rounding, "
        f"{100 * share:.2g} % of what is computed"
    }


def both(error: float | None, rounding: float) -> float | None:
    """Return a standard error with a rounding error that is independent of it."""
    return math.hypot(error or 0.0, rounding) if rounding else error
