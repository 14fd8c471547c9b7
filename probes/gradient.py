"""The gradient of the loss: its norm, layer by layer too, and how much of it is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.evaluation import Evaluation, run
from trainscope.probes.footprint import footprint
from trainscope.probes.jackknife import GradientMoments, function_of, mean_stderr, moments
from trainscope.probes.parameters import Measured, measured
from trainscope.probes.probe import Need
from trainscope.probes.sample_gradients import SampleGradients
from trainscope.records import Cost, Measurement, Scalar


@dataclass(frozen=True)
class Gradient:
    """Norm, signal-to-noise ratio and noise scale of the cross-entropy gradient.

    Over the surviving trainable weights, with g_i the gradient of sample i's loss and g their mean
    over the N pinned samples, S = (sum ‖g_i‖² - N ‖g‖²) / (N - 1) estimates tr Sigma and
    ‖g‖² - S / N estimates ‖G‖², both without bias. Then

    - `norm` = ‖g‖, loss/param; `loss`, nats;
    - `snr` = ‖G‖² / tr Sigma of one sample's gradient, a pure number (a batch of B has B times
      as much); zero or below where no signal can be told from noise;
    - `noise_scale` = tr Sigma / ‖G‖², samples: the batch size at which noise and signal are
      equal (McCandlish et al. 2018, "simple noise scale"); null where ‖G‖² is not positive.

    Standard errors are the jackknife's over samples. Arrays: `layers`, `layer_kinds`
    ("weights", or "norms" where all parameters have one axis: normalisation, lone biases),
    `layer_norms`, `layer_rms` (norm per root of the number of surviving weights), `sample_norms`
    [N].
    """

    name: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS, Need.LABELS})

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        Status `skipped` where there are no labels or no weight to measure, `non-finite values`
        where a weight, an input, a logit or the gradient is NaN or infinite.

        Raises:
            ProbeError: The network does not return logits, or the labels do not fit them.
        """
        if data.labels is None:
            return Measurement.skipped(self.name, "there are no labels; give labelled data")
        graph = footprint(network, data.inputs).graph
        return run(self.name, network, data, lambda lent: _measure(lent, graph))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        count = len(data.inputs)
        graph = footprint(network, data.inputs).graph
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        memory = None if graph is None else min(count, data.batch_size) * graph * 3 + 3 * weights
        return Cost(forward=2 * count, backward=2 * count, memory=memory)


def mean_gradient(lent: Evaluation, weights: Measured) -> tuple[Measured, list[Tensor], Tensor]:
    """Return the parameters the loss uses, its mean gradient by them, and each sample's loss.

    The gradient is masked and shaped like the parameters; the losses are [N], float64.
    """
    losses: list[Tensor] = []
    total: list[Tensor] = []
    for inputs, labels in lent.batches():
        each = F.cross_entropy(lent.logits(inputs), labels, reduction="none")
        mean = each.sum() / len(lent)
        if not total:
            weights = weights.used_by(mean)
            total = [torch.zeros_like(tensor) for tensor in weights.tensors]
        if weights.tensors:
            found = torch.autograd.grad(mean, weights.tensors, materialize_grads=True)
            lent.backward += len(inputs)
            torch._foreach_add_(total, found)
        losses.append(each.detach().double())
    return weights, weights.keep(total), torch.cat(losses)


def _measure(lent: Evaluation, graph: int | None) -> Measurement:
    weights, mean, losses = mean_gradient(lent, measured(lent.network))
    if not weights.survivors:
        return Measurement.skipped(
            "gradient", "no weight is trainable, unmasked and used by the loss"
        )
    gradients = SampleGradients(lent, weights, graph)
    squares, dots = [], []
    for inputs, labels in lent.batches(gradients.chunk(1)):
        found = gradients(inputs, partial(_residual, labels), mean)
        squares.append(found[0].sum(0))
        dots.append(found[1])
    each = torch.cat(squares).cpu().numpy()
    pair = moments(each, torch.cat(dots).cpu().numpy())
    norms = torch.stack([value.double().norm() for value in mean]).cpu().numpy()
    norm, loss = float(np.linalg.norm(norms)), losses.cpu().numpy()
    layers = weights.layers
    layer_norms = [float(np.linalg.norm(norms[where])) for where in layers.values()]
    sizes = [sum(weights.counts[i] for i in where) for where in layers.values()]
    dims = [max(weights.tensors[i].dim() for i in where) for where in layers.values()]
    kinds = ["weights" if most > 1 else "norms" for most in dims]
    return Measurement(
        "gradient",
        scalars={
            "norm": Scalar.of(norm, "loss/param", function_of(pair, _norm)[1]),
            "loss": Scalar.of(loss.mean(), "nats", mean_stderr(loss)),
            **_signal_and_noise(pair),
        },
        arrays={
            "layers": list(layers),
            "layer_kinds": kinds,
            "layer_norms": layer_norms,
            "layer_rms": [
                n / math.sqrt(size) if size else 0.0
                for n, size in zip(layer_norms, sizes, strict=True)
            ],
            "sample_norms": np.sqrt(each).tolist(),
        },
        notes={**weights.notes(), "per-sample gradients": gradients.method},
    )


def _signal_and_noise(
    pair: tuple[GradientMoments, GradientMoments],
) -> dict[str, Scalar]:
    """Return snr and noise scale, or why there is none."""
    everything = pair[0]
    if everything.count < 2:
        reason = "one sample has no variance; give more samples"
        return {"snr": Scalar.of(math.nan, "", reason=reason)} | {
            "noise_scale": Scalar.of(math.nan, "samples", reason=reason)
        }
    if not everything.noise > 0:
        reason = "the samples' gradients do not differ"
        return {"snr": Scalar.of(math.nan, "", reason=reason)} | {
            "noise_scale": Scalar.of(math.nan, "samples", reason=reason)
        }
    snr = function_of(pair, lambda m: m.signal / m.noise)
    scale = function_of(pair, lambda m: m.noise / m.signal)
    found = {"snr": Scalar.of(snr[0], "", snr[1])}
    if everything.signal > 0:
        return found | {"noise_scale": Scalar.of(scale[0], "samples", scale[1])}
    reason = "the gradient cannot be told from its noise; give more samples"
    return found | {"noise_scale": Scalar(None, "samples", reason=reason)}


def _norm(values: GradientMoments) -> np.ndarray:
    return np.sqrt(values.mean_square)


def _residual(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the gradient of each sample's cross-entropy by its logits, [1, N, C]."""
    probabilities = logits.softmax(1)
    return (probabilities - F.one_hot(labels, logits.shape[1]).to(probabilities)).unsqueeze(0)
