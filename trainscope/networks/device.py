"""Devices by name, as torch names them."""

from __future__ import annotations

import torch

from trainscope.errors import ProbeError, first_line


def find_device(name: str) -> torch.device:
    """Return a device that is there.

    Raises:
        ProbeError: Torch does not know the device, or this machine does not have it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without values (meta) fails here
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = first_line(error).partition(". ")[0]
        raise ProbeError(f"the device '{name}' cannot be used here: {first}") from error
    return device
