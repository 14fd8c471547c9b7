"""The singular values of d signal / d input: how far a signal is stretched on its way through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.jackknife import mean_stderr, stderr, stepped
from trainscope.probes.jacobians.input_points import floating
from trainscope.probes.jacobians.rows import Jacobians, NoJacobianError
from trainscope.probes.jacobians.singular_values import singular_values, squeezed
from trainscope.probes.probe import Need
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.subject.evaluation import run
from trainscope.probes.subject.footprint import footprint
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.probes.subject.room import room
from trainscope.records import Cost, Measurement, Scalar
from trainscope.records.standard_errors import widened

Values = NDArray[np.float64]

FEWEST_COMBINATIONS = 8
"""Of many outputs, in a first look."""


@dataclass(frozen=True)
class Jacobian:
    """All singular values of each sample's input-output Jacobian [C, D], k = min(C, D) of them.

    Outputs are the task's signal: logits, or what stands for them (class scores pooled over pixels,
    the logits at the last token). Inputs are the floating-point ones; of token ids their
    embeddings. With more than `most_outputs` outputs, unless `exact`, it is Q'J in the place of J,
    with Q [C, k] of random orthonormal columns times sqrt(C / k), k = `sketch`, drawn once and the
    same for every network: sums of squares stay what they were in expectation, single values do
    not, and the note says so.

    - `mean_jsv`: their mean over values and samples; its standard error is over samples;
    - `rms_jsv`: the root of the sum of their squares over min(C, D), of all outputs in either case;
      its standard error is over samples, and over the combinations where there are such;
    - `std_over_mean`: their standard deviation over values and samples, over that mean; its
      standard error is the jackknife's over samples;
    - `max_jsv`, `min_jsv`: the largest and the smallest of all values of all samples;
    - `condition_number`: the median over samples of a sample's largest over its smallest; its
      standard error is half the distance between the order statistics sqrt(N)/2 places either
      side. A Jacobian that is singular to working precision (smallest <= 8 eps * largest) counts as
      infinite; where the median is, there is no value, and the reason says so;
    - `share_below_1e-3`: the share of a sample's values under 1e-3 of its largest (all, where all
      are zero), mean over samples;
    - `dead_outputs`: the number of outputs whose row is zero at every sample; combinations hide it;
    - `singular_samples`: the number of samples whose Jacobian is singular to working precision.

    Units: logits (outputs) per unit of (normalised) input. Arrays: `singular_values` [N][k],
    largest first; `condition_numbers` [N], None where singular; `dead_outputs_per_sample` [N].

    Attributes:
        samples: At most this many pinned samples, the first; None for all.
        memory: Bytes of Jacobians held at once; one sample's is the least.
        most_outputs: Outputs up to which all are differentiated.
        sketch: Random combinations of outputs beyond that.
        exact: Differentiate all outputs, however many.
    """

    samples: int | None = None
    memory: int = 2**28
    most_outputs: int = 64
    sketch: int = 32
    exact: bool = False

    name: ClassVar[str] = "jacobian"
    title: ClassVar[str] = "Jacobian singular values"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("mean_jsv", "mean JSV", "logit/input", drawn="log"),
        ScalarSpec("rms_jsv", "rms JSV", "logit/input", drawn="log"),
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
        found = footprint(network, data)
        return run(
            self.name, network, data, lambda lent: self._measure(lent, found.graph), loss=False
        )

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        count = min(len(data), self.samples or len(data))
        found = footprint(network, data)
        rows = found.classes or _last_width(network)
        if not self.exact and rows > self.most_outputs:
            rows = self.sketch
        size = sum(leaf[0].numel() * leaf.element_size() for leaf in floating(data.batch))
        each = rows * max(size, 4)
        chunk = max(1, min(self.memory // each, data.batch_size, count))
        memory = None if found.graph is None else chunk * (each + found.graph)
        return Cost(forward=count, backward=count * rows, memory=memory)

    def lighter(self, network: nn.Module, data: ProbeData) -> Iterator[tuple[Jacobian, str]]:
        """Yield a first look, where outputs are combined at all: fewer combinations; and words."""
        rows = footprint(network, data).classes or _last_width(network)
        fewest = min(self.sketch, FEWEST_COMBINATIONS)
        if not self.exact and rows > self.most_outputs and fewest < self.sketch:
            yield replace(self, sketch=fewest), f"{fewest} combinations of the outputs"

    def _measure(self, lent: Lent, graph_bytes: int | None) -> Measurement:
        for parameter in lent.network.parameters():  # put back by `untouched`
            parameter.requires_grad_(False)
        coupled = lent.behaviour.coupled is not None
        count = min(len(lent), self.samples or len(lent))
        jacobians = Jacobians(
            lent,
            memory=room(lent.weight.device, self.memory),
            most_outputs=None if self.exact else self.most_outputs,
            sketch=self.sketch,
            graph_bytes=graph_bytes,
        )
        spectra, squares, dead = [], [], []
        try:
            for part in jacobians.coupled(count) if coupled else jacobians.alone(count):
                if not bool(torch.isfinite(part.rows).all()):
                    raise NonFiniteError("the input-output Jacobian holds NaN or infinite values")
                small = squeezed(part.rows, part.head)
                spectra.append(singular_values(small, min(small.shape[1], jacobians.inputs)))
                squares.append(small.square().sum(2))
                dead.append((small == 0).all(2))
        except NoJacobianError as error:
            return Measurement.skipped(self.name, str(error))
        own = (spectra, squares, dead)
        gathered = (
            lent.ranks.gather(rows) if coupled else lent.gather(rows, count) for rows in own
        )
        values, rows, zeros = (each.cpu().numpy() for each in gathered)
        unit = "logit/input" if lent.softmax else "output/input"
        found = _summary(values, zeros, torch.finfo(lent.weight.dtype).eps, unit)
        full = min(jacobians.width, jacobians.inputs)
        rms = _rms(rows, full, unit, outputs=jacobians.width)
        scalars = {"mean_jsv": found.scalars["mean_jsv"], "rms_jsv": rms, **found.scalars}
        arrays = dict(found.arrays)
        if jacobians.sketched:
            hidden = (
                "random combinations of the outputs hide dead ones; --exact (exact=True) shows them"
            )
            scalars["dead_outputs"] = Scalar(None, "outputs", reason=hidden)
            del arrays["dead_outputs_per_sample"]
        if coupled:  # the samples are not independent
            scalars = {name: replace(each, stderr=None) for name, each in scalars.items()}
        notes = {**found.notes, **jacobians.notes}
        return replace(found, scalars=scalars, arrays=arrays, notes=notes)


def _rms(squares: Values, full: int, unit: str, *, outputs: int) -> Scalar:
    """Return the root mean square from the squared lengths of rows, [N, C] or of combinations."""
    rows = squares.shape[1]
    by_sample = squares.sum(1) / full
    root, error = math.sqrt(float(by_sample.mean())), mean_stderr(by_sample)
    if rows < outputs and error is not None:
        # Drawn without replacement: nothing is left where all are drawn.
        drawn = mean_stderr(squares.mean(0) * rows / full) or 0.0
        error = math.hypot(error, drawn * math.sqrt(1 - rows / outputs))
    return Scalar.of(root, unit, error / (2 * root) if root and error is not None else None)


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
            "share_below_1e-3": Scalar.of(
                below.mean(), "", stepped(mean_stderr(below), 1 / values.size)
            ),
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
    low = max(0, math.floor((count - 1) / 2 - half))
    high = min(count - 1, math.ceil((count - 1) / 2 + half))
    ordered = np.sort(values)
    if count < 2 or not math.isfinite(ordered[high]):
        return None
    return widened(float(ordered[high] - ordered[low]) / 2, count)


def _last_width(network: nn.Module) -> int:
    """Return the width of the last linear layer: a guess at the number of classes."""
    widths = [m.out_features for m in network.modules() if isinstance(m, nn.Linear)]
    return widths[-1] if widths else 1
