"""What every probe relies on, looked at before it measures: two short passes and two single ones.

A derivative is one number only where the same samples give the same outputs twice. Quantities of
single samples exist only where a sample's outputs do not depend on the others in its batch.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree

from trainscope.errors import ProbeError
from trainscope.networks.copies import whole_copy
from trainscope.probes.belongings import own_generators
from trainscope.probes.passes import logits_of

FEW = 8
"""Samples of a check."""
TRIES = 32
"""Passes of a network that draws random numbers, before they are held to change no output."""


@dataclass(frozen=True)
class Behaviour:
    """What was found out about a network in eval mode.

    Attributes:
        classes: The number of its logits.
        random: Why the same samples give other outputs in the next pass, a sentence without its
            full stop; None where they give the same.
        coupled: Why a sample's outputs depend on the others in its batch, likewise.
        draws: True where random numbers are drawn that changed no output.
    """

    classes: int
    random: str | None = None
    coupled: str | None = None
    draws: bool = False

    @property
    def constant_loss(self) -> str | None:
        """Return why the cross-entropy does not depend on the network, None where it does."""
        if self.classes > 1:
            return None
        return (
            "the network has one output, whose softmax is always 1, so the cross-entropy is 0 "
            "whatever the weights: give a network with one output for each class"
        )

    def notes(self, samples: int) -> dict[str, str]:
        """Return what a reader of a Measurement on so many samples must know."""
        found = {}
        if self.coupled is not None:
            found["batch"] = (
                f"{self.coupled}; measured with all {samples} samples in one batch, whatever the "
                "batch size, and without a standard error"
            )
        if self.draws:
            found["random"] = (
                "the forward pass draws random numbers in eval mode, which changed no output in "
                f"{TRIES} passes"
            )
        return found


_Same = Callable[[Tensor, Tensor], bool]
_Found = dict[tuple[int, int], tuple[nn.Module, Tensor, Behaviour]]
_shared: ContextVar[_Found | None] = ContextVar("_shared", default=None)


@contextmanager
def checked_once() -> Iterator[None]:
    """Inside, networks are not changed between probes, so each is looked at once, not per probe."""
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


@torch.no_grad()
def behaviour_of(network: nn.Module, inputs: Tensor, pinned: Tensor) -> Behaviour:
    """Look at a network in eval mode; random states and the network's own state may move.

    Args:
        network: In eval mode, lent by `untouched`.
        inputs: [N, ...], N at least 1, as the network takes them.
        pinned: The tensor that `inputs` come from, which names them between probes.

    Raises:
        ProbeError: The network does not return logits.
    """
    shared = _shared.get()
    key = id(network), id(pinned)
    if shared is not None and key in shared:
        return shared[key][2]
    found = _look(network, inputs[:FEW])
    if shared is not None:
        shared[key] = network, pinned, found  # held, so that no other object gets their ids
    return found


def _look(network: nn.Module, few: Tensor) -> Behaviour:
    generators = own_generators(network)
    before = _random_state(few.device, generators)
    first = logits_of(network, few)
    drew = _random_state(few.device, generators) != before
    classes = first.shape[1]
    if not bool(torch.isfinite(first).all()):  # every probe will say so
        return Behaviour(classes)
    for _ in range(TRIES - 1 if drew else 1):
        again = logits_of(network, few)
        if _changed(first, again) if drew else _differ(first, again):
            return Behaviour(classes, random=_why_random(network, few, drew))
    return Behaviour(classes, coupled=_why_coupled(network, few, first), draws=drew)


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


def _why_random(network: nn.Module, few: Tensor, drew: bool) -> str:
    place = None
    for _ in range(TRIES):
        one, two = _trace(network, few), _trace(network, few)
        place = _first_place(one, two, lambda a, b: not _changed(a, b))
        if place is not None:
            break
    how = "draws random numbers in eval mode" if drew else "keeps a state from pass to pass"
    return (
        f"two passes over the same samples give different outputs: {place or 'the network'} {how}, "
        "so nothing measured there would be one number; let it obey eval mode, as "
        "F.dropout(x, p, self.training) does"
    )


def _why_coupled(network: nn.Module, few: Tensor, together: Tensor) -> str | None:
    """Return why the first samples' outputs are others where they are alone; None if they aren't.

    A small difference must still be there in float64, where rounding is no reason for it.
    """
    depends = "a sample's outputs depend on the other samples of its batch"
    for i in range(min(2, len(few)) if len(few) > 1 else 0):
        try:
            alone = logits_of(network, few[i : i + 1])
        except ProbeError as error:
            return f"{depends}: a batch of one is not taken ({error})"
        if not _differ(together[i : i + 1], alone) or _is_rounding(network, few, i):
            continue

        def row(a: Tensor, b: Tensor, i: int = i) -> bool:
            both = a.ndim > 0 and b.ndim > 0 and len(a) == len(few) and len(b) == 1
            return not _differ(a[i : i + 1], b) if both else torch.equal(a, b)

        place = _first_place(_trace(network, few), _trace(network, few[i : i + 1]), row)
        return depends if place is None else f"{depends}: {place} mixes them"
    return None


def _is_rounding(network: nn.Module, few: Tensor, i: int) -> bool:
    """Tell whether a difference between a batch and a sample alone goes away in float64."""
    if few.dtype == torch.float64:
        return False
    try:
        exact = whole_copy(network).double()
        together, alone = logits_of(exact, few.double()), logits_of(exact, few[i : i + 1].double())
    except Exception:  # a network that is made for one dtype, or cannot be copied
        return False
    return together.dtype == torch.float64 and not _differ(together[i : i + 1], alone)


@dataclass(frozen=True)
class _Call:
    """One call of a module: what it is named, what it was given and what it made."""

    place: str
    given: list[Tensor]
    made: list[Tensor]


def _trace(network: nn.Module, few: Tensor) -> list[_Call]:
    """Return the calls of a forward pass, in the order in which they ended."""
    calls: list[_Call] = []
    given: list[list[Tensor]] = []
    handles = []
    for name, module in network.named_modules():
        place = _place(name, module)

        def enter(_: nn.Module, args: object, kwargs: object) -> None:
            given.append(_tensors((args, kwargs)))

        def leave(_: nn.Module, __: object, out: object, place: str = place) -> None:
            calls.append(_Call(place, given.pop(), _tensors(out)))

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    try:
        logits_of(network, few)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tensors(tree: object) -> list[Tensor]:
    leaves = _pytree.tree_leaves(tree)
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, Tensor)]


def _place(name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, _NormBase) and module.running_mean is None:
        kind += " without running statistics"
    return f"the layer '{name}' ({kind})" if name else f"the forward method of {kind}"


def _first_place(one: list[_Call], two: list[_Call], same: _Same) -> str | None:
    """Return the innermost place that is given the same and makes something else."""
    for a, b in zip(one, two, strict=False):
        if a.place != b.place:
            return None
        if _all(same, a.given, b.given) and not _all(same, a.made, b.made):
            return a.place
    return None


def _all(same: _Same, one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
