"""Passes through a network that is not ours: what goes wrong in one is said in a sentence.

The network gets a copy of its input, because it may write into it (`x.sub_(mean)`, a first ReLU in
place), and the pinned samples are the same for every probe and every column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from trainscope.errors import ProbeError, TaskError, first_line
from trainscope.task import Batch, Classification, Outputs, Task
from trainscope.task.batches import targets, tensors


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity where there must be a number; its message is the reason."""


class NotDifferentiableError(ProbeError):
    """A derivative that torch does not have; its message is the reason."""


def outputs_of(task: Task, model: nn.Module, batch: Batch) -> Outputs:
    """Return a network's outputs for a batch; they may be NaN.

    Raises:
        ProbeError: The network fails on such a batch, or its outputs do not fit the task.
    """
    try:
        return task.outputs(model, batch)
    except TaskError:
        raise
    except Exception as error:  # whatever the layers, or code of the user's, raise
        count = task.size(batch)
        raise _failure(f"the network fails on a batch of {count}", model, error) from error


def checked_outputs(task: Task, model: nn.Module, batch: Batch) -> Outputs:
    """Return a network's outputs for a batch, whose form was held against the task.

    Raises:
        ProbeError: The network fails, or its outputs have another form than the task's.
    """
    found = outputs_of(task, model, batch)
    if type(task) is Classification:
        logits = task.logits(found)
        count = task.size(batch)
        if logits.ndim == 1 and count == 1:  # a batch of one whose axis was squeezed away
            return logits.unsqueeze(0)
        labels = targets(batch, task.inputs)
        many = isinstance(labels, Tensor) and labels.ndim > 1
        if not many and (logits.ndim != 2 or len(logits) != count):
            raise TaskError(
                f"the network returns {tuple(logits.shape)} for {count} inputs, not logits of "
                "shape [samples, classes]; wrap it so that it does, or name its task"
            )
    return found


def live(outputs: Outputs) -> list[Tensor]:
    """Return the tensors of a network's outputs that have a graph, in order."""
    return [leaf for leaf in tensors(outputs) if leaf.requires_grad]


def derivative(
    outputs: Tensor | Sequence[Tensor] | Sequence[GradientEdge],
    inputs: Any,
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    **options: bool,
) -> tuple[Tensor, ...]:
    """Return what `torch.autograd.grad` returns.

    Raises:
        NotDifferentiableError: Torch, or a backward pass of the network's own, cannot do it.
        ProbeError: There is not enough memory for it.
    """
    try:
        found = torch.autograd.grad(outputs, inputs, grad_outputs, **options)
    except RuntimeError as error:
        text = str(error)
        if "Mismatch in shape" in text:  # ours, not the network's
            raise
        if _out_of_memory(error):
            raise _failure("a backward pass fails", None, error) from error
        raise NotDifferentiableError(first_line(error)) from error
    return tuple(
        each.to_dense() if isinstance(each, Tensor) and each.is_sparse else each for each in found
    )


def _failure(what: str, model: nn.Module | None, error: Exception) -> ProbeError:
    """Return a sentence on what failed, where, and what to do."""
    if _out_of_memory(error):
        return ProbeError(f"{what}: not enough memory; give a smaller --batch-size")
    where = "" if model is None else _where_raised(model, error)
    return ProbeError(f"{what}{where}: {type(error).__name__}: {first_line(error)}")


def _out_of_memory(error: Exception) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)


def _where_raised(model: nn.Module, error: Exception) -> str:
    """Return " in layer 'name'" for the innermost layer in which an error was raised, or ""."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = "", error.__traceback__
    while trace is not None:
        name = names.get(id(trace.tb_frame.f_locals.get("self")))
        found = f" in layer '{name}'" if name else found
        trace = trace.tb_next
    return found
