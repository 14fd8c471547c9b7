"""Networks rebuilt by shape: the dense architecture, resized to the tensors that were found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from trainscope.errors import CheckpointError
from trainscope.networks.depth import drop_missing
from trainscope.networks.heads import follow_shapes
from trainscope.networks.linear import is_linear, set_widths
from trainscope.networks.meta import Shapes, shapes_of
from trainscope.networks.narrow_attention import NarrowAttention

COUNTER = "num_batches_tracked"


def with_counters(found: Shapes, dense: Shapes) -> Shapes:
    """Return shapes found with the counters of batch norm that old files do not have."""
    return found | {n: () for n in dense if n.endswith(COUNTER) and n not in found}


def mismatch(dense: Shapes, found: Shapes, name: str) -> str | None:
    """Return in words the first thing that keeps tensors from being a network's own, or None.

    Args:
        dense: The network's shapes, in its order.
        found: The shapes in the file.
        name: What the network is called in the sentence.
    """
    missing = next((tensor for tensor in dense if tensor not in found), None)
    if missing is not None:
        return f"'{missing}', which {name} has, is missing from the file"
    extra = next((tensor for tensor in found if tensor not in dense), None)
    if extra is not None:
        return f"the file has '{extra}', which {name} does not have"
    for tensor, shape in dense.items():
        if found[tensor] != shape:
            there, here = (words_of(each) for each in (found[tensor], shape))
            return f"'{tensor}' is {there} in the file and {here} in {name}"
    return None


def is_narrower(dense: Shapes, found: Shapes) -> bool:
    """Say whether tensors are the network's own with channels or units taken out.

    The names are the same, no dimension is larger, and the kernels of convolutions are as large.
    """
    return dense.keys() == found.keys() and all(
        len(found[name]) == len(shape)
        and all(0 < ours <= theirs for ours, theirs in zip(found[name], shape, strict=True))
        and (len(shape) != 4 or found[name][2:] == shape[2:])
        for name, shape in dense.items()
    )


def bring_to(module: nn.Module, shapes: Shapes) -> bool:
    """Bring a dense network to the shapes of one that was cut, in place; values are left to load.

    Blocks that the shapes lack are taken out, layers are resized, and modules and configurations
    are told how many blocks, heads and channels are left.

    Args:
        module: The dense network.
        shapes: Of every tensor of the cut network's state dict.

    Returns:
        Whether it was brought to them; otherwise it may be shallower than it was.
    """
    drop_missing(module, shapes)
    if not is_narrower(shapes_of(module.state_dict()), shapes):
        return False
    resize(module, shapes)
    return True


@torch.no_grad()
def resize(module: nn.Module, shapes: Shapes) -> None:
    """Give every tensor of a network the shape found for it; values are left to be loaded.

    Convolutions, linear, norm and attention layers are told their new widths. The group counts of
    grouped convolutions come right in `check_forward`, where the channels that they get are seen.

    Args:
        module: Changed in place; its tensors of another shape are replaced by empty ones.
        shapes: For every name of its state dict.
    """
    follow_shapes(module, shapes)
    resized = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tuple(tensor.shape) == shapes[name]:
            continue
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        empty = torch.empty(shapes[name], dtype=tensor.dtype, device=tensor.device)
        if leaf in part._parameters:
            part._parameters[leaf] = nn.Parameter(empty, tensor.requires_grad)
        else:
            part._buffers[leaf] = empty
        resized.add(owner)
    for owner in sorted(resized):
        _set_widths(module.get_submodule(owner))


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, assign: bool = True) -> None:
    """Make tensors the weights and buffers of a network of the same shapes, strictly.

    Args:
        module: Changed in place.
        tensors: By name. Counters of batch norm that are missing become zero: torch before 0.4.1
            did not save them.
        assign: Take the tensors themselves; else copy their values into the network's own.

    Raises:
        CheckpointError: Weights are stored as whole numbers, or counts as what is none.
    """
    own = module.state_dict()
    zeros = {n: torch.zeros((), dtype=t.dtype) for n, t in own.items() if n.endswith(COUNTER)}
    given = {name: tensors.get(name, zeros.get(name)) for name in own}
    state = OrderedDict({name: _as(given[name], own[name], name) for name in own})
    # Some networks (MNASNet) ask which version of their layout they get: it is their present one.
    state._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=True, assign=assign)


def _as(value: Tensor | None, own: Tensor, name: str) -> Tensor | None:
    """Return a value for one of a network's tensors, in its kind of numbers where that is exact.

    Casting a whole network to half precision also casts the counters of batch norm.
    """
    if value is None or value.is_floating_point() == own.is_floating_point():
        return value
    kind = str(value.dtype).removeprefix("torch.")
    if own.is_floating_point():
        raise CheckpointError(
            f"the tensor '{name}' is stored as whole numbers ({kind}), and the network multiplies "
            "with it: it was quantised, so dequantise the weights and save them as plain float32"
        )
    whole = value.to(own.dtype)
    if not torch.equal(whole.to(value.dtype), value):
        raise CheckpointError(
            f"the tensor '{name}' is stored as {kind}, and the network counts with it; save it as "
            f"{str(own.dtype).removeprefix('torch.')}"
        )
    return whole


def _set_widths(part: nn.Module) -> None:
    weight = getattr(part, "weight", None)
    if isinstance(part, _ConvNd) and isinstance(weight, Tensor):
        ahead, behind = (1, 0) if isinstance(part, _ConvTransposeNd) else (0, 1)
        if part.groups == 1:
            part.in_channels = weight.shape[behind]
        part.out_channels = weight.shape[ahead] * (part.groups if ahead else 1)
    elif is_linear(part):
        set_widths(part)
    elif isinstance(part, _NormBase):
        held = part.weight if part.weight is not None else part.running_mean
        part.num_features = len(held) if held is not None else part.num_features
    elif isinstance(part, nn.LayerNorm) and isinstance(weight, Tensor):
        part.normalized_shape = tuple(weight.shape)
    elif isinstance(part, nn.GroupNorm) and isinstance(weight, Tensor):
        part.num_channels = len(weight)
    elif isinstance(part, NarrowAttention):
        pass  # its heads are counted, and what it reads is as wide as before
    elif isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
        part.embed_dim = part.kdim = part.vdim = part.in_proj_weight.shape[1]
        part.head_dim = part.embed_dim // part.num_heads
    elif hasattr(part, "class_token") and hasattr(part, "hidden_dim"):  # torchvision's ViT
        part.hidden_dim = part.get_parameter("class_token").shape[-1]  # type: ignore[assignment]


def words_of(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it, like 64x3x3x3."""
    return "x".join(map(str, shape)) if shape else "a single number"
