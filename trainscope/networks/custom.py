"""Weights put into a network of the user's own (`--model package.module:factory`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks.depth import drop_missing
from trainscope.networks.example import Example
from trainscope.networks.factory import from_factory
from trainscope.networks.forward import check_forward
from trainscope.networks.guess_shape import guess_input_shape
from trainscope.networks.masks import set_masks
from trainscope.networks.meta import Shapes, shapes_of
from trainscope.networks.network import Network
from trainscope.networks.parts import MOST_PARTS, STUDENT, under
from trainscope.networks.rebuild import (
    fill,
    is_narrower,
    mismatch,
    resize,
    with_counters,
)
from trainscope.networks.state_dict import Weights
from trainscope.networks.strangers import told_by_names
from trainscope.records.text import shortened
from trainscope.task.modes import evaluating


@dataclass(frozen=True)
class Custom:
    """A network of the user's own with a file's weights in it.

    Attributes:
        module: It, in eval mode.
        input_shape: The shape of one input.
        num_classes: Width of its logits.
        pruned: It was resized to narrower tensors.
        guessed: Nobody said the input shape; it was found by trying.
        example: A call of it, where its inputs are not one floating-point tensor.
        note: Which part of the file it is, where that holds several networks.
    """

    module: nn.Module
    input_shape: tuple[int, ...]
    num_classes: int | None
    pruned: bool
    guessed: bool
    example: Example | None = None
    note: str = ""


Trial = Callable[[nn.Module], Network]
"""Tries a module on a batch of what it is for, and returns what it takes and tells apart."""


def open_custom(
    spec: str,
    module: nn.Module,
    weights: Weights,
    input_shape: tuple[int, ...] | None = None,
    trial: Trial | None = None,
) -> Custom:
    """Load weights and masks strictly into a network that a factory made.

    Args:
        spec: "package.module:factory"; called again where the file has another number of classes.
        module: What it made without being told the classes.
        weights: Names may carry wrappers' prefixes.
        input_shape: The shape of one input; None finds it.
        trial: How to try it where it is no classifier of single inputs.

    Raises:
        CheckpointError: The factory fails, the tensors do not fit its network (the first that
            does not is named), or the network does not run.
    """
    dense = shapes_of(module.state_dict())
    whole = weights
    weights, note = _under_names_of(dense, weights)
    note = note or _left_out(whole, weights)
    shallower = drop_missing(module, weights.shapes)
    dense = shapes_of(module.state_dict()) if shallower else dense
    found = with_counters(weights.shapes, dense)
    classes = None if shallower else _classes(dense, found)
    pruned = shallower or (dense != found and classes is None)
    if classes is not None:
        module = from_factory(spec, classes)
    elif pruned and not is_narrower(dense, found):
        told = told_by_names(whole.tensors)
        raise CheckpointError(f"the weights do not fit: {told or mismatch(dense, found, spec)}")
    resize(module, found)
    fill(module, weights.tensors, assign=False)
    set_masks(evaluating(module), weights.masks)
    if trial is not None:
        tried = trial(module)
        return Custom(
            module, tried.input_shape, tried.num_classes, pruned, False, tried.example, note
        )
    guessed = input_shape is None and not hasattr(module, "input_shape")
    shape = input_shape or guess_input_shape(module)
    classes = check_forward(module, shape, spec, regroup=True)
    return Custom(module, shape, classes, pruned, guessed, note=note)


def _under_names_of(dense: Shapes, weights: Weights) -> tuple[Weights, str]:
    """Return the weights under whichever of their names agree most with the network's, and a note.

    Of several networks in a file, all with its names, that is the student, or the only one of its
    shapes.

    Raises:
        CheckpointError: None of several is more likely than the others.
    """
    whole = weights.plain()
    starts = _starts(dense, whole)
    forms = [weights, weights.plain(prefixes=False), whole]
    forms += [each for start in starts for each in (under(whole, start), under(weights, start))]

    def agreement(form: Weights) -> tuple[int, int]:
        same = sum(dense.get(name) == shape for name, shape in form.shapes.items())
        return len(form.tensors.keys() & dense.keys()), same

    best = max(forms, key=agreement)
    most = agreement(best)[0]
    parts = {start.removesuffix("."): under(whole, start) for start in starts}
    rivals = {name: part for name, part in parts.items() if agreement(part)[0] == most}
    if len(rivals) < 2 or agreement(whole)[0] == most:
        return best, ""
    named = [name for name in rivals if STUDENT in name.lower()]
    exact = [name for name in rivals if dense.items() <= rivals[name].shapes.items()]
    if len(named) != 1 and not any(
        is_narrower(dense, part.shapes) for name, part in rivals.items() if name not in exact
    ):
        named = exact
    first, *others = rivals.values()
    listed = ", ".join(rivals)
    if len(named) == 1:
        note = f"The file holds several networks: {listed}. The {named[0]} was taken; --part NAME "
        return rivals[named[0]], f"{note}takes another."
    if all(_equal(first, other) for other in others):
        return first, ""
    raise CheckpointError(
        f"the file holds several networks: {listed}; say which one to take with --part NAME"
    )


def _left_out(whole: Weights, taken: Weights) -> str:
    """Return the sentence on tensors that stand outside of the part that is the network."""
    kept = {id(tensor) for tensor in taken.tensors.values()}
    others = [name for name, tensor in whole.tensors.items() if id(tensor) not in kept]
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    listed = ", ".join(shortened(name, 60) for name in others[:3])
    return f"Tensors beside the network were left out: {listed}{more}."


def _starts(dense: Shapes, weights: Weights) -> list[str]:
    """Return what may stand before the names of all of the network's tensors, ended by a dot."""
    first = next((name for name, shape in dense.items() if len(shape) > 1), None)
    if first is None:
        return []
    ends = [name.removesuffix(first) for name in weights.tensors if name.endswith(f".{first}")]
    return ends[:MOST_PARTS]


def _equal(one: Weights, other: Weights) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def _classes(dense: Shapes, found: Shapes) -> int | None:
    """Return the classes of the file where they are all that differs from the network."""
    matrices = [name for name, shape in dense.items() if len(shape) >= 2]
    if dense.keys() != found.keys() or not matrices:
        return None
    weight = matrices[-1]
    bias = weight.removesuffix("weight") + "bias"
    differing = {name for name, shape in dense.items() if found[name] != shape}
    same_inputs = found[weight][1:] == dense[weight][1:]
    return found[weight][0] if weight in differing <= {weight, bias} and same_inputs else None
