"""A diagnosis in sentences: what broke, and what it means for the learning rate and the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from trainscope.convergence.estimate import EstimateStatus as Outlook
from trainscope.convergence.estimate import Interval
from trainscope.diagnosis.rates import harms, stability, too_large
from trainscope.probes.retrained.scores import NOT_FINITE
from trainscope.records import ActionRecord, Columns, Json, Measurement, NetworkRecord, Status
from trainscope.records.action import falls_short, speedup
from trainscope.records.metric import Metric
from trainscope.records.numbers import number, quantity
from trainscope.records.retrained import beyond_noise, retrained
from trainscope.records.text import count_of

NOTICEABLE = 1.5
"""A ratio within 1/1.5 to 1.5 is called about the same."""
NOTICEABLE_POINTS = 1.0
"""More dead units by at most this many points of percent are about as many."""
INTACT_POINTS = 1.0
"""A fall of the TA by less than this many points (or two standard errors) is no damage."""
HARMFUL_POINTS = 3.0
"""A dense network whose TA is so far below where it starts is harmed by the LR itself."""


def verdict(
    network: NetworkRecord,
    action: ActionRecord,
    probes: Mapping[str, Columns],
    estimates: Sequence[Json] = (),
) -> tuple[str, ...]:
    """Return the sentences, most telling first. Each rests on numbers that it names.

    Args:
        network: The base network.
        action: What was done to it.
        probes: The measurements by probe; those that are missing or skipped say nothing.
        estimates: Of the extra epochs that smaller LRs need, from `trainscope.diagnosis.outlook`.
    """
    lines = [_action(network, action)]
    retraining = probes.get("trainability_accuracy")
    if retraining is not None:
        lines += _accuracy(retraining)
    if "jacobian" in probes:
        lines += _signal(probes["jacobian"])
    if "gradient" in probes:
        lines += _gradient(probes["gradient"])
    if "ntk" in probes:
        lines += _kernel(probes["ntk"])
    if "activity" in probes:
        lines += _activity(probes["activity"])
    if "curvature" in probes:
        lines += _curvature(probes["curvature"], retraining)
    if retraining is not None:
        lines += _too_large(probes.get("curvature"), retraining)
        lines += _retraining(retraining, network.num_classes)
    lines += [_estimate(estimate) for estimate in estimates]
    return tuple(lines)


def _action(network: NetworkRecord, action: ActionRecord) -> str:
    same = (network.parameters, network.flops) == (action.parameters, action.flops)
    if not action.layers and same:  # whole layers may be gone
        return (
            f"The sparsifying action took {action.meaning}. Before and after are one network, so "
            "no damage can be read here: measure the checkpoint from before the pruning, or give "
            "a larger ratio."
        )
    asked = action.meaning
    if falls_short(action):
        asked += f", of which {100 * (action.reached or 0):.3g} % could go"
    return (
        f"The sparsifying action took {asked}: {quantity(network.parameters)} → "
        f"{quantity(action.parameters)} parameters, {quantity(network.flops)} → "
        f"{quantity(action.flops)} FLOPs (speedup {speedup(action)})."
    )


def _accuracy(columns: Columns) -> Iterator[str]:
    dense, pruned = map(retrained, _pair(columns))
    before, after = dense.start, pruned.start
    if before is None or after is None:
        return
    metric = dense.metric
    moved = "fell" if metric.is_accuracy and after < before else "went"
    what = f"Test {metric.name}"
    line = f"{what} {moved} from {metric.written(before)} to {metric.written(after)} at the action"
    mended = None if columns.recalibrated is None else retrained(columns.recalibrated).start
    if mended is not None:
        line += f"; with batch norm recalibrated, and no retraining, it is {metric.written(mended)}"
    yield line + "."


def _signal(columns: Columns) -> Iterator[str]:
    ratio = columns.damage().get("mean_jsv")
    dead = _value(columns.after, "dead_outputs")
    if dead and not columns.before.get("dead_outputs"):
        yield (
            f"{dead:.0f} outputs of the pruned network ignore the input, so no gradient passes "
            "there at any LR: prune the layers before them less."
        )
    noise = columns.noise("mean_jsv")
    if ratio is None or noise is None:
        return
    if _same(ratio):
        if noise > NOTICEABLE - 1:  # a change might well be hidden in it
            return
        yield (
            f"Mean JSV: {number(ratio)} times what it was, within {1 / NOTICEABLE:.2g} to "
            f"{NOTICEABLE:g}. The response to the input is about the same and no reason for a "
            "smaller LR."
        )
        return
    if columns.told_from_noise("mean_jsv") is None:
        return
    line = f"Mean JSV: {number(ratio)} times what it was"
    old, new = columns.before.get("mean_jsv"), _value(columns.recalibrated, "mean_jsv")
    if old and new is not None:
        mended = new / old
        line += f", {number(mended)} times with batch norm recalibrated: "
        if _same(mended):
            line += (
                "stale batch-norm statistics explain this change, so recalibrate or retrain before "
                "judging what was learned"
            )
        elif (mended > 1) == (ratio > 1):
            line += "the weights that are gone, not stale statistics alone, are the cause"
        else:
            line += (
                "recalibration turns this change round, so it comes of stale batch-norm "
                "statistics, and the recalibrated network shows what the weights that are gone did"
            )
    yield line + "."


def _gradient(columns: Columns) -> Iterator[str]:
    # The norm itself holds the samples' noise; Diagnoses of earlier versions have no other.
    name = "norm_unbiased" if "norm_unbiased" in columns.before.scalars else "norm"
    ratio = columns.told_from_noise(name)
    if ratio is None or _same(ratio):
        return
    old, new = columns.before.get(name), _value(columns.recalibrated, name)
    mended = f" ({number(new / old)} times with batch norm recalibrated)" if old and new else ""
    what = "Gradient norm, unbiased" if name == "norm_unbiased" else "Gradient norm"
    line = f"{what}: {number(ratio)} times what it was{mended}. "
    if ratio > 1:
        line += "The first steps are longer, which is no sign of recovery: watch the test."
    else:
        line += "The first steps are shorter: give retraining more of them, or a larger LR."
    yield line


def _kernel(columns: Columns) -> Iterator[str]:
    ratio = columns.told_from_noise("stable_steps")
    old, new = columns.before.get("stable_steps"), _value(columns.after, "stable_steps")
    if ratio is None or old is None or new is None or _same(ratio):
        return
    mended = _value(columns.recalibrated, "stable_steps")
    also = "" if mended is None else f", {number(mended)} with batch norm recalibrated"
    line = (
        "Linearised full-batch steps to a tenth of the residual at LR 1/λmax of the neural tangent "
        f"kernel: {number(new)} after the action{also}, {number(old)} before. "
    )
    more = (ratio if mended is None else mended / old) > 1
    line += "Give retraining more epochs." if more else "What is still wrong is learned faster."
    yield line


def _activity(columns: Columns) -> Iterator[str]:
    old, new = columns.before.get("dead_share"), _value(columns.after, "dead_share")
    if old is None or new is None or columns.after is None:
        return
    errors = [part.scalars["dead_share"].stderr or 0.0 for part in (columns.before, columns.after)]
    if new - old <= max(NOTICEABLE_POINTS, 2 * math.hypot(*errors)):
        return
    mended = _value(columns.recalibrated, "dead_share")
    line = f"Dead units: {new:.1f} % after the action, {old:.1f} % before"
    if mended is not None:
        line += f", {mended:.1f} % with batch norm recalibrated"
    yield (
        f"{line}. No gradient passes through a unit that is 0 at every pinned sample, so "
        "retraining may not bring it back: prune the layers that hold most of them less."
    )


def _curvature(columns: Columns, retraining: Columns | None) -> Iterator[str]:
    state = "after the action"
    if columns.recalibrated is not None:
        state += ", batch norm recalibrated"
    tried = _retrained_too(columns, retraining)
    yield from stability(columns.last, tried, columns.before, after=state)


def _retrained_too(columns: Columns, retraining: Columns | None) -> Measurement | None:
    """Return the retraining of the network whose curvature limits its LR."""
    if retraining is None:
        return None
    return retraining.after if columns.recalibrated is None else retraining.recalibrated


def _too_large(curvature: Columns | None, retraining: Columns) -> Iterator[str]:
    """Say which LRs are too large for the pruned network."""
    tried = retraining.after
    if curvature is not None and curvature.recalibrated is not None:
        tried = retraining.recalibrated or tried
    yield from too_large(None if curvature is None else curvature.last, tried)


def _retraining(columns: Columns, classes: int | None) -> Iterator[str]:
    yield from _trainability(columns, classes)
    dense, pruned = _pair(columns)
    for which, found in (("dense", dense), ("pruned", pruned)):
        said = found is pruned and any(None in losses for losses in retrained(found).losses)
        if found.reason == NOT_FINITE:
            yield f"Of the {which} network {found.reason}, so no LR is to blame: look at its loss."
        elif found.status is Status.NONFINITE and not said:
            yield f"The {which} network's {found.reason}: use a smaller LR, or warm up."
    told = retrained(pruned)
    metric, harmed = told.metric, {harm.lr for harm in (*harms(pruned), *harms(dense))}
    if _harms_dense(columns):
        harmed.add(told.lrs[0])
    for lr, curve, losses in zip(told.lrs, told.curves, told.losses, strict=False):
        if None in losses or len(curve) < 2 or lr in harmed:
            continue
        gain = metric.points(metric.sign * (curve[-1] - curve[-2]), curve[-1])
        if gain > max(INTACT_POINTS, metric.points(_noise(columns), curve[-1])):
            how = "rising" if metric.sign > 0 else "falling"
            each = "an epoch" if told.steps is None else f"every {told.steps} steps"
            each = "a step" if told.steps == 1 else each
            yield (
                f"At LR {lr:g} the {metric.name} is still {how} by {_points(metric, gain)} {each} "
                f"after {told.span.partition(',')[0]}: do not decay the LR, or stop, there."
            )


def _points(metric: Metric, gap: float) -> str:
    """Write a difference: in points of a percentage, else in percent of the level."""
    return f"{gap:.1f} points" if metric.unit == "%" else f"{gap:.1f} %"


def _trainability(columns: Columns, classes: int | None) -> Iterator[str]:
    dense, pruned = _pair(columns)
    before, after, told = dense.get("ta"), pruned.get("ta"), retrained(pruned)
    if before is None or after is None:
        return
    metric, lr = told.metric, told.lrs[0]
    line = (
        f"{told.title.capitalize() if metric.is_accuracy else 'Trainability ' + metric.name} at LR "
        f"{lr:g} (mean {told.tested} of the first {told.span}) is {metric.written(after)}, "
        f"{metric.written(before)} for the dense network"
    )
    old, bound = retrained(dense), metric.points(_noise(columns), before)
    fall = metric.points(metric.sign * (before - after), before)
    fallen = beyond_noise(fall, before, old, 1, told, 1)
    chance = 100 / classes if metric.is_accuracy and classes else 0.0
    if _harms_dense(columns):
        assert old.start is not None
        line += (
            f": this LR harms the dense network itself, which starts from "
            f"{metric.written(old.start)}"
        )
    elif metric.unit == "%" and metric.sign > 0 and before <= chance + bound:
        line += (
            ", which is too little for a loss of trainability to show: train the dense network "
            "further before it is pruned, or take more of retraining"
        )
    elif fall <= INTACT_POINTS:
        if lr not in {harm.lr for harm in harms(pruned)}:
            line += f": trainability is intact at LR {lr:g}"
    elif not (fall > bound if fallen is None else fallen):
        size = f", {_points(metric, bound)}" if fallen is None else ""
        line += (
            f": the {_points(metric, fall)} between them are within two standard errors{size}, so "
            "they show no loss of trainability, and do not rule one out: test on more samples"
        )
    yield line + "."


def _harms_dense(columns: Columns) -> bool:
    """Tell whether the first LR makes the dense network worse than it started, beyond noise."""
    dense, _ = _pair(columns)
    before, old = dense.get("ta"), retrained(dense)
    if before is None or old.start is None:
        return False
    harm = old.metric.points(old.metric.sign * (old.start - before), old.start)
    harmed = beyond_noise(harm, old.start, old, 0, old, 1)
    bound = old.metric.points(_noise(columns), before)
    return harm > HARMFUL_POINTS and (harm > bound if harmed is None else harmed)


def _noise(columns: Columns) -> float:
    """Return two standard errors of the fall of the TA, as of networks tested on other samples."""
    errors = (m.scalars["ta"].stderr if "ta" in m.scalars else None for m in _pair(columns))
    return float(2 * sum((error or 0.0) ** 2 for error in errors) ** 0.5)


def _pair(columns: Columns) -> tuple[Measurement, Measurement]:
    assert columns.after is not None  # a verdict is of an action
    return columns.before, columns.after


def _estimate(found: Json) -> str:
    """Say what one estimate of extra epochs says, and how far to believe it."""
    lr, large = f"{found['lr']:g}", f"{found['reference_lr']:g}"
    extra = Interval.from_json(found["extra_epochs"])
    per, goal = found["per"], Metric.from_json(found["metric"]).called(found["target"])
    there = f"the {goal} of LR {large} after {count_of(found['epochs'], per)}"
    if found["status"] == Outlook.REACHED:
        return f"LR {lr} gets to {there} in as many: no extra {per}s are needed for that."
    if found["status"] == Outlook.UNREACHABLE or not math.isfinite(extra.median):
        return f"LR {lr} is not expected to get to {there}: {found['explanation']}"
    line = f"LR {lr} is slower, not necessarily worse: to get to {there}"
    bound = found["lr_time_bound"]
    limit = "" if bound is None else f"at most {max(0.0, bound - found['epochs']):.0f} by LR time"
    if found["status"] == Outlook.TOO_FEW:
        return (
            f"{line} it needs more {per}s{f', {limit}' if limit else ''}; for an interval, watch "
            f"it for longer with --retrain-{per}s (retrain_{per}s=)."
        )
    if extra.is_late:
        return (
            f"LR {lr} is not expected to get to {there} soon: {extra.in_words(more=per)} "
            f"({found['level']:.0%} interval)."
        )
    high = "or more" if extra.is_open else f"to {extra.high:.0f}"
    missed = extra.is_open and math.isfinite(extra.horizon)
    return (
        f"{line}, expect {extra.low:.0f} {high} extra {per}s ({found['level']:.0%} interval, "
        f"median {extra.median:.0f}{f'; {extra.missed(more=per)}' if missed else ''})"
        f"{f', {limit}' if limit else ''}."
    )


def _value(measurement: Measurement | None, name: str) -> float | None:
    return None if measurement is None else measurement.get(name)


def _same(ratio: float) -> bool:
    return 1 / NOTICEABLE <= ratio <= NOTICEABLE
