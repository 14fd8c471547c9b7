"""What changes places in a network when channels of one of Torch-Pruning's groups do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from trainscope.sparsify.interchange import Swap, swaps_in


def swaps_of(
    group: Iterable[Any],
    pairs: Sequence[tuple[int, int]],
    named: Mapping[int, str],
    is_output: Callable[[Any], bool],
) -> list[Swap] | None:
    """Return what changes places when channels do; None where nobody knows.

    Args:
        group: Of all of its channels.
        pairs: The channels that change places.
        named: The names of the network's modules and parameters, by their ids.
        is_output: Says whether a dependency cuts a layer's outputs.
    """
    found: list[Swap] = []
    for item in group:
        module, roots = item.dep.target.module, item.root_idxs
        if any(root is None for root in roots):
            return None
        by_root: dict[int, list[int]] = {}
        for place, root in zip(item.idxs, roots, strict=True):
            by_root.setdefault(root, []).append(place)
        first = [place for one, _ in pairs for place in by_root.get(one, ())]
        second = [place for _, other in pairs for place in by_root.get(other, ())]
        if len(first) != len(second):
            return None
        if not first:
            continue
        if isinstance(module, nn.Parameter):
            axis = item.dep.target.pruning_dim
            found.append(Swap(named[id(module)], axis, tuple(first), tuple(second)))
            continue
        axes = _axes(module, is_output(item.dep))
        if axes is not None:
            found += [
                Swap(f"{named[id(module)]}.{leaf}", axis, tuple(first), tuple(second))
                for leaf, axis in axes.items()
            ]
            continue
        cuts = (partial(_cut_in, item.dep, places) for places in (first, second))
        swaps = swaps_in(named[id(module)], module, *cuts)
        if swaps is None:
            return None
        found += swaps
    return found


def _axes(module: nn.Module, output: bool) -> dict[str, int] | None:
    """Return the axis of each tensor of a layer along which its channels lie, where it is known.

    Args:
        module: The layer.
        output: Its outputs' channels, or its inputs'.
    """
    own = [*module._parameters.items(), *module._buffers.items()]
    held = {leaf: tensor for leaf, tensor in own if tensor is not None}
    if not held and not any(True for _ in module.parameters()):
        return {}
    if isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and module.groups == 1):
        across = int(getattr(module, "transposed", False) == output)
        vectors = {leaf: 0 for leaf, tensor in held.items() if tensor.ndim == 1 and output}
        return {"weight": across} | vectors if {"weight", "bias"} >= held.keys() else None
    if isinstance(module, _BatchNorm | _InstanceNorm | nn.LayerNorm | nn.GroupNorm):
        vectors = {leaf: 0 for leaf, tensor in held.items() if tensor.ndim == 1}
        return vectors if len(vectors) == sum(tensor.ndim > 0 for tensor in held.values()) else None
    return None


def _cut_in(dep: Any, places: Sequence[int], module: nn.Module) -> None:
    """Take places out of a layer like that of a dependency, as Torch-Pruning does."""
    dep.handler.__self__.pruning_dim = dep.target.pruning_dim
    dep.handler(module, sorted(places))
