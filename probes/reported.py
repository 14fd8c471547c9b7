"""What of a Run or a Diagnosis is sent to trackers, in the order in which it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainscope.probes.sinks.sink import EPOCH
from trainscope.records import Diagnosis, EpochRecord, Measurement, Run, RunStatus, Scalar, Taken
from trainscope.records.epoch import AFTER_ACTION, AFTER_STEP, BEFORE_ACTION
from trainscope.records.metric import Metric

RECALIBRATED = "after recalibration"
Parameters = dict[str, str | float]


def of_run(run: Run) -> list[Taken]:
    """Return a Run as what a sink takes; the results at the end where it is over."""
    items = of_epochs(run.epochs, run.measurements, run.start_metric, run.metric)
    if run.status is RunStatus.INTERRUPTED or not run.epochs:
        return items
    last, trainability, metric = run.epochs[-1].epoch, run.trainability(), run.metric
    final, unknown = run.final_metric, "the last epochs have no test"
    scalars = {f"final_{_word(metric)}": Scalar(final, metric.unit, reason=_why(final, unknown))}
    value, note = trainability.value, trainability.note or "unknown"
    scalars[f"trainability_{_word(metric)}"] = Scalar(value, metric.unit, reason=_why(value, note))
    if run.flops is not None:
        scalars["flops"] = Scalar(float(run.flops), "multiply-adds")
    return [*items, Taken(Measurement("result", scalars=scalars), last, EPOCH, float(last))]


def of_epochs(
    records: Sequence[EpochRecord],
    measurements: Sequence[Taken],
    start: float | None,
    metric: Metric,
) -> list[Taken]:
    """Return epochs and what was measured in them, in the order in which they were made."""
    items: list[Taken] = []
    if start is not None:
        before = {f"test_{_word(metric)}": Scalar(start, metric.unit)}
        items.append(Taken(Measurement("training", scalars=before), 0, EPOCH, 0.0))
    left = list(measurements)
    for record in records:
        while left and (left[0].epoch is None or left[0].epoch <= record.epoch):
            items.append(left.pop(0))
        found = {
            "lr": Scalar(record.lr),
            "train_loss": record.train_loss,
            "test_loss": record.test_loss,
            f"test_{_word(metric)}": record.test_metric,
            "seconds": record.seconds,
        }
        scalars = {
            name: value if isinstance(value, Scalar) else Scalar(value)
            for name, value in found.items()
            if value is not None
        }
        measured = Measurement("training", scalars=scalars)
        items.append(Taken(measured, record.epoch, EPOCH, float(record.epoch)))
    return items + left


def of_diagnosis(diagnosis: Diagnosis) -> list[Taken]:
    """Return the columns of a Diagnosis as what a sink takes, all at step 0."""
    items = []
    for columns in diagnosis.probes.values():
        if columns.after is None:
            items.append(Taken(columns.before, 0, AFTER_STEP))
            continue
        moments = {
            BEFORE_ACTION: columns.before,
            AFTER_ACTION: columns.after,
            RECALIBRATED: columns.recalibrated,
        }
        items += [Taken(found, 0, moment) for moment, found in moments.items() if found is not None]
    return items


def parameters_of(run: Run) -> Parameters:
    """Return what does not change in a Run."""
    pruning = run.pruning
    found: dict[str, Any] = {
        "kind": str(run.kind),
        "architecture": run.architecture,
        "data": run.data,
        "schedule": run.schedule,
        "epochs": run.total,
        "metric": run.metric.name,
        "action": None if pruning is None or pruning.action is None else pruning.action.meaning,
        "structure": None if pruning is None else pruning.structure,
        "criterion": None if pruning is None else pruning.criterion,
        "ratio": None if pruning is None else pruning.ratio,
        "speedup": None if pruning is None else pruning.speedup,
        "base": run.base,
        "seed": run.seed,
        "parameters": run.parameters,
        **{name: value for name, value in run.settings.items() if name not in ("epochs", "kind")},
    }
    return plain_parameters(found)


def parameters_of_diagnosis(diagnosis: Diagnosis) -> Parameters:
    """Return what a Diagnosis says beside its numbers."""
    action = diagnosis.action
    return plain_parameters(
        {
            "architecture": diagnosis.network.architecture,
            "base": diagnosis.network.digest,
            "data": diagnosis.data.name,
            "samples": diagnosis.data.samples,
            "action": None if action is None else action.meaning,
            "structure": None if action is None else action.structure,
            "criterion": None if action is None else action.criterion,
            "ratio": None if action is None else action.ratio,
            "speedup": None if action is None else action.speedup,
            "seed": diagnosis.seed,
            "verdict": " ".join(diagnosis.verdict),
        }
    )


def plain_parameters(found: Mapping[str, Any]) -> Parameters:
    """Return text and numbers by names of one word; what is not known is left out."""
    kept: Parameters = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key}: {each}" for key, each in value.items())
        if value is None or value == "":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        kept[name.replace(" ", "_")] = value if number else str(value)
    return kept


def _why(value: float | None, reason: str) -> str | None:
    return reason if value is None else None


def _word(metric: Metric) -> str:
    return re.sub(r"\W+", "_", metric.name)
