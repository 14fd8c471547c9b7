"""Tensors whose memory and bits are given back: small ones from a copy, large ones from a log.

A copy of every weight doubles what a large network takes, to guard against writes that hardly ever
come. So a large one's tensors are watched instead: an operation that is about to write to one of
them is held until the values are copied, and nothing else is ever copied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

LARGE = 2**28
"""Bytes of tensors that are watched and not copied; an operation takes some microseconds longer."""
_CHUNK = 2**20  # values


class UnseenWriteError(RuntimeError):
    """Tensors that were written to by what is no operation of torch's, and cannot be put back."""


@contextmanager
def given_back(tensors: Iterable[Tensor], large: int | None = None) -> Iterator[None]:
    """Give tensors their memory and bits back on leaving, also by an exception.

    Args:
        tensors: Of any layout; each is put back once.
        large: From so many bytes on they are watched; by default `LARGE`.

    Raises:
        UnseenWriteError: On leaving: what was watched was written to past torch, as through a NumPy
            array that shares the memory.
    """
    found = list({id(tensor): tensor for tensor in tensors}.values())
    homes = [(tensor, tensor.data) for tensor in found]
    size = sum(tensor.nbytes for tensor in found if tensor.layout is torch.strided)
    watched = (
        [t for t in found if is_plain(t)] if size >= (LARGE if large is None else large) else []
    )
    others = {id(t) for t in found} - {id(t) for t in watched}
    values = {id(t): t.detach().clone() for t in found if id(t) in others}
    log = UndoLog(watched) if watched else None
    before = {id(tensor): _sums(tensor) for tensor in watched}
    try:
        if log is None:
            yield
        else:
            with log:
                yield
    finally:
        if log is not None:
            values.update({id(t): v for t in watched if (v := log.kept(t)) is not None})
        for tensor, home in homes:
            if id(tensor) in values:
                put_back(tensor, home, values[id(tensor)])
            elif (
                tensor.layout is not torch.strided
                or tensor.data_ptr() != home.data_ptr()
                or tensor.stride() != home.stride()
            ):
                tensor.data = home
    if any(before[id(tensor)] != _sums(tensor) for tensor in watched):
        raise UnseenWriteError(
            "weights were written to by what is no operation of torch's (an array that shares "
            "their memory?), so they could not be put back"
        )


class UndoLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies the values of watched tensors right before the first operation that writes to them."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for the first operator

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Watch plain strided tensors."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for tensor in tensors:
            self._watched[_memory(tensor)].append((tensor, tensor.detach()))
        self._kept: dict[int, Tensor] = {}

    def kept(self, tensor: Tensor) -> Tensor | None:
        """Return what a tensor held before the first write to it, None where there was none."""
        return self._kept.get(id(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Copy what an operation is about to write to, and let it run."""
        kwargs = kwargs or {}
        for place, name in written_arguments(func):
            value = args[place] if place < len(args) else kwargs.get(name)
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, Tensor):
                    self._before_write(tensor)
        return func(*args, **kwargs)

    def _before_write(self, tensor: Tensor) -> None:
        try:
            rows = self._watched.get(_memory(tensor), ())
        except (RuntimeError, NotImplementedError):  # a kind of tensor without a storage
            return
        for own, home in rows:
            if id(own) not in self._kept and _overlap(tensor, home):
                self._kept[id(own)] = home.clone()


@lru_cache(maxsize=4096)
def written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Return the places and names of the arguments that an operator writes to."""
    schema = func._schema
    if not schema.is_mutable:
        return ()
    return tuple(
        (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is strided memory that torch's operations see as it is."""
    return (
        type(tensor) in (Tensor, nn.Parameter, nn.Buffer)
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
    )


def put_back(tensor: Tensor, home: Tensor, value: Tensor) -> None:
    """Give a tensor back its memory and its bits."""
    with torch.no_grad():
        if tensor.layout is not torch.strided:
            tensor.data = home
            return
        if tensor.data_ptr() != home.data_ptr() or tensor.stride() != home.stride():
            tensor.data = home
        if not _same_bits(tensor, value):
            tensor.copy_(value)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    """Compare two tensors of one shape and dtype bit for bit, NaNs included."""
    one, two = left.detach().contiguous().view(-1), right.contiguous().view(-1)
    if one.dtype == torch.bool or not one.numel():
        return bool(torch.equal(one, two))
    return bool(torch.equal(one.view(torch.uint8), two.view(torch.uint8)))


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _overlap(one: Tensor, two: Tensor) -> bool:
    """Tell whether the ranges of two tensors in one storage meet."""
    (begin, end), (start, stop) = _range(one), _range(two)
    return begin < stop and start < end


def _range(tensor: Tensor) -> tuple[int, int]:
    first = int(tensor.storage_offset()) * tensor.element_size()
    if not tensor.numel():
        return first, first
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    reach = sum((size - 1) * stride for size, stride in pairs)
    return first, first + int(reach + 1) * tensor.element_size()


@torch.no_grad()
def _sums(tensor: Tensor) -> list[int]:
    """Return the sums of a tensor's bits as whole numbers, one for each million of values."""
    whole: dict[int, Callable[[Tensor], Tensor]] = {
        1: lambda t: t.view(torch.uint8),
        2: lambda t: t.view(torch.int16),
        4: lambda t: t.view(torch.int32),
        8: lambda t: t.view(torch.int64),
    }
    flat = tensor.detach()
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    flat = flat.reshape(-1)  # a view of what is contiguous, as weights are
    parts = torch.split(flat, _CHUNK)
    return [int(whole[flat.element_size()](part).sum(dtype=torch.int64)) for part in parts]
