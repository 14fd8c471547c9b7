"""Where a network's channels are made and read, found in a trace by torch.fx or torch.export."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from trainscope.errors import ActionError, first_line
from trainscope.networks.example import Example, Inputs, as_example
from trainscope.networks.meta import bare_copy, meta_copy
from trainscope.networks.weights import is_adapter
from trainscope.sparsify.candidate import ADAPTED
from trainscope.sparsify.graph_step import GraphStep
from trainscope.sparsify.layers import Channels, makes
from trainscope.sparsify.walk import Failed, LeafTracer, Walk


class UntraceableError(ActionError):
    """A network whose graph cannot be had in one way; the message is the reason alone."""


class _Interpreter(fx.Interpreter):
    """Runs a trace on the meta device, following the channels of each value."""

    def __init__(self, traced: fx.GraphModule, names: dict[nn.Module, str]):
        super().__init__(traced)
        self.walk, self.names = Walk(), names

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; a node that fails counts as an unknown operation."""
        try:
            value = super().run_node(n)
        except Exception:
            value = Failed()
        if n.op == "placeholder":
            self.walk.driven.add(n)
        elif n.op == "output":
            self.walk.outputs(n.all_input_nodes)
        elif n.op in ("call_module", "call_function", "call_method"):
            module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            step = GraphStep(
                *(n, n.all_input_nodes, n.args, n.kwargs, args, kwargs, value),
                groups=self.walk.channels.groups,
                layouts=self.walk.layouts,
                origins=self.walk.origins,
            )
            self.walk.take(step, "" if module is None else self.names[module], module)
        return value


def walk_traced(meta: nn.Module, example: Example) -> Walk:
    """Follow a network's channels through its trace by `torch.fx`.

    Args:
        meta: The network on the meta device.
        example: The inputs of a call.

    Raises:
        Exception: Whatever torch raises where it cannot trace the network.
    """
    own = example.beside(meta)
    signature = inspect.signature(meta.forward)
    bound = signature.bind(*own.args, **own.kwargs)
    # What the call leaves out has its default in the trace too, and decides branches there.
    left_out = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in bound.arguments and parameter.default is not parameter.empty
    }
    bound.apply_defaults()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = LeafTracer().trace(meta, concrete_args=left_out or None)
    names = {module: name for name, module in meta.named_modules()}
    interpreter = _Interpreter(fx.GraphModule(meta, graph), names)
    with torch.no_grad():
        interpreter.run(*bound.args, *bound.kwargs.values())
    return interpreter.walk


def follow(
    network: nn.Module,
    inputs: Inputs,
    walk: Callable[[nn.Module, Example], Walk] = walk_traced,
) -> Channels:
    """Return where a network's channels are made, read and cut along.

    Args:
        network: Not changed.
        inputs: The shape of one input, or an example of a call.
        walk: How the graph is had: `walk_traced`, or `walk_exported` of another module.

    Raises:
        UntraceableError: The graph cannot be had in this way.
    """
    example = as_example(inputs)
    copied = meta_copy if walk is not walk_traced else partial(bare_copy, values=example.values)
    meta = copied(network)
    walked = _walked(walk, meta, example)
    channels = walked.channels
    unused = _unused(meta, walked.called)
    if unused:  # auxiliary heads read channels too, in training: follow them there
        meta.train()
        try:
            channels = _walked(walk, meta, example).channels
        except UntraceableError:
            unused = [name for name in unused if name in channels.makers]
        for name in unused:
            if name in channels.makers:
                channels.block(name, "used in training only")
    for name, why in _uncuttable(network).items():
        if name in channels.makers:
            channels.block(name, why)
        for table in (channels.readers, channels.along):
            channels.groups.block(table.get(name), f"its outputs feed {name}, and {why}")
    channels.groups.settle()
    return channels


def named_widths(meta: nn.Module, inputs: Inputs) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
    """Return what each `NamedWidth` of a network counts, once for each reshape that uses it.

    Args:
        meta: A network on the meta device, in whose attributes the widths are.
        inputs: The shape of one input, or an example of a call.

    Returns:
        The width's name, and for each run of its channels a layer that makes them and how often
        each is repeated. A width whose channels no layer makes is left out.

    Raises:
        UntraceableError: `torch.fx` cannot trace the network.
    """
    groups = _walked(walk_traced, meta, as_example(inputs)).channels.groups
    return [
        (name, tuple((groups[s.group].layers[0], s.repeat) for s in groups.segments(layout)))
        for name, layout in groups.widths
        if all(group.layers for group in groups.of(layout))
    ]


def _walked(walk: Callable[[nn.Module, Example], Walk], meta: nn.Module, example: Example) -> Walk:
    try:
        return walk(meta, example)
    except Exception as error:
        raise UntraceableError(first_line(error).rstrip(". ")) from error


def _unused(network: nn.Module, called: set[nn.Module]) -> list[str]:
    """Name the layers that no call reached, also none of a module that holds them."""
    reached = {inner for module in called for inner in module.modules()}
    return [
        name for name, module in network.named_modules() if makes(module) and module not in reached
    ]


def _uncuttable(network: nn.Module) -> dict[str, str]:
    """Return why some layers cannot be cut whatever they are connected to."""
    owners: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            found[name] = "its weight is parametrised"
        hooks = module._forward_pre_hooks.values()
        if any(isinstance(hook, WeightNorm | SpectralNorm) for hook in hooks):
            found[name] = "its weight is computed at every call"
        if is_adapter(name):
            found[name] = ADAPTED
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), name)
            if other != name:
                found[name] = found[other] = f"{other} and {name} share a weight"
    return found
