"""The scope `all`: every coupled group, found by Torch-Pruning's dependency graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from trainscope.errors import ActionError
from trainscope.networks.example import Inputs, as_example, tensors_of
from trainscope.networks.masks import drop_masks, masks_of, set_masks
from trainscope.sparsify.candidate import OUTPUT, Candidate, Removed
from trainscope.sparsify.criteria import Subject
from trainscope.sparsify.verify import called_modules, first_line

_RECORDED = (_ConvNd, nn.Linear, _BatchNorm, _InstanceNorm)


class CoupledCutter:
    """Cuts the channels that Torch-Pruning finds coupled; ranking and rounding are ours.

    The coupled filters of several layers are ranked as one filter that has the weights of all of
    them (convolutions and linear layers; depthwise ones, norms and consumers only follow).
    """

    noun, unit = "coupled group", "channels"

    def __init__(
        self, network: nn.Module, graph: Any, used: list[str], masks: Mapping[str, Tensor]
    ):
        self._network, self._graph, self._used = network, graph, used
        self._masks = masks
        self._names = {module: name for name, module in network.named_modules()}
        self.spared: dict[str, str] = {}
        found: list[Candidate] = []
        for group in self._groups():
            layers = self._makers(group)
            why = self._why_not(group, layers)
            if why is None:
                found.append(self._candidate(group, layers))
            else:
                self.spared.update(dict.fromkeys(layers, why))
        order = {name: place for place, name in enumerate(self._names.values())}
        self.candidates = tuple(sorted(found, key=lambda candidate: order[candidate.name]))
        self.untold = {n: why for n, why in self.spared.items() if self._is_told(n, why)}
        self.notes: tuple[str, ...] = ()

    def _groups(self, ignored: Sequence[nn.Module] = ()) -> list[Any]:
        """Return Torch-Pruning's groups, but for those with a layer that is to be ignored."""
        kinds = [_ConvNd, nn.Linear]
        return list(self._graph.get_all_groups(list(ignored), root_module_types=kinds))

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut the network in place; return the outputs that went, by layer (norms too)."""
        _mark(self._network, self._masks)
        left: dict[str, list[int]] = {}
        gone: dict[str, list[int]] = {}
        for name, indices in removed.items():
            module = self._network.get_submodule(name)
            group = self._graph.get_pruning_group(module, self._pruner(module), indices.tolist())
            for dep, places in group:
                inner = dep.target.module
                if not self._is_output(dep) or not isinstance(inner, _RECORDED):
                    continue
                layer, width = self._names[inner], _width(inner)
                # A norm after a concatenation is cut more than once: count in its first indices.
                kept = left.setdefault(layer, list(range(width)))
                places = set(places)
                gone.setdefault(layer, []).extend(kept[place] for place in places)
                left[layer] = [index for place, index in enumerate(kept) if place not in places]
            group.prune()
        _mask_marked(self._network, self._masks)
        return {name: tuple(sorted(indices)) for name, indices in gone.items()}

    def _is_told(self, name: str, why: str) -> bool:
        """Say whether a person must be told why a layer is spared."""
        return why != OUTPUT

    def _is_output(self, dep: Any) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(dep.handler))

    def _pruner(self, module: nn.Module) -> Any:
        return self._graph.get_pruner_of_module(module).prune_out_channels

    def _makers(self, group: Any) -> list[str]:
        """Name the layers that make the channels of a group, the root first."""
        made = [
            self._names[dep.target.module]
            for dep, _ in group
            if self._is_output(dep) and is_maker(dep.target.module)
        ]
        return list(dict.fromkeys(made)) or [self._names[group[0].dep.target.module]]

    def _why_not(self, group: Any, layers: list[str]) -> str | None:
        size = len(group[0].idxs)
        for dep, places in group:
            node, module = dep.target, dep.target.module
            if self._is_output(dep) and (not node.outputs or type(module).__name__ == "_OutputOp"):
                return OUTPUT
            if _pads_channels(node.grad_fn):
                return "padding with zero channels couples them at a shift"
            parts = _parts(module)
            if parts > 1 and (len(places) != size or size % parts or size // parts < 2):
                return f"the {parts} parts of a {type(module).__name__} cannot be cut evenly"
        if not set(layers).issubset(self._used):
            return "used in training only"
        if not is_maker(self._network.get_submodule(layers[0])):
            return "no convolution or linear layer of its own makes its channels"
        return None

    def _candidate(self, group: Any, layers: list[str]) -> Candidate:
        size = len(group[0].idxs)
        weights: list[Tensor] = []
        scales: list[Tensor] = []
        parameters: list[str] = []
        chunks = 1
        for item in group:
            module = item.dep.target.module
            chunks = math.lcm(chunks, _parts(module))
            if not self._is_output(item.dep) or len(item.idxs) != size:
                continue
            # Row i belongs to channel i of the group's first layer.
            rows = torch.tensor(item.idxs)[torch.argsort(torch.tensor(item.root_idxs))]
            if is_maker(module):
                weight = module.weight.detach()
                if getattr(module, "transposed", False):
                    weight = weight.transpose(0, 1)
                weights.append(weight.flatten(1)[rows.to(weight.device)])
                parameters.append(f"{self._names[module]}.weight")
            elif isinstance(module, _BatchNorm) and module.affine:
                scales.append(module.weight.detach()[rows.to(module.weight.device)])
        subject = Subject(layers[0], torch.cat(weights, dim=1), tuple(scales), tuple(parameters))
        return Candidate(subject, tuple(layers), size, chunks, aligned=True)


def coupled(network: nn.Module, inputs: Inputs) -> CoupledCutter:
    """Find every coupled group of a network.

    Args:
        network: Cut in place by the result's `cut`. Torch-Pruning needs gradients for every
            parameter and leaves eval mode behind, so this sets both; the caller puts them back.
        inputs: The shape of one input, or an example of a call.

    Raises:
        ActionError: Torch-Pruning cannot follow the network, or nothing can be pruned.
    """
    if as_example(inputs).count is not None:
        raise ActionError(
            f"{type(network).__name__} takes lists, whose graph Torch-Pruning does not come to the "
            "end of: use --scope inner or the structure unstructured"
        )
    masks = masks_of(network)
    if any(name.endswith("_orig") for name in masks):
        raise ActionError(
            "scope all cannot cut what torch.nn.utils.prune computes at every call; use "
            "--scope inner, or save the network's state dict and open that"
        )
    try:
        cutter = by_dependencies(network, inputs, partial(CoupledCutter, masks=masks))
    except Exception as error:
        raise ActionError(
            f"Torch-Pruning cannot follow {type(network).__name__} "
            f"({type(error).__name__}: {first_line(error)}); "
            "use --scope inner or the structure unstructured"
        ) from error
    if not cutter.candidates:
        raise ActionError("nothing can be pruned: no channels are coupled that are not the outputs")
    return cutter


_Made = TypeVar("_Made")


def by_dependencies(
    network: nn.Module,
    inputs: Inputs,
    make: Callable[[nn.Module, Any, list[str]], _Made],
) -> _Made:
    """Make a cutter of Torch-Pruning's graph of a network.

    Args:
        network: As for `coupled`; its masks go, and whoever calls has them.
        inputs: The shape of one input, or an example of a call.
        make: Gets the network, the graph, and the layers that are used, in order.

    Raises:
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

    with torch.enable_grad(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        graph.build_dependency(
            network, (), forward_fn=forward, output_transform=transform, verbose=False
        )
        return make(network, graph, used)


@torch.no_grad()
def _mark(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Mark masked weights by NaN, so that a cut of the weights cuts the masks along."""
    for name, mask in masks.items():
        network.get_parameter(name)[~mask] = torch.nan


@torch.no_grad()
def _mask_marked(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Make masks of the marks that are left."""
    left = {name: ~network.get_parameter(name).isnan() for name in masks}
    for name, mask in left.items():
        network.get_parameter(name)[~mask] = 0.0
    set_masks(network, left)


def _train_heads(network: nn.Module) -> None:
    """Switch on the auxiliary heads that a network has in training: they read channels too.

    Torch's own layers stay in eval mode, so that no running statistic moves.
    """
    for module in network.modules():
        module.training = not type(module).__module__.startswith("torch.nn")


def is_maker(module: object) -> bool:
    """Say whether a module makes channels: a depthwise convolution only passes them on."""
    if isinstance(module, _ConvNd):
        return not (module.groups == module.in_channels > 1)
    return isinstance(module, nn.Linear)


def _pads_channels(function: object) -> bool:
    """Say whether an autograd function pads axis 1, as the shortcuts of CIFAR ResNets do.

    Torch-Pruning takes it for an elementwise operation, and the cut would move channels.
    """
    pads = getattr(function, "_saved_pad", None)
    # Pairs for each axis from the last one; of four axes the third pair is the channels'.
    return pads is not None and len(pads) >= 6 and any(pads[4:6])


def _parts(module: object) -> int:
    """Return in how many parts a module's channels must be cut evenly."""
    if isinstance(module, _ConvNd) and module.groups < module.in_channels:
        return int(module.groups)
    if isinstance(module, nn.GroupNorm):
        return int(module.num_groups)
    return int(module.num_heads) if isinstance(module, nn.MultiheadAttention) else 1


def _width(module: nn.Module) -> int:
    for attribute in ("out_channels", "out_features", "num_features"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    raise TypeError(type(module).__name__)
