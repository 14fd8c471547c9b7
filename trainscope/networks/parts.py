"""Which of a file's tensors are the network: teachers and losses beside it, heads apart from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from trainscope.errors import CheckpointError
from trainscope.networks import registry
from trainscope.networks.fit import fit
from trainscope.networks.meta import Shapes
from trainscope.networks.state_dict import Weights

T = TypeVar("T")

STUDENT = "student"
MOST_PARTS = 16
_LEAST_MATRICES = 3
"""A loss or a metric has one or two; a part with more may be the network that is meant."""


@dataclass(frozen=True)
class Part:
    """The tensors under one attribute of a module that holds networks.

    Attributes:
        name: The attribute, like "student" or "model.student".
        weights: Its tensors, by the names that they have in it.
    """

    name: str
    weights: Weights

    @property
    def may_be_network(self) -> bool:
        """It has more matrices than what stands beside a network has."""
        return sum(len(shape) >= 2 for shape in self.weights.shapes.values()) >= _LEAST_MATRICES


def part_of(weights: Weights, name: str, keys: Iterable[str] = ()) -> Weights:
    """Return the tensors of the part that a person names.

    Args:
        weights: All that a file holds.
        name: The part.
        keys: Of the file's other state dicts, which could be named too.

    Raises:
        CheckpointError: There is no such part; those that there are are named.
    """
    chosen = under(weights, name + ".")
    if chosen.tensors:
        return chosen
    names = [*keys, *(part.name for part in _parts(weights))]
    there = ", ".join(names[:MOST_PARTS]) or "none"
    raise CheckpointError(f"the file has no part '{name}'; its parts are: {there}")


def chosen_part(weights: Weights, attempt: Callable[[Weights], T]) -> tuple[T, tuple[str, ...]]:
    """Return what an attempt makes of all tensors, or of the one part that it can be made of.

    Args:
        weights: All that a file holds.
        attempt: Makes a network of weights, or raises CheckpointError.

    Returns:
        What it made, and sentences on what was left out.

    Raises:
        CheckpointError: No part can be taken, or several can: the choice is the user's.
    """
    try:
        return attempt(weights), ()
    except CheckpointError as error:
        refused = error
    parts = _parts(weights)
    if len(parts) == 1:  # a list of networks, as an ensemble is
        parts = [
            Part(f"{parts[0].name}.{inner.name}", inner.weights)
            for inner in _parts(parts[0].weights)
        ]
    if not 1 < len(parts) <= MOST_PARTS:
        parts = []
    parts += [
        Part(f"{outer.name}.{inner.name}", inner.weights)
        for outer in parts
        if outer.may_be_network
        for inner in _parts(outer.weights)[:MOST_PARTS]
        if STUDENT in inner.name.lower() or "teacher" in inner.name.lower()
    ]
    made: dict[str, T] = {}
    for part in parts:
        try:
            made[part.name] = attempt(part.weights.plain())
        except CheckpointError:
            continue
    if not made:
        raise refused
    others = [p.name for p in parts if p.name not in made and p.may_be_network]
    students = [name for name in made if STUDENT in name.lower()]
    rivals = [name for name in others if not any(m.startswith(name + ".") for m in made)]
    taken = students if len(students) == 1 else list(made)
    if len(taken) > 1 or (rivals and not students):
        listed = ", ".join([*made, *rivals])
        raise CheckpointError(
            f"the file holds several networks: {listed}; say which one to take with --part NAME"
        )
    rest = [p.name for p in parts if "." not in p.name and not taken[0].startswith(p.name)]
    note = f"Tensors beside the network were left out: {', '.join(rest)}."
    if len(made) > 1:
        note = (
            f"The file holds several networks: {', '.join(made)}. The {taken[0]} was taken; "
            "--part NAME takes another."
        )
    return made[taken[0]], (note,)


def with_own_head(weights: Weights) -> tuple[Weights, str] | None:
    """Return weights whose classifier stands under another name, under the architecture's own.

    A backbone and a head that are attributes of one module, and a classifier that was replaced by a
    Sequential of dropout and one linear layer, compute what the architecture does; a head of two
    linear layers does not.

    Returns:
        The weights and a sentence on what was renamed; None where no architecture is such.
    """
    for form in (weights, *_without_backbone(weights)):
        shapes = form.shapes
        for group in registry.groups():
            for architecture in group:
                known = sum(name in shapes for name in architecture.marker)
                if not architecture.marker or not 0 < known >= len(architecture.marker) - 1:
                    continue
                found = fit(architecture, shapes)
                if found.exact or found.narrower:
                    return (
                        form,
                        f"Its backbone and its head were joined to one {architecture.name}.",
                    )
                renamed = _renamed_head(found.dense, shapes)
                if renamed is None:
                    continue
                given, own = renamed
                headed = _renamed(form, given, own)
                found = fit(architecture, headed.shapes)
                if found.exact or found.narrower:
                    return headed, (
                        f"Its classifier is '{given}' in the file and was read as the linear layer "
                        f"'{own}' of {architecture.name}; what a file of weights does not tell is "
                        "whether anything but dropout stands beside it."
                    )
    return None


def _renamed_head(dense: Shapes, found: Shapes) -> tuple[str, str] | None:
    """Return the layer that stands for the classifier, and the classifier, where all else fits."""
    missing = [name for name in dense if name not in found]
    extra = [name for name in found if name not in dense]
    layers = [{name.rpartition(".")[0] for name in names} for names in (extra, missing)]
    if any(len(names) != 1 for names in layers) or len(extra) > 2:
        return None
    given, own = layers[0].pop(), layers[1].pop()
    weight = found.get(f"{given}.weight", ())
    last = [name for name, shape in dense.items() if len(shape) >= 2][-1]
    return (given, own) if len(weight) == 2 and last == f"{own}.weight" else None


def _renamed(weights: Weights, given: str, own: str) -> Weights:
    def name_of(name: str) -> str:
        return own + name[len(given) :] if name.startswith(given + ".") else name

    return replace(
        weights,
        tensors={name_of(name): tensor for name, tensor in weights.tensors.items()},
        masks={name_of(name): mask for name, mask in weights.masks.items()},
    )


def _without_backbone(weights: Weights) -> Iterator[Weights]:
    """Yield weights with one part's name taken off its tensors, the others' kept."""
    parts = _parts(weights)
    if not 1 < len(parts) <= MOST_PARTS:
        return
    for part in parts:
        if part.may_be_network:
            start = part.name + "."
            names = {name: name.removeprefix(start) for name in weights.tensors}
            if len(set(names.values())) == len(names):
                yield replace(
                    weights,
                    tensors={names[n]: t for n, t in weights.tensors.items()},
                    masks={names[n]: m for n, m in weights.masks.items()},
                )


def _parts(weights: Weights) -> list[Part]:
    """Return the groups of tensors by the first word of their names."""
    names = dict.fromkeys(name.partition(".")[0] for name in weights.tensors if "." in name)
    return [Part(name, under(weights, name + ".")) for name in names]


def under(weights: Weights, start: str) -> Weights:
    """Return the tensors whose names begin so, under what follows in their names."""
    return replace(
        weights,
        tensors={n[len(start) :]: t for n, t in weights.tensors.items() if n.startswith(start)},
        masks={n[len(start) :]: m for n, m in weights.masks.items() if n.startswith(start)},
    )
