"""Architectures by name: our own families first, then torchvision's classification networks.

Torchvision is imported only when a name is not one of ours, and timm only for a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import find_spec

from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import timm_zoo
from trainscope.networks.architecture import Architecture
from trainscope.networks.families import ARCHITECTURES

_OURS = {architecture.name: architecture for architecture in ARCHITECTURES}


def names() -> tuple[str, ...]:
    """Return every name, ours first."""
    return tuple(architecture.name for group in groups() for architecture in group)


def groups() -> Iterator[tuple[Architecture, ...]]:
    """Yield our architectures, then (and only then importing torchvision) torchvision's."""
    yield ARCHITECTURES
    yield tuple(each for name, each in _torchvision().items() if name not in _OURS)


def find(name: str) -> Architecture | None:
    """Return what is known of one architecture, or None."""
    if name.startswith(timm_zoo.PREFIX):
        return timm_zoo.architecture(name)
    return _OURS.get(name) or _torchvision().get(name)


def candidates(name: str) -> Iterator[Architecture]:
    """Yield every architecture that a file may mean by a name: timm has some of torchvision's."""
    for known in (find, timm_zoo.architecture):
        found = known(name)
        if found is not None:
            yield found


def architecture(name: str, own: str = "--model") -> Architecture:
    """Return what is known of one architecture.

    Args:
        name: As in `names()`.
        own: Where a person says a network of their own, for the message.

    Raises:
        CheckpointError: No architecture has that name; near names are offered.
    """
    found = find(name)
    if found is None:
        near = get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "resnet20 and resnet34 are two"
        if name.startswith(timm_zoo.PREFIX):
            there = find_spec("timm") is not None
            hint = (
                "timm has none of that name" if there else "timm is not installed: pip install timm"
            )
        raise CheckpointError(
            f"no architecture is named '{name}'; {hint} "
            f"(a network of your own: {own} package.module:factory)"
        )
    return found


def build(name: str, num_classes: int | None = None) -> nn.Module:
    """Return a network with random weights, drawn from torch's global generator.

    Args:
        name: As in `names()`.
        num_classes: Width of the logits; None for the architecture's own (10 or 1000).

    Raises:
        CheckpointError: No architecture has that name.
    """
    return architecture(name).build(num_classes)


def input_shape(name: str) -> tuple[int, ...]:
    """Return the shape (C, H, W) of one input that an architecture was made for.

    Raises:
        CheckpointError: No architecture has that name.
    """
    return architecture(name).input_shape


def _torchvision() -> dict[str, Architecture]:
    from trainscope.networks.torchvision_zoo import architectures

    return architectures()
