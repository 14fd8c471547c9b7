"""One sparsifying action, measured before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from trainscope.errors import RecordError
from trainscope.records.action import ActionRecord
from trainscope.records.before import PrunedBefore
from trainscope.records.columns import Columns
from trainscope.records.json_text import document, undamaged
from trainscope.records.measurement import Json
from trainscope.records.shown import Shown
from trainscope.records.typed import record_of, typed

FAMILY = "trainscope.diagnosis/"
SCHEMA = f"{FAMILY}1"


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """The base network.

    Attributes:
        architecture: Its name.
        parameters: How many it has, masked ones not counted.
        flops: Multiply-adds of one sample.
        digest: SHA-256 of its weights: the base model's identity.
        input_shape: The shape of one input, (C, H, W).
        num_classes: The width of its logits; None where it does not tell classes apart.
        recognised: How its architecture was found.
        format: The format of its checkpoint.
        before: What had been pruned in it before it was opened.
    """

    architecture: str
    parameters: int
    flops: int
    digest: str
    input_shape: tuple[int, ...] = ()
    num_classes: int | None = 0
    recognised: str = ""
    format: str = ""
    before: tuple[PrunedBefore, ...] = ()

    def to_json(self) -> Json:
        """Return the fields."""
        return {
            "architecture": self.architecture,
            "parameters": self.parameters,
            "flops": self.flops,
            "digest": self.digest,
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "recognised": self.recognised,
            "format": self.format,
            "before": [each.to_json() for each in self.before],
        }

    @classmethod
    def from_json(cls, raw: Json) -> NetworkRecord:
        """Return the NetworkRecord that `to_json` wrote."""
        before = tuple(PrunedBefore.from_json(each) for each in raw.get("before", ()))
        return typed(cls, {**raw, "before": before})


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What the probes measured on.

    Attributes:
        name: The data, as `--data` takes it.
        samples: The number of pinned samples.
        labels: "true", or "predicted" where they were drawn from the base network's predictions.
    """

    name: str
    samples: int
    labels: str

    def to_json(self) -> Json:
        """Return the fields."""
        return {"name": self.name, "samples": self.samples, "labels": self.labels}


@dataclass(frozen=True, slots=True)
class Diagnosis(Shown):
    """A network's trainability, and what one sparsifying action did to it.

    Attributes:
        network: The base network.
        action: The action; None where one network was measured and nothing was done to it.
        data: What was measured on.
        probes: The measurements by probe.
        verdict: What they say, in sentences.
        environment: Versions, device and options that a repetition needs.
        seed: Of every random choice.
        notes: What a person should know about how this was measured, each one sentence.
        estimates: For each smaller retraining LR, the extra epochs to catch up with a larger one,
            as `trainscope.diagnosis.outlook` writes them.
    """

    network: NetworkRecord
    action: ActionRecord | None
    data: DataRecord
    probes: Mapping[str, Columns]
    verdict: tuple[str, ...]
    environment: Mapping[str, str]
    seed: int = 0
    notes: tuple[str, ...] = ()
    estimates: tuple[Json, ...] = ()

    @property
    def title(self) -> str:
        """The architecture, and what was done to it where something was."""
        done = "" if self.action is None else f": {self.action.meaning}"
        return f"{self.network.architecture}{done}"

    def __repr__(self) -> str:
        """Return one line: the network, what was done, and what was measured."""
        return f"<Diagnosis of {self.title}; {', '.join(self.probes) or 'nothing measured'}>"

    def to_json(self) -> str:
        """Return the document of `trainscope.diagnosis/1`, without NaN or Infinity."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    def as_dict(self) -> Json:
        """Return the document as a JSON object."""
        return {
            "schema": SCHEMA,
            "network": self.network.to_json(),
            "action": None if self.action is None else self.action.to_json(),
            "data": self.data.to_json(),
            "probes": {name: columns.to_json() for name, columns in self.probes.items()},
            "verdict": list(self.verdict),
            "environment": dict(self.environment),
            "seed": self.seed,
            "notes": list(self.notes),
            "estimates": list(self.estimates),
        }

    @classmethod
    def from_json(cls, text: str) -> Diagnosis:
        """Return the Diagnosis that `to_json` wrote.

        Raises:
            RecordError: The text is no Diagnosis of a version that is known here.
        """
        raw, schema = document(text, "Diagnosis")
        if schema != SCHEMA:
            raise RecordError(
                f"this is no Diagnosis that this version reads: its schema is {schema!r}, "
                f"not '{SCHEMA}'"
            )
        with undamaged("Diagnosis"):
            return record_of(
                cls,
                {"notes": (), "estimates": (), **raw},
                network=NetworkRecord.from_json(raw["network"]),
                action=None if raw["action"] is None else ActionRecord.from_json(raw["action"]),
                data=typed(DataRecord, raw["data"]),
                probes={n: Columns.from_json(n, columns) for n, columns in raw["probes"].items()},
            )
