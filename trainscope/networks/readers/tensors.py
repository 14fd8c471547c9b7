"""Tensors of a file, made from its bytes: what torch's own rebuilding functions are replaced by.

A tensor is a view of a storage that was read, and nothing else. Tensors of other kinds (sparse,
quantised, nested, on the meta device) are described and not built: torch trusts what a file says of
their insides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from trainscope.networks.described import FOREIGN, META, NESTED, QUANTISED, SPARSE, Described
from trainscope.networks.readers.inert import Named

STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "QInt32": torch.qint32,
        "QInt8": torch.qint8,
        "QUInt8": torch.quint8,
        "QUInt4x2": torch.quint4x2,
        "QUInt2x4": torch.quint2x4,
        "Untyped": torch.uint8,
    }.items()
}
"""The types of storages, by the class that a pickle names."""

_WHOLE_BYTES = re.compile(r"b?float\d+(_\w+)?|complex\d+|bool|u?int(8|16|32|64)")
"""Types whose values are what their bytes say; quantised ones, and parts of a byte, are not."""

_WHOLE = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}
"""The whole numbers that quantised types are stored as."""

_MOST_DIMENSIONS = 64


class Storage:
    """The bytes of one storage, of which tensors are views.

    Args:
        dtype: Of its values.
        data: A buffer that can be written to; a memory map is private.
    """

    def __init__(self, dtype: torch.dtype, data: bytearray | memoryview) -> None:
        self.dtype, self.data = dtype, data

    def view(
        self,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return a tensor in it.

        Raises:
            ValueError: The tensor would reach beyond it.
        """
        dtype = dtype or self.dtype
        count = len(self.data) // dtype.itemsize
        reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        empty = 0 in size
        if min((offset, *size, *stride), default=0) < 0 or (not empty and reach >= count):
            raise ValueError("a tensor reaches beyond its storage")
        if empty:
            return torch.empty(size, dtype=dtype)
        flat = torch.frombuffer(self.data, dtype=torch.uint8, count=count * dtype.itemsize)
        return flat.view(dtype).as_strided(size, stride, offset)


def zeros_of_quantised(
    storage: Storage, offset: object, shape: tuple[int, ...], stride: object, scheme: object
) -> float | None:
    """Return the share of whole numbers that equal their zero point; None where none is stated.

    Args:
        storage: The whole numbers.
        offset: Of the first of them.
        shape: Of the tensor.
        stride: Of the tensor.
        scheme: (name, scale, zero point), or (name, scales, zero points, axis) by channel.
    """
    dtype, total = _WHOLE.get(storage.dtype), prod(shape)
    if dtype is None or not 0 < total * dtype.itemsize <= len(storage.data):
        return None
    if type(offset) is not int or not isinstance(scheme, tuple):
        return None
    point = scheme[2] if len(scheme) in (3, 4) else None
    if len(scheme) == 4:  # by channel
        axis = scheme[3]
        if type(axis) is not int or not 0 <= axis < len(shape) or not isinstance(point, Tensor):
            return None
        if tuple(point.shape) != (shape[axis],):
            return None
        point = point.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    elif type(point) is not int:
        return None
    try:
        numbers = storage.view(offset, shape, _shape(stride), dtype)
        return int((numbers == point).sum()) / total
    except (ValueError, RuntimeError):
        return None


def zeros_of_sparse(
    values: Tensor, shape: tuple[int, ...], indices: object, *, compressed: bool
) -> float | None:
    """Return the share of elements that are zero; None where two values may share a place.

    Args:
        values: Those that are stored.
        shape: Of the tensor.
        indices: Of a tensor of coordinates, [dimensions, stored values].
        compressed: Whether rows or columns are compressed; then every value has its own place.
    """
    total = prod(shape)
    if not compressed:
        if not isinstance(indices, Tensor) or indices.ndim != 2 or values.ndim < 1:
            return None
        if indices.is_floating_point() or indices.shape[1] != values.shape[0]:
            return None
        if torch.unique(indices, dim=1).shape[1] != indices.shape[1]:
            return None
    held = int(torch.count_nonzero(values))
    return None if held > total or not total else 1 - held / total


def dtype_of(named: object) -> torch.dtype:
    """Return the dtype that a pickle names.

    Raises:
        ValueError: It names none.
    """
    root, _, leaf = named.name.rpartition(".") if isinstance(named, Named) else ("", "", "")
    found = getattr(torch, leaf, None) if root == "torch" and leaf.isidentifier() else None
    if not isinstance(found, torch.dtype):
        raise ValueError("no type of torch's is called so")
    return found


def storage_type(named: object) -> torch.dtype:
    """Return the type of the values in a storage of the class that a pickle names.

    Raises:
        ValueError: It names no class of storages.
    """
    root, _, leaf = named.name.rpartition(".") if isinstance(named, Named) else ("", "", "")
    if root.partition(".")[0] != "torch" or leaf not in STORAGES:
        raise ValueError("no storage of torch's is called so")
    return STORAGES[leaf]


def _shape(given: object) -> tuple[int, ...]:
    """Return a size or stride that a pickle gives."""
    if not isinstance(given, tuple | list) or len(given) > _MOST_DIMENSIONS:
        raise ValueError("this is no shape")
    if any(type(each) is not int or not 0 <= each < 2**62 for each in given):
        raise ValueError("this is no shape")
    return tuple(given)


def word_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype, like "float32"."""
    return str(dtype).removeprefix("torch.")


def _strided(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise ValueError("a tensor without a storage")
    if not _WHOLE_BYTES.fullmatch(word_of(storage.dtype)):
        return _quantised(storage, offset, size, stride)
    return storage.view(offset, _shape(size), _shape(stride))


def _typed(
    storage: object, offset: object, size: object, stride: object, *rest: object
) -> Tensor | Described:
    """Return a tensor of a storage without a type: requires_grad, hooks, then the type follow."""
    dtype = dtype_of(rest[2])
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise ValueError("a tensor without a storage")
    if not _WHOLE_BYTES.fullmatch(word_of(dtype)):
        return Described(QUANTISED, word_of(dtype), _shape(size), len(storage.data))
    return storage.view(offset, _shape(size), _shape(stride), dtype)


def _parameter(data: object, *_: object) -> object:
    if not isinstance(data, Tensor | Described):
        raise ValueError("a parameter without a tensor")
    return data


def _quantised(
    storage: object, offset: object, size: object, stride: object, scheme: object = (), *_: object
) -> Described:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    shape, held = _shape(size), len(storage.data)
    count = partial(zeros_of_quantised, storage, offset, shape, stride, scheme)
    return Described(QUANTISED, word_of(storage.dtype), shape, held, count)


def _sparse(layout: object, data: object, *_: object) -> Described:
    if not isinstance(layout, str) or not isinstance(data, tuple) or len(data) < 3:
        raise ValueError("a sparse tensor without parts")
    compressed = layout != "torch.sparse_coo"  # two tensors of indices, and not one
    values, shape = data[1 + compressed], data[2 + compressed]
    if not isinstance(values, Tensor):
        raise ValueError("a sparse tensor without values")
    word = f"{word_of(values.dtype)}, {layout.removeprefix('torch.')}"
    stored = sum(each.nbytes for each in data if isinstance(each, Tensor))
    indices = None if compressed else data[0]
    count = partial(zeros_of_sparse, values, _shape(shape), indices, compressed=compressed)
    return Described(SPARSE, word, _shape(shape), stored, count)


def _meta(dtype: object, size: object, *_: object) -> Described:
    return Described(META, word_of(dtype_of(dtype)), _shape(size))


def _nested(buffer: object, *_: object) -> Described:
    if not isinstance(buffer, Tensor):
        raise ValueError("a nested tensor without values")
    return Described(NESTED, word_of(buffer.dtype), tuple(buffer.shape), buffer.nbytes)


def _wrapped(_class: object, dtype: object, size: object, *_: object) -> Described:
    return Described(FOREIGN, word_of(dtype_of(dtype)), _shape(size))


def _layout(name: object) -> object:
    return name


TENSOR_MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _strided,
    "torch._utils._rebuild_tensor_v2": _strided,
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch._utils._rebuild_wrapper_subclass": _wrapped,
    "torch.serialization._get_layout": _layout,
}
"""What makes tensors, by the function of torch's that a pickle names."""


def bytes_of(value: object) -> int:
    """Return the bytes that a tensor declares: all its values, also those of an expanded one."""
    if isinstance(value, Described):
        return value.stored
    return value.nbytes if isinstance(value, Tensor) else 0
