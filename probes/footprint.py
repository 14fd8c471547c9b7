"""How much memory a network's graph takes per sample, found on the meta device: no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.probes.untouched import untouched


@dataclass(frozen=True)
class Footprint:
    """What one sample takes.

    Attributes:
        classes: The number of logits; None where the network cannot be followed.
        graph: Bytes that autograd keeps for one sample's backward pass; None likewise.
    """

    classes: int | None
    graph: int | None


def footprint(network: nn.Module, inputs: Tensor) -> Footprint:
    """Follow one sample through a network on the meta device, without running the network.

    Args:
        network: Left untouched.
        inputs: [N, ...]; only the shape of a sample is used.
    """
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> None:
        kept[tensor.untyped_storage()._cdata] = tensor.detach()

    named = [*network.named_parameters(), *network.named_buffers()]
    like = next((t.dtype for _, t in named if t.is_floating_point()), inputs.dtype)
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
    for name, parameter in network.named_parameters():
        meta[name].requires_grad_(parameter.requires_grad)
    sample = torch.empty((1, *inputs.shape[1:]), dtype=like, device="meta")
    with untouched(network), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            with saved_tensors_hooks(pack, lambda _: torch.empty(0)):
                out = functional_call(network, meta, (sample,))
        except Exception:  # networks that look at values cannot be followed on the meta device
            return Footprint(None, None)
    if not isinstance(out, Tensor) or out.ndim != 2:
        return Footprint(None, None)
    weights = {tensor.untyped_storage()._cdata for tensor in meta.values()}
    graph = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
    return Footprint(int(out.shape[1]), graph)
