"""What the layers of a network are given: norms and Gram matrices of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainscope.data import ProbeData
from trainscope.networks.linear import is_linear
from trainscope.networks.weights import Weight
from trainscope.sparsify.statistics.gradients import Named
from trainscope.task.batches import beside
from trainscope.task.calls import ModuleCall, hooked

UNSEEN = "its inputs cannot be seen, which this criterion ranks by"
_PROJECTIONS = {
    "in_proj_weight": ("query", "key", "value"),
    "q_proj_weight": ("query",),
    "k_proj_weight": ("key",),
    "v_proj_weight": ("value",),
}
"""Weights of torch's own attention, and which of its arguments they multiply."""
_PATCHES = 2**26
"""Bytes of a convolution's patches that are made at once."""


def is_seen(weight: Weight, network: nn.Module) -> bool:
    """Say whether a weight's inputs are seen: of linear layers, convolutions and projections.

    Not those of transposed convolutions, of recurrent and bilinear layers, and of the last
    projection of torch's own attention, which does not call it.
    """
    module = weight.module
    if isinstance(module, nn.MultiheadAttention):
        return weight.name.rpartition(".")[2] in _PROJECTIONS
    if isinstance(module, _ConvNd):
        return not module.transposed
    owner = network.get_submodule(weight.layer.rpartition(".")[0])
    return is_linear(module) and not isinstance(owner, nn.MultiheadAttention)


def groups_of(weight: Weight) -> int:
    """Return in how many parts a weight's outputs come, each with inputs of its own."""
    if isinstance(weight.module, nn.MultiheadAttention):
        return 3 if weight.name.rpartition(".")[2] == "in_proj_weight" else 1
    return int(getattr(weight.module, "groups", 1))


def input_norms(network: nn.Module, data: ProbeData, names: Collection[str] | None) -> Named:
    """Return the root of the sum of squares of each input of layers, [groups, k], float64."""

    def squares(patches: Tensor) -> Tensor:
        return patches.double().square().sum(1)

    return {name: each.sqrt() for name, each in _seen(network, data, names, squares).items()}


def input_grams(network: nn.Module, data: ProbeData, names: Collection[str] | None) -> Named:
    """Return X'X of the inputs X of layers, [groups, k, k], float64.

    Products are taken in the network's own precision, at least float32, and summed in float64.
    """

    def gram(patches: Tensor) -> Tensor:
        single = patches if patches.itemsize >= 4 else patches.float()
        return (single.transpose(1, 2) @ single).double()

    return _seen(network, data, names, gram)


def _seen(
    network: nn.Module,
    data: ProbeData,
    names: Collection[str] | None,
    reduced: Callable[[Tensor], Tensor],
) -> Named:
    """Return the sums over all places of something of layers' inputs, by their weights' names."""
    found: Named = {}

    def look(call: ModuleCall[str]) -> None:
        for leaf in _leaves(call.module):
            name = f"{call.key}.{leaf}".lstrip(".")
            if leaf not in call.module._parameters or (names is not None and name not in names):
                continue
            for patches in _given(call.module, leaf, call.args, call.kwargs):
                part = reduced(patches)
                found[name] = found[name] + part if name in found else part

    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    layers = [(name, module) for name, module in network.named_modules() if _leaves(module)]
    with hooked(layers, before=look), torch.no_grad():
        for batch in data.batches():
            data.task.outputs(network, beside(batch, like))
    return found


def _leaves(module: nn.Module) -> tuple[str, ...]:
    """Return the names, in a module, of the weights whose inputs are seen."""
    if isinstance(module, nn.MultiheadAttention):
        return tuple(_PROJECTIONS)
    plain = is_linear(module) or (isinstance(module, _ConvNd) and not module.transposed)
    return ("weight", "weight_orig") if plain else ()


def _given(
    module: nn.Module, leaf: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Tensor]:
    """Yield what a weight multiplies at each place, [groups, places, k], some samples at a time."""
    if isinstance(module, nn.MultiheadAttention):
        named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        rows = [named[name].detach() for name in _PROJECTIONS[leaf]]
        # Sequences of two lengths: rows of zeros add nothing.
        flat = [row.reshape(-1, row.shape[-1]) for row in rows]
        most = max(map(len, flat))
        yield torch.stack([F.pad(row, (0, 0, 0, most - len(row))) for row in flat])
        return
    x = (args[0] if args else next(iter(kwargs.values()))).detach()
    if not isinstance(module, _ConvNd):
        yield x.reshape(1, -1, x.shape[-1])
        return
    spatial = len(module.kernel_size)
    x = x if x.ndim == spatial + 2 else x.unsqueeze(0)
    size = module.weight[0].numel() * module.groups * x.itemsize
    places = max(x[0, 0].numel() // max(_product(module.stride), 1), 1)
    for part in torch.split(x, max(_PATCHES // (size * places), 1)):
        yield _unfolded(module, part)


def _unfolded(module: _ConvNd, x: Tensor) -> Tensor:
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    spatial = len(module.kernel_size)
    for axis in range(spatial):
        kernel, stride, dilation = (
            each[axis] for each in (module.kernel_size, module.stride, module.dilation)
        )
        x = x.unfold(2 + axis, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
    # [N, C, places..., kernel...] -> [groups, N * places, C / groups * kernel]
    x = x.reshape(len(x), module.groups, -1, *x.shape[2:])
    order = (1, 0, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial))
    x = x.permute(order)
    return x.reshape(module.groups, -1, _product(x.shape[2 + spatial :]))


def _product(sides: Collection[int]) -> int:
    found = 1
    for side in sides:
        found *= side
    return found
