"""Networks of the user's own: `package.module:factory`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from trainscope.errors import CheckpointError


def from_factory(spec: str, num_classes: int | None = None) -> nn.Module:
    """Import a factory and return the network that it makes.

    The working directory is searched first, as `python -m` does.

    Args:
        spec: "package.module:factory"; the factory is a function or a class, called without
            arguments, or with `num_classes=` where that is given and it takes it.
        num_classes: Width of the logits; None leaves it to the factory.

    Raises:
        CheckpointError: The spec cannot be read, the import or the call fails, or what it returns
            is not an `nn.Module`.
    """
    factory = _find(spec)
    options = (
        {} if num_classes is None or not _takes_classes(factory) else {"num_classes": num_classes}
    )
    try:
        with working_directory():
            made = factory(**options)
    except Exception as error:  # whatever the user's code raises
        raise CheckpointError(f"--model {spec} failed: {_reason(error)}") from error
    if not isinstance(made, nn.Module):
        raise CheckpointError(
            f"--model {spec} returned a {type(made).__name__}; it must return a torch.nn.Module"
        )
    return made


def _find(spec: str) -> Callable[..., object]:
    module_name, colon, path = spec.partition(":")
    if not colon or not module_name or not path:
        raise CheckpointError(f"--model takes package.module:factory, and '{spec}' is not that")
    try:
        with working_directory():
            found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        raise CheckpointError(
            f"--model {spec}: there is no module '{missing}' here or among the installed packages"
        ) from error
    except Exception as error:  # whatever the user's code raises
        raise CheckpointError(
            f"--model {spec}: importing '{module_name}' failed: {_reason(error)}"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise CheckpointError(f"--model {spec}: module '{module_name}' has no '{path}'")
        found = getattr(found, name)
    if not callable(found):
        raise CheckpointError(f"--model {spec}: '{path}' is not a function or class")
    return found


def _takes_classes(factory: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return "num_classes" in parameters


@contextmanager
def working_directory() -> Iterator[None]:
    """Search the working directory first for imports, as `python -m` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _reason(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
