"""Layers whose code multiplies by another tensor than their weight: standardised, say, or scaled.

A zero of such a weight need not be a zero of what is computed of it (weight standardisation takes
the mean away), and a layer that reads fewer channels may be another one (it normalises over those
left). Which layers these are is seen in the products that they run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainscope.networks.copies import whole_copy
from trainscope.networks.cost import FORMULAS
from trainscope.networks.example import Inputs
from trainscope.networks.own_code import own_code, running
from trainscope.networks.weights import MULTIPLIED, Weight, weights_in
from trainscope.sparsify.verify import run

LOSES_ZEROS = (
    "its code computes another weight of it, in which zeros do not stay zeros, as standardisation "
    "does"
)


def losing_zeros(network: nn.Module, weights: Sequence[Weight], inputs: Inputs) -> set[str]:
    """Return the names of weights of which a zero is none in what their layer multiplies by.

    Args:
        network: Not touched.
        weights: Those to look at.
        inputs: The shape of one input, or an example of a call.
    """
    wanted = {weight.name for weight in weights if own_code(weight.module)}
    if not wanted:
        return set()
    twin = whole_copy(network)
    masks = {}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name in wanted:
                drawn = torch.rand(parameter.shape, generator=generator) < 0.5
                masks[name] = drawn.to(parameter.device)
                parameter.mul_(masks[name])
    found = set()
    for weight, factors in _seen(twin, wanted, inputs):
        mask = masks[weight.name]
        others = [f for f in factors if not _same_memory(f, weight.tensor)]
        if not all(_has_zeros(factor, ~mask) for factor in others):
            found.add(weight.name)
    return found


def computes_weights(network: nn.Module, inputs: Inputs) -> bool:
    """Tell whether a layer multiplies by what it computes of its weight."""
    wanted = {
        weight.name
        for weight in weights_in(network)
        if weight.kind in MULTIPLIED and own_code(weight.module)
    }
    if not wanted:
        return False
    return any(
        not _same_memory(factor, weight.tensor)
        for weight, factors in _seen(whole_copy(network), wanted, inputs)
        for factor in factors
    )


def _seen(
    twin: nn.Module, wanted: set[str], inputs: Inputs
) -> Iterator[tuple[Weight, list[Tensor]]]:
    """Yield weights with the factors of their shape in the products that their layers run."""
    weights = [weight for weight in weights_in(twin) if weight.name in wanted]
    layers = [(weight.module, weight) for weight in weights]
    with torch.no_grad(), running(layers) as now, _Spy(now) as spy:
        run(twin, inputs)
    for weight in weights:
        yield weight, spy.found.get(weight.name, [])


class _Spy(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the factors of products that have the shape of a weight whose layer is running.

    Attributes:
        now: The weights of the layers that are running.
        found: The factors, by the weight's name.
    """

    def __init__(self, now: Sequence[Weight]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = now
        self.found: dict[str, list[Tensor]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for the first operator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator, and look at the factors of a product."""
        if func.overloadpacket in FORMULAS:
            given = [factor.detach() for factor in args[1:] if isinstance(factor, Tensor)]
            for weight in self.now:
                alike = [factor for factor in given if _fits(factor, weight.tensor)]
                # Samples may have the weight's shape too; where it is a factor itself, they are.
                itself = [factor for factor in alike if _same_memory(factor, weight.tensor)]
                self.found.setdefault(weight.name, []).extend(itself or alike)
        return func(*args, **(kwargs or {}))


def _fits(factor: Tensor, weight: Tensor) -> bool:
    """Tell whether a factor has the shape of a weight, or of its transpose."""
    turned = factor.ndim == 2 and factor.shape == weight.shape[::-1]
    return turned or factor.shape == weight.shape


def _has_zeros(factor: Tensor, places: Tensor) -> bool:
    """Tell whether a factor, or its transpose, is zero at places."""
    turned = (factor, factor.T) if factor.ndim == 2 else (factor,)
    return any(f.shape == places.shape and not bool(f[places].any()) for f in turned)


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)
