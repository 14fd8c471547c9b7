"""What a Diagnosis says beside its measurements: the network, the action, the data, the notes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from trainscope.data import Dataset, ProbeData, RandomInputs
from trainscope.diagnosis.budget import Measuring
from trainscope.diagnosis.inputs import data_notes, network_notes
from trainscope.diagnosis.outlook import outlook
from trainscope.diagnosis.standing import standing
from trainscope.diagnosis.verdict import verdict
from trainscope.networks import Network, digest, parameters
from trainscope.probes.processes.ranks import present
from trainscope.records import Columns, DataRecord, Diagnosis, NetworkRecord
from trainscope.sparsify import Sparsified
from trainscope.version import VERSION


@dataclass(frozen=True)
class DiagnosisContext:
    """All of a Diagnosis that is known before anything is measured.

    Attributes:
        record: The network before the action.
        done: The action; None where there is none.
        pinned: The samples that are measured on.
        environment: Versions, device and date.
        seed: Of every random choice.
        notes: Of the network, the action and the data, before those of the measurements.
    """

    record: NetworkRecord
    done: Sparsified | None
    pinned: ProbeData
    environment: Mapping[str, str]
    seed: int
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        base: Network,
        done: Sparsified | None,
        source: Dataset | RandomInputs,
        pinned: ProbeData,
        cost: int,
        device: torch.device,
        seed: int,
    ) -> DiagnosisContext:
        """Describe a network, what was done to it, and where it is measured.

        Args:
            base: The network before the action.
            done: The action.
            source: The data that the samples are of.
            pinned: The samples.
            cost: Multiply-adds of one sample.
            device: Where the probes run.
            seed: Of every random choice.
        """
        record = NetworkRecord(
            architecture=base.architecture,
            parameters=parameters(base.module),
            flops=cost,
            digest=digest(base.module),
            input_shape=tuple(base.input_shape),
            num_classes=base.num_classes,
            recognised=base.recognised,
            format=base.format,
            before=base.before,
        )
        notes = (
            *base.notes,
            *(() if done is None else done.notes),
            *getattr(source, "notes", ()),
            *data_notes(pinned),
        )
        return cls(record, done, pinned, _environment(device), seed, notes)

    def diagnosis(self, work: Measuring, measured: Mapping[str, Columns]) -> Diagnosis:
        """Return the Diagnosis so far.

        Args:
            work: The measuring, which has remarks on what it left out.
            measured: The columns of every probe that has some.
        """
        retrained = measured.get("trainability_accuracy")
        estimates = () if retrained is None else outlook(retrained)
        if self.done is None:
            lines = standing({name: columns.before for name, columns in measured.items()})
        else:
            telling = _telling(measured, self.pinned)
            lines = verdict(self.record, self.done.record, telling, estimates)
        return Diagnosis(
            network=self.record,
            action=None if self.done is None else self.done.record,
            data=DataRecord(self.pinned.name, len(self.pinned), self.pinned.label_source),
            probes=measured,
            verdict=lines,
            environment=self.environment,
            seed=self.seed,
            notes=(*self.notes, *network_notes(measured), *work.remarks()),
            estimates=estimates,
        )


def _telling(measured: Mapping[str, Columns], data: ProbeData) -> dict[str, Columns]:
    """Return what a verdict may rest on.

    Statistics recalibrated on Gaussian inputs are of another distribution than those before, so
    that column does not tell the action's damage from theirs.
    """
    if data.label_source == "true":
        return dict(measured)
    return {name: replace(columns, recalibrated=None) for name, columns in measured.items()}


def _environment(device: torch.device) -> dict[str, str]:
    return {
        "trainscope": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "threads": str(torch.get_num_threads()),
        **({} if present().count == 1 else {"processes": str(present().count)}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
