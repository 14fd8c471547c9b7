"""One network in sentences, where nothing was done to it: how trainable it stands."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.records import Measurement
from trainscope.records.rows import number


def standing(probes: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return what the probes say of one network, each sentence with the numbers it rests on.

    Args:
        probes: The measurements by probe; those that are missing or skipped say nothing.
    """
    found = (
        _accuracy(probes.get("trainability_accuracy")),
        _curvature(probes.get("curvature"), probes.get("trainability_accuracy")),
        _gradient(probes.get("gradient")),
        _signal(probes.get("jacobian")),
    )
    return tuple(line for line in found if line is not None)


def _accuracy(measured: Measurement | None) -> str | None:
    start, reached = _value(measured, "start_accuracy"), _value(measured, "ta")
    if measured is None or start is None:
        return None
    line = f"Test accuracy: {start:.1f} % as the network stands"
    if reached is None:
        return f"{line}."
    lr, epochs = measured.arrays["lrs"][0], len(measured.arrays["epoch_accuracies"][0])
    moved = reached - start
    way = "above" if moved >= 0 else "below"
    return (
        f"{line}. Trainability accuracy at LR {lr:g}: {reached:.1f} % (mean top-1 test accuracy of "
        f"the first {epochs} epoch{'s' * (epochs > 1)} of training on), {abs(moved):.1f} points "
        f"{way} it."
    )


def _curvature(measured: Measurement | None, retrained: Measurement | None) -> str | None:
    stable = _value(measured, "max_stable_lr")
    if stable is None:
        return None
    line = f"Largest stable LR of plain gradient descent (2/λmax): {number(stable)}."
    lrs = [] if retrained is None else list(retrained.arrays.get("lrs", []))
    above = [f"{lr:g}" for lr in lrs if lr > stable]
    if above:
        line += f" LR {' and LR '.join(above)} is above it and may overshoot at first."
    return line


def _gradient(measured: Measurement | None) -> str | None:
    norm, signal = _value(measured, "norm"), _value(measured, "snr")
    if norm is None:
        return None
    line = f"Gradient norm on the pinned samples: {number(norm)}"
    if signal is not None and signal < 1:
        line += f", with a signal-to-noise of {number(signal)}: it is mostly noise of the samples"
    return f"{line}."


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
