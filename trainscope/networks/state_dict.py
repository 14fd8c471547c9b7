"""A state dict as files hold it, made plain: masks apart, floats checked and in one dtype."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainscope.errors import CheckpointError
from trainscope.networks import undo
from trainscope.networks.described import (
    COMPLEX,
    META,
    NESTED,
    PACKED,
    QUANTISED,
    SPARSE,
    Described,
)
from trainscope.networks.mask_sense import survivors
from trainscope.networks.masks import SUFFIX
from trainscope.networks.meta import Shapes, shapes_of
from trainscope.networks.parametrised import is_among, unparametrised
from trainscope.networks.tensor_names import plain_names

AVERAGED = "n_averaged"
"""A counter beside the weights of torch.optim.swa_utils.AveragedModel."""

_COUNTED = frozenset({"total_ops", "total_params"})
"""Buffers that THOP leaves in a network whose cost it counted."""

_LEAST = 16
"""Values in a mask that can be told from weights which happen to be zeros and ones."""

LONGEST_NAME = 1_000
"""Characters in the name of a tensor, parts and dots together; networks have some sixty."""


@dataclass(frozen=True)
class Weights:
    """What a state dict holds.

    Attributes:
        tensors: Weights and buffers by name; a masked weight is zero.
        masks: Boolean masks by the name of the weight, True where it survives.
        notes: What was changed on the way, each one sentence.
    """

    tensors: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> Shapes:
        """The shape of every tensor."""
        return shapes_of(self.tensors)

    def plain(self, *, prefixes: bool = True) -> Weights:
        """Return the same under the network's own names (see `plain_names`)."""
        names = plain_names(self.tensors, prefixes=prefixes)
        tensors = {names[name]: tensor for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors, masks={names[n]: m for n, m in self.masks.items()})


def is_state_dict(obj: object) -> bool:
    """Say whether an object maps names to tensors and nothing else (but modules' extra state)."""
    return (
        isinstance(obj, Mapping)
        and all(isinstance(name, str) for name in obj)
        and any(isinstance(value, Tensor | Described) for value in obj.values())
        and all(
            isinstance(value, Tensor | Described) or name.endswith("_extra_state")
            for name, value in obj.items()
        )
    )


def weights_of(
    state: Mapping[str, Tensor | Described],
    dtype: torch.dtype = torch.float32,
    *,
    owned: bool = False,
    own: Container[str] = (),
) -> Weights:
    """Return the weights of a state dict.

    They are in memory of their own, but that a large file's are left where they are: mapped, so
    that what is not used is not read, and nothing is held twice. The masks of ours and of
    `torch.nn.utils.prune` are taken out and applied.

    Args:
        state: As a file has it.
        dtype: In which the network is measured.
        owned: Nobody else has these tensors, as those of a file that was opened, so large ones of
            the dtype are not copied.
        own: Names of tensors of which the network makes its weights itself, as it does with masks
            of `torch.nn.utils.prune`, weight norm and other parametrizations: these stay apart.

    Raises:
        CheckpointError: There are no tensors, or one is quantised, sparse, complex or of another
            kind that is not measured, is larger than what is stored of it, or holds NaN or an
            infinity, or a mask does not have its weight's shape; the first such tensor is named.
    """
    for name, value in state.items():
        if len(name) > LONGEST_NAME:
            raise CheckpointError(
                f"a tensor has a name of {len(name):,} characters, '{name[:20]}...'; no network "
                "names its weights so"
            )
        if isinstance(value, Described):
            raise CheckpointError(f"the tensor '{name}' {value.problem}")
    given = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    notes = _told_of_average(given.pop(AVERAGED, None))
    for name in [name for name in given if name.rpartition(".")[2] in _COUNTED]:
        if given[name].numel() == 1:
            del given[name]
    if not given:
        raise CheckpointError("the file holds no tensors; give one that a network was saved in")
    _check_sizes(given)
    if are_masks(given):
        raise CheckpointError(
            "its tensors are zeros and ones throughout, so they are masks and no weights; give the "
            "checkpoint of the weights, with these under 'masks' beside its state dict"
        )
    tensors: dict[str, Tensor] = {}
    converted: set[str] = set()
    left = _apart(given) if owned else set()
    for name, value in given.items():
        tensors[name] = _checked(name, value, dtype, copy=name not in left)
        if value.is_floating_point() and value.dtype != dtype:
            converted.add(_word(value.dtype))
    folded, masks, sense = _fold(unparametrised(tensors, own), own)
    if all(not value.numel() for name, value in folded.items() if value.ndim):
        raise CheckpointError(
            "its tensors have no values, as where they are partitioned over processes (ZeRO-3); "
            "put them together first (DeepSpeed's zero_to_fp32.py) and give what it writes"
        )
    notes += sense
    if masks:
        notes.append(told_of_masks(masks))
    if converted:
        kinds = " and ".join(sorted(converted))
        notes.append(f"Its weights were stored as {kinds}; they are measured in {_word(dtype)}.")
    elif dtype != torch.float32:
        notes.append(f"Its weights are measured in {_word(dtype)}, as they were stored.")
    return Weights(folded, masks, tuple(notes))


def are_masks(state: Mapping[str, Tensor]) -> bool:
    """Say whether several tensors are zeros and ones throughout, and in one of some size both."""
    held = [value for value in state.values() if value.ndim]
    if len(held) < 2 or not all(bool(((v == 0) | (v == 1)).all()) for v in held):
        return False
    return any(v.numel() >= _LEAST and bool(v.any()) and not bool(v.all()) for v in held)


def _told_of_average(count: Tensor | None) -> list[str]:
    """Return the sentence on weights that `AveragedModel` saved with how many it averaged."""
    if count is None or count.numel() != 1:
        return []
    if not bool(count):
        return [
            "These are the weights of an AveragedModel that had averaged nothing yet (n_averaged "
            "is 0): the network as it was when that was made."
        ]
    return [f"These weights are an average of {int(count):,} states of training (n_averaged)."]


def told_of_masks(masks: Mapping[str, Tensor]) -> str:
    """Return the sentence on masks that a file came with."""
    count = sum(int((~mask).sum()) for mask in masks.values())
    if not count:
        return "It came with masks that hold no weight at zero."
    return f"It came pruned: masks hold {count:,} weights at zero, and they stay there."


def _fold(
    state: dict[str, Tensor], own: Container[str] = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Return tensors without masks, masked; the masks; and how they were read where it matters."""
    tensors, given, owners = dict(state), {}, {}
    kept = is_among(own)
    for key in [name for name in state if name.endswith(SUFFIX) and not kept(name)]:
        name = key.removesuffix(SUFFIX)
        stored = next((each for each in (name + "_orig", name) if each in state), None)
        if stored is None:
            continue  # a buffer that happens to be called so
        if state[key].shape != state[stored].shape:
            there, here = tuple(state[key].shape), tuple(state[stored].shape)
            raise CheckpointError(f"the mask '{key}' is {there}, and the weight it masks {here}")
        given[name], owners[name] = tensors.pop(key), stored
    masks, notes = survivors(given, {name: state[stored] for name, stored in owners.items()})
    for name, mask in masks.items():
        tensors[name] = tensors.pop(owners[name]).mul_(mask)  # signs of zeros as in training
    return tensors, masks, notes


def _check_sizes(state: Mapping[str, Tensor]) -> None:
    """Refuse, before memory is taken, tensors that cannot be weights or are larger than stored."""
    seen: set[int] = set()
    stored = declared = 0
    for name, value in state.items():
        kind = kind_of(value)
        if kind is not None:
            raise CheckpointError(f"the tensor '{name}' {Described(kind, '', ()).problem}")
        storage = value.untyped_storage()
        stored += 0 if storage.data_ptr() in seen else storage.nbytes()
        seen.add(storage.data_ptr())
        declared += value.nbytes
        # One stored number can stand for any many, and a copy would take memory for all of them;
        # a few tied weights are as they should be.
        if value.nbytes > storage.nbytes() or declared > 4 * stored:
            raise CheckpointError(
                f"the tensors up to '{name}' declare {declared:,} bytes and "
                f"{stored:,} are stored; no network saves its weights so"
            )


def kind_of(value: Tensor) -> str | None:
    """Return the kind (see `Described`) of a tensor that no network is measured with, or None."""
    if value.is_nested:
        return NESTED
    if value.layout != torch.strided:
        return SPARSE
    if value.is_quantized:
        return QUANTISED
    if value.is_meta:
        return META
    if value.is_complex():
        return COMPLEX
    return PACKED if value.dtype in _PACKED else None


_PACKED = frozenset({getattr(torch, "float4_e2m1fn_x2", None)})
"""Two values in a byte; torch casts them to nothing."""


def _apart(state: Mapping[str, Tensor]) -> set[str]:
    """Return the names of large tensors that share no memory with another, where all are large."""
    if sum(value.nbytes for value in state.values()) < undo.LARGE:
        return set()
    rows = sorted((value.data_ptr(), value.nbytes, name) for name, value in state.items())
    found, end = set(), 0
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        start, size, name = row
        alone = start >= end and (after is None or start + size <= after[0])
        if alone and state[name].is_contiguous():
            found.add(name)
        end = max(end, start + size)
    return found


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _checked(name: str, value: Tensor, dtype: torch.dtype, *, copy: bool) -> Tensor:
    """Return a tensor that can be measured, of the dtype where it is floating."""
    value = value.detach()
    if not value.is_floating_point():
        return value.clone(memory_format=torch.contiguous_format)
    out = value.to(dtype, memory_format=torch.contiguous_format, copy=copy)
    if not out.sum().isfinite():  # any NaN or infinity shows in the sum, and a sum is cheap
        bad = ~out.isfinite()
        if bool(bad.any()):
            what = "NaN" if bool(out.isnan().any()) else "infinite values"
            raise CheckpointError(
                f"the tensor '{name}' holds {what} ({int(bad.sum()):,} of {out.numel():,} "
                "values): the training had diverged, so give an earlier checkpoint"
            )
    return out
