"""What a diagnosis measures on: the data, how many samples are pinned, and which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from trainscope.data import (
    Dataset,
    Given,
    ProbeData,
    RandomInputs,
    Reading,
    given_data,
    load,
    pin,
    pin_random,
    with_class_index,
)
from trainscope.errors import DataError
from trainscope.networks import Network, check_classes
from trainscope.networks.example import Example
from trainscope.networks.given import call_of, given_network, with_inputs_of
from trainscope.probes.subject.footprint import footprint
from trainscope.records import Columns
from trainscope.sparsify import has_batch_norm
from trainscope.task import Classification, Task
from trainscope.task.batches import suited_inputs, tensors
from trainscope.task.task import Common, is_ragged

MOST_SAMPLES = 256
PINNED_BYTES = 2**26
"""Pinned inputs take at most so many bytes, but that there are a few in any case."""
SAMPLE_FLOPS, FEWEST_SAMPLES = 128e9, 8
"""Without a budget, one forward pass over all of them stays under this, or there are a few."""
FEW_SAMPLES = 16
"""With fewer, a note says that the numbers are rough."""
RECALIBRATION_SAMPLES = 2048
RECALIBRATION_BATCH = 64
RECALIBRATION_BYTES = 2**26
"""Of the inputs of one batch."""
RECALIBRATION_WORK = 256e9
"""Multiply-adds of the passes over all of them, and what stands for the time of other work."""
WORK_OF_A_BYTE = 16
"""Multiply-adds that take as long as a byte that autograd would keep: so counted, ten networks of
torchvision did 25 to 45 G a second on a CPU, and MobileNet 7 G by its multiply-adds alone."""


def open_data(
    given: str | Given,
    shape: tuple[int, ...],
    task: Task | None,
    *,
    download: bool = False,
    reading: Reading | None = None,
) -> Dataset | RandomInputs:
    """Return the data that is asked for, for a task.

    Args:
        given: Data as `--data` takes it, or as a person brings it (`trainscope.data.given`).
        shape: (C, H, W), to which folders of images are resized.
        task: What its batches are for; None for classification, of text for what it shows.
        download: Fetch what torchvision can fetch.
        reading: How text becomes batches.

    Raises:
        DataError: The data is not there, or its batches are not of the task.
    """
    if isinstance(given, str):
        return load(given, shape, download=download, task=task, reading=reading)
    return given_data(given, task=task)


def refuse_random(task: Task, data: str) -> None:
    """Refuse Gaussian inputs for a task of which nobody can draw the targets.

    Args:
        task: What the network is asked to do.
        data: As it was asked for; empty where nothing was.

    Raises:
        DataError: The task is no classification.
    """
    if type(task) is Classification:
        return
    what = data or "without --data the inputs are Gaussian, which"
    raise DataError(
        f"{what} has no targets for {type(task).__name__} (labels are drawn from a network's own "
        "predictions for Classification alone): give data=loader, or --data package.module:factory"
    )


def is_plain(data: Dataset | RandomInputs) -> bool:
    """Tell whether data is floating-point inputs with one class index each."""
    return isinstance(data, RandomInputs) or data.plain


def suited(data: Dataset, module: nn.Module) -> Dataset:
    """Return data whose task knows how many parts of a longer batch the module takes."""
    if not isinstance(data.task, Common) or data.task.inputs is not None:
        return data
    task = data.task
    count = suited_inputs(module, data.first_batch, data.entries, unlabelled=task.unlabelled)
    if count is None:
        return data
    return replace(data, task=data.task.taking(count))


def fitted(
    network: Network, data: Dataset | RandomInputs, class_index: Path | None
) -> tuple[Network, Dataset | RandomInputs]:
    """Return a classifier with the data's input shape where it takes that too, and the data.

    Args:
        network: The opened network.
        data: Floating-point inputs with class indices.
        class_index: A file that puts folders of images at the network's outputs.

    Raises:
        DataError: They do not fit each other.
    """
    shape = data.shape if isinstance(data, RandomInputs) else data.input_shape
    network = with_inputs_of(network, shape, data.name)
    return network, _indexed(network, data, class_index)


def tried(
    network: Network, data: Dataset | RandomInputs, class_index: Path | None = None
) -> tuple[Network, Dataset | RandomInputs]:
    """Return a network of any kind with what a batch of the data shows of it, and the data.

    Raises:
        CheckpointError: It does not take the batch, or its outputs do not fit the task.
        DataError: The data has other classes.
    """
    if isinstance(data, RandomInputs):
        found = given_network(network.module, (torch.zeros(2, *data.shape),), Classification())
    else:
        found = given_network(network.module, data.first_batch, data.task)
    network = replace(
        network,
        input_shape=found.input_shape,
        num_classes=found.num_classes,
        example=found.example,
    )
    return network, _indexed(network, data, class_index)


def _indexed(
    network: Network, data: Dataset | RandomInputs, class_index: Path | None
) -> Dataset | RandomInputs:
    if isinstance(data, RandomInputs):
        return data
    if class_index is not None:
        data = with_class_index(data, class_index, network.num_classes)
    if data.num_classes is not None and type(data.task) is Classification:
        check_classes(network, data.num_classes, data.name)
    return data


def default_samples(cost: int, network: Network, *, budget: float | None) -> int:
    """Return how many samples are pinned by default.

    Args:
        cost: Multiply-adds of one.
        network: Of the inputs' size.
        budget: Where there is one, it decides how many are measured, and memory alone how many
            are pinned.
    """
    samples = MOST_SAMPLES
    size = 4 * max(1, math.prod(network.input_shape or (1,)))
    while samples > FEW_SAMPLES and samples * size > PINNED_BYTES:
        samples //= 2
    while budget is None and samples > FEWEST_SAMPLES and samples * cost > SAMPLE_FLOPS:
        samples //= 2
    return samples


def pin_inputs(
    source: Dataset | RandomInputs,
    base: Network,
    count: int,
    batch_size: int,
    seed: int,
    cost: int,
) -> tuple[ProbeData, list[Example]]:
    """Return the pinned samples, and others to recalibrate batch norm on."""
    if isinstance(source, RandomInputs):
        pinned = pin_random(source, base.module, count, batch_size=batch_size, seed=seed)
        other = torch.Generator().manual_seed(seed + 1)
        more = _recalibrating(base, pinned, cost)
        inputs = torch.randn(more, *source.shape, generator=other)
        return pinned, equal_batches(base, ProbeData(source.name, inputs))
    pinned = pin(source, count, batch_size=batch_size, seed=seed)
    labels, classes = pinned.labels, base.num_classes
    if type(source.task) is Classification and isinstance(labels, Tensor) and classes is not None:
        largest = int(labels.max())
        if largest >= classes:
            raise DataError(
                f"{source.name} has a label {largest} and the network gives "
                + (
                    "one logit: name its task, like task='binary' or --task binary"
                    if classes == 1
                    else f"{classes} logits: give the data that the network was trained on"
                )
            )
    if not has_batch_norm(base.module):
        return pinned, []
    more = _recalibrating(base, pinned, cost)
    return pinned, equal_batches(base, pin(source, more, seed=seed + 1))


def _recalibrating(base: Network, pinned: ProbeData, cost: int) -> int:
    """Return on how many samples batch norm is recalibrated, by what one of them costs."""
    work = cost + WORK_OF_A_BYTE * (footprint(base.module, pinned).graph or 0)
    return int(min(RECALIBRATION_SAMPLES, max(64, RECALIBRATION_WORK // max(work, 1))))


def equal_batches(base: Network, data: ProbeData) -> list[Example]:
    """Return samples in batches of one size for recalibration, which counts each batch alike.

    The size is that of the data alone, so that no option of the probes changes the statistics: 64,
    or as many samples as `RECALIBRATION_BYTES` hold, at least two. A rest is left out.
    """
    largest = max(leaf.numel() * leaf.element_size() for leaf in tensors(data.batch))
    if not is_ragged(data.task):
        largest //= len(data)
    size = min(RECALIBRATION_BATCH, max(2, RECALIBRATION_BYTES // max(largest, 1)))
    parts = [
        data.task.select(data.batch, indices)
        for indices in torch.split(torch.arange(len(data)), size)
    ]
    sizes = [data.task.size(part) for part in parts]
    whole = [part for part, size in zip(parts, sizes, strict=True) if size == sizes[0]]
    return [call_of(base.module, part, data.task) for part in whole]


def data_notes(data: ProbeData) -> list[str]:
    """Return what a person must know of the samples, in sentences."""
    notes = []
    if data.label_source == "predicted":
        notes.append(
            "Measured on Gaussian inputs, with labels drawn from the network's own predictions: "
            "give its own data with --data (data=) to measure on that. Batch norm recalibrated on "
            "them is another network than the one that was trained, so the verdict leaves that "
            "column aside."
        )
    if len(data) < FEW_SAMPLES:
        notes.append(
            f"Only {len(data)} samples are pinned, so numbers that are means over samples "
            "are rough: --samples (samples=) takes more, at a proportional cost."
        )
    return notes


def network_notes(measured: Mapping[str, Columns]) -> list[str]:
    """Return what the probes found a person must know of the network, in sentences, each once."""
    found: dict[str, None] = {}
    for columns in measured.values():
        for column in (columns.before, columns.after, columns.recalibrated):
            notes = {} if column is None else column.notes
            starts = {"products": "Curvature by ", "sketch": "The Jacobian is "}
            for key in ("batch", "random", "products", "sketch", "frozen", "unused"):
                if key in notes:
                    start = starts.get(key, "")
                    text = start + notes[key] if start else notes[key][0].upper() + notes[key][1:]
                    found[f"{text}."] = None
    return list(found)
