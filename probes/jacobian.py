"""The singular values of d signal / d input: how far a signal is stretched on its way through."""

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
from trainscope.probes.evaluation import Lent, run
from trainscope.probes.footprint import footprint
from trainscope.probes.input_points import embedded, floating, token_ids
from trainscope.probes.jackknife import mean_stderr, stderr
from trainscope.probes.passes import NonFiniteError, derivative
from trainscope.probes.probe import Need
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.singular_values import singular_values
from trainscope.records import Cost, Measurement, Scalar
from trainscope.task import Batch
from trainscope.task.batches import mapped

MOST_ROWS = 256
"""Backward passes through a whole batch whose samples depend on each other."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Jacobian:
    """All singular values of each sample's input-output Jacobian [C, D], k = min(C, D) of them.

    Outputs are the task's signal: logits, or what stands for them (class scores pooled over pixels,
    the logits at the last token). Inputs are the floating-point ones; of token ids their
    embeddings. With more than `most_outputs` outputs it is Q'J in the place of J, with Q [C, k] of
    random orthonormal columns times sqrt(C / k), k = `sketch`: sums of squares stay what they were
    in expectation, single values do not, and the note says so.

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

    Units: logits (outputs) per unit of (normalised) input. Arrays: `singular_values` [N][k],
    largest first; `condition_numbers` [N], None where singular; `dead_outputs_per_sample` [N].

    Attributes:
        samples: At most this many pinned samples, the first; None for all.
        memory: Bytes of Jacobians held at once; one sample's is the least.
        most_outputs: Outputs up to which all are differentiated.
        sketch: Random combinations of outputs beyond that.
    """

    samples: int | None = None
    memory: int = 2**28
    most_outputs: int = 2048
    sketch: int = 64

    name: ClassVar[str] = "jacobian"
    title: ClassVar[str] = "Jacobian singular values"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("mean_jsv", "mean JSV", "logit/input", drawn="log"),
        ScalarSpec("std_over_mean", "JSV std / mean", "", "lower"),
        ScalarSpec("max_jsv", "largest JSV", "logit/input"),
        ScalarSpec("min_jsv", "smallest JSV", "logit/input"),
        ScalarSpec("condition_number", "condition number", "", "lower"),
        ScalarSpec("share_below_1e-3", "JSVs under 1e-3 of the largest", "", "lower"),
        ScalarSpec("dead_outputs", "dead outputs", "outputs", "lower"),
        ScalarSpec("singular_samples", "samples with a singular Jacobian", "samples", "lower"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})

    def __post_init__(self) -> None:
        """Check the options."""
        if self.samples is not None and self.samples < 1:
            raise ProbeError(f"jacobian: samples is {self.samples}; give at least 1")
        if not 1 <= self.sketch <= self.most_outputs:
            raise ProbeError(
                f"jacobian: sketch is {self.sketch}; give 1 to most_outputs ({self.most_outputs})"
            )

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        Status `non-finite values` where a weight, an input, a logit or the Jacobian is NaN or
        infinite. Where a sample's outputs depend on the others in its batch, its Jacobian is that
        of its own outputs by its own input, the others held, in the batch of all samples: many
        times as costly, so it may be measured on fewer of them, and without standard errors.

        Raises:
            ProbeError: The network's outputs do not fit the task.
        """
        return run(self.name, network, data, self._measure, loss=False)

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        count = min(len(data), self.samples or len(data))
        found = footprint(network, data)
        rows = found.classes or _last_width(network)
        rows = rows if rows <= self.most_outputs else self.sketch
        size = sum(leaf[0].numel() * leaf.element_size() for leaf in floating(data.batch))
        each = rows * max(size, 4)
        chunk = max(1, min(self.memory // each, data.batch_size, count))
        memory = None if found.graph is None else chunk * (each + found.graph)
        return Cost(forward=count, backward=count * rows, memory=memory)

    def _measure(self, lent: Lent) -> Measurement:
        for parameter in lent.network.parameters():  # put back by `untouched`
            parameter.requires_grad_(False)
        coupled = lent.behaviour.coupled is not None
        try:
            jacobians = _Jacobians(lent, self)
            parts = jacobians.coupled() if coupled else jacobians.alone()
            spectra, dead = [], []
            for rows in parts:
                if not bool(torch.isfinite(rows).all()):
                    raise NonFiniteError("the input-output Jacobian holds NaN or infinite values")
                dead.append((rows == 0).all(2))
                spectra.append(singular_values(rows))
        except NoJacobianError as error:
            return Measurement.skipped(self.name, str(error))
        values = torch.cat(spectra).cpu().numpy()
        zeros = torch.cat(dead).cpu().numpy()
        unit = "logit/input" if lent.softmax else "output/input"
        found = _summary(values, zeros, torch.finfo(lent.weight.dtype).eps, unit)
        if coupled:  # the samples are not independent
            scalars = {name: replace(each, stderr=None) for name, each in found.scalars.items()}
            found = replace(found, scalars=scalars)
        return replace(found, notes={**found.notes, **jacobians.notes})


class NoJacobianError(ProbeError):
    """There is nothing to differentiate, or nothing to differentiate by; its message says which."""


class _Jacobians:
    """The Jacobians of one network's samples.

    Attributes:
        notes: What a reader must know of them, once they were made.
    """

    def __init__(self, lent: Lent, options: Jacobian) -> None:
        self.lent, self.options = lent, options
        self.notes: dict[str, str] = {}
        self._sketch: Tensor | None = None

    def alone(self) -> Iterator[Tensor]:
        """Yield the samples' Jacobians [n, C, D], a chunk at a time.

        In eval mode samples do not mix, so one backward pass of the sum of one output over a chunk
        gives that output's row for every sample in it.
        """
        count = min(len(self.lent), self.options.samples or len(self.lent))
        start, chunk = 0, min(count, self._chunk())
        while start < count:
            batch = self.lent.some(start, min(start + chunk, count))
            signal, points = self._forward(batch)
            rows = []
            for c in range(signal.shape[1]):
                rows.append(self._row(signal[:, c].sum(), points))
                self.lent.backward += len(signal)
            yield torch.stack(rows, 1)
            start += chunk

    def coupled(self) -> Iterator[Tensor]:
        """Yield Jacobians [1, C, D] of samples' own outputs by their own inputs, in the batch.

        Each row takes a backward pass of its own through the batch, so there are at most
        `MOST_ROWS` / C samples.
        """
        signal, points = self._forward(self.lent.batch)
        count, width = signal.shape
        for i in range(min(count, self.options.samples or count, max(1, MOST_ROWS // width))):
            rows = []
            for c in range(width):
                rows.append(self._row(signal[i, c], points)[i])
                self.lent.backward += count
            yield torch.stack(rows).unsqueeze(0)

    def _chunk(self) -> int:
        """Return how many samples' Jacobians are held at once."""
        if self.lent.softmax:
            width = self.lent.behaviour.classes or 1
            size = sum(leaf[0].numel() * leaf.element_size() for leaf in floating(self.lent.batch))
        else:
            signal, points = self._forward(self.lent.some(0, 1))
            width = signal.shape[1]
            size = sum(point.numel() * point.element_size() for point in points)
        return max(1, min(self.options.memory // max(width * size, 1), self.lent.batch_size))

    def _forward(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return the signal [n, C], and the tensors [n, ...] that it depends on."""
        task, count = self.lent.task, self.lent.task.size(batch)
        batch = mapped(lambda leaf: leaf.clone(), batch)
        points = [leaf.requires_grad_() for leaf in floating(batch)]
        with embedded(self.lent.network, token_ids(batch)) as made:
            signal = task.signal(self.lent.outputs(batch))
        if signal is None or signal.ndim != 2 or len(signal) != count:
            why = f"{type(task).__name__} makes no signal of shape [samples, outputs]"
            raise NoJacobianError(getattr(task, "no_signal", None) or why)
        points += [each for each in made if len(each) == count]
        if not points:
            raise NoJacobianError(
                "no input is a floating-point number, and no embedding layer takes the token ids"
            )
        signal = self._sketched(signal)
        if signal.requires_grad and len(points) > 1:
            used = torch.autograd.grad(signal.sum(), points, retain_graph=True, allow_unused=True)
            kept = [point for point, slope in zip(points, used, strict=True) if slope is not None]
            points = kept or points
        if made and any(point is each for point in points for each in made):
            self.notes["inputs"] = "the embeddings of the token ids"
        return signal, points

    def _row(self, output: Tensor, points: list[Tensor]) -> Tensor:
        """Return the derivative of one output of each sample, or of one sample's, [n, D]."""
        if not output.requires_grad:
            return torch.cat([torch.zeros_like(point).flatten(1) for point in points], 1)
        found = derivative(output, points, retain_graph=True, materialize_grads=True)
        return torch.cat([slope.flatten(1) for slope in found], 1)

    def _sketched(self, signal: Tensor) -> Tensor:
        width, rows = signal.shape[1], self.options.sketch
        if width <= self.options.most_outputs:
            return signal
        if self._sketch is None or len(self._sketch) != width:
            drawn = torch.randn(width, rows, generator=torch.Generator().manual_seed(0)).double()
            basis = torch.linalg.qr(drawn).Q * math.sqrt(width / rows)
            self._sketch = basis.to(signal)
            self.notes["sketch"] = (
                f"{rows} random combinations of {width} outputs: the root mean square of the "
                "singular values times sqrt(their number) is that of all outputs in expectation, "
                "single values are not"
            )
        return signal @ self._sketch


def _summary(values: Values, dead: NDArray[np.bool_], eps: float, unit: str) -> Measurement:
    """Return the measurement from singular values [N, k] and zero rows [N, C]."""
    samples = len(values)
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
