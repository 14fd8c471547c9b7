"""Walks a trace of a network and follows its channels through every operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from trainscope.errors import ActionError
from trainscope.networks.meta import meta_copy
from trainscope.sparsify.layers import LEAVES, MAKERS, Channels
from trainscope.sparsify.layout import Layout
from trainscope.sparsify.operations import FUNCTIONS
from trainscope.sparsify.step import Step


class _Failed:
    """The value of an operation that could not be run."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)


class _Walk(fx.Interpreter):
    """Runs a trace on the meta device, keeping the layout of each value."""

    def __init__(self, traced: fx.GraphModule, channels: Channels, names: dict[nn.Module, str]):
        super().__init__(traced)
        self.channels, self.names = channels, names
        self.layouts: dict[fx.Node, Layout] = {}
        self.called: set[nn.Module] = set()
        self.driven: set[fx.Node] = set()  # what depends on the network's input

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; a node that fails counts as an unknown operation."""
        try:
            value = super().run_node(n)
        except Exception:
            value = _Failed()
        layout = None
        if n.op == "placeholder" or not self.driven.isdisjoint(n.all_input_nodes):
            self.driven.add(n)
        if n.op == "output":
            self._outputs(n)
        elif n.op in ("call_module", "call_function", "call_method"):
            layout = self._follow(n, value)
        if layout is not None:
            self.layouts[n] = layout
        return value

    def _follow(self, node: fx.Node, value: object) -> Layout | None:
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        what = _describe(node, module)
        layout = None
        if isinstance(value, Tensor):
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            step = Step(node, args, kwargs, value, self.channels.groups, self.layouts)
            if module is not None:
                self.called.add(module)
                layout = self.channels.layout(step, self.names[module], module)
                if node not in self.driven:
                    step.groups.block(layout, "the network's input does not reach it")
            elif any(inner in self.layouts for inner in node.all_input_nodes):
                rule = FUNCTIONS.get(_function_name(node))
                layout = None if rule is None else rule(step)
        elif not isinstance(value, _Failed) and not _holds_tensors(value):
            return None  # a shape, a number: nothing that carries channels
        elif module is not None:
            self.called.add(module)
        if layout is None:
            for inner in node.all_input_nodes:
                self.channels.groups.block(self.layouts.get(inner), f"its outputs feed {what}")
        return layout

    def _outputs(self, node: fx.Node) -> None:
        for inner in node.all_input_nodes:
            for group in self.channels.groups.of(self.layouts.get(inner)):
                group.output = True


def follow(network: nn.Module, input_shape: tuple[int, ...]) -> Channels:
    """Return where a network's channels are made, read and cut along.

    Args:
        network: Any module that `torch.fx` can trace. It is not changed.
        input_shape: The shape of one input, (C, H, W).

    Raises:
        ActionError: `torch.fx` cannot trace the network.
    """
    meta = meta_copy(network)
    channels, called = _walk(meta, input_shape)
    unused = _unused(meta, called)
    if unused:  # auxiliary heads read channels too, in training: follow them there
        try:
            channels, _ = _walk(meta.train(), input_shape)
        except ActionError:
            unused = [name for name in unused if name in channels.makers]
        for name in unused:
            if name in channels.makers:
                group = channels.groups[channels.makers[name]]
                group.blocked = group.blocked or "used in training only"
    for name, why in _uncuttable(meta).items():
        if name in channels.makers:
            group = channels.groups[channels.makers[name]]
            group.blocked = group.blocked or why
        for table in (channels.readers, channels.along):
            channels.groups.block(table.get(name), f"its outputs feed {name}, and {why}")
    return channels


def named_widths(
    meta: nn.Module, input_shape: tuple[int, ...]
) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
    """Return what each `NamedWidth` of a network counts, once for each reshape that uses it.

    Args:
        meta: A network on the meta device, in whose attributes the widths are.
        input_shape: The shape of one input, (C, H, W).

    Returns:
        The width's name, and for each run of its channels a layer that makes them and how often
        each is repeated. A width whose channels no layer makes is left out.

    Raises:
        ActionError: `torch.fx` cannot trace the network.
    """
    groups = _walk(meta, input_shape)[0].groups
    return [
        (name, tuple((groups[s.group].layers[0], s.repeat) for s in layout.segments))
        for name, layout in groups.widths
        if all(groups[segment.group].layers for segment in layout.segments)
    ]


def _walk(meta: nn.Module, shape: tuple[int, ...]) -> tuple[Channels, set[nn.Module]]:
    try:
        graph = _Tracer().trace(meta)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ActionError(
            f"torch.fx cannot trace {type(meta).__name__} ({reason}), so its inner layers are not "
            "known; prune every coupled group instead, with --scope all"
        ) from error
    channels = Channels()
    names = {module: name for name, module in meta.named_modules()}
    walk = _Walk(fx.GraphModule(meta, graph), channels, names)
    dtype = next((p.dtype for p in meta.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad():
        walk.run(torch.empty(2, *shape, dtype=dtype, device="meta"))
    return channels, walk.called


def _unused(network: nn.Module, called: set[nn.Module]) -> list[str]:
    """Name the layers that no call reached, also none of a module that holds them."""
    reached = {inner for module in called for inner in module.modules()}
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, MAKERS) and module not in reached
    ]


def _uncuttable(network: nn.Module) -> dict[str, str]:
    """Return why some layers cannot be cut whatever they are connected to."""
    owners: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            found[name] = "its weight is parametrised"
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), name)
            if other != name:
                found[name] = found[other] = f"{other} and {name} share a weight"
    return found


def _function_name(node: fx.Node) -> str:
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return name.rstrip("_")


def _describe(node: fx.Node, module: nn.Module | None) -> str:
    if module is None:
        return f"the operation {_function_name(node)}"
    kind = type(module).__name__
    return f"{'an' if kind[0] in 'AEIO' else 'a'} {kind}"


def _holds_tensors(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensors(inner) for inner in value)
    if isinstance(value, dict):
        return any(_holds_tensors(inner) for inner in value.values())
    return isinstance(value, (Tensor, _Failed))
