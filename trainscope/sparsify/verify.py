"""Checks a network before and after the action: it runs, and its numbers are numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainscope.errors import ActionError, first_line
from trainscope.networks.example import Inputs, as_example, described, tensors_of
from trainscope.task.calls import ModuleCall, hooked
from trainscope.task.modes import eval_mode

_STATES = ("past_key_values", "hidden_states", "attentions")
"""What transformers' networks return of their insides: it counts their heads and blocks."""

Outputs = dict[str, Tensor]
"""The tensors of a network's outputs by their place in them: "" for a tensor, "['logits']"."""


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


def run(network: nn.Module, inputs: Inputs) -> Outputs:
    """Return the outputs for an example, in eval mode, by place; the modes are put back.

    The random states are not advanced: eval mode draws nothing. States of inner layers that are
    returned beside the outputs are left out.
    """
    with torch.no_grad(), eval_mode(network):
        outputs = tensors_of(as_example(inputs).run(network))
    inner = [place for place in outputs if any(word in place for word in _STATES)]
    return {p: t for p, t in outputs.items() if p not in inner or len(inner) == len(outputs)}


def called_modules(network: nn.Module, inputs: Inputs) -> list[str]:
    """Name the modules that a forward pass in eval mode uses, in the order of their calls."""
    order: list[str] = []

    def note(call: ModuleCall[str]) -> None:
        order.append(call.key)
        if isinstance(call.module, nn.MultiheadAttention):  # it uses its projection uncalled
            order.append(f"{call.key}.out_proj")

    with hooked(_open_modules(network), before=note):
        run(network, inputs)
    return list(dict.fromkeys(order))


def _open_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that can be looked into, by name: TorchScript takes no hooks."""
    for name, module in network.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            yield name, module


def failing_inside(network: nn.Module, inputs: Inputs) -> list[str]:
    """Name the modules that a forward pass is inside of when it fails, the outermost first."""
    inside: list[str] = []

    def enter(call: ModuleCall[str]) -> None:
        inside.append(call.key)

    def leave(_: ModuleCall[str]) -> None:
        inside.pop()

    try:
        with hooked(_open_modules(network), before=enter, after=leave):
            run(network, inputs)
    except Exception:
        return inside
    return []


def run_before(network: nn.Module, inputs: Inputs) -> Outputs:
    """Return the outputs of the network as given.

    Raises:
        ActionError: It does not run on such inputs.
    """
    try:
        return run(network, inputs)
    except Exception as error:
        raise ActionError(
            f"{type(network).__name__} does not run on {described(inputs)} ({first_line(error)}); "
            "give the input shape that it was made for, or an example of its inputs"
        ) from error


def check_outputs(before: Outputs, after: Outputs, samples: int | None) -> None:
    """Compare outputs before and after the action, whatever tree of tensors they are.

    The first axis of an output may change its length where it does not count the samples: a
    detector finds as many boxes as it finds.

    Args:
        before: The outputs of the network given, by place.
        after: Those of the pruned network.
        samples: How many samples both were given; None where no axis counts them.

    Raises:
        ActionError: A place or a shape has changed, or finite outputs are finite no more.
    """
    if _shapes(before, samples) != _shapes(after, samples):
        raise ActionError(
            f"the action changed the network's outputs from {_words(before)} to {_words(after)}; "
            "this network cannot be cut in this scope"
        )
    for place, old in before.items():
        if torch.isfinite(old).all() and not torch.isfinite(after[place]).all():
            raise ActionError(
                "the pruned network's outputs are not finite where the dense network's are; "
                "prune less, or look for a layer that divides by what was pruned"
            )


def _shapes(outputs: Outputs, samples: int | None) -> dict[str, tuple[int | None, ...]]:
    found: dict[str, tuple[int | None, ...]] = {}
    for place, leaf in outputs.items():
        counts = leaf.ndim > 0 and len(leaf) != samples
        found[place] = (None, *leaf.shape[1:]) if counts else tuple(leaf.shape)
    return found


def _words(outputs: Outputs) -> str:
    if not outputs:
        return "no tensors"
    return ", ".join(
        " ".join(filter(None, (place, "x".join(map(str, leaf.shape)) or "a number")))
        for place, leaf in outputs.items()
    )
