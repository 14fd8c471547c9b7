"""Linear layers of any make, and along which axis each stores its inputs."""

from __future__ import annotations

from torch import Tensor, nn


def is_turned(module: object) -> bool:
    """Say whether a module is the linear layer of GPT-2, whose weight is [inputs, outputs].

    It is known by its name and home, so that transformers need not be installed.
    """
    return any(
        kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")
        for kind in type(module).__mro__
    )


def is_linear(module: object) -> bool:
    """Say whether a module multiplies the last axis of its input by a matrix."""
    return isinstance(module, nn.Linear) or is_turned(module)


def input_axis(module: object) -> int:
    """Return the axis of a linear layer's weight that its inputs lie on."""
    return 0 if is_turned(module) else 1


def widths(module: nn.Module) -> tuple[int, int]:
    """Return how many inputs and outputs a linear layer has."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        weight = module.get_parameter("weight_orig")
    axis = input_axis(module)
    return weight.shape[axis], weight.shape[1 - axis]


def set_widths(module: nn.Module) -> None:
    """Set the attributes of a linear layer that repeat the widths of its weight."""
    inputs, outputs = widths(module)
    names = ("nx", "nf") if is_turned(module) else ("in_features", "out_features")
    for name, width in zip(names, (inputs, outputs), strict=True):
        setattr(module, name, width)


def holds_experts(module: nn.Module, parameter: Tensor) -> bool:
    """Say whether a parameter [experts, ., .] holds the matrices of a mixture of experts."""
    if parameter.ndim != 3:
        return False
    counts = [
        value
        for name, value in vars(module).items()
        if "expert" in name and type(value) is int and "_per_" not in name
    ]
    return parameter.shape[0] in counts


def experts_turned(module: nn.Module) -> bool:
    """Say whether the matrices of a mixture of experts are stored as [experts, inputs, outputs]."""
    return getattr(module, "is_transposed", False) is True
