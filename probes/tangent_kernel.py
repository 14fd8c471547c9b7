"""The empirical neural tangent kernel: how fast gradient descent would move which outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.gradients.sample_gradients import wholly
from trainscope.probes.jackknife import grouped_stderr, mean_stderr
from trainscope.probes.probe import Need
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.subject.evaluation import run
from trainscope.probes.subject.footprint import footprint
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.output_space import OutputSpace
from trainscope.probes.subject.parameters import Measured, measured
from trainscope.probes.subject.passes import NonFiniteError, derivative
from trainscope.probes.subject.room import room
from trainscope.records import Cost, Measurement, Scalar
from trainscope.task import Batch

Values = NDArray[np.float64]
Kernel = NDArray[np.float64]
"""[N, k, N, k], of N samples and k outputs."""

FIRST_LOOK = 8
"""Samples of a first look."""
_PRODUCT = 2**16
"""Weights whose products are taken in float64 at once."""


@dataclass(frozen=True)
class TangentKernel:
    """The empirical neural tangent kernel on pinned samples (Jacot et al. 2018).

    Theta[(i, k), (j, l)] = <d f_k(x_i) / d w, d f_l(x_j) / d w> over the surviving trainable
    weights w, with f the task's signal in eval mode, of N samples and K outputs each; its
    eigenvalues are those of Theta / N. Under gradient descent at LR eta the residual of the
    linearised network with a squared loss loses a factor 1 - eta lambda a step along each
    eigenvector (Lee et al. 2019; Xiao et al. 2020). With more than `most_outputs` outputs, k =
    `most_outputs` random orthonormal combinations times sqrt(K / k) stand for them, drawn once and
    the same for every network; the note says so.

    - `trace` = tr Theta / N: the mean over samples of the squared norm of the derivative of the
      outputs by the weights; its standard error is over samples;
    - `max_eigenvalue`: the largest one;
    - `condition_number`: the largest over the smallest. Null where the kernel is singular to
      working precision, with its rank in the reason;
    - `effective_rank`: exp of the entropy of the eigenvalues' shares (Roy and Vetterli 2007), from
      1 to N k;
    - `alignment` = r' Theta r / (‖Theta‖_F ‖r‖²), with r the residual, minus the gradient of the
      loss by the signal (labels minus probabilities for a classifier): from 0 to 1, how far what
      is still wrong lies where the network learns fastest. Null where the loss is of other numbers
      than the signal;
    - `stable_steps`: the steps below at LR 1 / `max_eigenvalue`, so that they do not depend on a
      scale; null likewise;
    - `steps@LR`: full-batch steps after which the norm of the linearised network's residual is
      `reach` of what it is. Null where the LR is at least 2 over the largest eigenvalue, or where
      more of the residual than that lies where the kernel is zero to working precision.

    Standard errors of what is not a mean are the jackknife's over eight groups of samples (of
    condition number and steps, that of the logarithm, out to the farther side), widened for few
    and at least what a group moves the number by. All but the trace change with the number of
    samples, so they compare at one alone. Arrays: `eigenvalues` [N k], largest first, and
    `residual_shares`, the share of ‖r‖² along each.

    Attributes:
        samples: At most this many pinned samples, the first; fewer where `memory` holds no more.
        most_outputs: Outputs up to which each is differentiated.
        memory: Bytes of derivatives that are held at once.
        lrs: The LRs of the steps.
        reach: The share of the residual's norm that is left after them.
    """

    samples: int = 32
    most_outputs: int = 16
    memory: int = 2**29
    lrs: tuple[float, ...] = (1e-2, 1e-3)
    reach: float = 0.1

    name: ClassVar[str] = "ntk"
    title: ClassVar[str] = "Neural tangent kernel"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("trace", "NTK trace", "logit²/weight²", drawn="log"),
        ScalarSpec("max_eigenvalue", "largest NTK eigenvalue", "logit²/weight²", drawn="log"),
        ScalarSpec("condition_number", "NTK condition number", "", "lower", drawn="log"),
        ScalarSpec("effective_rank", "effective rank of the NTK", "", "higher"),
        ScalarSpec("alignment", "alignment with the residual", "", "higher"),
        ScalarSpec("stable_steps", "linearised steps at LR 1/λmax", "steps", "lower", drawn="log"),
        ScalarSpec("steps@*", "linearised steps at LR {at}", "steps", "lower", drawn="log"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})

    def __post_init__(self) -> None:
        """Check the options."""
        if self.samples < 2:
            raise ProbeError(f"ntk: samples is {self.samples}; give at least 2")
        if self.most_outputs < 1:
            raise ProbeError(f"ntk: most_outputs is {self.most_outputs}; give at least 1")
        if not self.lrs or not all(math.isfinite(lr) and lr > 0 for lr in self.lrs):
            raise ProbeError(f"ntk: lrs is {self.lrs}; give LRs above 0")
        if not 0 < self.reach < 1:
            raise ProbeError(f"ntk: reach is {self.reach:g}; give a share between 0 and 1")

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the first pinned samples; it is left untouched.

        Status `skipped` where the task makes no signal, no weight is measured, or the derivatives
        of two samples take more than `memory`; `non-finite values` where a number on the way is
        NaN or infinite.

        Raises:
            ProbeError: The network's outputs do not fit the task.
        """
        return run(self.name, network, data, self._measure, loss=False)

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        classes = footprint(network, data).classes or self.most_outputs
        rows = min(classes, self.most_outputs)
        size = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
        count = min(len(data), self.samples, max(2, self.memory // max(rows * size, 1)))
        return Cost(forward=2 * count, backward=count * rows, memory=count * rows * size)

    def lighter(self, network: nn.Module, data: ProbeData) -> Iterator[tuple[TangentKernel, str]]:
        """Yield a first look: the same of fewer samples; and words."""
        if min(self.samples, len(data)) > FIRST_LOOK:
            yield replace(self, samples=FIRST_LOOK), f"the kernel of {FIRST_LOOK} samples"

    def _measure(self, lent: Lent) -> Measurement:
        weights = measured(lent.network)
        lent, weights = wholly(lent, weights)
        signal = _signal(lent, lent.look)
        if isinstance(signal, str):
            return Measurement.skipped(self.name, signal)
        same = signal

        def of(batch: Batch) -> Tensor:
            found = _signal(lent, batch)
            return same if isinstance(found, str) else found

        weights = lent.used(weights, signal, of)
        if not weights.survivors:
            return Measurement.skipped(
                self.name, "no weight is trainable, unmasked and used by the signal"
            )
        width = signal.shape[1]
        rows = min(width, self.most_outputs)
        each = rows * weights.survivors * signal.element_size()
        held = room(lent.weight.device, self.memory) // each
        count = min(len(lent), self.samples, held)
        if count < 2:
            why = "two samples are the fewest"
            if held < 2:
                why = f"the derivatives of two take {2 * each / 2**20:.0f} MiB"
            return Measurement.skipped(
                self.name, f"there is no kernel of {count} samples ({why}); give more memory="
            )
        basis = _basis(width, rows).to(signal)
        derivatives = _derivatives(lent, weights, basis, count)
        kernel = _kernel(derivatives).reshape(count, rows, count, rows)
        if not np.isfinite(kernel).all():
            raise NonFiniteError("the derivatives of the outputs by the weights overflow")
        residual = _residual(lent, basis, count)
        notes = {
            "kernel": f"{count} samples, {rows} outputs each"
            + (f" (random combinations of {width})" if rows < width else ""),
            **weights.notes(),
        }
        found = self._summary(kernel, residual, torch.finfo(signal.dtype).eps, lent.softmax)
        return replace(found, notes={**notes, **found.notes})

    def _summary(
        self, kernel: Kernel, residual: Values | str, eps: float, softmax: bool
    ) -> Measurement:
        unit = "logit²/weight²" if softmax else "output²/weight²"
        count = len(kernel)
        whole = _Spectrum(kernel, residual, np.arange(count), eps)
        known: dict[bytes, _Spectrum] = {}  # of the groups that are left out, for all numbers

        def error(found: float, function: str, *options: Any) -> float | None:
            def value(kept: NDArray[np.int64]) -> float | None:
                key = kept.tobytes()
                part = known.get(key) or _Spectrum(kernel, residual, kept, eps)
                known[key] = part
                if options:
                    return part.steps(*options)
                own: float | None = getattr(part, function)
                return own

            factors = function in ("condition", "steps")
            return grouped_stderr(found, count, value, factors=factors)

        by_sample = np.einsum("ikik->i", kernel)
        scalars = {
            "trace": Scalar.of(float(by_sample.mean()), unit, mean_stderr(by_sample)),
            "max_eigenvalue": Scalar.of(whole.largest, unit, error(whole.largest, "largest")),
        }
        condition = whole.condition
        if condition is None:
            scalars["condition_number"] = Scalar(
                None,
                "",
                reason=f"the kernel is singular to working precision: its rank is {whole.rank} of "
                f"{len(whole.values)}",
            )
        else:
            scalars["condition_number"] = Scalar.of(condition, "", error(condition, "condition"))
        rank = whole.effective_rank
        scalars["effective_rank"] = (
            Scalar(None, "", reason="the kernel is zero")
            if rank is None
            else Scalar.of(rank, "", error(rank, "effective_rank"))
        )
        alignment = whole.alignment
        scalars["alignment"] = (
            Scalar(None, "", reason=residual if isinstance(residual, str) else "it is zero")
            if alignment is None
            else Scalar.of(alignment, "", error(alignment, "alignment"))
        )
        scales: dict[str, float | None] = {"stable_steps": None}
        scales |= {f"steps@{lr:g}": lr for lr in self.lrs}
        for name, lr in scales.items():
            why = whole.why_no_steps(lr, self.reach)
            steps = None if why else whole.steps(lr, self.reach)
            scalars[name] = (
                Scalar(None, "steps", reason=why or "the residual does not fall")
                if steps is None
                else Scalar.of(steps, "steps", error(steps, "steps", lr, self.reach))
            )
        arrays: dict[str, list[object]] = {"eigenvalues": whole.values.tolist()}
        if whole.shares is not None:
            arrays["residual_shares"] = whole.shares.tolist()
        return Measurement(self.name, scalars=scalars, arrays=arrays)


class _Spectrum:
    """The spectrum of the kernel of some samples, with the residual in it."""

    def __init__(
        self, kernel: Kernel, residual: Values | str, kept: NDArray[np.int64], eps: float
    ) -> None:
        count, rows = len(kept), kernel.shape[1]
        size = count * rows
        part = kernel[kept][:, :, kept].reshape(size, size) / count
        values, vectors = np.linalg.eigh(part)
        self.values = np.maximum(values[::-1], 0.0)
        self.largest = float(self.values[0])
        # Derivatives hold eps of the largest; their squares, in float64, size times its own.
        self.floor = max(64 * eps**2, size * np.finfo(np.float64).eps) * self.largest
        self.rank = int((self.values > self.floor).sum())
        self.shares: Values | None = None
        if not isinstance(residual, str):
            own = residual[kept].reshape(size)
            along = np.square(vectors[:, ::-1].T @ own)
            self.shares = along / along.sum() if along.sum() > 0 else None

    @property
    def condition(self) -> float | None:
        if self.rank < len(self.values):
            return None
        return float(self.values[0] / self.values[-1])

    @property
    def effective_rank(self) -> float | None:
        total = self.values.sum()
        if not total > 0:
            return None
        shares = self.values[self.values > 0] / total
        return float(np.exp(-(shares * np.log(shares)).sum()))

    @property
    def alignment(self) -> float | None:
        norm = float(np.linalg.norm(self.values))
        if self.shares is None or not norm > 0:
            return None
        return float((self.values * self.shares).sum() / norm)

    def why_no_steps(self, lr: float | None, reach: float) -> str:
        """Return why the residual does not come down to a share of its norm, "" where it does."""
        if self.shares is None or not self.largest > 0:
            return "there is no residual to follow" if self.largest > 0 else "the kernel is zero"
        if lr is not None and lr * self.values[0] >= 2:
            return (
                f"at LR {lr:g} gradient descent diverges: 2 over the largest eigenvalue is "
                f"{2 / self.values[0]:.3g}"
            )
        stays = float(self.shares[self.values <= self.floor].sum())
        if stays > reach**2:
            return (
                f"{100 * math.sqrt(stays):.3g} % of the residual's norm lies where the kernel is "
                "zero, and stays"
            )
        return ""

    def steps(self, lr: float | None, reach: float) -> float | None:
        """Return after how many steps the residual's norm is `reach` of what it is.

        Without an LR it is 1 over the largest eigenvalue.
        """
        if self.why_no_steps(lr, reach) or self.shares is None:
            return None
        rates = np.abs(1 - (1 / self.largest if lr is None else lr) * self.values)
        shares = np.where(self.values > self.floor, self.shares, 0.0)
        stays = float(self.shares.sum() - shares.sum())

        def left(steps: float) -> float:
            return float((shares * rates ** (2 * steps)).sum()) + stays

        high = 1.0
        while left(high) > reach**2:
            high *= 2
            if high > 1e18:
                return None
        low = 0.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) > reach**2 else (low, middle)
        return high


def _signal(lent: Lent, batch: Batch) -> Tensor | str:
    """Return the signal of a batch, with its graph; or why there is none."""
    signal = lent.task.signal(lent.outputs(batch))
    if signal is None or signal.ndim != 2 or len(signal) != lent.task.size(batch):
        why = f"{type(lent.task).__name__} makes no signal of shape [samples, outputs]"
        return str(getattr(lent.task, "no_signal", None) or why)
    return signal


def _basis(width: int, rows: int) -> Tensor:
    """Return the columns that combine the outputs, [K, k]; the outputs as they are where k = K."""
    if rows == width:
        return torch.eye(width, dtype=torch.float64)
    drawn = torch.randn(width, rows, generator=torch.Generator().manual_seed(0))
    found: Tensor = torch.linalg.qr(drawn.double()).Q * math.sqrt(width / rows)
    return found


def _derivatives(lent: Lent, weights: Measured, basis: Tensor, count: int) -> Tensor:
    """Return the derivatives of the first samples' outputs by the weights, [count * k, weights]."""
    coupled = lent.behaviour.coupled is not None
    found: list[Tensor] = []
    whole = _signal(lent, lent.batch) if coupled else None
    for place in range(count):
        if isinstance(whole, Tensor):
            outputs = whole[place] @ basis
        else:
            signal = _signal(lent, lent.some(place, place + 1))
            assert isinstance(signal, Tensor)
            outputs = signal[0] @ basis
        for output in outputs.unbind():
            slopes = derivative(output, weights.tensors, retain_graph=True, materialize_grads=True)
            found.append(weights.entries(slopes).detach())
        lent.passes.add(backward=len(outputs) * (len(lent) if coupled else 1))
    return torch.stack(found)


def _kernel(derivatives: Tensor) -> Kernel:
    """Return the products of all rows, in float64."""
    size = len(derivatives)
    total = derivatives.new_zeros(size, size, dtype=torch.float64)
    for part in torch.split(derivatives, max(_PRODUCT // size, 1), dim=1):
        own = part.double()
        total += own @ own.T
    found: Kernel = total.cpu().numpy()
    return found


def _residual(lent: Lent, basis: Tensor, count: int) -> Values | str:
    """Return minus the gradient of the loss at the first samples' signal, [count, k]; or why not.

    It is looked for where the signal is the very tensor that the loss is of.
    """
    if not lent.labelled:
        return "there are no labels, and so no residual"
    batch = lent.batch if lent.behaviour.coupled is not None else lent.some(0, count)
    with torch.enable_grad():
        outputs = lent.outputs(batch)
        space = OutputSpace(lent, outputs, batch)
        signal = lent.task.signal(outputs)
        leaves, slopes = space.leaves, space.gradient
    other = "the loss is of other numbers than the signal, so there is no residual of it"
    if signal is None or len(leaves) != 1 or leaves[0].numel() != signal.numel():
        return other
    if not torch.equal(leaves[0].reshape(signal.shape), signal):
        return other
    residual = -slopes[0].reshape(signal.shape)[:count] @ basis
    found: Values = residual.detach().double().cpu().numpy()
    return found
