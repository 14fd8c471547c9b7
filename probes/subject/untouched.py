"""A probe leaves no trace: everything it may disturb is put back, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainscope.data.untouched import random_states
from trainscope.errors import ProbeError
from trainscope.networks.belongings import keep_belongings
from trainscope.networks.undo import UnseenWriteError, given_back


@contextmanager
def untouched(network: nn.Module) -> Iterator[nn.Module]:
    """Lend a network, in eval mode and with no gradients, and put back all that was changed.

    Inside, gradients are None and modes are eval; on leaving, also by an exception, parameter and
    buffer values (and their memory), gradients (the same tensors), hooks, modes, every other
    attribute of every module, `requires_grad` and random states are what they were. The contents of
    attributes come back too: plain tensors and arrays, random generators, and containers and
    objects as deep as `belongings` follows them. What it does not follow (iterators, files, objects
    of other packages) keeps what the forward passes made of it.

    Costs one copy of the plain tensors, and of the weights and buffers where they are small: large
    ones are copied only when something writes to them (see `trainscope.networks.undo`).

    Raises:
        ProbeError: Autograd is off for good: under `torch.inference_mode()`, or for weights that
            were made under it. On leaving, where a large network's weights were written to by what
            is no operation of torch's and cannot be put back.
    """
    _check_autograd(network)
    parameters = [(p, p.grad, p.requires_grad) for p in network.parameters()]
    belongings = keep_belongings(network)
    try:
        with random_states(), given_back([*network.parameters(), *network.buffers()]):
            for parameter, _, _ in parameters:
                parameter.grad = None
            network.eval()
            yield network
    except UnseenWriteError as error:
        raise ProbeError(
            f"{type(network).__name__}: {error}; measure a copy of the network, and load its "
            "weights anew"
        ) from error
    finally:
        for undo in belongings:
            undo()
        for parameter, grad, required in parameters:
            parameter.requires_grad_(required)
            parameter.grad = grad


def _check_autograd(network: nn.Module) -> None:
    """Refuse what `torch.enable_grad()` cannot undo; without gradients a probe would measure 0."""
    if torch.is_inference_mode_enabled():
        raise ProbeError(
            "no probe can measure under torch.inference_mode(), which keeps no gradients: call it "
            "outside (torch.no_grad() does no harm)"
        )
    made = next((n for n, p in network.named_parameters() if p.is_inference()), None)
    if made is not None:
        raise ProbeError(
            f"the parameter '{made}' was made under torch.inference_mode() and can have no "
            "gradient: build or load the network outside it"
        )
