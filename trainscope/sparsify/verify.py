"""Checks a network before and after the action: it runs, and its numbers are numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from trainscope.errors import ActionError


def example(network: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Return two Gaussian inputs [2, *input_shape], always the same, as the network takes them."""
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, *input_shape, generator=generator)
    return drawn.to(device=like.device, dtype=like.dtype)


def check_weights(network: nn.Module) -> None:
    """Refuse weights that are not finite: no criterion can rank them.

    Raises:
        ActionError: A parameter holds a NaN or an infinity.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_floating_point() and not torch.isfinite(parameter).all():
            raise ActionError(
                f"the weights {name} are not all finite, so they cannot be ranked; "
                "give a checkpoint whose training did not diverge"
            )


def run(network: nn.Module, input_shape: tuple[int, ...]) -> list[Tensor]:
    """Return the outputs for `example`, in eval mode; the modes are put back.

    The random states are not advanced: eval mode draws nothing.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            outputs = network(example(network, input_shape))
    finally:
        for module, mode in modes:
            module.training = mode
    return [leaf for leaf in _pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def called_modules(network: nn.Module, input_shape: tuple[int, ...]) -> list[str]:
    """Name the modules that a forward pass in eval mode uses, in the order of their calls."""
    order: list[str] = []
    handles = []
    for name, module in network.named_modules():

        def note(inner: nn.Module, _: object, name: str = name) -> None:
            order.append(name)
            if isinstance(inner, nn.MultiheadAttention):  # it uses its projection uncalled
                order.append(f"{name}.out_proj")

        handles.append(module.register_forward_pre_hook(note))
    try:
        run(network, input_shape)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


def run_before(network: nn.Module, input_shape: tuple[int, ...]) -> list[Tensor]:
    """Return the outputs of the network as given.

    Raises:
        ActionError: It does not run on such inputs.
    """
    try:
        return run(network, input_shape)
    except Exception as error:
        shape = "x".join(map(str, input_shape))
        raise ActionError(
            f"{type(network).__name__} does not run on inputs of shape {shape} "
            f"({first_line(error)}); give the input shape that it was made for"
        ) from error


def check_outputs(before: list[Tensor], after: list[Tensor]) -> None:
    """Compare outputs before and after the action.

    Raises:
        ActionError: A shape has changed, or finite outputs are finite no more.
    """
    if [leaf.shape for leaf in before] != [leaf.shape for leaf in after]:
        raise ActionError(
            f"the action changed the network's outputs from {_shapes(before)} to {_shapes(after)}; "
            "this network cannot be cut in this scope"
        )
    for old, new in zip(before, after, strict=True):
        if torch.isfinite(old).all() and not torch.isfinite(new).all():
            raise ActionError(
                "the pruned network's outputs are not finite where the dense network's are; "
                "prune less, or look for a layer that divides by what was pruned"
            )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _shapes(outputs: list[Tensor]) -> str:
    return ", ".join("x".join(map(str, leaf.shape)) for leaf in outputs)
