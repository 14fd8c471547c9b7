"""Weights stored in parts (weight norm, parametrizations), put together again."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping

import torch
from torch import Tensor

from trainscope.errors import CheckpointError

_PARTS = re.compile(r"(?P<owner>(?:.*\.)?)parametrizations\.(?P<leaf>\w+)\.(?P<part>.+)")


_HOOKED = ("_orig", "_mask", "_g", "_v")
"""What hooks of torch's put behind the name of a weight that they make of parts."""


def parts_of(names: Iterable[str]) -> frozenset[str]:
    """Return the names of a module's tensors of which it makes a weight itself.

    Args:
        names: Of its state dict.
    """
    return frozenset(n for n in names if _PARTS.fullmatch(n) or n.endswith(_HOOKED))


def is_among(own: Container[str]) -> Callable[[str], bool]:
    """Return what tells whether a file's name is one of those names, whatever stands before it."""

    def told(name: str) -> bool:
        words = name.split(".")
        return any(".".join(words[k:]) in own for k in range(len(words)))

    return told


def unparametrised(state: Mapping[str, Tensor], own: Container[str] = ()) -> dict[str, Tensor]:
    """Return a state dict with every weight that was stored in parts as one tensor.

    Weight norm (`weight_g` and `weight_v`, or `parametrizations.weight.original0` and `original1`)
    is `v g / |v|`; a mask as a parametrization (`parametrizations.weight.original` and
    `parametrizations.weight.0.mask`) becomes `weight_orig` and `weight_mask`, which are folded as
    `torch.nn.utils.prune`'s are.

    Args:
        state: As a file has it.
        own: Parts that the network puts together itself (`parts_of`): these stay.

    Raises:
        CheckpointError: A parametrization is of another kind: its weight is code's to make.
    """
    kept = is_among(own)
    out = {name: v for name, v in state.items() if not _PARTS.fullmatch(name) or kept(name)}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in state.items():
        found = _PARTS.fullmatch(name)
        if found is not None and name not in out:
            key = (found["owner"], found["leaf"])
            parts.setdefault(key, {})[found["part"]] = value
    for (owner, leaf), held in parts.items():
        if held.keys() == {"original0", "original1"}:
            out[owner + leaf] = _normed(held["original0"], held["original1"], owner + leaf)
        elif held.keys() == {"original", "0.mask"}:
            out[f"{owner}{leaf}_orig"], out[f"{owner}{leaf}_mask"] = (
                held["original"],
                held["0.mask"],
            )
        else:
            raise CheckpointError(
                f"the weight '{owner}{leaf}' is made by a parametrization with the parts "
                f"{', '.join(sorted(held))}; give the network with it (--model), or remove it "
                "with torch.nn.utils.parametrize.remove_parametrizations and save again"
            )
    for name in [n for n in out if n.endswith("_g") and n[:-2] + "_v" in out and not kept(n)]:
        base = name.removesuffix("_g")
        size, direction = out[name], out[base + "_v"]
        if size.ndim in (0, direction.ndim):
            out[base] = _normed(out.pop(name), out.pop(base + "_v"), base)
    return out


def words_of(tensor: Tensor) -> str:
    """Return the type and shape of a tensor, like "float32 of 3x1"."""
    size = "x".join(map(str, tensor.shape)) if tensor.ndim else "a single number"
    return f"{str(tensor.dtype).removeprefix('torch.')} of {size}"


def _normed(size: Tensor, direction: Tensor, name: str) -> Tensor:
    """Return `direction` with the norms `size`, taken over the dimensions in which size is 1.

    A size without dimensions is the norm of the whole weight (`dim=None`).

    Raises:
        CheckpointError: No weight norm makes such parts; torch ends the process on empty ones.
    """
    if not size.is_floating_point() or not direction.is_floating_point() or not direction.numel():
        raise CheckpointError(
            f"the weight '{name}' is stored in parts, {words_of(size)} and {words_of(direction)}, "
            "which no weight norm makes; save the network after "
            "torch.nn.utils.remove_weight_norm"
        )
    if size.ndim == 0:
        return torch._weight_norm(direction, size, -1)
    if size.ndim != direction.ndim:
        raise CheckpointError(
            f"the weight '{name}' is stored in parts, {words_of(size)} and {words_of(direction)}, "
            "which no weight norm makes"
        )
    kept = [d for d in range(size.ndim) if size.shape[d] != 1]
    if len(kept) > 1 or any(size.shape[d] != direction.shape[d] for d in kept):
        raise CheckpointError(f"the two parts of the weight '{name}' do not fit each other")
    return torch._weight_norm(direction, size, kept[0] if kept else 0)
