"""Numbers in words: as many digits as they are worth."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Write a number with four significant digits, in the form that is shortest to read."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -3 <= size < 5:
        return f"{value:.{max(0, 3 - size)}f}"
    return f"{value:.2e}"


def estimate(value: float, stderr: float) -> str:
    """Write a number as far as its standard error reaches, of which two digits are written.

    An error that four digits of the number do not show is left out.
    """
    if stderr < 1e-4 * abs(value):
        return number(value)
    if stderr == 0:
        return "0 ± 0"
    size = math.floor(math.log10(max(abs(value), stderr)))
    places = 1 - math.floor(math.log10(stderr))
    if -3 <= size < 5 and places <= 6:
        return f"{value:.{max(0, places)}f} ± {stderr:.{max(0, places)}f}"
    return f"{value:.{max(0, places + size)}e} ± {stderr:.1e}"


def quantity(count: float) -> str:
    """Write a count with k, M or G: 21.3 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f} {letter}"
    return f"{count:.0f}"
