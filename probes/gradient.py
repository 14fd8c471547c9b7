"""The gradient of the loss: its norm, layer by layer too, and how much of it is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.evaluation import loss_unit, run
from trainscope.probes.footprint import footprint
from trainscope.probes.jackknife import (
    GradientMoments,
    function_of,
    mean_stderr,
    moments,
    widened,
)
from trainscope.probes.lent import Lent, check_labels
from trainscope.probes.output_space import OutputSpace
from trainscope.probes.parameters import Measured, measured
from trainscope.probes.passes import NonFiniteError, derivative
from trainscope.probes.probe import Need
from trainscope.probes.rounding import both, rounding_note, rounding_of
from trainscope.probes.sample_gradients import Loss, SampleGradients, wholly
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.streamed import Total, stream_gradient
from trainscope.records import Cost, Measurement, Scalar
from trainscope.task import (
    Batch,
    Classification,
    Outputs,
    per_sample,
)
from trainscope.task.batches import targets
from trainscope.task.task import single


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

    Standard errors are the jackknife's over samples. `norm_unbiased` and `noise_scale` are null for
    fewer than 16 samples, and within two standard errors (Student's) of ‖G‖² = 0, where they may be
    anything on one side; the reason has the bound on the other. Theirs reach to the farther side.
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
        graph = footprint(network, data).graph
        return run(self.name, network, data, lambda lent: _measure(lent, graph))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        count = len(data)
        graph = footprint(network, data).graph
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        memory = None if graph is None else min(count, data.batch_size) * graph * 3 + 3 * weights
        return Cost(forward=2 * count, backward=2 * count, memory=memory)


@dataclass(frozen=True)
class MeanGradient:
    """The gradient of the mean loss.

    Attributes:
        weights: The parameters that the loss uses.
        values: The gradient, masked and shaped like them.
        sums: The sum of each sample's loss terms, [N], float64; of single terms where the loss of
            a batch is not made of its samples'.
        counts: The number of each one's terms, [N].
        places: Which of the outputs' tensors the loss depends on.
    """

    weights: Measured
    values: list[Tensor]
    sums: Tensor
    counts: Tensor
    places: list[int]

    @property
    def loss(self) -> tuple[float, float | None]:
        """Return the mean over terms, and its standard error over samples."""
        sums, counts = self.sums.cpu().numpy(), self.counts.cpu().numpy()
        mean = float(sums.sum() / counts.sum())
        if not math.isfinite(mean):
            return mean, None
        return mean, mean_stderr((sums - mean * counts) * (len(counts) / counts.sum()))


def _sums(lent: Lent, outputs: Outputs, batch: Batch, terms: Tensor) -> tuple[Tensor, Tensor]:
    """Return `MeanGradient`'s sums and counts of a batch."""
    if lent.softmax or lent.behaviour.coupled is not None:
        return terms.detach().double(), torch.ones_like(terms, dtype=torch.int64)
    return per_sample(lent.task, outputs, batch)


def mean_gradient(lent: Lent, weights: Measured) -> MeanGradient:
    """Return the gradient of the mean loss over the pinned samples, and each sample's loss."""
    found: list[tuple[Tensor, Tensor]] = []
    total: Total | None = None
    parts: list[Tensor] = []
    alone = lent.ranks.count == 1 and not lent.spread  # else their parts are sent, flat
    places: list[int] = [0]
    _, batches = lent.terms, lent.batches()  # their number is asked of all processes
    first = next(batches, None)  # none where there are more processes than samples
    for number, batch in enumerate(chain([lent.look if first is None else first], batches)):
        outputs = lent.outputs(batch)
        terms = lent.losses(outputs, batch)
        if not number:
            weights = lent.used(weights, terms)
            if alone:
                total = Total(weights.tensors, parts=-(-len(lent) // lent.batch_size))
            else:
                parts = [torch.zeros_like(tensor) for tensor in weights.tensors]
            if not lent.softmax:
                places = OutputSpace(lent, outputs, batch).places
            if first is None:
                break
        if weights.tensors:
            if total is not None:
                stream_gradient(lent.mean(terms), weights.tensors, total.add)
            else:
                slopes = derivative(lent.mean(terms), weights.tensors, materialize_grads=True)
                torch._foreach_add_(parts, slopes)
            lent.passes.add(backward=lent.task.size(batch))
        found.append(_sums(lent, outputs, batch, terms))
    sums, counts = (lent.gather([pair[i] for pair in found]) for i in (0, 1))
    if total is None:
        values = weights.keep(lent.gradient(parts))
        return MeanGradient(weights, values, sums, counts, places)
    for value, mask in zip(total.values, weights.masks, strict=True):
        if mask is not None:
            value.mul_(mask)
    return MeanGradient(weights, total.values, sums, counts, places)


@dataclass(frozen=True)
class _Found:
    """The mean gradient and what single samples' gradients are beside it, where they are."""

    mean: MeanGradient
    squares: np.ndarray | None = None
    dots: np.ndarray | None = None
    method: str = ""


def _find(lent: Lent, graph: int | None) -> _Found:
    """Take the gradients, in one pass where that can be."""
    every = measured(lent.network)
    if lent.behaviour.coupled is not None:
        return _Found(mean_gradient(lent, every))
    # The mean is of the samples of all processes, which each has to know for its own.
    apart = lent.ranks.count > 1 or lent.spread
    found = None if apart else _in_one_pass(lent, every, graph)
    if found is not None:
        return found
    mean = mean_gradient(lent, every)
    if not mean.weights.survivors:
        return _Found(mean)
    own, everything = wholly(lent, mean.weights)
    gradients = SampleGradients(own, everything, graph, mean.places)
    squares, dots = _squares(own, gradients, mean.weights.whole(mean.values))
    return _Found(mean, squares, dots, gradients.method)


_LOOK = 8
"""Samples whose loss shows which weights are used; that of all must show no others."""


def _in_one_pass(lent: Lent, every: Measured, graph: int | None) -> _Found | None:
    """Return the gradients of samples with their mean from the same pass, None where it cannot."""
    look = lent.some(0, _LOOK)
    outputs = lent.outputs(look)
    weights, places = every.used_by(lent.losses(outputs, look)), [0]
    if not weights.survivors:
        return None
    if lent.softmax:
        check_labels(lent.task, outputs, lent.batch)
    else:
        places = OutputSpace(lent, outputs, look).places
    del outputs
    gradients = SampleGradients(lent, weights, graph, places)
    losses: list[tuple[Tensor, Tensor]] = []
    used: list[tuple[str, ...]] = []

    def residual(outputs: Outputs, batch: Batch) -> list[list[Tensor]]:
        terms = lent.losses(outputs, batch)
        losses.append(_sums(lent, outputs, batch, terms))
        used.append(every.used_by(terms).names)
        return _residual(lent, outputs, batch)

    # Where vmap can follow a network, every sample uses the same weights.
    found = gradients.with_mean(lent.batch, residual, _of_a_sample(lent))
    if found is None or not set().union(*used) <= set(weights.names):
        return None
    losses += [
        (each.double(), torch.ones_like(each, dtype=torch.int64)) for each in gradients.losses
    ]
    squares, dots, values = found
    sums, counts = (torch.cat(parts) for parts in zip(*losses, strict=True))
    if not bool(torch.isfinite(sums).all()):
        return None  # the plain passes say what is wrong
    mean = MeanGradient(weights, values, sums, counts, places)
    return _Found(mean, *_finite(squares.sum(0), dots), gradients.method)


def _of_a_sample(lent: Lent) -> Loss | None:
    """Return the loss as vmap can follow it, which selects no labels; None where some are."""
    task = lent.task
    if not lent.softmax or not isinstance(task, Classification):
        return None
    labels = targets(lent.batch, task.inputs)
    if not isinstance(labels, Tensor) or bool((labels < 0).any()):
        return None

    def losses(outputs: Outputs, batch: Batch) -> Tensor:
        its = targets(batch, task.inputs)
        assert isinstance(its, Tensor)
        return F.cross_entropy(single(task.logits(outputs)), its, reduction="none")

    return losses


def _measure(lent: Lent, graph: int | None) -> Measurement:
    found = _find(lent, graph)
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
                norm, "nats/weight", both(function_of(pair, _norm)[1], rounding * norm)
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


def _squares(
    lent: Lent, gradients: SampleGradients, mean: list[Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Return |g_i|² and <g_i, mean gradient> of every sample, [N] each."""
    squares, dots = [], []
    for batch in lent.batches(gradients.chunk(1)):
        found = gradients(batch, partial(_residual, lent), mean)
        squares.append(found[0].sum(0))
        dots.append(found[1])
    return _finite(lent.gather(squares), lent.gather(dots))


def _finite(each: Tensor, along: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return squares and dots as arrays.

    Raises:
        NonFiniteError: One overflows.
    """
    if not bool((torch.isfinite(each) & torch.isfinite(along)).all()):
        raise NonFiniteError("the square of a sample's gradient overflows to infinity")
    return each.cpu().numpy(), along.cpu().numpy()


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
    return _root(signal, spread, everything.count), found | {
        "noise_scale": _inverse(snr, error, everything.count)
    }


FEWEST = 16
"""With fewer samples, all of a rare kind may be missing, and no spread among the rest shows it."""
_WEAK = "the gradient cannot be told from its noise"


def _root(signal: float, error: float | None, count: int) -> Scalar:
    """Return the root of an estimate of ‖G‖², where it is surely above zero."""
    error = math.inf if error is None else widened(error, count)
    if signal > 2 * error:
        value = math.sqrt(signal)
        return Scalar.of(value, "nats/weight", value - math.sqrt(signal - error))
    bound = f": at most {math.sqrt(max(signal, 0) + 2 * error):.3g}" if error < math.inf else ""
    return Scalar(None, "nats/weight", reason=f"{_WEAK}{bound}; give more samples")


def _inverse(snr: float, error: float | None, count: int) -> Scalar:
    """Return 1 / snr, where snr is surely above zero."""
    error = math.inf if error is None else widened(error, count)
    if snr > 2 * error:
        return Scalar.of(1 / snr, "samples", 1 / (snr - error) - 1 / snr)
    least = max(snr, 0) + 2 * error
    bound = f": at least {1 / least:.3g} samples" if least < math.inf else ""
    return Scalar(None, "samples", reason=f"{_WEAK}{bound}; give more samples")


def _norm(values: GradientMoments) -> np.ndarray:
    return np.sqrt(values.mean_square)


def _residual(lent: Lent, outputs: Outputs, batch: Batch) -> list[list[Tensor]]:
    """Return the gradient of each sample's loss at the outputs, scaled so that the mean is g."""
    scale = len(lent) / lent.terms
    return [[slope * scale for slope in OutputSpace(lent, outputs, batch).gradient]]
