"""Pinning the samples that a network is measured on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from trainscope.data.dataset import Dataset
from trainscope.data.given import Given, given_data
from trainscope.data.probe_data import ProbeData
from trainscope.data.spec import RandomInputs
from trainscope.errors import DataError, TaskError, first_line
from trainscope.task import Task
from trainscope.task.batches import beside, suited_inputs, working_weight
from trainscope.task.modes import eval_mode
from trainscope.task.task import Common, main_tensor


def pin(data: Dataset, samples: int, *, batch_size: int = 128, seed: int = 0) -> ProbeData:
    """Draw samples of the training half (the test half where there is no other) without return.

    Gradients and curvature are those of the training loss, hence the training half.

    Args:
        data: The data set.
        samples: How many; all of the half where it has fewer.
        batch_size: How many a probe may hold at once.
        seed: Of the draw.
    """
    half = data.test if data.train is None else data.train
    order = torch.randperm(len(half), generator=torch.Generator().manual_seed(seed))
    return ProbeData(
        data.name,
        batch=half.batch(order[:samples]),
        task=data.task,
        train=data.train,
        test=data.test,
        batch_size=batch_size,
        seed=seed,
    )


HOOK_SAMPLES = 256
"""Samples that are pinned of a loader given to a hook."""


def pinned(
    data: ProbeData | Given, task: Task | None = None, *, samples: int = HOOK_SAMPLES
) -> ProbeData:
    """Return pinned samples as they are, and those of any data that a person brings.

    Args:
        data: Pinned samples, a loader, or whatever `given_data` takes.
        task: What its batches are for; by default classification.
        samples: How many of a loader's are pinned.

    Raises:
        DataError: It holds no batches of the task.
        TaskError: Pinned samples are of another task.
    """
    if isinstance(data, ProbeData):
        if task is not None and task != data.task:
            raise TaskError("the pinned samples are of another task: give the task with them")
        return data
    return pin(given_data(data, task=task), samples)


def suited_to(data: ProbeData, network: nn.Module) -> ProbeData:
    """Return pinned samples whose task knows how many parts of a longer batch a network takes.

    Raises:
        TaskError: The network can do with as few as leave the labels second, and with more.
    """
    task = data.task
    if not isinstance(task, Common) or task.inputs is not None or data.test is None:
        return data
    entries = getattr(data.test, "entries", 0)
    count = suited_inputs(network, data.batch, entries, unlabelled=task.unlabelled)
    return data if count is None else replace(data, task=task.taking(count))


LABEL_BATCH = 128
"""Samples put forward at once for their labels: fixed, so that no option changes the labels."""


@torch.no_grad()
def pin_random(
    data: RandomInputs, network: nn.Module, samples: int, *, batch_size: int = 128, seed: int = 0
) -> ProbeData:
    """Draw Gaussian inputs, and their labels from the network's own predictions.

    Labels drawn from the softmax make the loss one that the network could have been trained on:
    the gradient's expectation is zero and the Hessian's is the Fisher information. Where a logit is
    NaN or infinite there is no softmax to draw from, so there are no labels.

    Args:
        data: The shape of one input.
        network: The base network, before any action, in eval mode.
        samples: How many.
        batch_size: How many a probe may hold at once.
        seed: Of inputs and labels.

    Raises:
        DataError: The network does not take such inputs, or does not return logits.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, *data.shape, generator=generator)
    weight = working_weight(network)
    try:
        with eval_mode(network), torch.random.fork_rng(devices=[]):
            parts = [
                main_tensor(network(beside(part.clone(), weight))).cpu()
                for part in torch.split(inputs, LABEL_BATCH)
            ]
        odds = torch.cat(parts).float().softmax(1)
        if len(odds) != samples or odds.ndim != 2:
            raise ValueError(f"it returns {tuple(odds.shape)} for {samples} inputs")
    except Exception as error:  # whatever the layers, or code of the user's, raise
        raise DataError(
            f"the network does not take inputs {data.name}: {first_line(error)}"
        ) from error
    labels = None
    if torch.isfinite(odds).all():
        labels = torch.multinomial(odds, 1, generator=generator).squeeze(1)
    return ProbeData(data.name, inputs, labels, "predicted", batch_size=batch_size, seed=seed)
