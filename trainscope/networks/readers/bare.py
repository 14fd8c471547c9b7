"""A bare state dict: `torch.save(module.state_dict(), path)`."""

from __future__ import annotations

from collections.abc import Mapping

from trainscope.networks.readers.contents import Contents
from trainscope.networks.state_dict import is_state_dict


def recognises(obj: object) -> bool:
    """Say whether loaded objects are tensors by name and nothing else."""
    return is_state_dict(obj)


def read(obj: object) -> Contents:
    """Return the state dict."""
    assert isinstance(obj, Mapping)
    return Contents(state_dict=obj, format="state dict")
