"""Batch-norm recalibration: after a cut, the running statistics belong to another network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainscope.errors import DataError
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs, as_example
from trainscope.task.modes import eval_mode


def has_batch_norm(network: nn.Module) -> bool:
    """Say whether a network has batch norms with running statistics."""
    return bool(_norms(network))


def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Inputs]) -> nn.Module:
    """Return a copy whose batch norms have their running statistics taken anew over inputs.

    Means and variances are the plain averages of the batches' own over all batches (variances
    unbiased, as torch keeps them), with each batch normalised by its own statistics as in
    training; dropout stays off. No label is needed. Weights are bit for bit the same, and the
    random states are not advanced.

    Args:
        network: Not touched.
        batches: Inputs [N, ...], N above 1, or examples of a call: tuples of arguments or
            dictionaries of arguments by name. Give equal batches, for each counts the same.

    Raises:
        DataError: There are no batches, or one is too small for a variance.
    """
    copied = whole_copy(network)
    norms = _norms(copied)
    momenta = [norm.momentum for norm in norms]
    count = 0
    with torch.no_grad(), eval_mode(copied):
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a cumulative average
        for batch in batches:
            try:
                as_example(batch).run(copied)
            except ValueError as error:
                size = as_example(batch).size
                raise DataError(
                    f"a batch of {size} is too small to take batch-norm statistics of; "
                    "give batches of at least 2"
                ) from error
            count += 1
    if not count and norms:
        raise DataError("there are no inputs to recalibrate the batch norms on; give some")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return copied


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
