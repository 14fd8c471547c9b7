"""What a network costs: parameters that survive, and multiply-adds of one sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trainscope.networks.example import Inputs, as_example
from trainscope.networks.masks import mask_parameters, masks_of
from trainscope.networks.meta import is_light, light_copy, meta_copy, shared_copy
from trainscope.networks.own_code import own_code, running


def _trilinear(*factors: Any, out_val: Any, **_: Any) -> int:
    """Return twice the multiply-adds of a bilinear layer: two inputs and an output a weight."""
    first, weight, _ = factors[:3]
    return 2 * int(weight.numel()) * int(first.shape[0])


def _matrix_times_vector(*factors: Any, out_val: Any, **_: Any) -> int:
    """Return twice the multiply-adds of a matrix by a vector, of two vectors too."""
    matrix = max((each for each in factors if isinstance(each, Tensor)), key=Tensor.numel)
    return 2 * int(matrix.numel())


def _grouped(first: Tensor, second: Tensor, *_: Any, out_val: Any, **__: Any) -> int:
    """Return twice the multiply-adds of products by group, as of a mixture of experts."""
    count = int(first.numel()) * int(second.shape[-1])
    return 2 * (count // len(first) if first.ndim > second.ndim else count)


_aten = torch.ops.aten
FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._trilinear: _trilinear,
    _aten._grouped_mm: _grouped,
    **dict.fromkeys((_aten.mv, _aten.addmv, _aten.dot, _aten.vdot), _matrix_times_vector),
}
"""Twice the multiply-adds of each product: torch's own formulas, and of those that it lacks."""


def parameters(module: nn.Module) -> int:
    """Count the parameters; masked ones are not counted, shared ones once."""
    masks, none = masks_of(module), mask_parameters(module)
    return sum(
        int(masks[name].sum()) if name in masks else parameter.numel()
        for name, parameter in module.named_parameters()
        if id(parameter) not in none
    )


def flops(module: nn.Module, inputs: Inputs) -> int:
    """Return the multiply-adds of one sample: convolutions, linear and bilinear layers, attention.

    No bias, normalisation, activation or pooling is counted, as in the tables of the pruning
    papers. A masked layer counts by its density: what hardware that skips zeros would need.

    Args:
        module: Not touched: a copy is run, without numbers where they are many.
        inputs: The shape of one input, or an example of a call: its cost is shared by its samples.

    Raises:
        RuntimeError: The network does not take such an input.
    """
    by_weight, rest = _multiply_adds(module, inputs)
    return round(rest + sum(_at_density(module, by_weight).values()))


def dense_flops(module: nn.Module, inputs: Inputs) -> int:
    """Return the multiply-adds of one sample as `flops` does, as if there were no masks."""
    by_weight, rest = _multiply_adds(module, inputs)
    return rest + sum(by_weight.values())


def layer_flops(module: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Return the multiply-adds of one sample for each convolution and linear layer, in order used.

    The packed projection of an attention layer goes by the attention layer's own name; products
    that involve no weight (scores times values) belong to no layer. Otherwise as `flops`.
    """
    by_weight, _ = _multiply_adds(module, inputs)
    layers: dict[str, float] = defaultdict(float)
    for name, count in _at_density(module, by_weight).items():
        layers[name.rpartition(".")[0]] += count
    return {name: round(count) for name, count in layers.items()}


def _at_density(module: nn.Module, by_weight: dict[str, int]) -> dict[str, float]:
    masks = masks_of(module)
    densities = {name: mask.double().mean().item() for name, mask in masks.items()}
    return {name: count * densities.get(name, 1.0) for name, count in by_weight.items()}


def _multiply_adds(module: nn.Module, inputs: Inputs) -> tuple[dict[str, int], int]:
    """Return the multiply-adds by weight, and of products that involve none."""
    values = as_example(inputs, samples=1).values
    with torch.random.fork_rng(devices=[]):
        if is_light(module, values):
            with suppress(Exception):  # drawn inputs need not be such as the network takes
                return _count(light_copy(module), inputs, fused=False)
        try:
            return _count(meta_copy(module), inputs)
        except (NotImplementedError, RuntimeError):
            # A network that looks at the values it computes cannot run without numbers.
            with shared_copy(module) as twin:
                return _count(twin, inputs)


def _count(twin: nn.Module, inputs: Inputs, *, fused: bool = True) -> tuple[dict[str, int], int]:
    """Return the multiply-adds of one sample by weight, and of products that involve none.

    Raises:
        NotImplementedError: A fused kernel hides its products, and `fused` is False.
    """
    # Weights that need gradients keep attention off its fused kernels, which nothing can count.
    weights = dict(_weights(twin))
    for weight in weights.values():
        if weight.is_floating_point() or weight.is_complex():
            weight.requires_grad_()
    example, counter = as_example(inputs, samples=1), _Counter(weights, fused)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), running(_own_layers(twin)) as inside:
        counter.inside = inside
        try:
            with counter:
                example.run(twin)
        except ValueError:  # batch norm without running statistics takes no single sample
            example, counter = as_example(inputs, samples=2), _Counter(weights, fused)
            counter.inside = inside
            with counter:
                example.run(twin)
    samples = example.size
    each = {name: round(count / samples) for name, count in counter.by_weight.items()}
    return each, round(counter.rest / samples)


def _weights(twin: nn.Module) -> list[tuple[str, Tensor]]:
    """Return what a product may involve: parameters, and the weights that pruning made of them."""
    found: list[tuple[str, Tensor]] = list(twin.named_parameters())
    for prefix, part in twin.named_modules():
        for leaf, value in vars(part).items():
            if isinstance(value, Tensor) and f"{leaf}_orig" in part._parameters:
                found.append((f"{prefix}.{leaf}_orig" if prefix else f"{leaf}_orig", value))
    return found


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every product that runs inside, by the weight that it involves."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for the first operator

    def __init__(self, weights: dict[str, Tensor], fused: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # A layer may pass a view (a transpose, a third of a packed projection): go by the memory.
        self._names = {_memory(weight): name for name, weight in weights.items()}
        self.by_weight: dict[str, int] = defaultdict(int)
        self.inside: Sequence[tuple[str, Tensor]] = ()
        self.rest = 0
        self._fused = fused

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and count it if it is a product; see torch.utils.flop_counter."""
        kwargs = kwargs or {}
        formula: Callable[..., int] | None = FORMULAS.get(func.overloadpacket)
        if formula is None:
            if not self._fused and "mkldnn" in func.name():  # of recurrent layers on the CPU
                raise NotImplementedError(func.name())
            with self:
                decomposed = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if decomposed is NotImplemented else decomposed
        out = func(*args, **kwargs)
        count = formula(*args, **kwargs, out_val=out) // 2
        # A bias is one-dimensional, and no factor of a product.
        factors = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 1]
        strided = [factor for factor in factors if factor.layout is torch.strided]
        names = (self._names.get(_memory(factor)) for factor in strided)
        name = next((each for each in names if each is not None), None)
        if name is None:
            name = self._computed(factors)
        if name is None:
            self.rest += count
        else:
            self.by_weight[name] += count
        return out

    def _computed(self, factors: Sequence[Tensor]) -> str | None:
        """Return the weight of the running layer that a factor was computed of, by its shape."""
        for name, weight in reversed(self.inside):
            shapes = (weight.shape, weight.shape[::-1] if weight.ndim == 2 else weight.shape)
            if any(factor.shape in shapes for factor in factors[1:]):
                return name
        return None


def _own_layers(twin: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, Tensor]]]:
    """Yield the layers that may multiply by another tensor than their weight, with that.

    A mask of theirs, a scale or a standardisation makes one of the weight's shape.
    """
    for prefix, module in twin.named_modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        start = f"{prefix}." if prefix else ""
        if weight is not None and weight.ndim > 1 and own_code(module):
            yield module, (f"{start}weight", weight)
        if is_parametrized(module, "weight"):
            made = getattr(module.parametrizations, "weight", None)
            original = getattr(made, "original", None)
            if isinstance(original, Tensor) and original.ndim > 1:
                yield module, (f"{start}parametrizations.weight.original", original)


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
