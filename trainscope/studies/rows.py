"""A run as one flat row: its spec by dotted names, and every number that came of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from trainscope.records import Json, Run
from trainscope.records.origin import ONE_SHOT
from trainscope.sparsify import Action
from trainscope.studies.before import DENSE, PRUNED, START, start_of
from trainscope.studies.plain import plain
from trainscope.studies.results import Row
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.training.schedule import write_lr

EARLY = 0.05
"""The share of the epochs after which `early` is the metric."""


def columns_of(spec: RunSpec) -> Row:
    """Return a spec's fields by dotted names, defaults among them; lists and tables as JSON text.

    >>> columns_of(spec)["action.ratio"]  # doctest: +SKIP
    """
    row: Row = {
        "kind": str(spec.kind),
        "data": spec.data,
        "task": spec.task,
        "weights": spec.weights if spec.base is not None else None,
        "recipe": spec.recipe,
        "schedule": ",".join(f"{s.start}:{write_lr(s.lr)}" for s in spec.schedule.stages),
        "epochs": spec.schedule.total,
        "lr": spec.schedule.lr(0),
        "shape": spec.shape,
        "seed": spec.seed,
        "probes": ",".join(spec.probes) or None,
    }
    if spec.architecture is not None:
        row["architecture"] = spec.architecture
    if spec.action is not None:
        asked = {each.name: getattr(spec.action, each.name) for each in fields(Action)}
        written = plain(spec.action)
        row |= {f"action.{name}": _cell(written.get(name, value)) for name, value in asked.items()}
        row["plan"] = spec.plan or ONE_SHOT
    row |= {f"settings.{name}": _cell(v) for name, v in spec.settings.as_dict().items()}
    del row["settings.seed"]
    if isinstance(spec.base, BaseModel):
        row |= {"base.path": spec.base.path, "base.digest": spec.base.digest}
    elif isinstance(spec.base, RunSpec):
        row |= {f"base.{name}": value for name, value in columns_of(spec.base).items()}
    return row


def row_of(spec: RunSpec, run: Run, folder: Path) -> Row:
    """Return the row of a run that is done.

    Args:
        spec: What was asked.
        run: What came out.
        folder: Of the run, where what was known before the first step lies too.
    """
    values = {r.epoch: r.test_metric for r in run.epochs}
    known = [value for value in values.values() if value is not None]
    last = run.epochs[-1] if run.epochs else None
    early = math.ceil(EARLY * run.total) if run.total else None
    before = None if run.pretraining is None else run.pretraining.accuracy
    action = None if run.pruning is None else run.pruning.action
    seconds = [r.seconds for r in run.epochs if r.seconds is not None]
    row: Row = {
        "digest": spec.digest,
        **columns_of(spec),
        "epochs": run.total,
        "status": str(run.status),
        "metric": run.metric.name,
        "better": run.metric.better,
        "base": run.base,
        "start": run.start,
        "end": run.end,
        "dense": before,
        "pruned": run.start_metric,
        "pruned_loss": None,
        "early": None if early is None else values.get(early),
        "ta": run.trainability().value,
        "final": run.final_metric,
        "best": run.metric.best(known) if known else None,
        "train_loss": None if last is None else last.train_loss,
        "test_loss": None if last is None else last.test_loss,
        "parameters": run.parameters,
        "speedup": None if action is None else action.speedup,
        "reached": None if action is None else action.reached,
        "stage_epochs": None if run.pruning is None else run.pruning.stage_epochs,
        "stage_flops": None if run.pruning is None else run.pruning.stage_flops,
        "flops_per_sample": run.flops_per_sample,
        "flops": run.flops,
        "pretraining_flops": None if run.pretraining is None else run.pretraining.flops,
        "seconds": math.fsum(seconds) if seconds else None,
    }
    if (folder / START).exists():
        row |= _before(start_of(folder))
    for taken in run.measurements:
        if taken.measurement.probe in spec.probes and taken.epoch is not None:
            row |= _scalars(f"epoch{taken.epoch:g}", taken.measurement.scalars, taken.measurement)
    return row


def _before(columns: Mapping[str, Json]) -> Row:
    """Return losses and probes before the first step; the dense metric as it was measured."""
    row: Row = {}
    names = {DENSE: "dense", PRUNED: "pruned"}
    for column, name in names.items():
        if column not in columns:
            continue
        found = columns[column]
        row |= {
            name: found["metric"],
            f"{name}_loss": found["train_loss"],
            f"{name}_test_loss": found["test_loss"],
        }
        for measurement in found["probes"].values():
            row |= _scalars(name, measurement.scalars, measurement)
    return row


def _scalars(column: str, scalars: Mapping[str, Any], measurement: Any) -> Row:
    probe = measurement.probe
    return {f"{column}.{probe}.{name}": scalar.value for name, scalar in scalars.items()}


def _cell(value: Any) -> Any:
    """Return a value as one cell of a table holds it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return json.dumps(value, sort_keys=True, default=str) if value else None
