"""What is known of a run before its first step: losses and probes, dense and pruned."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from trainscope.data import Dataset, ProbeData, pin
from trainscope.data.split import DrawnSplit
from trainscope.diagnosis.asked import as_probe
from trainscope.diagnosis.measuring import measured
from trainscope.errors import RecordError
from trainscope.networks import Network, flops
from trainscope.networks.copies import whole_copy
from trainscope.networks.threads import suited_threads
from trainscope.records import Json, Measurement, files
from trainscope.records.json_text import parse
from trainscope.studies.spec import RunSpec
from trainscope.training.evaluation import evaluate
from trainscope.training.job import Job, check_fit

START = "start.json"
SCHEMA = "trainscope.start/1"
LOSS_SAMPLES = 10_000
"""Training samples that the losses before the first step are the mean of, where there are more."""
DENSE, PRUNED = "dense", "pruned"
"""The base model, and the network as the training meets it: pruned, or untrained."""


def measure_start(
    spec: RunSpec, dense: Network | None, job: Job, folder: Path, device: str = "cpu"
) -> None:
    """Write what is known before the first step into a run's folder, once.

    Args:
        spec: Names the probes.
        dense: The base model; None where the run has none.
        job: The training, with the network that it begins with.
        folder: Of the run.
        device: Where to measure.
    """
    path = folder / START
    if path.exists():
        return
    check_fit(job.network, job.dataset)
    columns = {PRUNED: job.network.module}
    if dense is not None:
        columns[DENSE] = dense.module
    data = None
    if spec.probes:
        data = pin(job.dataset, spec.samples, batch_size=128, seed=0)
    with suited_threads(flops(job.network.module, job.network.inputs)):
        found = {
            name: _column(spec, whole_copy(module).to(device).eval(), job.dataset, data, device)
            for name, module in columns.items()
        }
    text = json.dumps({"schema": SCHEMA, "columns": found}, allow_nan=False)
    files.write_text(path, text + "\n")


def _column(
    spec: RunSpec, module: nn.Module, dataset: Dataset, data: ProbeData | None, device: str
) -> Json:
    tested = evaluate(module, dataset.test, dataset.task)
    train_loss = None
    if dataset.train is not None:
        some = DrawnSplit.of(dataset.train, LOSS_SAMPLES)
        train_loss = evaluate(module, some, dataset.task).loss
    probes = {}
    if data is not None:
        there = data.to(torch.device(device))
        for name in spec.probes:
            probe = as_probe(name, {"settings": spec.trained_with})
            probes[name] = measured(probe, module, there).to_json()
    return {
        "metric": tested.metric,
        "test_loss": tested.loss,
        "train_loss": train_loss,
        "probes": probes,
    }


def start_of(folder: Path) -> dict[str, Json]:
    """Return what `measure_start` wrote, by column; the probes as Measurements.

    Raises:
        RecordError: It is not there, or damaged.
    """
    path = folder / START
    try:
        raw = parse(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise ValueError(f"its schema is {raw['schema']!r}")
        found = dict(raw["columns"])
        for column in found.values():
            column["probes"] = {
                name: Measurement.from_json(name, each) for name, each in column["probes"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    return found
