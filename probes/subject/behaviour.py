"""What every probe relies on, looked at before it measures: a short pass, and one of its parts.

A derivative is one number only where the same samples give the same outputs twice. Quantities of
single samples exist only where a sample's outputs do not depend on the others in its batch.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError, TaskError
from trainscope.networks.belongings import own_generators
from trainscope.networks.copies import whole_copy
from trainscope.probes.subject.call_trace import Call, Same, all_same, first_place, trace
from trainscope.probes.subject.footprint import followed_once
from trainscope.probes.subject.passes import checked_outputs
from trainscope.records.stability import SUMMED
from trainscope.task import Batch, Outputs, Task, mean_loss, per_sample
from trainscope.task.batches import mapped, selected, tensors
from trainscope.task.classification import one_label_each
from trainscope.task.task import is_ragged, why_reaching

FEW = 8
"""Samples of a check."""
ORDERED = (
    ", and changes with their order, which is drawn here (where it pairs neighbours, let one "
    "sample hold what belongs together)"
)
FEWEST_ORDERED = 4
"""Samples whose order can be told from another."""
TRIES = 32
"""Passes of a network that draws random numbers, before they are held to change no output."""


@dataclass(frozen=True)
class Behaviour:
    """What was found out about a network in eval mode.

    Attributes:
        classes: The number of its logits, where they are [samples, classes] and compared with one
            label a sample; None for every other task.
        random: Why the same samples give other outputs in the next pass, a sentence without its
            full stop; None where they give the same.
        coupled: Why a sample's outputs depend on the others in its batch, likewise.
        draws: True where random numbers are drawn that changed no output.
        reaching: Why the loss is none of the outputs alone, likewise.
        summed: True where the loss that is trained adds up its samples' and is not their mean.
    """

    classes: int | None
    random: str | None = None
    coupled: str | None = None
    draws: bool = False
    reaching: str | None = None
    summed: bool = False

    @property
    def unfit_loss(self) -> str | None:
        """Return why nothing of the loss can be measured, None where it can.

        The cross-entropy does not depend on the network, or the loss takes its weights itself.
        """
        if self.reaching is not None:
            return self.reaching
        if self.classes is None or self.classes > 1:
            return None
        return (
            "the network has one output, whose softmax is always 1, so the cross-entropy is 0 "
            "whatever the weights: name the task 'binary' where it says yes or no (task=, --task), "
            "or give a network with one output for each class"
        )

    def notes(self, samples: int) -> dict[str, str]:
        """Return what a reader of a Measurement on so many samples must know."""
        found = {}
        if self.coupled is not None:
            found["batch"] = (
                f"{self.coupled}; measured with all {samples} samples in one batch, whatever the "
                "batch size, and without a standard error"
            )
        if self.summed:
            found[SUMMED] = (
                "the loss of a batch is the sum of its samples' losses, and this is of their mean: "
                "with batches of n samples, what is trained has n times the gradient and the "
                "eigenvalues, and SGD's largest stable LR is 1/n of the one here"
            )
        if self.draws:
            found["random"] = (
                "the forward pass draws random numbers in eval mode, which changed no output in "
                f"{TRIES} passes"
            )
        return found


_Found = dict[tuple[int, int], tuple[nn.Module, Tensor, Behaviour]]
_shared: ContextVar[_Found | None] = ContextVar("_shared", default=None)


@contextmanager
def checked_once() -> Iterator[None]:
    """Inside, networks are not changed between probes, so each is looked at once, not per probe."""
    token = _shared.set({})
    try:
        with followed_once():
            yield
    finally:
        _shared.reset(token)


@torch.no_grad()
def behaviour_of(network: nn.Module, batch: Batch, data: ProbeData) -> Behaviour:
    """Look at a network in eval mode; random states and the network's own state may move.

    Args:
        network: In eval mode, lent by `untouched`.
        batch: The pinned samples, as the network takes them.
        data: Where they come from, which names them between probes.

    Raises:
        ProbeError: The network's outputs do not fit the task.
    """
    shared = _shared.get()
    pinned = tensors(data.batch)[0]
    key = id(network), id(pinned)
    if shared is not None and key in shared:
        return shared[key][2]
    few = data.task.select(batch, torch.arange(min(FEW, data.task.size(batch))))
    single = one_label_each(data.task, batch)
    passes = _Passes(network, data.task)
    found = _look(passes, few, labelled=data.labelled, single=single)
    if data.labelled and found.random is None and found.coupled is None:
        found = replace(found, coupled=_why_mixed_further_on(passes, batch, data.batch_size))
    if shared is not None:
        shared[key] = network, pinned, found  # held, so that no other object gets their ids
    return found


@dataclass(frozen=True)
class _Passes:
    """A network and how it is put forward."""

    network: nn.Module
    task: Task

    def outputs(self, batch: Batch) -> Outputs:
        """Return the outputs for a batch."""
        return checked_outputs(self.task, self.network, batch)

    def __call__(self, batch: Batch) -> list[Tensor]:
        """Return the tensors of the outputs for a batch."""
        return tensors(self.outputs(batch))

    def trace(self, batch: Batch) -> list[Call]:
        """Return the calls of a pass."""
        return trace(self.network, lambda: self(batch))

    def part(self, batch: Batch, rows: slice) -> Batch:
        """Return some samples next to each other as a batch."""
        return self.task.select(batch, torch.arange(rows.start, rows.stop))


def _look(passes: _Passes, few: Batch, *, labelled: bool, single: bool) -> Behaviour:
    generators = own_generators(passes.network)
    device = tensors(few)[0].device
    before = _random_state(device, generators)
    outputs = passes.outputs(few)
    first = tensors(outputs)
    drew = _random_state(device, generators) != before
    classes = first[0].shape[1] if single and len(first) == 1 and first[0].ndim == 2 else None
    if not all(_is_finite(leaf) for leaf in first):  # every probe will say so
        return Behaviour(classes)
    coupled = None if drew else _why_coupled(passes, few, first)
    # Where nothing is drawn, the parts have told already that they are the same twice.
    told = not drew and coupled is None and passes.task.size(few) > 1
    for _ in range(TRIES - 1 if drew else 0 if told else 1):
        if not all_same(_unlike(_changed if drew else _differ), first, passes(few)):
            return Behaviour(classes, random=_why_random(passes, few, drew))
    random_loss = _why_random_loss(passes, few, outputs) if labelled and classes is None else None
    if random_loss is not None:
        return Behaviour(classes, random=random_loss)
    if drew:
        coupled = _why_coupled(passes, few, first)
    reaching = None
    if labelled and classes is None:
        reaching = why_reaching(passes.task, passes.network, few, outputs)
    if coupled is None and labelled and classes is None:
        coupled = _why_mixed(passes, few, outputs)
        if coupled is not None and _is_ordered(passes, few, outputs):
            coupled += ORDERED
    summed = coupled is None and labelled and classes is None and _adds_up(passes, few, outputs)
    return Behaviour(classes, coupled=coupled, draws=drew, reaching=reaching, summed=summed)


def _unlike(differ: Same) -> Same:
    return lambda one, two: not differ(one, two)


def _is_finite(values: Tensor) -> bool:
    return not values.is_floating_point() or bool(torch.isfinite(values).all())


def _why_mixed(passes: _Passes, few: Batch, outputs: Outputs) -> str | None:
    """Return why the loss of a batch is not made of its samples' own terms, None where it is."""
    terms = passes.task.losses(outputs, few).flatten().double()
    if passes.task.size(few) < 2 or not bool(torch.isfinite(terms).all()):
        return None
    mixes = "the loss of a batch is not the mean of its samples' losses"
    try:
        sums, counts = per_sample(passes.task, outputs, few)
    except TaskError:  # the loss does not take a batch of one
        return mixes
    same = int(counts.sum()) == len(terms) and bool(
        torch.isclose(sums.sum(), terms.sum(), rtol=1e-4, atol=1e-6)
    )
    return None if same else mixes


def _is_ordered(passes: _Passes, few: Batch, outputs: Outputs) -> bool:
    """Tell a loss that changes with the order of the samples in a batch, as one of neighbours."""
    count = passes.task.size(few)
    rows = all(leaf.ndim and len(leaf) == count for leaf in tensors(outputs))
    if count < FEWEST_ORDERED or not rows:
        return False
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    try:
        turned = passes.task.losses(selected(outputs, order, count), passes.task.select(few, order))
    except TaskError:
        return False
    first = passes.task.losses(outputs, few).double().mean()
    return not bool(torch.isclose(first, turned.double().mean(), rtol=1e-3, atol=1e-5))


def _why_mixed_further_on(passes: _Passes, batch: Batch, size: int) -> str | None:
    """Return why the loss mixes samples that the first few do not show, None where it does not.

    A loss that returns one number may weight samples by their class, or leave some out: among a
    few all may be alike. So all are looked at, in batches; other losses say their terms.
    """
    reduces = getattr(passes.task, "reduces", None)
    count = passes.task.size(batch)
    if reduces is None or count <= FEW:
        return None
    for start in range(0, count, max(1, size)):
        some = passes.part(batch, slice(start, min(start + size, count)))
        outputs = passes.outputs(some)
        if not reduces(outputs, some):
            return None
        mixed = _why_mixed(passes, some, outputs)
        if mixed is not None:
            return mixed
    return None


def _adds_up(passes: _Passes, few: Batch, outputs: Outputs) -> bool:
    """Tell whether the loss of a training step is the sum of its samples' losses."""
    task, count = passes.task, passes.task.size(few)
    if count < 2 or is_ragged(task):
        return False
    trained, mean = mean_loss(task, outputs, few), task.losses(outputs, few).mean()
    if not _is_finite(trained) or not _is_finite(mean) or trained.numel() != 1:
        return False
    alike = [torch.isclose(trained, mean * by, rtol=1e-3, atol=1e-6) for by in (count, 1)]
    return bool(alike[0]) and not bool(alike[1])


def _why_random_loss(passes: _Passes, few: Batch, outputs: Outputs) -> str | None:
    """Return why the same outputs have another loss the next time, None where they have not."""
    first = passes.task.losses(outputs, few)
    if not _is_finite(first) or not _differ(first, passes.task.losses(outputs, few)):
        return None
    return (
        f"the loss of {type(passes.task).__name__} is another one each time for the same outputs: "
        "it draws random numbers, keeps a state or writes into the outputs, so nothing measured of "
        "it would be one number; "
        "let it draw from a generator that it seeds itself, or put what is drawn (noise, time "
        "steps) into the batch"
    )


def _random_state(device: torch.device, generators: Sequence[torch.Generator]) -> list[object]:
    """Return the state of everything that random numbers may be drawn from, to be compared."""
    states = [torch.get_rng_state(), *(generator.get_state() for generator in generators)]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [
        *(state.numpy().tobytes() for state in states),
        random.getstate(),
        pickle.dumps(np.random.get_state()),  # noqa: NPY002
    ]


def _changed(one: Tensor, two: Tensor) -> bool:
    return not torch.equal(one, two)


def _differ(one: Tensor, two: Tensor) -> bool:
    """Tell whether values differ by more than rounding in other kernels explains."""
    if one.shape != two.shape:
        return True
    if not one.numel() or not one.is_floating_point():
        return not torch.equal(one, two)
    share = min(1e3 * torch.finfo(one.dtype).eps, 0.05)
    gap = (one - two).abs().max()
    return not bool(gap <= share * torch.maximum(one.abs().max(), two.abs().max()))


def _why_random(passes: _Passes, few: Batch, drew: bool) -> str:
    place = None
    for _ in range(TRIES):
        one, two = passes.trace(few), passes.trace(few)
        place = first_place(one, two, _unlike(_changed))
        if place is not None:
            break
    how, remedy = "keeps a state from pass to pass", "let each pass in eval mode begin anew"
    if drew:
        how = "draws random numbers in eval mode"
        remedy = "let it obey eval mode, as F.dropout(x, p, self.training) does"
    return (
        f"two passes over the same samples give different outputs: {place or 'the network'} {how}, "
        f"so nothing measured there would be one number; {remedy}"
    )


def _why_coupled(passes: _Passes, few: Batch, together: list[Tensor]) -> str | None:
    """Return why samples' outputs are others in another batch; None if they aren't.

    The first two are put forward alone, the others without these. A small difference must still be
    there in float64, where rounding is no reason for it.
    """
    depends = "a sample's outputs depend on the other samples of its batch"
    count = passes.task.size(few)
    parts = [slice(0, 1), slice(1, 2), slice(2, count)] if count > 1 else []
    for rows in parts:
        if rows.start >= rows.stop:
            continue
        try:
            apart = passes(passes.part(few, rows))
        except ProbeError as error:
            size = rows.stop - rows.start
            return f"{depends}: a batch of {'one' if size == 1 else size} is not taken ({error})"
        same = _same_rows(rows, count)
        if all_same(same, together, apart) or _is_rounding(passes, few, rows):
            continue
        place = first_place(passes.trace(few), passes.trace(passes.part(few, rows)), same)
        return depends if place is None else f"{depends}: {place} mixes them"
    return None


def _same_rows(rows: slice, count: int) -> Same:
    """Return a comparison of a value for `count` samples with that for some of them alone.

    What has no axis of samples (a mean over the batch, a hidden state by layers) is passed over
    among outputs, and must be equal where a layer's inputs are compared.
    """
    size = rows.stop - rows.start

    def same(a: Tensor, b: Tensor) -> bool:
        both = a.ndim > 0 and b.ndim > 0 and len(a) == count and len(b) == size
        if both:
            return a.shape[1:] == b.shape[1:] and not _differ(a[rows], b)
        return a.ndim == 0 or a.shape != b.shape or torch.equal(a, b)

    return same


def _is_rounding(passes: _Passes, few: Batch, rows: slice) -> bool:
    """Tell whether a difference between a batch and a part of it alone goes away in float64."""
    floats = [leaf for leaf in tensors(few) if leaf.is_floating_point()]
    weights = [p for p in passes.network.parameters() if p.is_floating_point()]
    if all(leaf.dtype == torch.float64 for leaf in (*floats, *weights)):
        return False
    try:
        exact = _Passes(whole_copy(passes.network).double(), passes.task)
        wide = mapped(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, few)
        together, apart = exact(wide), exact(exact.part(wide, rows))
    except Exception:  # a network that is made for one dtype, or cannot be copied
        return False
    return any(leaf.dtype == torch.float64 for leaf in together) and all_same(
        _same_rows(rows, passes.task.size(few)), together, apart
    )
