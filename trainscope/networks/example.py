"""What one call of a network is given: drawn from a shape, or tensors that somebody has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from trainscope.errors import DataError
from trainscope.task.batches import beside, mapped


@dataclass(frozen=True, eq=False)
class Example:
    """The arguments of one call.

    Attributes:
        args: Positional arguments, pytrees of tensors. Tensors of whole numbers, like token ids,
            stay whole numbers.
        kwargs: Arguments by name, likewise.
        count: The number of samples, where these are entries of lists and not rows of tensors.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None

    @classmethod
    def of_call(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Example:
        """Return a call's arguments as they are now: tensors copied, caches of keys left out."""
        kept: tuple[tuple[Any, ...], dict[str, Any]] = _pytree.tree_map(_kept, (args, dict(kwargs)))
        return cls(*kept)

    @property
    def size(self) -> int:
        """The number of samples: the length of the first tensor's first axis, where not told."""
        if self.count is not None:
            return self.count
        first = next(t for t in _pytree.tree_leaves((self.args, dict(self.kwargs))) if _is(t))
        return len(first) if first.ndim else 1

    @property
    def values(self) -> int:
        """The numbers in its tensors."""
        leaves = _pytree.tree_leaves((self.args, dict(self.kwargs)))
        return sum(leaf.numel() for leaf in leaves if _is(leaf))

    def beside(self, network: nn.Module) -> Example:
        """Return a copy on the network's device, floating tensors in the network's dtype."""
        like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
        own = mapped(lambda tensor: tensor.detach().clone(), (self.args, dict(self.kwargs)))
        args, kwargs = beside(own, like)
        return Example(args, kwargs, self.count)

    def run(self, network: nn.Module) -> Any:
        """Return the network's outputs; it gets a copy, for it may write into its inputs."""
        own = self.beside(network)
        return network(*own.args, **own.kwargs)


Inputs = Example | Tensor | Sequence[Any] | Mapping[str, Any]
"""The shape of one input, a tuple of numbers like (C, H, W), or an example of a call: a tensor, a
tuple of arguments, or a dictionary of arguments by name."""


def is_shape(inputs: Inputs) -> TypeGuard[Sequence[int]]:
    """Say whether inputs are the shape of one, and not an example."""
    if not isinstance(inputs, Sequence):
        return False
    return len(inputs) > 0 and all(isinstance(size, int) for size in inputs)


def as_example(inputs: Inputs, samples: int = 2) -> Example:
    """Return an example as it is, and a shape as Gaussian inputs of it, always the same.

    Args:
        inputs: A shape or an example.
        samples: How many to draw for a shape.

    Raises:
        DataError: It is neither: nothing in it is a tensor.
    """
    if isinstance(inputs, Example):
        return inputs
    if is_shape(inputs):
        generator = torch.Generator().manual_seed(0)
        return Example((torch.randn(samples, *inputs, generator=generator),))
    if isinstance(inputs, Tensor):
        return Example((inputs,))
    made = Example(kwargs=dict(inputs)) if isinstance(inputs, Mapping) else Example(tuple(inputs))
    if not any(_is(leaf) for leaf in _pytree.tree_leaves((made.args, made.kwargs))):
        raise DataError(
            "the example of the network's inputs has no tensor in it; give a tensor, a tuple of "
            "arguments, a dictionary of arguments by name, or the shape of one input"
        )
    return made


def described(inputs: Inputs) -> str:
    """Return inputs in words: "inputs of shape 3x8x8", "the example inputs 2x7, 2x7"."""
    if is_shape(inputs):
        return f"inputs of shape {'x'.join(map(str, inputs))}"
    example = as_example(inputs)
    shapes = tensors_of((example.args, dict(example.kwargs))).values()
    return f"the example inputs {', '.join('x'.join(map(str, t.shape)) for t in shapes)}"


def tensors_of(tree: object) -> dict[str, Tensor]:
    """Return the tensors of a pytree by their path in it; dataclasses are looked into."""
    found: dict[str, Tensor] = {}
    for path, leaf in _pytree.tree_flatten_with_path(tree)[0]:
        place = _pytree.keystr(path)
        if isinstance(leaf, Tensor):
            found[place] = leaf
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            for part in fields(leaf):
                inner = tensors_of(getattr(leaf, part.name, None))
                found |= {f"{place}.{part.name}{rest}": tensor for rest, tensor in inner.items()}
    return found


def _kept(leaf: object) -> object:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    return None if "Cache" in type(leaf).__name__ else leaf


def _is(leaf: object) -> bool:
    return isinstance(leaf, Tensor)
