"""Walks the graph that `torch.export` makes of a network by running its own code once.

The graph has ATen operators where `torch.fx` has calls of layers. The operators of one call of one
of torch's layers are taken together as that call, so that both graphs are read by the same rules.
"""

from __future__ import annotations

import io
import logging
import operator
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, fx, nn

from trainscope.networks.example import Example, tensors_of
from trainscope.sparsify.graph_step import GraphStep
from trainscope.sparsify.walk import LeafTracer, Walk

_WITH_INDICES = frozenset(
    f"{pooling}_pool{dims}d{ending}"
    for pooling in ("max", "adaptive_max")
    for dims in (1, 2, 3)
    for ending in ("", "_with_indices")
)


def walk_exported(meta: nn.Module, example: Example) -> Walk:
    """Follow a network's channels through its graph by `torch.export`.

    Every size in that graph is a number: what its code computed from a width cannot be told from
    what is written in it. So a reshape is followed wherever it could be, and what comes of it is
    to be tried.

    Args:
        meta: The network on the meta device.
        example: The inputs of a call.

    Raises:
        Exception: Whatever torch raises where it cannot export the network.
    """
    program = _export(_Leaves(meta), example.beside(meta))
    signature = program.graph_signature
    given, results = set(signature.user_inputs), set(signature.user_outputs)
    walk, names = Walk(), {module: name for name, module in meta.named_modules()}
    nodes = list(program.graph.nodes)
    own = {node for node in nodes if node.op == "placeholder" and node.name not in given}
    walk.driven.update(node for node in nodes if node.name in given)
    operators = [node for node in nodes if node.op == "call_function"]
    for (path, _), run in groupby(operators, lambda node: _leaf(meta, node)):
        if path is None:
            for node in run:
                _take_operator(walk, node)
            continue
        module, inside = meta.get_submodule(path), list(run)
        reads = _reads(inside, own)
        last, value = _result(inside)
        step = _step(walk, last, reads, tuple(reads), {}, value)
        walk.take(step, names[module], module)
    walk.outputs(node for node in nodes if node.name in results)
    return walk


def _take_operator(walk: Walk, node: fx.Node) -> None:
    """Follow one operator; a pooling that gives its indices too stands for its first result."""
    source = node.args[0] if node.args else None
    if node.target is operator.getitem and isinstance(source, fx.Node) and source in walk.layouts:
        walk.driven.add(node)
        if node.args[1] == 0:
            walk.layouts[node] = walk.layouts[source]
        return
    step = _step(walk, node, node.all_input_nodes, node.args, node.kwargs)
    if step.function in _WITH_INDICES and isinstance(step.value, (tuple, list)):
        step = replace(step, value=step.value[0])
    walk.take(step)


class _Leaves(nn.Module):
    """Gives the tensors of a network's outputs as a list, for it may return a class of its own."""

    PREFIX = "network."

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        return list(tensors_of(self.network(*args, **kwargs)).values())


def _export(meta: nn.Module, example: Example) -> torch.export.ExportedProgram:
    level, fused = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one operator hides a layer's own
    logging.disable(logging.ERROR)  # what cannot be exported is told once, in a note
    said = io.StringIO()  # torch prints the graph as far as it came
    try:
        with (
            redirect_stdout(said),
            redirect_stderr(said),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            return torch.export.export(meta, example.args, dict(example.kwargs), strict=False)
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fused)


def _leaf(meta: nn.Module, node: fx.Node) -> tuple[str | None, str]:
    """Return the outermost of torch's layers that a node is inside of, and which call of it."""
    tracer = LeafTracer()
    for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
        inside = path.removeprefix(_Leaves.PREFIX)
        if inside not in ("", path) and tracer.is_leaf_module(meta.get_submodule(inside), inside):
            return inside, call
    return None, ""


def _reads(inside: list[fx.Node], own: set[fx.Node]) -> list[fx.Node]:
    """Return what the operators of one call get from without, but for parameters and buffers."""
    known = own | set(inside)
    return list(dict.fromkeys(n for node in inside for n in node.all_input_nodes if n not in known))


def _result(inside: list[fx.Node]) -> tuple[fx.Node, Any]:
    """Return the node that a call gives, and its value; a list where it gives several."""
    within = set(inside)
    given = [n for n in inside if any(user not in within for user in n.users)] or inside[-1:]
    if len(given) == 1:
        return given[0], given[0].meta.get("val")
    return inside[-1], [node.meta.get("val") for node in given]


def _step(
    walk: Walk,
    node: fx.Node,
    reads: list[fx.Node],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    value: Any = None,
) -> GraphStep:
    def value_of(inner: fx.Node) -> Any:
        return inner.meta.get("val")

    return GraphStep(
        node=node,
        reads=reads,
        raw_args=args,
        raw_kwargs=kwargs,
        args=fx.map_arg(args, value_of),
        kwargs=fx.map_arg(kwargs, value_of),
        value=value_of(node) if value is None else value,
        groups=walk.channels.groups,
        layouts=walk.layouts,
        literal=False,
        origins=walk.origins,
    )
