"""Stand-ins for the classes and functions that a pickle names: nothing of them is imported."""

from __future__ import annotations

from typing import Any

from trainscope.errors import CheckpointError

MOST_STEPS = 2_000_000
"""A network of five thousand modules takes a hundred thousand."""

LONGEST_NAME = 250

NAMESPACE = "argparse.Namespace"


class Named:
    """A class or function, by name alone.

    Attributes:
        name: "module.name".
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Inert:
    """An object of a class that was not imported.

    Attributes:
        named: "module.name" of its class, or of the function that would have made it.
        given: What it was made with.
        state: What its pickle sets on it.
        items: What its pickle puts into it as a container.
    """

    __slots__ = ("given", "items", "named", "state")

    def __init__(self, named: str, given: tuple[object, ...] = ()) -> None:
        self.named, self.given = named, given
        self.state: dict[Any, Any] = {}
        self.items: dict[Any, Any] = {}

    def set(self, state: object) -> None:
        """Keep the state that a pickle sets."""
        if isinstance(state, tuple) and len(state) == 2:  # the state and that of its slots
            plain, slots = (each if isinstance(each, dict) else {} for each in state)
            state = plain | slots
        self.state = state if isinstance(state, dict) else {"": state}


class Nesting:
    """Counts nested modules, which a pickle can put inside each other, or shared, without end."""

    def __init__(self) -> None:
        self._left = MOST_STEPS

    def enter(self, name: str, held: int) -> None:
        """Count one module.

        Args:
            name: Its name, with those of the modules that it is in.
            held: How many things it holds.

        Raises:
            CheckpointError: There is no end of them, or its name is longer than any.
        """
        self._left -= 1 + held + len(name) // LONGEST_NAME
        if self._left < 0 or len(name) > 4 * LONGEST_NAME:
            raise CheckpointError("the file nests its modules without end; it is not taken")


def arguments_in(obj: object) -> dict[str, Any] | None:
    """Return what an `argparse.Namespace` of a file holds, or None where it is no such."""
    return obj.state if isinstance(obj, Inert) and obj.named == NAMESPACE else None
