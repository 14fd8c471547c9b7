"""What a diagnosis measures on: the data, how many samples are pinned, and which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trainscope.data import (
    Dataset,
    Given,
    ProbeData,
    RandomInputs,
    given_data,
    load,
    pin,
    pin_random,
    with_class_index,
)
from trainscope.errors import DataError
from trainscope.networks import Network, check_classes, noticed
from trainscope.networks.given import given_network, with_inputs_of
from trainscope.networks.guess_shape import guess_input_shape
from trainscope.records import Columns
from trainscope.sparsify import has_batch_norm

MOST_SAMPLES = 256
SAMPLE_FLOPS = 8e9
"""Pinned samples are at most so many that one forward pass over all stays under this."""
FEW_SAMPLES = 16
"""With fewer, a note says that the numbers are rough."""
RECALIBRATION_SAMPLES = 2048
RECALIBRATION_BATCH = 64
RECALIBRATION_FLOPS = 256e9


def open_data(
    network: Network,
    given: str | Given | None,
    *,
    class_index: Path | None = None,
    download: bool = False,
) -> tuple[Network, Dataset | RandomInputs]:
    """Return the data that is asked for, else what the network remembers, else Gaussian inputs.

    Args:
        network: The opened network.
        given: Data as `--data` takes it, or as a person brings it (`trainscope.data.given`).
        class_index: A file that puts folders of images at the network's outputs.
        download: Fetch what torchvision can fetch.

    Returns:
        The network, with the data's input shape where it takes that too, and the data.

    Raises:
        DataError: The data is not there or does not fit the network.
    """
    if given is None:
        given = network.remembered.data or RandomInputs(tuple(network.input_shape)).name
    if isinstance(given, str):
        data = load(given, tuple(network.input_shape), download=download)
        name = given
    else:
        data = given_data(given)
        name = data.name
    shape = data.shape if isinstance(data, RandomInputs) else data.input_shape
    network = with_inputs_of(network, shape, name)
    if isinstance(data, Dataset) and class_index is not None:
        data = with_class_index(data, class_index, network.num_classes)
    if isinstance(data, Dataset) and data.num_classes is not None:
        check_classes(network, data.num_classes, name)
    return network, data


def open_module(
    module: nn.Module,
    given: str | Given | None,
    *,
    input_shape: tuple[int, ...] | None = None,
    class_index: Path | None = None,
    download: bool = False,
) -> tuple[Network, Dataset | RandomInputs]:
    """Return a module that a person brings as a Network, and the data that it is measured on.

    Args:
        module: Not changed.
        given: As in `open_data`; there must be some.
        input_shape: Of images that are resized to the network; found by trying where not given.
        class_index: As in `open_data`.
        download: Fetch what torchvision can fetch.

    Raises:
        DataError: There is no data, or it is at fault.
        CheckpointError: The module does not take it, or returns no logits.
    """
    if given is None:
        raise DataError(
            "a module does not say what data it takes: give data=loader, or data='random:1x28x28'"
        )
    if isinstance(given, str):
        folder = given.startswith("imagefolder:")
        shape = input_shape or (guess_input_shape(module) if folder else ())
        data = load(given, shape, download=download)
    else:
        data = given_data(given)
    if isinstance(data, RandomInputs):
        return noticed(given_network(module, torch.zeros(2, *data.shape))), data
    inputs, _ = data.test.batch(torch.arange(min(2, len(data.test))))
    network = noticed(given_network(module, inputs))
    if class_index is not None:
        data = with_class_index(data, class_index, network.num_classes)
    if data.num_classes is not None:
        check_classes(network, data.num_classes, data.name)
    return network, data


def default_samples(cost: int) -> int:
    """Return how many samples are pinned by default, from the multiply-adds of one."""
    samples = MOST_SAMPLES
    while samples > 2 and samples * cost > SAMPLE_FLOPS:
        samples //= 2
    return samples


def pin_inputs(
    source: Dataset | RandomInputs,
    base: Network,
    count: int,
    batch_size: int,
    seed: int,
    cost: int,
) -> tuple[ProbeData, list[Tensor]]:
    """Return the pinned samples, and others to recalibrate batch norm on."""
    more = int(min(RECALIBRATION_SAMPLES, max(64, RECALIBRATION_FLOPS // max(cost, 1))))
    if isinstance(source, RandomInputs):
        pinned = pin_random(source, base.module, count, batch_size=batch_size, seed=seed)
        other = torch.Generator().manual_seed(seed + 1)
        inputs = torch.randn(more, *source.shape, generator=other)
        return pinned, equal_batches(inputs)
    pinned = pin(source, count, batch_size=batch_size, seed=seed)
    if pinned.labels is not None and int(pinned.labels.max()) >= base.num_classes:
        raise DataError(
            f"{source.name} has a label {int(pinned.labels.max())} and the network gives "
            f"{base.num_classes} logits: give the data that the network was trained on"
        )
    if not has_batch_norm(base.module):
        return pinned, []
    return pinned, equal_batches(pin(source, more, seed=seed + 1).inputs)


def equal_batches(inputs: Tensor) -> list[Tensor]:
    """Return inputs in batches of one size for recalibration, which counts each batch alike.

    The size is fixed, so that no option of the probes changes the statistics; a rest is left out.
    """
    parts = list(torch.split(inputs, RECALIBRATION_BATCH))
    return [part for part in parts if len(part) == len(parts[0])]


def data_notes(data: ProbeData) -> list[str]:
    """Return what a person must know of the samples, in sentences."""
    notes = []
    if data.label_source == "predicted":
        notes.append(
            "Measured on Gaussian inputs, with labels drawn from the network's own predictions: "
            "give --data to measure on its own data. Batch norm recalibrated on them is another "
            "network than the one that was trained, so the verdict leaves that column aside."
        )
    if len(data.inputs) < FEW_SAMPLES:
        notes.append(
            f"Only {len(data.inputs)} samples are pinned, so numbers that are means over samples "
            "are rough: --samples takes more, at a proportional cost."
        )
    return notes


def network_notes(measured: Mapping[str, Columns]) -> list[str]:
    """Return what the probes found a person must know of the network, in sentences, each once."""
    found: dict[str, None] = {}
    for columns in measured.values():
        for column in (columns.before, columns.after, columns.recalibrated):
            notes = {} if column is None else column.notes
            for key in ("batch", "random", "products"):
                if key in notes:
                    start = "Curvature by " if key == "products" else ""
                    text = start + notes[key] if start else notes[key][0].upper() + notes[key][1:]
                    found[f"{text}."] = None
    return list(found)
