"""A probe leaves no trace: everything it may disturb is put back, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainscope.errors import ProbeError


@contextmanager
def random_states() -> Iterator[None]:
    """Put the torch (every device), numpy and Python random states back on leaving."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def untouched(network: nn.Module) -> Iterator[nn.Module]:
    """Lend a network, in eval mode and with no gradients, and put back all that was changed.

    Inside, gradients are None and modes are eval; on leaving, also by an exception, parameter and
    buffer values (and their memory), gradients (the same tensors), hooks, modes, every other
    attribute of every module, `requires_grad` and random states are what they were.

    Costs one copy of the weights and buffers.

    Raises:
        ProbeError: Autograd is off for good: under `torch.inference_mode()`, or for weights that
            were made under it.
    """
    _check_autograd(network)
    modules = list(network.modules())
    attributes = [dict(vars(module)) for module in modules]
    tables = [
        [(table, dict(table)) for table in vars(module).values() if isinstance(table, dict)]
        for module in modules
    ]
    parameters = [(p, p.grad, p.requires_grad) for p in network.parameters()]
    tensors = [*network.parameters(), *network.buffers()]
    values = [(tensor, tensor.data, tensor.detach().clone()) for tensor in tensors]
    try:
        with random_states():
            for parameter, _, _ in parameters:
                parameter.grad = None
            network.eval()
            yield network
    finally:
        for module, kept, contents in zip(modules, attributes, tables, strict=True):
            _restore(vars(module), kept)
            for table, entries in contents:
                _restore(table, entries)
        for tensor, home, value in values:
            _put_back(tensor, home, value)
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


def _restore(table: dict[Any, Any], entries: dict[Any, Any]) -> None:
    """Give a dictionary back its entries, in their order, and no others."""
    same = list(table) == list(entries) and all(table[k] is v for k, v in entries.items())
    if not same:
        table.clear()
        table.update(entries)


def _put_back(tensor: Tensor, home: Tensor, value: Tensor) -> None:
    """Give a tensor back its memory and its bits."""
    with torch.no_grad():
        if tensor.data_ptr() != home.data_ptr() or tensor.stride() != home.stride():
            tensor.data = home
        if not _same_bits(tensor, value):
            tensor.copy_(value)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    """Compare two tensors of one shape and dtype bit for bit, NaNs included."""
    one, two = left.detach().contiguous().view(-1), right.contiguous().view(-1)
    if one.dtype == torch.bool or not one.numel():
        return bool(torch.equal(one, two))
    return bool(torch.equal(one.view(torch.uint8), two.view(torch.uint8)))
