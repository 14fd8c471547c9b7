"""The scope `inner`: filters whose outputs meet no residual addition (Wang et al., 2023).

Three ways find them, and give the same filters where they work: a trace by `torch.fx`, which shows
the network's code as it is written; the graph of `torch.export`, for one shape; and the groups of
Torch-Pruning. What the last two find is tried before it is believed, as is what is found in the
parts of a network that takes lists (a detector), before the last two are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from trainscope.errors import ActionError, first_line
from trainscope.networks.example import Inputs, as_example
from trainscope.networks.masks import masks_of
from trainscope.networks.weights import EXPERTS, weights_in
from trainscope.sparsify.candidate import Cutter, why_untouched
from trainscope.sparsify.channels import UntraceableError, follow
from trainscope.sparsify.computed import computes_weights
from trainscope.sparsify.coupled_inner import CoupledInnerCutter
from trainscope.sparsify.dependencies import by_dependencies
from trainscope.sparsify.exported import walk_exported
from trainscope.sparsify.inner_cutter import InnerCutter
from trainscope.sparsify.layers import Channels
from trainscope.sparsify.parts import by_parts
from trainscope.sparsify.trial import failing

_TRIED = (
    "the cut of each was tried first, in a copy: its outputs are those of the network with the "
    "same filters at zero"
)


def inner(network: nn.Module, inputs: Inputs) -> Cutter:
    """Find what the scope `inner` can cut in a network.

    Args:
        network: Cut in place by the result's `cut`. Where Torch-Pruning is needed, it is left
            without masks, in eval mode and with gradients asked for, as by `coupled`.
        inputs: The shape of one input, or an example of a call.

    Raises:
        ActionError: No way can follow the network, or nothing in it is in scope.
    """
    cutter = _found(network, inputs)
    if not cutter.candidates:
        experts = {w.label: why_untouched(w) for w in weights_in(network) if w.kind == EXPERTS}
        told = list({**experts, **cutter.spared}.items())[:3]
        reasons = "; ".join(f"{name}: {why}" for name, why in told)
        raise ActionError(
            "nothing can be pruned: no convolution or MLP is inner "
            f"({reasons or 'there is no convolution or linear layer'}); "
            "try --scope all or the structure unstructured"
        )
    return cutter


def _found(network: nn.Module, inputs: Inputs) -> Cutter:
    """Return a cutter by the first way that works, with a note where that is not the first one."""
    name = type(network).__name__
    try:
        return traced(network, inputs)
    except UntraceableError as error:
        why = f"torch.fx cannot trace {name} ({error})"
    if as_example(inputs).count is not None:  # the others take minutes where boxes are counted
        try:
            return _of_parts(network, inputs)
        except UntraceableError:
            pass
    try:
        cutter: InnerCutter | CoupledInnerCutter = exported(network, inputs)
        note = f"{why}, so its inner layers were found with torch.export; {_TRIED}"
    except UntraceableError as error:
        why = f"{why}, torch.export cannot export it ({error})"
        try:
            cutter = dependent(network, inputs)
        except UntraceableError as last:
            raise ActionError(
                f"{why}, and Torch-Pruning cannot follow it ({last}), so its inner layers are not "
                "known; use the structure unstructured"
            ) from last
        note = f"{why}, so its inner layers are coupled groups that Torch-Pruning found; {_TRIED}"
    cutter.notes = (note, *cutter.notes)
    return cutter


def _of_parts(network: nn.Module, inputs: Inputs) -> Cutter:
    """Return a cutter of the parts of a network whose inputs are lists, with a note.

    Raises:
        UntraceableError: There is nothing to cut in them.
    """
    cutter = by_parts(network, inputs)
    cutter.notes = (
        f"{type(network).__name__} takes lists, which no trace follows, so inner layers were found "
        f"in its parts that take tensors; {_TRIED}",
        *cutter.notes,
    )
    return cutter


def with_first(network: nn.Module, inputs: Inputs) -> InnerCutter:
    """Find inner filters, those of the first convolution among them.

    Raises:
        ActionError: Neither `torch.fx` nor `torch.export` can follow the network.
    """
    try:
        channels = follow(network, inputs)
    except UntraceableError as first:
        try:
            channels = follow(network, inputs, walk_exported)
        except UntraceableError as last:
            raise ActionError(
                f"the filters of {type(network).__name__} cannot be followed: torch.fx cannot "
                f"trace it ({first}), and torch.export cannot export it ({last})"
            ) from last
    return InnerCutter(network, channels, spare_first=False)


def traced(network: nn.Module, inputs: Inputs) -> InnerCutter:
    """Find the inner filters in a trace by `torch.fx`.

    Raises:
        UntraceableError: It cannot trace the network.
    """
    channels = follow(network, inputs)
    if computes_weights(network, inputs):  # which a trace does not show: a layer is one node
        return _tried(network, inputs, channels)
    return InnerCutter(network, channels)


def exported(network: nn.Module, inputs: Inputs) -> InnerCutter:
    """Find the inner filters in the graph of `torch.export`, and try them.

    Raises:
        UntraceableError: It cannot export the network.
    """
    return _tried(network, inputs, follow(network, inputs, walk_exported))


def _tried(network: nn.Module, inputs: Inputs, channels: Channels) -> InnerCutter:
    """Return a cutter of what a trial shows to be cut right."""
    cutter = InnerCutter(network, channels)
    failed = failing(network, inputs, cutter.candidates, lambda copy: InnerCutter(copy, channels))
    for name, why in failed.items():
        channels.block(name, why)
    return InnerCutter(network, channels) if failed else cutter


def dependent(network: nn.Module, inputs: Inputs) -> CoupledInnerCutter:
    """Find the inner filters in Torch-Pruning's graph, and try them.

    Args:
        network: As for `coupled`.
        inputs: The shape of one input, or an example of a call.

    Raises:
        UntraceableError: Torch-Pruning cannot follow the network.
    """
    masks = masks_of(network)
    if any(name.endswith("_orig") for name in masks):
        raise UntraceableError("torch.nn.utils.prune computes its weights at every call")

    def made(module: nn.Module, *, linear: bool, blocked: Mapping[str, str]) -> CoupledInnerCutter:
        own = masks if module is network else {}  # a trial needs none
        make = partial(CoupledInnerCutter, masks=own, linear=linear, blocked=blocked)
        return by_dependencies(module, inputs, make)

    try:
        linear = not made(network, linear=False, blocked={}).candidates
        cutter = made(network, linear=linear, blocked={})
        failed = failing(
            network, inputs, cutter.candidates, partial(made, linear=linear, blocked={})
        )
        return made(network, linear=linear, blocked=failed) if failed else cutter
    except Exception as error:
        raise UntraceableError(f"{type(error).__name__}: {first_line(error)}") from error
