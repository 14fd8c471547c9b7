"""Batches as they come from people's loaders: tuples, dictionaries, any nesting of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainscope.errors import TaskError
from trainscope.task.trees import flattened

Batch = Any
"""A tensor, or a tuple, list or dictionary of batches; the first axis of each tensor is samples."""

LIBRARIES = ("torch", "torchvision", "timm")
"""Whose networks for one input take it as a tensor."""
TARGETS = ("labels", "label", "targets", "target")
"""Entries of a dictionary batch that hold what the network should say."""


def tensors(batch: Batch) -> list[Tensor]:
    """Return the tensors of a batch, or of a network's outputs, in order."""
    return [leaf for leaf in flattened(batch)[0] if isinstance(leaf, Tensor)]


def mapped(change: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """Return a batch with every tensor changed, the rest as it is."""
    leaves, structure = flattened(batch)
    return structure.holding([change(x) if isinstance(x, Tensor) else x for x in leaves])


def beside(batch: Batch, weight: Tensor) -> Batch:
    """Return a batch on a weight's device, its floating-point tensors in the weight's dtype."""

    def moved(leaf: Tensor) -> Tensor:
        both = leaf.is_floating_point() and weight.is_floating_point()
        return leaf.to(device=weight.device, dtype=weight.dtype if both else leaf.dtype)

    return mapped(moved, batch)


def working_weight(network: nn.Module) -> Tensor:
    """Return a parameter of the dtype and device that a network computes in.

    That is its first floating-point one: tables of indices may be parameters too.
    """
    weights = list(network.parameters())
    floating = (weight for weight in weights if weight.is_floating_point())
    return next(floating, weights[0] if weights else torch.empty(0))


def size_of(batch: Batch) -> int:
    """Return the number of samples: the length of the first tensor with an axis.

    Raises:
        TaskError: There is no such tensor.
    """
    for leaf in tensors(batch):
        if leaf.ndim:
            return len(leaf)
    raise TaskError(
        f"a batch is {described(batch)}, in which no tensor has an axis of samples: give tensors, "
        "or tuples or dictionaries of them"
    )


def selected(batch: Batch, indices: Tensor | slice, size: int | None = None) -> Batch:
    """Return some samples of a batch; what has no axis of samples is kept whole."""
    count = size_of(batch) if size is None else size

    def pick(leaf: Tensor) -> Tensor:
        if not leaf.ndim or len(leaf) != count:
            return leaf
        return leaf[indices if isinstance(indices, slice) else indices.to(leaf.device)]

    return mapped(pick, batch)


def joined(batches: Sequence[Batch], where: str) -> Batch:
    """Return batches of one structure as one.

    Raises:
        TaskError: Their structures or the shapes of their samples differ.
    """
    leaves, structure = flattened(batches[0])
    rows = [leaves]
    for batch in batches[1:]:
        more, other = flattened(batch)
        if other != structure:
            raise TaskError(f"the batches of {where} change their structure: give batches of one")
        rows.append(more)
    return structure.holding([_joined(column, where) for column in zip(*rows, strict=True)])


def refuse_changing(batches: Sequence[Batch], where: str) -> None:
    """Refuse batches with a number for all of their samples that is another one in each.

    Joined with others, and measured in parts, a batch keeps no number of its own.

    Raises:
        TaskError: There is such a number; its values in two batches are named.
    """
    for column in zip(*(flattened(batch)[0] for batch in batches), strict=False):
        known = [_number(leaf) for leaf in column]
        other = next((value for value in known if value != known[0]), None)
        if other is not None:
            raise TaskError(
                f"the batches of {where} hold a number for all of their samples, {known[0]} in one "
                f"and {other} in another: give it as a tensor with a value for each sample, and "
                "let the loss weight the samples' losses by it, or leave it out"
            )


def _number(leaf: Any) -> float | None:
    if isinstance(leaf, Tensor):
        return float(leaf) if not leaf.ndim and not leaf.is_complex() else None
    return float(leaf) if isinstance(leaf, bool | int | float) else None


def _joined(column: tuple[Any, ...], where: str) -> Any:
    first = column[0]
    if not isinstance(first, Tensor) or not first.ndim:
        return first
    shapes = [tuple(leaf.shape[1:]) for leaf in column]
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    if other is not None:
        raise TaskError(
            f"the samples of {where} change their shape from {shapes[0]} to {other}: give batches "
            "of one shape (pad them to one length)"
        )
    return torch.cat(column)


def plain(batch: object) -> Batch:
    """Return a batch in plain tuples and dictionaries, which all code here can go through.

    Dictionary-like batches (Hugging Face's `BatchEncoding`) become dictionaries, arrays tensors.
    """
    if isinstance(batch, Mapping):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(plain, batch))
    if isinstance(batch, list | tuple):
        if batch and all(isinstance(each, int | float) for each in batch):
            return torch.as_tensor(batch)
        return tuple(map(plain, batch))
    if hasattr(batch, "__array__") and not isinstance(batch, Tensor):
        return torch.as_tensor(batch)
    return batch


def targets(batch: Batch, inputs: int | None = None) -> Batch | None:
    """Return what the network should say: a dictionary's labels, or what follows the inputs.

    Args:
        batch: A batch.
        inputs: How many entries of a tuple the network takes; by default all but the last.
    """
    if isinstance(batch, Mapping):
        return next((batch[name] for name in TARGETS if name in batch), None)
    if isinstance(batch, tuple | list) and len(batch) > 1:
        at = len(batch) - 1 if inputs is None else inputs
        return batch[at] if at < len(batch) else None  # where all entries are inputs
    return None


def given_to(model: nn.Module, batch: Batch, inputs: int | None = None) -> Batch:
    """Return what of a batch a network gets, as `called` gives it; of a dictionary by its names."""
    if isinstance(batch, Mapping):
        named = {p.name for p in _parameters(model)}
        return {name: value for name, value in batch.items() if name in named}
    if isinstance(batch, tuple | list):
        return tuple(batch[: (len(batch) - 1 or 1) if inputs is None else inputs])
    return batch


def called(model: nn.Module, batch: Batch, inputs: int | None = None) -> Any:
    """Put a batch forward: a dictionary by its names, a tuple without its last entry.

    Of a dictionary the network gets the entries that its `forward` names, without the labels where
    it can do without them; a `forward` that names none of them and takes one thing gets it whole,
    or its only tensor, or only one of floating-point numbers, where it says that it takes one.

    Args:
        model: Called with copies, into which it may write.
        batch: A batch.
        inputs: How many entries of a tuple the network takes; by default all but the last.
    """
    batch = mapped(torch.clone, batch)
    if isinstance(batch, Mapping):
        return _by_name(model, batch)
    if not isinstance(batch, tuple | list):
        return model(batch)
    count = (len(batch) - 1 or 1) if inputs is None else inputs
    given = tuple(batch[:count])
    if len(given) == 1 and isinstance(given[0], Mapping):
        return _by_name(model, given[0])
    if len(given) == 1 and isinstance(given[0], tuple | list) and _required(model) > 1:
        given = tuple(given[0])
    return model(*given)


def described(thing: object) -> str:
    """Return what a batch or an output is, in a few words."""
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)} ({str(thing.dtype).removeprefix('torch.')})"
    if isinstance(thing, Mapping):
        return f"a dictionary of {_listed(map(repr, thing))}"
    if isinstance(thing, tuple | list):
        return f"{len(thing)} parts ({_listed(type(each).__name__ for each in thing)})"
    return f"a {type(thing).__name__}"


def _listed(words: Iterable[str]) -> str:
    found = list(words)
    return ", ".join(found[:6]) + (", .." if len(found) > 6 else "") or "nothing"


def _by_name(model: nn.Module, batch: Mapping[Any, Any]) -> Any:
    parameters = _parameters(model)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needed = {p.name for p in parameters if p.default is p.empty}
    every = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not every and not named & set(batch):
        lone = [
            value
            for name, value in batch.items()
            if isinstance(value, Tensor) and name not in TARGETS
        ]
        some = lone if len(lone) == 1 else [x for x in lone if x.is_floating_point()]  # an index
        return model(some[0] if len(some) == 1 and _takes_tensor(model, parameters) else batch)
    return model(
        **{
            name: value
            for name, value in batch.items()
            if (name in named or every) and (name not in TARGETS or name in needed)
        }
    )


def _takes_tensor(model: nn.Module, parameters: Sequence[inspect.Parameter]) -> bool:
    """Tell whether a forward says that it takes a tensor: a library's own, or an annotation."""
    forward = getattr(getattr(model, "_orig_mod", model), "forward", None)
    home = getattr(forward, "__module__", "").split(".")[0]
    said = parameters[0].annotation if parameters else None
    return home in LIBRARIES or said is Tensor or said in ("Tensor", "torch.Tensor")


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    try:
        return list(inspect.signature(inner.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _required(model: nn.Module) -> int:
    """Return how many arguments a network's forward cannot do without."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in _parameters(model))


def suited_inputs(
    model: nn.Module, batch: Batch, entries: int = 0, *, unlabelled: bool = False
) -> int | None:
    """Return how many entries of a longer tuple a network takes, None where that is no question.

    Args:
        model: The network.
        batch: A batch.
        entries: Of a batch as it came, of which `batch` may be the first two alone.
        unlabelled: The task can do without labels: all entries are inputs where forward takes
            just so many, as two views of a sample are.

    Raises:
        TaskError: The network can do with as few as leave the labels second, and with more; or it
            needs more, and the labels were taken to be second.
    """
    whole = len(batch) if isinstance(batch, tuple | list) else 0
    entries = max(entries if whole else 0, whole)
    if unlabelled and 1 < whole == _required(model):
        return whole
    if entries < 3:
        return None
    needed = _required(model)
    more = [p.name for p in _parameters(model)[needed:] if _may_be_a_tensor(p)]
    if 0 < needed < entries - 1 and more:
        raise TaskError(
            f"a batch has {entries} entries, and forward takes {needed} of them or more "
            f"('{more[0]}' too): say how many it gets, and the next one is the labels, as with "
            f"--task classification:inputs={needed + 1} (task=Classification(inputs={needed + 1}))"
        )
    if whole == 2 and 1 < needed < entries:  # the labels were taken to be second
        raise TaskError(
            f"a batch has {entries} entries, and forward takes {needed} of them: say so, and the "
            f"next one is the labels, as with --task classification:inputs={needed} "
            f"(task=Classification(inputs={needed}))"
        )
    return needed if 0 < needed < whole and whole > 2 else None


def _may_be_a_tensor(parameter: inspect.Parameter) -> bool:
    """Tell whether an argument that a forward can do without is one for an entry of a batch."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return parameter.kind in positional and parameter.default is None
