"""Torch-Pruning's dependency graph of a network, within limits of time and memory.

Where Torch-Pruning takes a reshape for a flattening, as of the windows of Swin, it counts
each channel once for every position, again and again: minutes and gigabytes for a group that is
wrong in the end. Such a group is given up as soon as more channels are counted than any layer has.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainscope.networks.example import Inputs, as_example, tensors_of
from trainscope.networks.masks import drop_masks
from trainscope.sparsify.verify import called_modules

SECONDS = 60.0
"""CPU time for a graph and its groups."""
PLACES = 5_000_000
"""Places of channels that one group may map, at some 100 bytes each."""

_MOVE = ("_ConcatOp", "_SplitOp", "_UnbindOp", "_ExpandOp", "_SliceOp")
_LOOKUPS = ("get_out_channels", "get_in_channels")
_Made = TypeVar("_Made")


class TooSlowError(Exception):
    """The graph of a network takes longer than it may."""


class TooManyError(Exception):
    """A group has more channels than there are."""


def is_maker(module: object) -> bool:
    """Say whether a module makes channels: a depthwise convolution only passes them on."""
    if isinstance(module, _ConvNd):
        return not (module.groups == module.in_channels > 1)
    return isinstance(module, nn.Linear)


class Dependencies:
    """Torch-Pruning's graph of a network.

    Args:
        graph: Its `DependencyGraph`, built.
        clock: What ends the work on it.
        widest: The most channels that any of the network's layers has.
    """

    def __init__(self, graph: Any, clock: Callable[[], None], widest: int) -> None:
        self._graph, self._clock, self._widest = graph, clock, widest
        self._mapped, self._moved = 0, False

    def groups(self, kinds: tuple[type[nn.Module], ...]) -> tuple[list[Any], dict[Any, str]]:
        """Return the groups of coupled channels that layers of some kinds begin, in graph order.

        Returns:
            The groups, and why modules are in none: Torch-Pruning cannot follow them.

        Raises:
            TooSlowError: It takes too long.
        """
        found: list[tuple[Any, set[Any]]] = []
        failed: dict[Any, str] = {}
        seen: set[Any] = set()
        with self._limited():
            for module in list(self._graph.module2node):
                if not isinstance(module, kinds) or module in seen:
                    continue
                self._mapped = 0
                try:
                    group = self.group(module)
                except TooSlowError:
                    raise
                except TooManyError:
                    failed[module] = "Torch-Pruning couples more channels to it than any layer has"
                except Exception:
                    failed[module] = "Torch-Pruning cannot follow its outputs"
                else:
                    made = {dep.target.module for dep, _ in group if self.is_output(dep)}
                    seen |= made
                    found.append((group, made))
        kept = [group for group, made in found if made.isdisjoint(failed)]
        others = {m for _, made in found if not made.isdisjoint(failed) for m in made}
        along = "its outputs go with those of a layer that Torch-Pruning cannot follow"
        return kept, {**dict.fromkeys(others, along), **failed}

    def group(self, module: nn.Module, places: Sequence[int] | None = None) -> Any:
        """Return what goes along with some outputs of a layer; with all of them by default."""
        pruner = self._graph.get_pruner_of_module(module)
        if places is None:
            places = range(pruner.get_out_channels(module))
        nodes = self._graph.module2node
        if not self._moved:
            self._graph.module2node = _Unchanged(nodes)
        try:
            with warnings.catch_warnings(), _looked_up_once(self._graph):
                warnings.simplefilter("ignore")  # of paths that it does not come to the end of
                found = self._graph.get_pruning_group(
                    module, pruner.prune_out_channels, list(places)
                )
        finally:
            self._graph.module2node = nodes
        self._moved = False
        return found

    def cut(self, group: Any) -> None:
        """Take a group's channels out of the network, in place."""
        group.prune()
        self._moved = any(type(dep.target.module).__name__ in _MOVE for dep, _ in group)

    def is_output(self, dep: Any) -> bool:
        """Say whether a dependency cuts a layer's outputs, and not its inputs."""
        return bool(self._graph.is_out_channel_pruning_fn(dep.handler))

    def width(self, dep: Any) -> int | None:
        """Return how many channels there are on the side that a dependency cuts."""
        side = "out" if self.is_output(dep) else "in"
        count = getattr(self._graph, f"get_{side}_channels")(dep.target)
        return None if count is None else int(count)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Map places within the limits; nothing is cut inside."""
        deps = [dep for node in self._graph.module2node.values() for dep in node.dependencies]
        maps = [list(dep.index_mapping) for dep in deps]
        for dep in deps:
            dep.index_mapping[:] = [m and partial(self._map, m) for m in dep.index_mapping]
        try:
            yield
        finally:
            for dep, own in zip(deps, maps, strict=True):
                dep.index_mapping[:] = own

    def _map(self, mapping: Callable[[Any], Any], places: Any) -> Any:
        self._clock()
        found = mapping(places)
        self._mapped += len(found)
        if len(found) > self._widest or self._mapped > PLACES:
            raise TooManyError
        return found


class _Unchanged(dict[Any, Any]):
    """A graph's nodes while no place has moved: none is walked over to map its places anew.

    Torch-Pruning maps them all before each group, which takes most of its time where there are many
    concatenations. Only the cut of a group that goes through one of `_MOVE` changes them.
    """

    def items(self) -> Any:
        return ()


def by_dependencies(
    network: nn.Module,
    inputs: Inputs,
    make: Callable[[nn.Module, Dependencies, list[str]], _Made],
) -> _Made:
    """Make a cutter of Torch-Pruning's graph of a network.

    Args:
        network: As for `coupled`; its masks go, and whoever calls has them.
        inputs: The shape of one input, or an example of a call.
        make: Gets the network, the graph, and the layers that are used, in order.

    Raises:
        TooSlowError: It takes more than `SECONDS`.
        Exception: Whatever Torch-Pruning raises where it cannot follow the network.
    """
    import torch_pruning

    drop_masks(network)
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    graph = torch_pruning.DependencyGraph()
    used = called_modules(network, inputs)
    heads = any(is_maker(m) and n not in used for n, m in network.named_modules())

    def forward(network: nn.Module, _: object) -> Any:
        if heads:
            _train_heads(network)
        return as_example(inputs).run(network)

    def transform(outputs: Any) -> list[Tensor]:
        found = [leaf for leaf in tensors_of(outputs).values() if leaf.grad_fn is not None]
        if not found:
            raise RuntimeError("its outputs have no gradient")
        return found

    widest = max((max(p.shape, default=1) for p in network.parameters()), default=1)
    with torch.enable_grad(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        with _timed(graph) as clock, _unknown_sizes():
            graph.build_dependency(
                network, (), forward_fn=forward, output_transform=transform, verbose=False
            )
            return make(network, Dependencies(graph, clock, widest), used)


@contextmanager
def _looked_up_once(graph: Any) -> Iterator[None]:
    """Look up how many channels a node has once: nothing is cut inside, and much is asked again."""
    before = {name: getattr(graph, name) for name in _LOOKUPS}
    own = set(vars(graph))
    for name, lookup in before.items():
        setattr(graph, name, cache(lookup))
    try:
        yield
    finally:
        for name, lookup in before.items():
            if name in own:
                setattr(graph, name, lookup)
            else:
                delattr(graph, name)


@contextmanager
def _timed(graph: Any) -> Iterator[Callable[[], None]]:
    """Yield what raises `TooSlowError` when the time is up, and have the graph's lookups do so."""
    begun: float | None = None

    def clock() -> None:
        nonlocal begun
        if begun is None:  # the first lookup: the forward pass, which may be long, is over
            begun = time.thread_time()
        if time.thread_time() - begun > SECONDS:
            raise TooSlowError(f"it takes Torch-Pruning more than {SECONDS:g} s of CPU time")

    def timed(lookup: Callable[..., Any], *args: Any) -> Any:
        clock()
        return lookup(*args)

    for name in _LOOKUPS:
        setattr(graph, name, partial(timed, getattr(graph, name)))
    try:
        yield clock
    finally:
        for name in _LOOKUPS:
            delattr(graph, name)


@contextmanager
def _unknown_sizes() -> Iterator[None]:
    """Let Torch-Pruning pass over a concatenation of which one input's size is not known to it.

    It means to, and adds the sizes up before it looks.
    """
    from torch_pruning.dependency import index_mapping

    own = index_mapping.update_concat_index_mapping

    def update(graph: Any, node: Any) -> None:
        with suppress(TypeError):
            own(graph, node)

    index_mapping.update_concat_index_mapping = update
    try:
        yield
    finally:
        index_mapping.update_concat_index_mapping = own


def _train_heads(network: nn.Module) -> None:
    """Switch on the auxiliary heads that a network has in training: they read channels too.

    Torch's own layers stay in eval mode, so that no running statistic moves.
    """
    for module in network.modules():
        module.training = not type(module).__module__.startswith("torch.nn")
