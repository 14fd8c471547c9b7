"""One forward pass that shows whether a rebuilt network's layers fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainscope.errors import CheckpointError, first_line
from trainscope.networks.meta import is_light, light_copy, meta_copy, shared_copy
from trainscope.networks.rebuild import words_of
from trainscope.task.batches import working_weight
from trainscope.task.calls import ModuleCall, hooked


def check_forward(
    module: nn.Module, input_shape: tuple[int, ...], name: str, *, regroup: bool = False
) -> int:
    """Run a network of shapes once, set its group counts right, and return the width of its logits.

    Args:
        module: Left as it is but for the groups of grouped convolutions.
        input_shape: The shape of one input, (C, H, W).
        name: What the network is called in an error.
        regroup: Set the groups of grouped convolutions to fit the channels that they get.

    Raises:
        CheckpointError: The layers do not fit each other, or the output is not [N, classes].
    """
    with torch.random.fork_rng(devices=[]):
        twin, out = _run_any(module, input_shape, name, regroup=regroup)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2:
        what = words_of(tuple(out.shape)) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise CheckpointError(
            f"{name} gives {what} for two inputs and not logits of 2 x classes: name the task "
            "(task=, --task) where it is no classifier"
        )
    if regroup:
        for layer in _grouped(module):
            original, seen = module.get_submodule(layer), twin.get_submodule(layer)
            original.groups, original.in_channels = seen.groups, seen.in_channels
    return int(out.shape[1])


def _run_any(
    module: nn.Module, input_shape: tuple[int, ...], name: str, *, regroup: bool
) -> tuple[nn.Module, object]:
    """Run a copy of a network; return it and its outputs."""
    if is_light(module, 2 * prod(input_shape)):
        with suppress(CheckpointError):  # zeros need not be such as the network takes
            twin = light_copy(module)
            return twin, _run(twin, input_shape, name, regroup=regroup)
    try:
        twin = meta_copy(module)
        return twin, _run(twin, input_shape, name, regroup=regroup)
    except CheckpointError:
        if any(tensor.is_meta for tensor in module.state_dict().values()):
            raise
        # A network that looks at the values it computes cannot run without numbers.
        with shared_copy(module) as twin:
            return twin, _run(twin, input_shape, name, regroup=regroup)


@torch.no_grad()
def _run(twin: nn.Module, input_shape: tuple[int, ...], name: str, *, regroup: bool) -> object:
    weight = working_weight(twin)
    inputs = torch.zeros((2, *input_shape), device=weight.device, dtype=weight.dtype)
    with _watched(twin, set(_grouped(twin)) if regroup else set()) as trail:
        try:
            return twin(inputs)
        except Exception as error:  # whatever the layers, or code of the user's, raise
            reason = first_line(error)
            where = f"at layer '{trail[-1]}'" if trail else "before its first layer"
            raise CheckpointError(
                f"{name} does not take an input of {words_of(input_shape)}, {where}: {reason}"
            ) from error


def _grouped(module: nn.Module) -> list[str]:
    parts = module.named_modules()
    return [name for name, part in parts if isinstance(part, _ConvNd) and part.groups > 1]


@contextmanager
def _watched(twin: nn.Module, grouped: set[str]) -> Iterator[list[str]]:
    """Yield the names of the layers entered so far, and regroup convolutions as they are met."""
    trail: list[str] = []

    def enter(call: ModuleCall[str]) -> None:
        trail.append(call.key)
        part = call.module
        if call.key in grouped and isinstance(part, _ConvNd):
            part.in_channels = call.args[0].shape[1]
            part.groups = max(part.in_channels // part.weight.shape[1], 1)

    leaves = [(n, part) for n, part in twin.named_modules() if next(part.children(), None) is None]
    with hooked(leaves, before=enter):
        yield trail
