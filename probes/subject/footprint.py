"""How much memory a network's graph takes per sample, found on the meta device: no arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.networks.given import refuse_uninitialised
from trainscope.networks.meta import is_light
from trainscope.probes.processes.shards import bare, parted, parts_of
from trainscope.probes.subject.untouched import untouched
from trainscope.probes.subject.wrappers import unwrap
from trainscope.task import Batch, Outputs, Task
from trainscope.task.batches import beside, mapped, tensors


@dataclass(frozen=True)
class Footprint:
    """What one sample takes.

    Attributes:
        classes: The width of the task's signal; None where the network cannot be followed.
        graph: Bytes that autograd keeps for one sample's backward pass; None likewise.
    """

    classes: int | None
    graph: int | None


_Known = dict[tuple[object, ...], tuple[nn.Module, Footprint]]
_known: ContextVar[_Known | None] = ContextVar("_known", default=None)


@contextmanager
def followed_once() -> Iterator[None]:
    """Inside, networks are not changed, so each is followed once for samples of one shape."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def footprint(network: nn.Module, data: ProbeData) -> Footprint:
    """Return what one sample takes, known from before inside `followed_once`.

    Args:
        network: Left untouched.
        data: Of the pinned samples the first is looked at.
    """
    known = _known.get()
    if known is None:
        return _footprint(network, data)
    shapes = [(leaf.shape[1:], leaf.dtype) for leaf in tensors(data.batch)]
    key = (id(network), type(data.task), *shapes)
    if key not in known:
        known[key] = network, _footprint(network, data)  # held, so that no other one gets its id
    return known[key][1]


def _footprint(network: nn.Module, data: ProbeData) -> Footprint:
    """Follow one sample through a network on the meta device, without running the network.

    A network that looks at values, as transformers' do at their masks, is run on the sample itself,
    and so is one that this takes but a moment.
    """
    refuse_uninitialised(network)
    parts = parts_of(network := parted(unwrap(network)))
    named = [*network.named_parameters(), *network.named_buffers()]
    like = next((t for _, t in named if t.is_floating_point()), None)
    shapes = {name: parts[name].shape if name in parts else tensor.shape for name, tensor in named}
    meta = {
        name: torch.empty(shapes[name], dtype=tensor.dtype, device="meta") for name, tensor in named
    }
    for name, parameter in network.named_parameters():
        meta[name].requires_grad_(parameter.requires_grad)

    def shaped(leaf: Tensor) -> Tensor:
        dtype = like.dtype if like is not None and leaf.is_floating_point() else leaf.dtype
        return torch.empty_like(leaf, dtype=dtype, device="meta")

    def numbers(one: Batch) -> Footprint:
        own = beside(one, like) if like is not None else one
        with torch.random.fork_rng(devices=[]):
            return _followed(network, task, own, dict(named))

    def shapes_alone(one: Batch) -> Footprint:
        plain = bare(network) if parts else network
        return _followed(plain, task, mapped(shaped, one), meta)

    task = data.task
    try:
        one = task.select(data.batch, torch.tensor([0]))
        ways = [shapes_alone, numbers]
        if is_light(network, sum(leaf.numel() for leaf in tensors(one))):
            ways.reverse()
    except Exception:  # said by the probe, which asks for the same
        return Footprint(None, None)
    for way in ways:
        with suppress(Exception):  # said by the probe, which runs it too
            return way(one)
    return Footprint(None, None)


def _followed(
    network: nn.Module, task: Task, sample: Batch, weights: Mapping[str, Tensor]
) -> Footprint:
    """Return what a pass of one sample keeps for its backward pass."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> None:
        kept[tensor.untyped_storage()._cdata] = tensor.detach()

    with untouched(network), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        lent = {f"network.{name}": tensor for name, tensor in weights.items()}
        with saved_tensors_hooks(pack, lambda _: torch.empty(0)):
            out = functional_call(Forward(task, network), lent, (sample,))
    own = {tensor.untyped_storage()._cdata for tensor in weights.values()}
    graph = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    return Footprint(_signal(task, out), graph)


def _signal(task: Task, outputs: Outputs) -> int | None:
    try:
        found = task.signal(outputs)
    except Exception:  # of outputs without values
        return None
    return None if found is None or found.ndim != 2 else int(found.shape[1])


class Forward(nn.Module):
    """A network as its task puts it forward, so that `functional_call` can lend it weights."""

    def __init__(self, task: Task, network: nn.Module) -> None:
        super().__init__()
        self.task, self.network = task, network

    def forward(self, batch: Batch) -> Outputs:
        """Return the network's outputs."""
        return self.task.outputs(self.network, batch)
