"""Pruning that did nothing, and batch-norm statistics that went stale with it."""

from __future__ import annotations

from trainscope.comparison.settings import Setting
from trainscope.comparison.traps.trap import Severity, Trap
from trainscope.records import ActionRecord, Diagnosis, Kind

STALE = 2.0
"""Points that recalibration alone must bring back."""


def no_op(item: Setting) -> Trap | None:
    """Find a pruning method that left the network as it was."""
    run = item.first
    pruning = run.pruning
    if pruning is None or run.kind is Kind.TRAIN:
        return None
    evidence: dict[str, float] = {}
    why = ""
    action = pruning.action
    if action is not None and not _did(action):
        why = "no layer lost a filter or a weight"
    elif action is None and pruning.speedup is not None and pruning.speedup <= 1.0:
        why, evidence = f"the speedup is {pruning.speedup:.2f}×", {"speedup": pruning.speedup}
    elif pruning.ratio == 0:
        why = "the ratio is 0"
    if not why:
        return None
    return Trap(
        "no-op pruning",
        item.label,
        f"Nothing was pruned ({why}), so this is a dense network retrained: check layer names, "
        "ratio and rounding.",
        evidence,
        runs=(len(item.runs), len(item.runs)),
    )


def _did(action: ActionRecord) -> bool:
    """Tell an action that took anything, also whole layers, which it does not list."""
    if not action.layers:
        return action.speedup > 1.0
    return any(layer.before != layer.after for layer in action.layers)


def stale_batch_norm(diagnosis: Diagnosis) -> Trap | None:
    """Find accuracy that recalibrating batch norm brings back without any retraining."""
    columns = diagnosis.probes.get("trainability_accuracy")
    if columns is None or columns.after is None or columns.recalibrated is None:
        return None
    after, mended = (c.get("start_accuracy") for c in (columns.after, columns.recalibrated))
    if after is None or mended is None or mended - after < STALE:
        return None
    return Trap(
        "batch-norm statistics stale",
        diagnosis.title if diagnosis.action is None else diagnosis.action.meaning,
        f"Recalibrating batch norm alone, without retraining, lifts the pruned network from "
        f"{after:.1f} % to {mended:.1f} %: compare probes after recalibration, or part of the "
        "damage that they show is stale statistics.",
        {"after": after, "recalibrated": mended},
        Severity.NOTE,
    )
