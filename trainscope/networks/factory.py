"""Networks of the user's own: `package.module:factory`."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import nn

from trainscope.errors import CheckpointError
from trainscope.foreign import called, find_callable
from trainscope.networks.copies import whole_copy


def from_factory(spec: str, num_classes: int | None = None) -> nn.Module:
    """Import a factory and return the network that it makes.

    The working directory is searched first, as `python -m` does.

    Args:
        spec: "package.module:factory"; the factory is a function or a class, called without
            arguments, or with `num_classes=` where that is given and it takes it; or a network,
            which is copied.
        num_classes: Width of the logits; None leaves it to the factory.

    Raises:
        CheckpointError: The spec cannot be read, the import or the call fails, or what it returns
            is not an `nn.Module`.
    """
    factory = find_callable(spec, "--model", CheckpointError)
    if isinstance(factory, nn.Module):  # a network itself, of which nobody else gets a hold
        return whole_copy(factory)
    options = (
        {} if num_classes is None or not _takes_classes(factory) else {"num_classes": num_classes}
    )
    made = called(factory, spec, "--model", CheckpointError, **options)
    if not isinstance(made, nn.Module):
        raise CheckpointError(
            f"--model {spec} returned a {type(made).__name__}; it must return a torch.nn.Module"
        )
    return made


def _takes_classes(factory: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return "num_classes" in parameters
