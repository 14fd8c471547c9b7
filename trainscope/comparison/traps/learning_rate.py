"""An LR below what the damage needs, and an LR above the stability ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.comparison.facts import last_epoch
from trainscope.comparison.grounds import share
from trainscope.comparison.settings import Setting, shared_first_stage
from trainscope.comparison.significance import LEAST, ONE_SEED, untested, welch
from trainscope.comparison.traps.trap import Severity, Trap
from trainscope.records import Diagnosis, Measurement, Run
from trainscope.records.stability import stable_lr
from trainscope.records.text import count_of
from trainscope.records.trainability import trainability_name


def too_low(item: Setting, others: Sequence[Setting]) -> Trap | None:
    """Find an LR that a larger one beats on the same pruned network within as many epochs.

    Rests on final accuracies and on TA: Wang et al. (2023), Sec. 4. How many epochs it would need
    is the estimator's to say.
    """
    alike = [
        (other, ground)
        for other in others
        if None not in (item.lr, other.lr, item.mean, other.mean, item.epochs, other.epochs)
        and other.lr != item.lr
        and (ground := share([item, other])) is not None
    ]
    rivals = [
        ground
        for other, ground in alike
        if (other.lr or 0) > (item.lr or 0) and (other.epochs or 0) <= (item.epochs or 0)
    ]
    if not rivals:
        return None
    ground = max(rivals, key=lambda ground: ground.groups[1].quality)
    own, best = ground.groups
    ahead = welch(best.qualities, own.qualities, among=1 + len(alike))
    single = untested(best.finals, own.finals)
    metric = item.metric
    behind = metric.points(ahead.value, best.mean or 0.0)
    if behind < (ONE_SEED if single else LEAST) or not (single or ahead.significant):
        return None
    evidence = {"behind": ahead.value}
    ta, first = "", shared_first_stage((own, best))
    if first is not None and None not in (own.first_stage, best.first_stage):
        mine, their = own.ta(first), best.ta(first)
        if mine is not None and their is not None:
            name = "TA" if metric.is_accuracy else trainability_name(metric)
            evidence |= {"ta": mine[0], "reference_ta": their[0]}
            ta = (
                f"; {name} over {count_of(first, 'epoch')} is {metric.written(mine[0])} against "
                f"{metric.written(their[0])}"
            )
    test = "one seed: no test" if single else f"p = {ahead.p:.2g}"
    return Trap(
        "LR below what the damage needs",
        item.label,
        f"It ends {metric.gap(ahead.value)} {metric.behind} {best.label} {ground.where}, in "
        f"{count_of(last_epoch(item.first), 'epoch')} against {last_epoch(best.first)} "
        f"({test}){ta}: use the larger LR.",
        evidence,
        runs=(len(own.runs), len(item.runs)),
    )


def above_ceiling(item: Setting, diagnoses: Sequence[Diagnosis]) -> Trap | None:
    """Find a first LR above the largest at which the optimizer is stable on the whole loss.

    The limit is 2/lambda_max, 2 (1 + beta) / lambda_max with momentum beta (heavy ball), and of
    Adam that of the preconditioned Hessian; of the pruned network before its first step.
    """
    run = item.first
    found = _curvature(item.runs, diagnoses) if run.epochs else None
    if found is None:
        return None
    limit, lr = stable_lr(found, {"optimizer": "sgd", **run.settings}), run.epochs[0].lr
    if limit.value is None or not limit.below(lr):
        return None
    known = found.get("max_stable_lr")
    plain = {} if known is None else {"max_stable_lr": known}
    return Trap(
        "LR above the stability ceiling",
        item.label,
        f"It starts at LR {lr:g}, above {limit.rule} = {limit.value:.3g} of the pruned network: "
        "the loss may jump at first; warm up, or start lower, if the curve shows it.",
        {"lr": lr, "ceiling": limit.value, **plain},
        Severity.NOTE,
        (len(item.runs), len(item.runs)),
    )


def _curvature(runs: Sequence[Run], diagnoses: Sequence[Diagnosis]) -> Measurement | None:
    for run in runs:
        for taken in run.measurements:
            found = taken.measurement
            if found.probe == "curvature" and taken.step == 0 and found.scalars:
                return found
    for diagnosis in diagnoses:
        columns = diagnosis.probes.get("curvature")
        if columns is not None and of_network(runs[0], diagnosis):
            # Training sees fresh batch-norm statistics, so the recalibrated network is the one.
            return columns.last
    return None


def of_network(run: Run, diagnosis: Diagnosis) -> bool:
    """Return whether a Diagnosis is about the pruned network that a Run retrained."""
    pruning, action = run.pruning, diagnosis.action
    return (
        pruning is not None
        and action is not None
        and run.base == diagnosis.network.digest
        and (pruning.structure, pruning.criterion, pruning.ratio, pruning.scope)
        == (action.structure, action.criterion, action.ratio, action.scope)
    )
