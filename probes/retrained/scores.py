"""The metric of retrained networks as scalars: means over epochs, errors over the test half."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainscope.probes.jackknife import stderr
from trainscope.records import Scalar
from trainscope.records.run import EpochRecord
from trainscope.training.loop import Evaluation

NOT_FINITE = "the loss or the outputs on the test half are NaN or infinite before any retraining"
FEWEST_BATCHES = 8
"""Batches of the test half below which they show no spread."""
PARTS = 64
"""Parts of a test half of samples that are right or wrong."""


def ta_of(run: list[tuple[EpochRecord, Evaluation]], left: list[float]) -> Scalar:
    """Return the TA of one retraining, or the reason why a diverged one has none."""
    lost = lost_in(run)
    if lost is not None:
        unit = lost.metric.unit
        return Scalar(None, unit, reason=f"retraining diverged in epoch {lost.epoch}")
    return _mean([found for _, found in run], left)


def lost_in(run: list[tuple[EpochRecord, Evaluation]]) -> EpochRecord | None:
    """Return the first epoch whose training or test loss is not finite."""
    return next((r for r, _ in run if r.train_loss is None or r.test_loss is None), None)


def start_of(found: Evaluation, left: list[float]) -> Scalar:
    """Return the metric before the first step, or the reason why there is none."""
    if found.loss is None:
        return Scalar(None, found.task.metric.unit, reason=NOT_FINITE)
    return _mean([found], left)


def _mean(evaluations: list[Evaluation], left: list[float]) -> Scalar:
    """Return the mean metric over epochs with its standard error over test samples."""
    shares = _shares(evaluations)
    if shares is None:
        return _mean_metric(evaluations, left)
    count = shares.numel()
    error = 100 * float(shares.std()) / count**0.5 if count > 1 else None
    return Scalar.of(100 * float(shares.mean()), "%", error)


def _mean_metric(evaluations: list[Evaluation], left: list[float]) -> Scalar:
    """Return the mean of any metric, and its jackknife error over batches of the test half."""
    unit = evaluations[0].task.metric.unit
    values = [found.metric for found in evaluations]
    if any(value is None for value in values):
        return Scalar(None, unit, reason="the metric on the test half is no finite number")
    mean = float(np.mean(np.asarray(values, dtype=np.float64)))
    return Scalar.of(mean, unit, stderr(np.asarray(left)) if left else None)


def _shares(evaluations: list[Evaluation]) -> Tensor | None:
    """Return the share of the epochs in which each test sample was right, [N]."""
    correct = [found.correct for found in evaluations]
    if any(right is None for right in correct):
        return None
    return torch.stack([right.double() for right in correct if right is not None]).mean(0)


def left_out_of(evaluations: list[Evaluation]) -> list[float]:
    """Return the mean metric over epochs with each part of the test half left out, [parts].

    The parts are batches; of samples that are right or wrong, every `PARTS`-th one. Nothing is
    returned where there are too few of them, or a metric is no finite number.
    """
    shares = _shares(evaluations)
    if shares is not None:
        if len(shares) < 2:
            return []
        step = min(PARTS, len(shares))
        groups = [shares[i::step] for i in range(step)]
        total, count = float(shares.sum()), len(shares)
        return [100 * (total - float(each.sum())) / (count - len(each)) for each in groups]
    parts = len(evaluations[0].parts)
    if parts < FEWEST_BATCHES:
        return []
    rows = list(zip(*(found.left_out for found in evaluations), strict=True))
    if any(value is None for row in rows for value in row):
        return []
    means = np.asarray(rows, dtype=np.float64).mean(1)
    return means.tolist() if bool(np.isfinite(means).all()) else []
