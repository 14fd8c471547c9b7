"""The gradient of the loss: its norm, layer by layer too, and how much of it is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.probes.gradients.mean_gradient import find_gradients
from trainscope.probes.jackknife import GradientMoments, function_of, mean_stderr, moments
from trainscope.probes.probe import Need
from trainscope.probes.processes.ranks import present
from trainscope.probes.rounding import both, rounding_note, rounding_of
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.subject.evaluation import loss_unit, run
from trainscope.probes.subject.footprint import footprint
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.records import Cost, Measurement, Scalar


@dataclass(frozen=True)
class Gradient:
    """Norm, signal-to-noise ratio and noise scale of the gradient of the task's loss.

    Over the surviving trainable weights, with g_i the gradient of sample i's loss and g their mean
    over the N pinned samples (where samples have several terms, as tokens, g_i is N / terms times
    the gradient of the sum of sample i's, so that g is the gradient of the mean over terms),
    S = (sum ‖g_i‖² - N ‖g‖²) / (N - 1) estimates tr Sigma and ‖g‖² - S / N estimates ‖G‖², both
    without bias. Then

    - `norm` = ‖g‖, nats/weight, which the sampling noise makes longer than ‖G‖ on average;
    - `norm_unbiased` = sqrt(‖g‖² - S / N), nats/weight, the root of the unbiased estimate of ‖G‖²;
    - `loss`, nats of a cross-entropy;
    - `snr` = ‖G‖² / tr Sigma of one sample's gradient, a pure number (a batch of B has B times
      as much); zero or below where no signal can be told from noise;
    - `noise_scale` = tr Sigma / ‖G‖², samples: the batch size at which noise and signal are
      equal (McCandlish et al. 2018, "simple noise scale").

    Standard errors are the jackknife's over samples, those of `norm` and `loss` those of means (for
    `norm`, of <g_i, g> / ‖g‖), all widened for few samples. `norm_unbiased` and `noise_scale` are
    null for fewer than 16 samples, and within two standard errors of ‖G‖² = 0, where they may be
    anything on one side; the reason has the bound on the other. Theirs reach to the farther side.
    `snr` is null for fewer than 3 samples, which do not tell its error.
    Arrays: `layers`, `layer_kinds` ("weights", or "norms" where all parameters have one axis:
    normalisation, lone biases), `layer_norms`, `layer_rms` (norm per root of the number of
    surviving weights), `sample_norms` [N]. Where a sample's outputs depend on the others in its
    batch, no gradient belongs to one sample: `norm` and `loss` are those of all samples as one
    batch, and the rest is null.
    """

    name: ClassVar[str] = "gradient"
    title: ClassVar[str] = "Gradient"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("norm", "gradient norm", "nats/weight", drawn="log"),
        ScalarSpec("norm_unbiased", "gradient norm, unbiased", "nats/weight"),
        ScalarSpec("loss", "loss", "nats", "lower"),
        ScalarSpec("snr", "gradient signal-to-noise", "", "higher"),
        ScalarSpec("noise_scale", "simple noise scale", "samples"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS, Need.LABELS})

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        Status `skipped` where there are no labels, no weight to measure or a constant loss,
        `non-finite values` where a weight, an input, a logit or the gradient is NaN or infinite.

        Raises:
            ProbeError: The network's outputs do not fit the task, or the labels do not fit them.
        """
        if not data.labelled:
            return Measurement.skipped(self.name, "there are no labels; give labelled data")
        # In one process, the first pass tells it too.
        graph = footprint(network, data).graph if present().count > 1 else None
        return run(self.name, network, data, lambda lent: _measure(lent, graph))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        count = len(data)
        graph = footprint(network, data).graph
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        memory = None if graph is None else min(count, data.batch_size) * graph * 3 + 3 * weights
        return Cost(forward=2 * count, backward=2 * count, memory=memory)


def _measure(lent: Lent, graph: int | None) -> Measurement:
    found = find_gradients(lent, graph)
    gradient = found.mean
    weights, mean = gradient.weights, gradient.values
    if not weights.survivors:
        return Measurement.skipped(
            "gradient", "no weight is trainable, unmasked and used by the loss"
        )
    norms = weights.squares(mean).sqrt().cpu().numpy()
    norm, (loss, loss_error) = float(np.linalg.norm(norms)), gradient.loss
    if not math.isfinite(norm) or not bool(torch.isfinite(gradient.sums).all()):
        raise NonFiniteError("the loss or its gradient is NaN or infinite")
    layers = weights.layers
    layer_norms = [float(np.linalg.norm(norms[where])) for where in layers.values()]
    counts = weights.counts
    sizes = [sum(counts[i] for i in where) for where in layers.values()]
    dims = [max(weights.tensors[i].dim() for i in where) for where in layers.values()]
    arrays: dict[str, list[object]] = {
        "layers": list(layers),
        "layer_kinds": ["weights" if most > 1 else "norms" for most in dims],
        "layer_norms": list(layer_norms),
        "layer_rms": [
            n / math.sqrt(size) if size else 0.0 for n, size in zip(layer_norms, sizes, strict=True)
        ],
    }
    if found.squares is None or found.dots is None:
        return Measurement(
            "gradient",
            scalars={
                "norm": Scalar.of(norm, "nats/weight"),
                **_none_of("a sample's gradient depends on its batch", "norm_unbiased"),
                "loss": Scalar.of(loss, loss_unit(lent.task)),
                **_none_of("a sample's gradient depends on its batch", "snr", "noise_scale"),
            },
            arrays=arrays,
            notes=weights.notes(),
        )
    each = found.squares
    pair = moments(each, found.dots)
    rounding = rounding_of(lent.weight.dtype)
    unbiased, rest = _signal_and_noise(pair, rounding)
    return Measurement(
        "gradient",
        scalars={
            "norm": Scalar.of(
                norm, "nats/weight", both(_norm_stderr(pair[0], found.dots), rounding * norm)
            ),
            "norm_unbiased": unbiased,
            "loss": Scalar.of(loss, loss_unit(lent.task), both(loss_error, rounding * abs(loss))),
            **rest,
        },
        arrays={**arrays, "sample_norms": np.sqrt(each).tolist()},
        notes={
            **weights.notes(),
            "per-sample gradients": found.method,
            **rounding_note(lent.weight.dtype),
        },
    )


_UNITS = {"norm_unbiased": "nats/weight", "snr": "", "noise_scale": "samples"}


def _none_of(reason: str, *names: str) -> dict[str, Scalar]:
    return {name: Scalar(None, _UNITS[name], reason=reason) for name in names}


def _signal_and_noise(
    pair: tuple[GradientMoments, GradientMoments], rounding: float
) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the unbiased norm, and snr and noise scale; or why there is none."""
    everything = pair[0]
    reason = None
    if everything.count < 2:
        reason = "one sample has no variance; give more samples"
    elif not everything.noise > 0:
        reason = "the samples' gradients do not differ"
    if reason is not None:
        none = _none_of(reason, *_UNITS)
        return none.pop("norm_unbiased"), none
    snr, error = function_of(pair, lambda m: m.signal / m.noise)
    found = _none_of("it takes three samples that differ to tell its error; give more", "snr")
    if error is not None:
        error = both(error, 2 * rounding * float(everything.mean_square / everything.noise))
        found = {"snr": Scalar.of(snr, "", error)}
    if everything.count < FEWEST:
        none = _none_of(
            f"fewer than {FEWEST} samples do not show how far gradients differ; give more samples",
            "norm_unbiased",
            "noise_scale",
        )
        return none.pop("norm_unbiased"), found | none
    signal, spread = function_of(pair, lambda m: m.signal)
    spread = both(spread, 2 * rounding * float(everything.mean_square))
    return _root(signal, spread), found | {"noise_scale": _inverse(snr, error)}


FEWEST = 16
"""With fewer samples, all of a rare kind may be missing, and no spread among the rest shows it."""
_WEAK = "the gradient cannot be told from its noise"


def _root(signal: float, error: float | None) -> Scalar:
    """Return the root of an estimate of ‖G‖², where it is surely above zero."""
    error = math.inf if error is None else error
    if signal > 2 * error:
        value = math.sqrt(signal)
        return Scalar.of(value, "nats/weight", value - math.sqrt(signal - error))
    bound = f": at most {math.sqrt(max(signal, 0) + 2 * error):.3g}" if error < math.inf else ""
    return Scalar(None, "nats/weight", reason=f"{_WEAK}{bound}; give more samples")


def _inverse(snr: float, error: float | None) -> Scalar:
    """Return 1 / snr, where snr is surely above zero."""
    error = math.inf if error is None else error
    if snr > 2 * error:
        return Scalar.of(1 / snr, "samples", 1 / (snr - error) - 1 / snr)
    least = max(snr, 0) + 2 * error
    bound = f": at least {1 / least:.3g} samples" if least < math.inf else ""
    return Scalar(None, "samples", reason=f"{_WEAK}{bound}; give more samples")


def _norm_stderr(everything: GradientMoments, dots: np.ndarray) -> float | None:
    """Return the standard error of ‖g‖: that of the mean of the samples' parts along g.

    Leaving one out says less: without either, two samples may well have gradients of one length.
    """
    norm = math.sqrt(everything.mean_square)
    return mean_stderr(dots / norm) if norm else None
