"""Comparisons across pipelines: training from scratch, or the action after other pruning epochs."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.agreement import disagreements
from trainscope.comparison.facts import SCRATCH, last_epoch, method_of, pretraining_epochs
from trainscope.comparison.groups import Group
from trainscope.comparison.pipelines import direct, overall_schedule, stage_epochs
from trainscope.comparison.setups import RECOMMENDED, SETUPS


def several_methods(groups: Sequence[Group]) -> bool:
    """Return whether pruning methods differ, or some is not known; scratch training has none."""
    methods = [method_of(item.first) for item in groups if item.first.kind not in SCRATCH]
    return len(set(methods)) > 1 or (len(methods) > 1 and None in methods)


def fair_among_methods(groups: Sequence[Group]) -> bool:
    """Return whether the pruning methods meet S3.2 among themselves, scratch training aside."""
    pruned = [item for item in groups if item.first.kind not in SCRATCH]
    facts = next(setup.facts for setup in SETUPS if setup.name == RECOMMENDED)
    return not any(disagreements(name, pruned) for name in facts)


def trades_epochs(groups: Sequence[Group]) -> bool:
    """Return whether some stage of the pipelines takes more epochs in one than in another."""
    runs = [run for item in groups for run in item.runs]
    spent = {
        (0 if direct(run) else pretraining_epochs(run), stage_epochs(run), last_epoch(run))
        for run in runs
    }
    return len(spent) > 1


def one_overall_schedule(groups: Sequence[Group]) -> bool:
    """Return whether pipelines follow one LR schedule and differ in their pruning epoch alone.

    Training from scratch follows it from random weights. Wang et al. (2023), Table 4, first block.
    """
    pruned = [item for item in groups if not direct(item.first)]
    epochs = [pretraining_epochs(item.first) for item in pruned]
    if not pruned or several_methods(groups) or len(set(epochs)) < len(epochs):
        return False
    overall = {overall_schedule(run) for item in groups for run in item.runs}
    return len(overall) == 1 and None not in overall
