"""The singular values of d logits / d input: how far a signal is stretched on its way through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.evaluation import Evaluation, run
from trainscope.probes.footprint import footprint
from trainscope.probes.jackknife import mean_stderr, stderr
from trainscope.probes.passes import NonFiniteError, derivative
from trainscope.probes.probe import Need
from trainscope.probes.singular_values import singular_values
from trainscope.records import Cost, Measurement, Scalar

MOST_ROWS = 256
"""Backward passes through a whole batch whose samples depend on each other."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Jacobian:
    """All singular values of each sample's input-output Jacobian [C, D], k = min(C, D) of them.

    - `mean_jsv`: their mean over values and samples; its standard error is over samples;
    - `std_over_mean`: their standard deviation over values and samples, over that mean; its
      standard error is the jackknife's over samples;
    - `max_jsv`, `min_jsv`: the largest and the smallest of all values of all samples;
    - `condition_number`: the median over samples of a sample's largest over its smallest; its
      standard error is half the distance between the order statistics sqrt(N)/2 places either
      side. A Jacobian that is singular to working precision (smallest <= 8 eps * largest) counts as
      infinite; where the median is, there is no value, and the reason says so;
    - `share_below_1e-3`: the share of a sample's values under 1e-3 of its largest (all, where all
      are zero), mean over samples;
    - `dead_outputs`: the number of outputs whose row is zero at every sample.
    - `singular_samples`: the number of samples whose Jacobian is singular to working precision.

    Units: logits per unit of (normalised) input. Arrays: `singular_values` [N][k], largest first;
    `condition_numbers` [N], None where singular; `dead_outputs_per_sample` [N].

    Attributes:
        samples: At most this many pinned samples, the first; None for all.
        memory: Bytes of Jacobians held at once; one sample's is the least.
    """

    samples: int | None = None
    memory: int = 2**28

    name: ClassVar[str] = "jacobian"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})

    def __post_init__(self) -> None:
        """Check the options."""
        if self.samples is not None and self.samples < 1:
            raise ProbeError(f"jacobian: samples is {self.samples}; give at least 1")

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        Status `non-finite values` where a weight, an input, a logit or the Jacobian is NaN or
        infinite. Where a sample's outputs depend on the others in its batch, its Jacobian is that
        of its own outputs by its own input, the others held, in the batch of all samples: many
        times as costly, so it may be measured on fewer of them, and without standard errors.

        Raises:
            ProbeError: The network does not return logits.
        """
        return run(self.name, network, data, self._measure, loss=False)

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        count = min(len(data.inputs), self.samples or len(data.inputs))
        found = footprint(network, data.inputs)
        classes = found.classes or _last_width(network)
        each = classes * data.inputs[0].numel() * data.inputs.element_size()
        chunk = max(1, min(self.memory // each, data.batch_size, count))
        memory = None if found.graph is None else chunk * (each + found.graph)
        return Cost(forward=count, backward=count * classes, memory=memory)

    def _measure(self, lent: Evaluation) -> Measurement:
        coupled = lent.behaviour.coupled is not None
        parts = (
            coupled_jacobians(lent, self.samples)
            if coupled
            else input_jacobians(lent, self.samples, self.memory)
        )
        spectra, dead = [], []
        for jacobians in parts:
            if not bool(torch.isfinite(jacobians).all()):
                raise NonFiniteError("the input-output Jacobian holds NaN or infinite values")
            dead.append((jacobians == 0).all(2))
            spectra.append(singular_values(jacobians))
        values = torch.cat(spectra).cpu().numpy()
        rows = torch.cat(dead).cpu().numpy()
        found = _summary(values, rows, torch.finfo(lent.inputs.dtype).eps)
        if coupled:  # the samples are not independent
            scalars = {name: replace(each, stderr=None) for name, each in found.scalars.items()}
            found = replace(found, scalars=scalars)
        return found


def input_jacobians(lent: Evaluation, samples: int | None, memory: int) -> Iterator[Tensor]:
    """Yield the samples' Jacobians [n, C, D], a chunk at a time.

    In eval mode samples do not mix, so one backward pass of the sum of one logit over a chunk
    gives that logit's row for every sample in it.
    """
    for parameter in lent.network.parameters():  # put back by `untouched`
        parameter.requires_grad_(False)
    chosen = lent.inputs[:samples]
    classes = lent.behaviour.classes
    each = classes * chosen[0].numel() * chosen.element_size()
    for part in torch.split(chosen, max(1, min(memory // each, lent.batch_size))):
        inputs = part.clone().requires_grad_()
        logits = lent.logits(inputs)
        rows = torch.zeros(
            len(part), classes, part[0].numel(), dtype=part.dtype, device=part.device
        )
        for c in range(classes if logits.requires_grad else 0):
            (row,) = derivative(
                logits[:, c].sum(), inputs, retain_graph=c + 1 < classes, materialize_grads=True
            )
            rows[:, c] = row.flatten(1)
            lent.backward += len(part)
        yield rows


def coupled_jacobians(lent: Evaluation, samples: int | None) -> Iterator[Tensor]:
    """Yield Jacobians [1, C, D] of samples' own outputs by their own inputs, in the whole batch.

    Each row takes a backward pass of its own through the batch, so there are at most
    `MOST_ROWS` / C samples.
    """
    for parameter in lent.network.parameters():  # put back by `untouched`
        parameter.requires_grad_(False)
    inputs = lent.inputs.clone().requires_grad_()
    logits = lent.logits(inputs)
    classes = lent.behaviour.classes
    for i in range(min(len(lent), samples or len(lent), max(1, MOST_ROWS // classes))):
        rows = torch.zeros(1, classes, inputs[0].numel(), dtype=inputs.dtype, device=inputs.device)
        for c in range(classes if logits.requires_grad else 0):
            (row,) = derivative(logits[i, c], inputs, retain_graph=True, materialize_grads=True)
            rows[0, c] = row[i].flatten()
            lent.backward += len(lent)
        yield rows


def _summary(values: Values, dead: NDArray[np.bool_], eps: float) -> Measurement:
    """Return the measurement from singular values [N, k] and zero rows [N, C]."""
    samples = len(values)
    unit = "logit/input"
    largest, smallest = values[:, 0], values[:, -1]
    singular = smallest <= 8 * eps * largest
    with np.errstate(divide="ignore", invalid="ignore"):
        conditions = np.where(singular, np.inf, largest / smallest)
    means = values.mean(1)
    below = np.where(largest > 0, (values < 1e-3 * largest[:, None]).mean(1), 1.0)
    spread, spread_error = _std_over_mean(values)
    dead_outputs = int(dead.all(0).sum())
    reason = f"the Jacobian of {int(singular.sum())} of {samples} samples is singular"
    if dead_outputs:
        reason = f"{dead_outputs} of {dead.shape[1]} outputs are dead: they ignore the input"
    return Measurement(
        "jacobian",
        scalars={
            "mean_jsv": Scalar.of(means.mean(), unit, mean_stderr(means)),
            "std_over_mean": Scalar.of(
                spread, "", spread_error, reason="every singular value is zero"
            ),
            "max_jsv": Scalar.of(values.max(), unit),
            "min_jsv": Scalar.of(values.min(), unit),
            "condition_number": Scalar.of(
                float(np.median(conditions)), "", _median_stderr(conditions), reason=reason
            ),
            "share_below_1e-3": Scalar.of(below.mean(), "", mean_stderr(below)),
            "dead_outputs": Scalar.of(dead_outputs, "outputs"),
            "singular_samples": Scalar.of(int(singular.sum()), "samples"),
        },
        arrays={
            "singular_values": values.tolist(),
            "condition_numbers": [float(c) if math.isfinite(c) else None for c in conditions],
            "dead_outputs_per_sample": dead.sum(1).tolist(),
        },
        notes={"jacobian": f"{samples} samples, {values.shape[1]} singular values each"},
    )


def _std_over_mean(values: Values) -> tuple[float, float | None]:
    """Return the pooled std / mean of values [N, k], and its jackknife error over samples."""
    count, k = values.shape
    first, second = values.sum(1), np.square(values).sum(1)

    def ratio(total: Values, squares: Values, size: int) -> Values:
        mean = total / size
        return np.sqrt(np.maximum(squares / size - mean**2, 0)) / mean

    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(values.std() / values.mean())
        if count < 2:
            return value, None
        left = ratio(first.sum() - first, second.sum() - second, k * (count - 1))
    return value, stderr(left)


def _median_stderr(values: Values) -> float | None:
    """Return half the distance of the order statistics sqrt(N) / 2 places around the median."""
    count = len(values)
    half = math.sqrt(count) / 2
    low, high = math.floor((count - 1) / 2 - half), math.ceil((count - 1) / 2 + half)
    ordered = np.sort(values)
    if low < 0 or high >= count or not math.isfinite(ordered[high]):
        return None
    return float(ordered[high] - ordered[low]) / 2


def _last_width(network: nn.Module) -> int:
    """Return the width of the last linear layer: a guess at the number of classes."""
    widths = [m.out_features for m in network.modules() if isinstance(m, nn.Linear)]
    return widths[-1] if widths else 1
