"""One network in sentences, where nothing was done to it: how trainable it stands."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.diagnosis.rates import stability, too_large
from trainscope.records import Measurement
from trainscope.records.numbers import number
from trainscope.records.retrained import retrained


def standing(probes: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return what the probes say of one network, each sentence with the numbers it rests on.

    Args:
        probes: The measurements by probe; those that are missing or skipped say nothing.
    """
    retraining, curvature = probes.get("trainability_accuracy"), probes.get("curvature")
    found = (
        _accuracy(retraining),
        *stability(curvature, retraining),
        *too_large(curvature, retraining),
        _gradient(probes.get("gradient")),
        _signal(probes.get("jacobian")),
        _activity(probes.get("activity")),
    )
    return tuple(line for line in found if line is not None)


def _accuracy(measured: Measurement | None) -> str | None:
    told, reached = None if measured is None else retrained(measured), _value(measured, "ta")
    if told is None or told.start is None:
        return None
    metric, start = told.metric, told.start
    line = f"Test {metric.name}: {metric.written(start)} as the network stands"
    if reached is None:
        return f"{line}."
    gap = metric.points(metric.sign * (reached - start), start)
    unit = "points" if metric.unit == "%" else "%"
    way = "better" if gap >= 0 else "worse"
    if metric.is_accuracy:
        way = "above it" if gap >= 0 else "below it"
    title = told.title[0].upper() + told.title[1:]
    return (
        f"{line}. {title} at LR {told.lrs[0]:g}: {metric.written(reached)} (mean {told.tested} of "
        f"the first {told.span if told.span != 'epoch' else '1 epoch'} of training on), "
        f"{abs(gap):.1f} {unit} {way}."
    )


def _gradient(measured: Measurement | None) -> str | None:
    norm, signal = _value(measured, "norm"), _value(measured, "snr")
    if norm is None:
        return None
    line = f"Gradient norm on the pinned samples: {number(norm)}"
    if signal is not None and signal < 1:
        line += f", with a signal-to-noise of {number(signal)}: it is mostly noise of the samples"
    return f"{line}."


def _activity(measured: Measurement | None) -> str | None:
    dead, dormant = _value(measured, "dead_share"), _value(measured, "dormant_share")
    if dead is None or dormant is None:
        return None
    return f"Dead units: {dead:.1f} % of all; dormant ones, those among them: {dormant:.1f} %."


def _signal(measured: Measurement | None) -> str | None:
    mean = _value(measured, "mean_jsv")
    if mean is None:
        return None
    return (
        f"Mean JSV: {number(mean)}. A small change of the input changes the logits by about so "
        "much, averaged over the directions that reach them."
    )


def _value(measured: Measurement | None, name: str) -> float | None:
    return None if measured is None else measured.get(name)
