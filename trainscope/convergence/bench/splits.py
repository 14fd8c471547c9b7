"""The splits of RetrainBench, fixed: one problem is left out at a time, and one kind is put aside.

What is developed on some problems is judged on another: curves of one problem are alike, and a
method that has seen some of them has seen the rest. The curves of transformers and of language
models are in no fold: they judge what was chosen without them, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainscope.convergence.bench.curves import BenchCurve, load

PUT_ASIDE = "put aside"
"""The name of the split that nobody may tune on."""
PUT_ASIDE_NETWORKS = ("gpt", "lstm", "vit")


@dataclass(frozen=True)
class BenchSplit:
    """What may be looked at, and what is judged on.

    Attributes:
        name: The problem that is left out, or `PUT_ASIDE`.
        develop: Curves of the other problems. Never any that are put aside.
        judge: Curves of the problem.
    """

    name: str
    develop: tuple[BenchCurve, ...]
    judge: tuple[BenchCurve, ...]


def splits(curves: Sequence[BenchCurve] | None = None) -> dict[str, BenchSplit]:
    """Return every split by its name: the problems in order, then what is put aside.

    Args:
        curves: Those that come with the package by default.
    """
    rows = load() if curves is None else curves
    aside = tuple(row for row in rows if row.network in PUT_ASIDE_NETWORKS)
    rest = [row for row in rows if row.network not in PUT_ASIDE_NETWORKS]
    found = {}
    for name in sorted({row.problem for row in rest}):
        develop = tuple(row for row in rest if row.problem != name)
        found[name] = BenchSplit(name, develop, tuple(row for row in rest if row.problem == name))
    found[PUT_ASIDE] = BenchSplit(PUT_ASIDE, tuple(rest), aside)
    return found
