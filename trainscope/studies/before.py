"""What is known of a run before its first step: losses and probes, dense and pruned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from trainscope.data import Dataset, ProbeData, pin
from trainscope.data.split import DrawnSplit
from trainscope.diagnosis.measuring import measured
from trainscope.diagnosis.options import as_probe
from trainscope.errors import RecordError
from trainscope.networks import Network, digest, flops
from trainscope.networks.copies import whole_copy
from trainscope.networks.threads import suited_threads
from trainscope.probes import Probe
from trainscope.records import Json, Measurement, files
from trainscope.records.json_text import parse
from trainscope.studies.plain import KEY
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.task.modes import evaluating
from trainscope.training.evaluation import evaluate
from trainscope.training.job import Job, check_fit
from trainscope.version import VERSION

START = "start.json"
SCHEMA = "trainscope.start/1"
LOSS_SAMPLES = 10_000
"""Training samples that the losses before the first step are the mean of, where there are more."""
STEM = "stem-"
"""How the folders of shared pretrainings begin."""
STAGE = "stage-"
"""How the folders of shared pruning stages begin."""
SHARED = "dense-"
"""How files begin that say what is known of a base model, and the folder of one from a file."""
TRAINS = "trainability_accuracy"
"""The probe that trains."""
DENSE, PRUNED = "dense", "pruned"
"""The base model, and the network as the training meets it: pruned, or untrained."""


def measure_start(
    spec: RunSpec, dense: Network | None, job: Job, folder: Path, device: str = "cpu"
) -> None:
    """Write what is known before the first step into a run's folder, once.

    What is known of the base model is measured once for all runs that prune it: it is kept beside
    them, in the folder of what they stand on.

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
    data = None
    if spec.probes:
        data = pin(job.dataset, spec.samples, batch_size=128, seed=0)
    with suited_threads(flops(job.network.module, job.network.inputs)):
        found = {PRUNED: _column(spec, job.network.module, job.dataset, data, device)}
        if dense is not None:
            shared = folder.parent / shared_folder(spec, digest(dense.module))
            found[DENSE] = _column(spec, dense.module, job.dataset, data, device, shared)
    text = json.dumps({"schema": SCHEMA, "columns": found}, allow_nan=False)
    files.write_text(path, text + "\n")


def shared_folder(spec: RunSpec, weights: str | None = None) -> str:
    """Return the name of the folder that keeps what is known of a run's base model.

    Args:
        spec: It.
        weights: The digest of the base model; needed where a file holds it whose digest the spec
            does not say.
    """
    if isinstance(spec.base, RunSpec):
        return spec.base.key if spec.base.base is not None else f"{STEM}{spec.base.key}"
    told = spec.base.digest if isinstance(spec.base, BaseModel) else None
    named = told or weights
    return f"{SHARED}{str(named)[:KEY]}"


def _column(
    spec: RunSpec,
    module: nn.Module,
    dataset: Dataset,
    data: ProbeData | None,
    device: str,
    shared: Path | None = None,
) -> Json:
    """Return what is known of one network; with a folder, what was kept there is not repeated."""
    copy: list[nn.Module] = []

    def network() -> nn.Module:
        if not copy:
            copy.append(evaluating(whole_copy(module).to(device)))
        return copy[0]

    def losses() -> Json:
        tested = evaluate(network(), dataset.test, dataset.task)
        train_loss = None
        if dataset.train is not None:
            some = DrawnSplit.of(dataset.train, LOSS_SAMPLES)
            train_loss = evaluate(network(), some, dataset.task).loss
        return {"metric": tested.metric, "test_loss": tested.loss, "train_loss": train_loss}

    known: Json = {}
    if shared is not None:
        known = {
            "weights": digest(module),
            "data": [spec.data, dataset.name, len(dataset.test), len(dataset.train or ())],
            "task": spec.task,
            "device": torch.device(device).type,
            "version": VERSION,
        }
    found = _once(shared, known | {"losses": LOSS_SAMPLES}, losses)
    probes = {}
    if data is not None:
        there = data.to(torch.device(device))

        def measurement(probe: Probe) -> Json:
            return measured(probe, network(), there).to_json()

        for name in spec.probes:
            # The seed is that of the training, and decides nothing else that is measured.
            settings = spec.trained_with if name == TRAINS else spec.settings
            probe = as_probe(name, {"settings": settings})
            asked = {"probe": name, "options": repr(probe), "samples": spec.samples}
            probes[name] = _once(shared, known | asked, partial(measurement, probe))
    return {**found, "probes": probes}


def _once(shared: Path | None, known: Json, make: Callable[[], Json]) -> Json:
    """Return what a file of a shared folder holds, which one process makes where there is none.

    Raises:
        RecordError: The file is damaged.
    """
    if shared is None:
        return make()
    key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:KEY]
    path = shared / f"{SHARED}{key}.json"
    with files.folder(shared), files.alone(shared):
        if not path.exists():
            found = make()
            files.write_text(path, json.dumps({"of": known, "found": found}, allow_nan=False))
            return found
    try:
        return dict(parse(path.read_text(encoding="utf-8"))["found"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged, remove it: {error}") from error


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
