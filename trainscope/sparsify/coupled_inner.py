"""The scope `inner` by Torch-Pruning's graph, for networks whose own graph cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from trainscope.networks.weights import weight_leaf
from trainscope.sparsify.candidate import EXPECTED, FIRST, OTHER_KIND, RESIDUAL, Candidate
from trainscope.sparsify.coupled import CoupledCutter, by_outputs
from trainscope.sparsify.dependencies import Dependencies, is_maker
from trainscope.sparsify.statistics import Subject

_SPLITS = ("_SplitOp", "_UnbindOp")  # their parts go by places, which a cut moves
_ADDITIONS = ("AddBackward", "SubBackward", "RsubBackward")


class CoupledInnerCutter(CoupledCutter):
    """Cuts the coupled groups that meet no residual addition, ranked as inner filters are.

    Args:
        network: As for `coupled`.
        graph: Torch-Pruning's graph of it.
        used: The layers that are used, in order.
        masks: The network's masks.
        linear: Take hidden units, between linear layers, and not convolutions.
        blocked: Why groups that were tried cannot be cut, by candidate.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: Dependencies,
        used: list[str],
        masks: Mapping[str, Tensor],
        *,
        linear: bool,
        blocked: Mapping[str, str],
    ):
        self.noun, self.unit = (
            ("MLP", "hidden units") if linear else ("inner convolution", "filters")
        )
        self._linear, self._blocked = linear, blocked
        modules = {name: network.get_submodule(name) for name in used}
        makers = [name for name, module in modules.items() if is_maker(module)]
        convolutions = [name for name in makers if isinstance(modules[name], _ConvNd)]
        self._first = next(iter(convolutions), None)
        self._place = {name: place for place, name in enumerate(used)}
        self._biases = {id(getattr(module, "bias", None)) for module in modules.values()}
        self._biases.discard(id(None))
        super().__init__(network, graph, used, masks)

    def _makers(self, group: Any) -> list[str]:
        """Name the layers that make the channels, the one that is ranked first."""

        def place(name: str) -> tuple[bool, int]:
            return not self._is_convolution(name), self._place.get(name, len(self._place))

        return sorted(super()._makers(group), key=place)

    def _why_not(self, group: Any, layers: list[str]) -> str | None:
        if self._first in layers:
            alone = len(layers) == 1
            first = f"its outputs go with those of {self._first}, the first convolution"
            self.spared[self._first or ""] = FIRST
            return FIRST if alone else first
        if any(self._adds(dep.target) for dep, _ in group):
            return RESIDUAL
        if any(type(dep.target.module).__name__ in _SPLITS for dep, _ in group):
            return "its outputs are split"
        if any(isinstance(dep.target.module, nn.Parameter) for dep, _ in group):
            return "its outputs meet a parameter of the network's own"
        why = super()._why_not(group, layers) or self._blocked.get(layers[0])
        if why is not None:
            return why
        linear = not any(self._is_convolution(name) for name in layers)
        if linear != self._linear:
            return OTHER_KIND
        read = any(is_maker(dep.target.module) and not self._is_output(dep) for dep, _ in group)
        # Hidden units are those between two linear layers.
        return OTHER_KIND if linear and not read else None

    def _candidate(self, group: Any, layers: list[str]) -> Candidate:
        """Describe a group; its first layer is the one that is ranked."""
        whole, name = super()._candidate(group, layers), layers[0]
        module = self._network.get_submodule(name)
        weight: Tensor = module.weight.detach()  # type: ignore[operator]
        norms = [
            dep.target.module.weight.detach()
            for dep, places in group
            if isinstance(dep.target.module, _BatchNorm) and dep.target.module.affine
            if self._is_output(dep) and dep.target.module.num_features == len(places)
        ]
        parameter = f"{name}.{weight_leaf(module)}"

        def gather(values: Mapping[str, Tensor]) -> Tensor:
            return by_outputs(module, values[parameter])

        subject = Subject(
            name, by_outputs(module, weight), tuple(norms[:1]), (parameter,), gather=gather
        )
        return Candidate(subject, tuple(layers), whole.count, whole.chunks, whole.aligned)

    def _is_told(self, name: str, why: str) -> bool:
        return why not in EXPECTED and self._is_convolution(name) != self._linear

    def _is_convolution(self, name: str) -> bool:
        return isinstance(self._network.get_submodule(name), _ConvNd)

    def _adds(self, node: Any) -> bool:
        """Say whether a node of Torch-Pruning's graph adds two values, none of them a bias."""
        function = node.grad_fn
        if not type(function).__name__.startswith(_ADDITIONS):
            return False
        operands = [operand for operand, _ in function.next_functions if operand is not None]
        return sum(id(getattr(o, "variable", None)) not in self._biases for o in operands) > 1
