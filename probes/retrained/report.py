"""What retrainings say as a Measurement: scalars, curves, notes and status."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trainscope.pace import CUT
from trainscope.probes.retrained.copies import Run, Trial
from trainscope.probes.retrained.scores import NOT_FINITE, left_out_of, lost_in, start_of, ta_of
from trainscope.probes.subject.behaviour import Behaviour
from trainscope.records import Measurement, Scalar, Status
from trainscope.records.measurement import Array
from trainscope.records.metric import ACCURACY
from trainscope.records.retrained import CURVES, CURVES_METRIC, LEFT_OUT, START, START_METRIC
from trainscope.training.evaluation import evaluated_at_once
from trainscope.training.loop import Evaluation
from trainscope.training.schedule import write_lr


def report(
    network: nn.Module,
    trial: Trial,
    behaviour: Behaviour,
    lrs: Sequence[float],
    start: Evaluation,
    runs: Sequence[Run],
    drawn_from: int | None = None,
) -> Measurement:
    """Return what a test, and retrainings after it, say.

    Args:
        network: What was retrained.
        trial: How.
        behaviour: The network's.
        lrs: The learning rates; those that have no retraining were cut off.
        start: The test before the first step.
        runs: The retrainings, of the first learning rates.
        drawn_from: Samples of the whole test half, where some were drawn to test on.
    """
    metric = trial.task.metric
    done = lrs[: len(runs)]
    left = [left_out_of(tested) for tested in ([start], *([e for _, e in run] for run in runs))]
    rows = zip(done, runs, left[1:], strict=True)
    each = {f"ta@{write_lr(lr)}": ta_of(run, without) for lr, run, without in rows}
    each |= {f"ta@{write_lr(lr)}": Scalar(None, metric.unit, reason=CUT) for lr in lrs[len(done) :]}
    scalars = {"ta": next(iter(each.values())), **each} if each else {}
    accuracy = metric.is_accuracy
    scalars[START if accuracy else START_METRIC] = start_of(start, left[0])
    arrays: dict[str, Array] = {
        "lrs": list(done),
        CURVES if accuracy else CURVES_METRIC: [[r.test_metric for r, _ in run] for run in runs],
        "epoch_losses": [[r.train_loss for r, _ in run] for run in runs],
        "settings": [list(row) for row in trial.settings.as_dict().items()],
        **({} if trial.steps_per_epoch is None else {"steps": [trial.steps_per_epoch]}),
    }
    reason = _diverged(done, runs) if start.loss is not None else NOT_FINITE
    return Measurement(
        "trainability_accuracy",
        status=Status.NONFINITE if reason else Status.OK,
        reason=reason,
        scalars=scalars,
        arrays={
            LEFT_OUT: left,
            "metric": [metric.name, metric.unit, metric.better],
            **(arrays if done else {}),
        },
        notes=_notes(trial, done, drawn_from) | _remarks(network, trial, behaviour),
    )


def _diverged(lrs: Sequence[float], runs: Sequence[Run]) -> str | None:
    """Say at which learning rates retraining diverged, and when; None where at none."""
    lost = [(lr, lost_in(run)) for lr, run in zip(lrs, runs, strict=True)]
    epochs = [f"{write_lr(lr)} (epoch {record.epoch})" for lr, record in lost if record is not None]
    return f"retraining diverged at LR {', '.join(epochs)}" if epochs else None


def _notes(trial: Trial, lrs: Sequence[float], drawn_from: int | None) -> dict[str, str]:
    """Say what was tested, how often, and under which schedule."""
    metric, span = trial.task.metric, f"N = {trial.epochs} epochs"
    if trial.steps_per_epoch is not None:
        steps = trial.epochs * trial.steps_per_epoch
        span = f"{steps} steps, tested every {trial.steps_per_epoch},"
    tested = "top-1 test accuracy, percent" if metric == ACCURACY else f"test {metric.label}"
    if drawn_from is not None:
        tested += f", on {len(trial.test)} of {drawn_from} test samples"
    if not lrs:
        return {"tested": f"{tested}; not retrained"}
    schedules = " and ".join(f"0:{write_lr(lr)}" for lr in lrs)
    return {
        "accuracy" if metric.is_accuracy else "metric": (
            f"{tested}, mean over the first {span} of retraining"
        ),
        "schedule": f"{schedules}, {span.removeprefix('N = ').partition(',')[0]}",
        "settings": str(trial.settings),
        "comparable": "only under the same LR schedule, N and settings",
    }


def _remarks(network: nn.Module, trial: Trial, behaviour: Behaviour) -> dict[str, str]:
    """Return what a reader must know of a network that is not one function of one sample."""
    metric, found = trial.task.metric.name, {}
    if behaviour.random is not None:
        found["random"] = f"{behaviour.random}; each test {metric} is of one draw"
    if behaviour.coupled is not None:
        size = evaluated_at_once(network, trial.test, trial.task)
        found["batch"] = f"{behaviour.coupled}; the test {metric} is of batches of {size}"
    return found
