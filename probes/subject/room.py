"""How much memory a probe may take on the device that it measures on."""

from __future__ import annotations

import torch

_SHARE = 8
"""Of what a GPU has free, one part in so many."""


def room(device: torch.device, least: int) -> int:
    """Return the bytes that may be held at once: `least` on a CPU, more on a GPU that has them.

    A power of two times `least`, so that chunks, and with them rounding, do not change with every
    megabyte that something else takes.

    Args:
        device: Where the network is.
        least: What is taken anywhere.
    """
    if device.type != "cuda":
        return least
    free, _ = torch.cuda.mem_get_info(device)
    while 2 * least <= free // _SHARE:
        least *= 2
    return least
