"""Train and eval mode, lent and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def kept_modes(network: nn.Module) -> Iterator[nn.Module]:
    """Lend a network; every module's own mode is put back, also by an exception."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield network
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Lend a network in eval mode; every module's own mode is put back, also by an exception."""
    with kept_modes(network):
        network.eval()
        yield network


def evaluating(network: nn.Module) -> nn.Module:
    """Return a network in eval mode; a `train` of one's own often forgets to return it."""
    network.eval()
    return network
