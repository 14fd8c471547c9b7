"""Compressions and budgets: numbers that agree within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainscope.comparison.bases import base_models
from trainscope.comparison.facts import pretraining_epochs, ratio_of, speedup_of
from trainscope.comparison.pipelines import (
    dense_epoch_flops,
    dense_epochs,
    direct,
    total_epochs,
    total_flops,
)
from trainscope.comparison.reasons import MOST_VALUES, Disagreement, listed, numbers, who
from trainscope.comparison.settings import Setting
from trainscope.records import Run

COMPRESSION_TOLERANCE = 0.05
"""Speedups (or surviving parameters) within 5 % count as the same compression."""
BUDGET_TOLERANCE = 0.02
"""Training FLOPs within 2 % count as the same budget. Where pretraining differs, so do those within
half an epoch of the dense network: pruning epochs are whole."""

Spent = list[list[float | None]]
"""What every run of every setting took."""


def compressions(groups: Sequence[Setting]) -> list[Disagreement]:
    """Return why compressions do not agree.

    Speedups are compared; where not all are known, what was asked for, then surviving parameters.
    Of masks the ratio is the compression, whatever layers they lie in.
    """
    runs = [run for item in groups for run in item.runs]
    speedups = [speedup for run in runs if (speedup := speedup_of(run)) is not None]
    agree = bool(speedups) and near(speedups, COMPRESSION_TOLERANCE)
    ratios = {_ratio(run) for run in runs}
    masks = all(run.pruning and run.pruning.structure not in (None, "filter") for run in runs)
    if masks and None not in ratios and len({ratio[0] for ratio in ratios if ratio}) == 1:
        return []
    unknown = [item.label for item in groups if not stated_size(item)]
    if speedups and not agree:
        more = f", and unknown for {listed(unknown, MOST_VALUES)}" if unknown else ""
        return [Disagreement(f"speedups {numbers(speedups, '{:.2f}×')}{more}", True)]
    parameters = [run.parameters for run in runs if run.parameters is not None]
    if len(speedups) == len(runs) or (len(ratios) == 1 and None not in ratios):
        return []
    if len(parameters) == len(runs) and near(parameters, COMPRESSION_TOLERANCE):
        return []
    if unknown:
        return [Disagreement(f"compressions are unknown for {who(unknown, len(groups))}", False)]
    if not speedups and len({ratio[1:] for ratio in ratios if ratio}) == 1:
        told = numbers([ratio[0] for ratio in ratios if ratio], "{:g}")
        return [Disagreement(f"ratios {told}", True)]
    sizes = list(dict.fromkeys(_write_size(run) for run in runs))
    words = f"compressions are not known to be the same: {listed(sizes, MOST_VALUES)}"
    return [Disagreement(words, False)]


def stated_size(item: Setting) -> bool:
    """Return whether a group's speedup or ratio is known."""
    return all((speedup_of(run), ratio_of(run)) != (None, None) for run in item.runs)


def _ratio(run: Run) -> tuple[float, str | None, str | None] | None:
    """Return a ratio with what it is a ratio of."""
    ratio, pruning = ratio_of(run), run.pruning
    if ratio is None:
        return None
    return (ratio, pruning.structure, pruning.scope) if pruning else (ratio, None, None)


def _write_size(run: Run) -> str:
    ratio, speedup = _ratio(run), speedup_of(run)
    if ratio is None or speedup is not None:
        return "unknown" if speedup is None else f"{speedup:.2f}×"
    return " ".join(["ratio", f"{ratio[0]:g}", *(word for word in ratio[1:] if word)])


def epochs(groups: Sequence[Setting]) -> list[Disagreement]:
    """Return why the epochs of whole pipelines do not agree."""
    found, what = _spent(total_epochs, groups)
    return _budget(f"epochs {what}", "{:g}", found, groups)


def flops(groups: Sequence[Setting]) -> list[Disagreement]:
    """Return why the FLOPs of whole pipelines do not agree.

    They are those counted; where some are not known, those of the epochs, in units of one epoch of
    the dense network.
    """
    counted, what = _spent(total_flops, groups)
    runs = [run for item in groups for run in item.runs]
    traded = len({0 if direct(run) else pretraining_epochs(run) for run in runs}) > 1
    half = max(map(dense_epoch_flops, runs)) / 2 if traded else 0.0
    name = f"training FLOPs {what}"
    if any(None in held for held in counted):
        derived, what = _spent(dense_epochs, groups)
        if not any(None in held for held in derived):
            name = f"training FLOPs {what}, in epochs of the dense network,"
            half = 0.5 if traded else 0.0
            return _budget(name, "{:.1f}", derived, groups, BUDGET_TOLERANCE, half)
    return _budget(name, "{:.3g}", counted, groups, BUDGET_TOLERANCE, half)


def _spent(read: Callable[..., float | None], groups: Sequence[Setting]) -> tuple[Spent, str]:
    """Return what every run took; pretraining cancels where all share their base models."""
    found = [[read(run) for run in item.runs] for item in groups]
    if any(None in held for held in found) and not base_models(groups):
        return (
            [[read(run, pretraining=False) for run in item.runs] for item in groups],
            "of pruning and retraining together",
        )
    return found, "of the whole pipeline"


def _budget(
    name: str,
    form: str,
    found: Spent,
    groups: Sequence[Setting],
    tolerance: float = 0.0,
    margin: float = 0.0,
) -> list[Disagreement]:
    unknown = [item.label for item, held in zip(groups, found, strict=True) if None in held]
    if unknown:
        return [Disagreement(f"{name} are unknown for {who(unknown, len(groups))}", False)]
    spent = [value for held in found for value in held if value is not None]
    if max(spent) - min(spent) <= max(tolerance * min(spent), margin):
        return []
    return [Disagreement(f"{name} {numbers(spent, form)}", True)]


def near(values: Sequence[float], tolerance: float) -> bool:
    """Return whether the largest is at most a share `tolerance` above the smallest."""
    return max(values) <= min(values) * (1 + tolerance)
