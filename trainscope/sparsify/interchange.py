"""Tries whether channels are interchangeable, as those must be of which any may be cut.

Torch-Pruning takes what it does not know for an elementwise operation: a reshape of channels to the
heads of an attention, a pixel shuffle, a norm over neighbours. A cut there moves the channels that
stay to other heads or neighbours, and what is left runs, and is another network. Where channels are
interchangeable, two of them may change places in all layers of their group at once, and the outputs
stay as they are; so they do where the channels are normalised or averaged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs
from trainscope.sparsify.trial import TOLERANCE, alike
from trainscope.sparsify.verify import run
from trainscope.task.modes import evaluating

MOST_PARTS = 64
"""Heads that are tried."""
SECONDS = 60.0
"""CPU time after which no more numbers of heads are tried, and layers are left alone."""
_LARGE = 2**29
"""Numbers of a network above which the trial is in its own dtype: float64 would take 4 GiB."""


@dataclass(frozen=True)
class Swap:
    """Slices of a tensor that change places, pair by pair.

    Attributes:
        tensor: Its name in the network.
        axis: Along which they lie.
        first: The places of one slice of each pair.
        second: Those of the other.
    """

    tensor: str
    axis: int
    first: tuple[int, ...]
    second: tuple[int, ...]


class Interchange:
    """A copy of a network in which channels change places.

    Args:
        network: Not touched.
        inputs: The shape of one input, or an example of a call.

    Attributes:
        possible: False where the copy does not run.
    """

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        self.possible, self._inputs = False, inputs
        large = sum(parameter.numel() for parameter in network.parameters()) > _LARGE
        for dtype in (torch.float32,) if large else (torch.float64, torch.float32):
            self._tolerance = TOLERANCE[dtype]
            try:
                self._twin = evaluating(whole_copy(network).to(dtype))
                self._outputs, self.possible = self._run(0), True
                break
            except Exception:  # its code may name a dtype, or the device know none of that name
                continue
        if self.possible:
            twin = self._twin
            self._tensors = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}

    @cached_property
    def _steady(self) -> bool:
        """Tell whether the outputs are twice the same."""
        return alike(self._run(1), self._outputs, self._tolerance)

    def holds(self, swaps: Iterable[Swap]) -> bool:
        """Say whether the outputs stay as they are when slices change places.

        Of a network that draws random numbers it is taken for granted.
        """
        done = list(swaps)
        self._exchange(done)
        try:
            held = alike(self._run(0), self._outputs, self._tolerance)
        finally:
            self._exchange(done[::-1])
        return held or not self._steady

    def _run(self, seed: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return run(self._twin, self._inputs)

    @torch.no_grad()
    def _exchange(self, swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            tensor = self._tensors[swap.tensor]
            order = torch.arange(tensor.shape[swap.axis], device=tensor.device)
            one, two = (torch.tensor(x, device=tensor.device) for x in (swap.first, swap.second))
            order[one], order[two] = two, one
            tensor.copy_(tensor.index_select(swap.axis, order))


Swaps = Callable[[str, Sequence[tuple[int, int]]], list[Swap] | None]
"""From a candidate and pairs of its channels to what changes places with them."""


def evenly(
    trial: Interchange, chunks: Mapping[str, int], counts: Mapping[str, int], swaps: Swaps
) -> dict[str, int | None]:
    """Return in how many parts each candidate's channels must be cut, at the same places of each.

    Two channels change places, in all candidates at once; where that changes the outputs, halves
    of the candidates are tried, down to single ones, and these in more parts (the heads of an
    attention), the fewest first.

    Args:
        trial: Of the network.
        chunks: In how many parts each candidate must be cut in any case.
        counts: How many channels each has.
        swaps: Says what changes places; None where that is not known, which is let be.

    Returns:
        The parts by candidate; None where no number of them does.
    """
    found: dict[str, int | None] = dict(chunks)
    begun = time.thread_time()

    def failing(parts: Mapping[str, int]) -> list[str]:
        moved: dict[str, list[Swap]] = {}
        for name, number in parts.items():
            for pairs in rounds_of(counts[name], number):
                moved.setdefault(name, []).extend(swaps(name, pairs) or ())
        return _failing(trial, {name: found for name, found in moved.items() if found})

    for name in failing(chunks):
        found[name] = None
    known: dict[tuple[int, int], int | None] = {}
    for name in [name for name, parts in found.items() if parts is None]:
        count, least = counts[name], chunks[name]
        # Layers of one width have mostly as many heads; where one has none, others are not tried.
        first = known.get((count, least), 0)
        more = range(2 * least, min(count // 2, MOST_PARTS * least) + 1, least)
        tried = [parts for parts in (first, *more) if parts and count % parts == 0]
        late = first is None or time.thread_time() - begun > SECONDS
        held = (p for p in tried if not late and not failing({name: p}))
        found[name] = known[count, least] = next(held, None)
    return found


def _failing(trial: Interchange, moved: Mapping[str, list[Swap]]) -> list[str]:
    if not moved or trial.holds(chain.from_iterable(moved.values())):
        return []
    if len(moved) == 1:
        return list(moved)
    names = list(moved)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    return [n for half in halves for n in _failing(trial, {name: moved[name] for name in half})]


class _Splits(TorchFunctionMode):
    """Inside, keeps which axes of values are divided into several, and how large heads are."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[tuple[int, tuple[int, ...]]]] = []
        self.heads: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function, and look at what it made of the shape of its first argument."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention" and kwargs.get("scale") is None:
            self.heads.append(made.shape[-1])
        if name in _RESHAPES and args and isinstance(made, Tensor):
            self.seen.append(_divided(tuple(args[0].shape), tuple(made.shape)))
        return made


_RESHAPES = ("reshape", "view", "unflatten", "_unsafe_view")


def _divided(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Return the axes that a reshape divides, each with what it becomes."""
    found: list[tuple[int, tuple[int, ...]]] = []
    at = 0
    for size in before:
        start, left = at, size
        while at < len(after) and left > 1 and after[at] and left % after[at] == 0:
            left //= after[at]
            at += 1
        if left != 1:
            return found  # axes are joined from here on
        if at - start > 1:
            found.append((size, after[start:at]))
        at += size == 1 and at < len(after) and after[at] == 1
    return found


def torn(
    dense: nn.Module, narrow: nn.Module, inputs: Inputs, counts: set[int]
) -> tuple[set[int], bool]:
    """Return which numbers of channels a network divides otherwise when they are fewer.

    A code that knows the number of heads gives each of them fewer channels; one that knows the size
    of a head makes fewer heads, and each has channels of several then.

    Args:
        dense: The network.
        narrow: The same with fewer channels.
        inputs: The shape of one input, or an example of a call.
        counts: Numbers of channels in the dense network that are divided.

    Returns:
        The numbers, and whether scores are divided by the root of the size that a head has now.

    Raises:
        Exception: Whatever the narrow network raises where it does not run.
    """
    shapes, sizes = [], []
    for network in (dense, narrow):
        with _Splits() as splits:
            run(network, inputs)
        shapes.append(splits.seen)
        sizes.append(splits.heads)
    rescaled = sizes[0] != sizes[1]
    if [len(each) for each in shapes[0]] != [len(each) for each in shapes[1]]:
        return counts, rescaled
    pairs = list(zip(chain.from_iterable(shapes[0]), chain.from_iterable(shapes[1]), strict=True))
    kept = {size for (size, axes), (_, now) in pairs if now[:-1] == axes[:-1]}
    moved = {size for (size, axes), (_, now) in pairs if now[:-1] != axes[:-1]}
    return counts - (kept - moved), rescaled


def rounds_of(count: int, parts: int) -> list[list[tuple[int, int]]]:
    """Return the channels of each part that change places: first and last, then first and second.

    The first two are of two heads, whether heads lie one after the other or take turns. All three
    are in a ring, which no symmetry (as of channels that are turned round) leaves as it is.
    """
    size = count // parts
    starts = [part * size for part in range(parts)]
    rounds = [[(start, start + other) for start in starts] for other in (size - 1, 1)]
    return rounds[: max(0, min(2, size - 1))]


def swaps_in(
    name: str, module: nn.Module, cut: Callable[[nn.Module], Any], other: Callable[..., Any]
) -> list[Swap] | None:
    """Return what changes places in a layer when the channels of two cuts do.

    Args:
        name: The layer's.
        module: It; not touched.
        cut: Takes some channels out of a layer like it, in place.
        other: Takes as many others out.

    Returns:
        None where the two do not take equally much out of each tensor.
    """
    first, second = _taken(module, cut), _taken(module, other)
    if first.keys() != second.keys():
        return None
    found = []
    for (leaf, axis), places in first.items():
        if len(second[leaf, axis]) != len(places):
            return None
        full = f"{name}.{leaf}" if name else leaf
        found.append(Swap(full, axis, places, second[leaf, axis]))
    return found


def _taken(
    module: nn.Module, cut: Callable[[nn.Module], Any]
) -> dict[tuple[str, int], tuple[int, ...]]:
    """Return which slices a cut takes from which axes of which tensors."""
    twin = whole_copy(module).double()
    sizes = {}
    with torch.no_grad():
        for leaf, tensor in _floating(twin).items():
            tensor.copy_(torch.arange(tensor.numel(), device=tensor.device).view(tensor.shape))
            sizes[leaf] = tensor.shape
    cut(twin)
    found = {}
    for leaf, tensor in _floating(twin).items():
        numbers = tensor.detach().long().flatten().cpu()
        for axis, size in enumerate(sizes[leaf]):
            if tensor.shape[axis] != size:
                after = math.prod(sizes[leaf][axis + 1 :])
                gone = torch.ones(size, dtype=torch.bool)
                gone[numbers.div(after, rounding_mode="floor") % size] = False
                found[leaf, axis] = tuple(torch.nonzero(gone).flatten().tolist())
    return found


def _floating(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
