"""One training or retraining: what fairness, comparison, estimation and plots read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.epoch import EpochRecord, Taken
from trainscope.records.files import write_text
from trainscope.records.json_text import document, undamaged
from trainscope.records.measurement import Json
from trainscope.records.metric import ACCURACY, Metric
from trainscope.records.notation import lr_time
from trainscope.records.origin import Pretraining, Pruning
from trainscope.records.reading import text_of
from trainscope.records.shown import Shown
from trainscope.records.text import count_of
from trainscope.records.trainability import Trainability, trainability
from trainscope.records.typed import listed, record_of

FAMILY = "trainscope.run/"
SCHEMA = f"{FAMILY}2"
READ = (f"{FAMILY}1", SCHEMA)
"""Schemas that are read: the first one had accuracies alone."""
UNKNOWN = "unknown"
FILE_NAME = "run.json"

__all__ = ["SCHEMA", "UNKNOWN", "EpochRecord", "Kind", "Run", "RunStatus", "Taken"]


class Kind(StrEnum):
    """What was trained, from which weights."""

    TRAIN = "train"
    RETRAIN = "retrain"
    SCRATCH_E = "scratch-e"
    SCRATCH_B = "scratch-b"
    WINNING_TICKET = "winning-ticket"
    RANDOM_REINIT = "random-reinit"


class RunStatus(StrEnum):
    """How far it came."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Run(Shown):
    """One training or retraining. What is not known is None, or "unknown" for a digest.

    Attributes:
        kind: What was trained, from which weights.
        epochs: What happened, epoch by epoch, ascending.
        schedule: The LR schedule, like `0:1e-2,30:1e-3`.
        total: The epochs that the schedule plans.
        architecture: The network's name.
        data: The data, as `--data` takes it.
        base: SHA-256 of the base model's weights (the network before any action), or "unknown".
        start: SHA-256 of the weights that training started from, or "unknown".
        end: SHA-256 of the weights that it ended with, or "unknown".
        pruning: The sparsifying action and what is known of the pruning method; None for a dense
            network.
        pretraining: How the base model was trained; None where that is not known, or for a kind
            that has none.
        settings: Optimizer, momentum, weight decay, batch size and the like, by name.
        seed: Of every random choice.
        parameters: Surviving parameters.
        trained_parameters: Those that the optimizer moved, masked ones among them: all that are not
            frozen, or with LoRA those of the adapters.
        flops_per_sample: Multiply-adds of one sample, forward.
        flops: Multiply-adds spent on training: 3 times those of the samples trained on (backward
            counts as two forwards), masked weights left out; evaluation and probes are not counted.
        start_metric: What the test measured before the first step, in the metric's unit.
        measurements: What probes found on the way.
        status: How far it came.
        given: Names of fields that a person stated and no log said.
        source: Who wrote the numbers: "trainscope", "csv", "lightning", ...
        environment: Versions and device.
        notes: What a reader should know, each one sentence.
        metric: What the test measures: top-1 accuracy in percent unless told otherwise.
    """

    kind: Kind
    epochs: tuple[EpochRecord, ...]
    schedule: str | None = None
    total: int | None = None
    architecture: str | None = None
    data: str | None = None
    base: str = UNKNOWN
    start: str = UNKNOWN
    end: str = UNKNOWN
    pruning: Pruning | None = None
    pretraining: Pretraining | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    parameters: int | None = None
    flops_per_sample: int | None = None
    flops: int | None = None
    start_metric: float | None = None
    measurements: tuple[Taken, ...] = ()
    status: RunStatus = RunStatus.FINISHED
    given: tuple[str, ...] = ()
    source: str = "trainscope"
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metric: Metric = ACCURACY
    trained_parameters: int | None = None

    def __post_init__(self) -> None:
        """Check the order of the epochs and that all are of the Run's metric."""
        others = {record.metric for record in self.epochs} - {self.metric}
        if others:
            raise ValueError(
                f"the epochs of this Run hold {others.pop().label}, and its metric is "
                f"{self.metric.label}"
            )
        fault = None if self.start_metric is None else self.metric.fault(self.start_metric)
        if fault is not None:
            raise ValueError(fault)
        numbers = [record.epoch for record in self.epochs]
        if any(after <= before for before, after in pairwise(numbers)):
            raise ValueError("the epochs of a Run ascend")

    @property
    def final_metric(self) -> float | None:
        """Return the test value of the last epoch that has one: never the best one."""
        found = [r.test_metric for r in self.epochs if r.test_metric is not None]
        return found[-1] if found else self.start_metric

    @property
    def final_accuracy(self) -> float | None:
        """Return `final_metric` where it is an accuracy, percent; None for any other metric."""
        return self.final_metric if self.metric.is_accuracy else None

    @property
    def start_accuracy(self) -> float | None:
        """Return `start_metric` where it is an accuracy, percent; None for any other metric."""
        return self.start_metric if self.metric.is_accuracy else None

    @property
    def first_stage(self) -> int:
        """Return the number of epochs before the first decay of the LR, as recorded."""
        last = self.epochs[-1].epoch if self.epochs else 0
        pairs = pairwise(self.epochs)
        return next((before.epoch for before, after in pairs if after.lr < before.lr), last)

    def number(self, setting: str) -> float | None:
        """Return a setting that is a number, or text that is one; None for any other."""
        value = self.settings.get(setting)
        try:
            found = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            return None
        return found if math.isfinite(found) else None

    @property
    def lr_time(self) -> float:
        """Return the sum of the learning rates over the epochs, as recorded."""
        done = [0, *(record.epoch for record in self.epochs)]
        # an epoch that was not logged had the LR of the next that was
        return lr_time(
            (record.epoch - before, record.lr)
            for before, record in zip(done, self.epochs, strict=False)
        )

    def trainability_accuracy(self, epochs: int | None = None) -> float | None:
        """Return TA: the mean test accuracy of the first N epochs, percent.

        For another metric, its mean over these epochs, in its own unit.

        Comparable only under the same LR schedule and N. Source: Wang et al. (2023), Sec. 4.

        Args:
            epochs: N; by default the length of the first LR stage.

        Returns:
            The mean over exactly these N epochs; None where the run has fewer, where the accuracy
            of any of them is not known, or where N is not given and the LR has no first stage:
            `trainability` says which.

        Raises:
            RecordError: N is below 1.
        """
        return self.trainability(epochs).value

    def trainability(self, epochs: int | None = None) -> Trainability:
        """Return TA with N, and what to know of it or why it is not known.

        It is the mean of the Run's metric, whatever that is.

        The first LR stage is the epochs before the first decay, warm-up among them. It is the one
        that the LR schedule plans: of a run that ended within it TA is not known, unless N says
        over how many epochs it is to be. An LR that falls from epoch to epoch, as on a cosine, has
        no stage; one that never decays has a single stage, all epochs.

        Args:
            epochs: N; by default the length of the first LR stage.

        Raises:
            RecordError: N is below 1.
        """
        return trainability(self, epochs)

    def __repr__(self) -> str:
        """Return one line: what was trained, how long, and where it ended."""
        done = self.epochs[-1].epoch if self.epochs else 0
        final = self.final_metric
        ended = "" if final is None else f", {self.metric.called(final, 2)}"
        what = self.architecture or "an unnamed network"
        how = f", {self.schedule}" if self.schedule else ""
        return f"<Run {self.kind} of {what}{how}: {count_of(done, 'epoch')}{ended}, {self.status}>"

    def as_dict(self) -> Json:
        """Return the document of `trainscope.run/2` as a JSON object."""
        return {
            "schema": SCHEMA,
            "kind": str(self.kind),
            "status": str(self.status),
            "architecture": self.architecture,
            "data": self.data,
            "base": self.base,
            "start": self.start,
            "end": self.end,
            "pruning": None if self.pruning is None else self.pruning.to_json(),
            "pretraining": None if self.pretraining is None else self.pretraining.to_json(),
            "schedule": self.schedule,
            "total": self.total,
            "settings": dict(self.settings),
            "seed": self.seed,
            "parameters": self.parameters,
            "trained_parameters": self.trained_parameters,
            "flops_per_sample": self.flops_per_sample,
            "flops": self.flops,
            "metric": self.metric.to_json(),
            "start_metric": self.start_metric,
            "start_accuracy": self.start_accuracy,
            "epochs": [record.to_json() for record in self.epochs],
            "measurements": [taken.to_json() for taken in self.measurements],
            "given": list(self.given),
            "source": self.source,
            "environment": dict(self.environment),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Return the document of `trainscope.run/2`, without NaN or Infinity."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Return the Run that `to_json` wrote.

        Raises:
            RecordError: The text is no Run of a version that is known here.
        """
        raw, schema = document(text, "Run")
        if schema is None:
            raise RecordError(
                "this is no Run, which says its schema; of another tool's log make one with "
                "`trainscope import`"
            )
        if schema not in READ:
            raise RecordError(
                f"this is no Run that this version reads: its schema is {schema!r}, not '{SCHEMA}'"
            )
        if schema != SCHEMA:
            metric = {"metric": ACCURACY.to_json(), "start_metric": raw.get("start_accuracy")}
            raw = {**raw, **metric}
        with undamaged("Run"):
            return cls._read(raw)

    @classmethod
    def _read(cls, raw: Json) -> Run:
        pruning, pretraining = raw["pruning"], raw["pretraining"]
        metric = Metric.from_json(raw["metric"])
        epochs = listed(raw["epochs"], "epochs")
        return record_of(
            cls,
            {"trained_parameters": None, **raw},
            metric=metric,
            epochs=tuple(EpochRecord.from_json(epoch, metric) for epoch in epochs),
            pruning=None if pruning is None else Pruning.from_json(pruning),
            pretraining=None if pretraining is None else Pretraining.from_json(pretraining),
            measurements=tuple(map(Taken.from_json, listed(raw["measurements"], "measurements"))),
        )

    def save(self, path: Path) -> None:
        """Write the document in one step, over an earlier Run at most.

        Raises:
            RecordError: The file cannot be written, or holds something else.
        """
        write_text(path, self.to_json() + "\n", over=FAMILY)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a Run from its file, or from the folder that holds its `run.json`.

        Raises:
            RecordError: There is no such file, or it is no Run.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        if path.is_dir() and not file.exists():
            raise RecordError(
                f"no Run can be read from {path}: it holds no {FILE_NAME}; name the folder of a "
                "run, or of another tool's log make one with `trainscope import`"
            )
        text = text_of(file, failed=f"no Run can be read from {file}")
        try:
            return cls.from_json(text)
        except RecordError as error:
            raise RecordError(f"{file}: {error}") from error
