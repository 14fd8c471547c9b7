"""The gradient of the mean loss, and of each sample beside it, in one pass where that can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from trainscope.errors import TaskError
from trainscope.probes.gradients.first_look import first_look
from trainscope.probes.gradients.sample_gradients import SampleGradients, wholly
from trainscope.probes.gradients.single_samples import Loss
from trainscope.probes.jackknife import mean_stderr
from trainscope.probes.subject.lent import Lent, check_labels
from trainscope.probes.subject.output_space import OutputSpace
from trainscope.probes.subject.parameters import Measured, measured
from trainscope.probes.subject.passes import NonFiniteError, derivative
from trainscope.probes.subject.streamed import Total, stream_gradient
from trainscope.task import Batch, Classification, LanguageModelling, Outputs, per_sample
from trainscope.task.batches import targets
from trainscope.task.task import single
from trainscope.task.trees import flattened


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
class Gradients:
    """The mean gradient and what single samples' gradients are beside it, where they are."""

    mean: MeanGradient
    squares: np.ndarray | None = None
    dots: np.ndarray | None = None
    method: str = ""


def find_gradients(lent: Lent, graph: int | None) -> Gradients:
    """Take the gradients, in one pass where that can be."""
    every = measured(lent.network)
    if lent.behaviour.coupled is not None:
        return Gradients(mean_gradient(lent, every))
    # The mean is of the samples of all processes, which each has to know for its own.
    if lent.ranks.count == 1 and not lent.spread:
        found, graph = _in_one_pass(lent, every, graph)
        if found is not None:
            return found
    mean = mean_gradient(lent, every)
    if not mean.weights.survivors:
        return Gradients(mean)
    own, everything = wholly(lent, mean.weights)
    gradients = SampleGradients(own, everything, graph, mean.places)
    squares, dots = _squares(own, gradients, mean.weights.whole(mean.values))
    return Gradients(mean, squares, dots, gradients.method)


def _in_one_pass(
    lent: Lent, every: Measured, graph: int | None
) -> tuple[Gradients | None, int | None]:
    """Return the gradients of samples with their mean from the same pass, None where it cannot.

    The first look says which weights are used; all samples must use no others. With them come the
    bytes of a sample's graph, which it says where they are not given.
    """
    look = first_look(lent, every)
    graph = look.graph if graph is None else graph
    few, outputs = look.watching.batch, look.watching.outputs
    weights, places = every.used_by(lent.losses(outputs, few)), [0]
    if not weights.survivors:
        return None, graph
    if lent.softmax:
        check_labels(lent.task, outputs, lent.batch)
    else:
        places = OutputSpace(lent, outputs, few).places
    gradients = SampleGradients(lent, weights, graph, places, look)
    losses: list[tuple[Tensor, Tensor]] = []
    used: list[tuple[str, ...]] = []

    def residual(outputs: Outputs, batch: Batch) -> list[list[Tensor]]:
        terms = lent.losses(outputs, batch)
        losses.append(_sums(lent, outputs, batch, terms))
        used.append(every.used_by(terms).names)
        return [OutputSpace(lent, outputs, batch).gradient]

    # Where vmap can follow a network, every sample uses the same weights.
    loss = _of_a_sample(lent, few, outputs) if gradients.method == "vectorised" else None
    del few, outputs, look  # and their graph
    found = gradients.with_mean(lent.batch, residual, loss)
    if found is None or not set().union(*used) <= set(weights.names):
        return None, graph
    losses += gradients.losses
    sums, counts = (torch.cat(parts) for parts in zip(*losses, strict=True))
    # The gradients of samples' sums of terms are now scaled so that their mean is that of terms.
    scale = len(lent) / lent.count(int(counts.sum()))
    squares, dots = found[0] * scale**2, found[1] * scale**2
    values = found[2] if scale == 1 else [value * scale for value in found[2]]
    if not bool(torch.isfinite(sums).all()):
        return None, graph  # the plain passes say what is wrong
    mean = MeanGradient(weights, values, sums, counts, places)
    return Gradients(mean, *_finite(squares.sum(0), dots), gradients.method), graph


def _of_a_sample(lent: Lent, few: Batch, outputs: Outputs) -> Loss | None:
    """Return the loss as vmap can follow it; None where it cannot, or finds something else.

    Args:
        lent: The network and data.
        few: Some samples, on which that is seen.
        outputs: What the network returns for them.
    """
    loss = _without_looks(lent)
    leaves, structure = flattened(outputs)
    count = lent.task.size(few)
    rows = [isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in leaves]
    own = [leaf.detach() for leaf, row in zip(leaves, rows, strict=True) if row]
    given, whole = flattened(few)
    each = [isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in given]

    def alone(mine: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        held, taken = iter(mine), iter(inputs)
        out = [next(held).unsqueeze(0) if row else x for x, row in zip(leaves, rows, strict=True)]
        batch = [next(taken).unsqueeze(0) if row else x for x, row in zip(given, each, strict=True)]
        return loss(structure.holding(out), whole.holding(batch))

    inputs = [leaf for leaf, row in zip(given, each, strict=True) if row]
    try:
        sums, counts = vmap(alone)(own, inputs)
        expected, numbers = per_sample(lent.task, outputs, few)
    except (RuntimeError, TypeError, ValueError, LookupError, TaskError):
        return None
    same = torch.equal(counts, numbers) and torch.allclose(sums.double(), expected, rtol=1e-4)
    return loss if same else None


def _without_looks(lent: Lent) -> Loss:
    """Return a task's loss written so that it looks at no value, where it is known how."""
    task = lent.task
    if type(task).losses is LanguageModelling.losses and isinstance(task, LanguageModelling):
        return partial(task.sum_and_count, moved=task.moved(lent.batch))

    def losses(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        if lent.softmax and isinstance(task, Classification):
            its = targets(batch, task.inputs)
            assert isinstance(its, Tensor)
            logits = single(task.logits(outputs))
            terms = F.cross_entropy(logits, its, reduction="none")
        else:
            terms = task.losses(outputs, batch).flatten()
        return terms.sum(), torch.tensor(terms.numel(), device=terms.device)

    return losses


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
    if bool((each.isnan() | along.isnan()).any()):
        raise NonFiniteError("the loss or the gradient of a sample is NaN")
    if not bool((torch.isfinite(each) & torch.isfinite(along)).all()):
        raise NonFiniteError("the square of a sample's gradient overflows to infinity")
    return each.cpu().numpy(), along.cpu().numpy()


def _residual(lent: Lent, outputs: Outputs, batch: Batch) -> list[list[Tensor]]:
    """Return the gradient of each sample's loss at the outputs, scaled so that the mean is g."""
    scale = len(lent) / lent.terms
    return [[slope * scale for slope in OutputSpace(lent, outputs, batch).gradient]]
