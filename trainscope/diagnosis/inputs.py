"""What a diagnosis measures on: the data, how many samples are pinned, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainscope.data import Dataset, ProbeData, RandomInputs, load, pin, pin_random
from trainscope.errors import DataError
from trainscope.networks import Network, check_classes
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
    network: Network, spec: str | None, *, download: bool = False
) -> Dataset | RandomInputs:
    """Return the data that is asked for, else what the network remembers, else Gaussian inputs.

    Raises:
        DataError: The data is not there or does not fit the network.
    """
    if spec is None:
        spec = network.remembered.data or RandomInputs(tuple(network.input_shape)).name
    data = load(spec, tuple(network.input_shape), download=download)
    if isinstance(data, RandomInputs):
        return data
    check_classes(network, data.num_classes, spec)
    if data.input_shape != tuple(network.input_shape):
        raise DataError(
            f"{spec} has inputs {_by(data.input_shape)} and {network.architecture} takes "
            f"{_by(network.input_shape)}: give the data that it was trained on with --data"
        )
    return data


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


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
