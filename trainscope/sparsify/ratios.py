"""Shares to prune: read, given to layers by name pattern, turned into counts."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase

from trainscope.errors import ActionError


def parse(text: str) -> dict[str, float]:
    """Read ratios by name pattern, like 'layer[1-3]*conv[12]=0.6,layer4*=0.21', in order.

    Raises:
        ActionError: An entry is not PATTERN=NUMBER, its number is not in [0, 1), or a pattern
            comes twice.
    """
    ratios: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        pattern, sign, number = (part.strip() for part in entry.rpartition("="))
        try:
            ratio = float(number)
        except ValueError:
            ratio = math.nan
        if not (sign and pattern and 0 <= ratio < 1):
            raise ActionError(
                f"the entry '{entry}' of the ratios cannot be read; write PATTERN=RATIO with a "
                "ratio from 0 up to, not with, 1, like layer4*=0.21"
            )
        if pattern in ratios:
            raise ActionError(f"the ratios name the pattern '{pattern}' twice; keep one")
        ratios[pattern] = ratio
    if not ratios:
        raise ActionError("the ratios are empty; write PATTERN=RATIO, like layer4*=0.21")
    return ratios


def to_prune(count: int, ratio: float) -> int:
    """Return how many of `count` a ratio prunes: ceil(ratio * count), at least one kept.

    The product is decimal: 0.9 of 10 is 9, as written, where binary arithmetic can give 9.000..1.
    """
    exact = Decimal(str(ratio)) * count
    return max(min(math.ceil(exact), count - 1), 0)


def after_round(ratio: float, number: int, rounds: int) -> float:
    """Return the share that is gone after a round, so that each leaves the same share of the last.

    Args:
        ratio: The share that is gone in the end.
        number: Of the round, from 1.
        rounds: How many there are.
    """
    return ratio if number == rounds else float(1 - (1 - ratio) ** (number / rounds))


def assign(
    layers: Sequence[Sequence[str]],
    ratio: float | None,
    ratios: Mapping[str, float],
    spared: Mapping[str, str],
) -> list[float]:
    """Return the ratio of each layer, or of each group of layers that are cut together.

    Args:
        layers: The names of each; a pattern matches a group if it matches any of its names.
        ratio: What holds where no pattern matches; None spares there.
        ratios: Ratios by pattern; the last that matches wins.
        spared: Why layers outside the scope are not pruned, by name: for the error's sentence.

    Raises:
        ActionError: A pattern matches none of the layers.
    """
    known = [name for names in layers for name in names]
    for pattern in ratios:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ActionError(_no_match(pattern, known, spared), field=("ratios", pattern))
    return [_last_match(names, ratios, ratio or 0.0) for names in layers]


def _last_match(names: Iterable[str], ratios: Mapping[str, float], default: float) -> float:
    for pattern, ratio in reversed(list(ratios.items())):
        if any(fnmatchcase(name, pattern) for name in names):
            return ratio
    return default


def _no_match(pattern: str, known: Sequence[str], spared: Mapping[str, str]) -> str:
    outside = next((name for name in spared if fnmatchcase(name, pattern)), None)
    if outside is not None:
        return (
            f"the pattern '{pattern}' matches no layer in scope ({outside}: {spared[outside]}); "
            f"layers in scope are named like {_some(known)}"
        )
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4)
    return f"the pattern '{pattern}' matches no layer; near names are {_some(near or known)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
