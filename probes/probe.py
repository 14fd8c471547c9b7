"""The protocol that every probe follows, and how probes are found and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError, TrainscopeError
from trainscope.probes.scalar_spec import GROUP, ScalarSpec
from trainscope.records import Cost, Measurement


class Need(StrEnum):
    """What a probe cannot do without."""

    INPUTS = "inputs"
    LABELS = "labels"
    TRAINING = "a labelled training and test set"


@runtime_checkable
class Probe(Protocol):
    """One thing that can be measured on a network. A frozen dataclass; its fields are its options.

    Its `title` and its `scalars`, see `DescribedProbe`, are how reports call what it measures.

    A probe leaves no trace: weights, buffers, gradients, hooks, modes, `requires_grad` and every
    random state are bit for bit what they were, also when it raises (see `untouched`).
    """

    @property
    def name(self) -> str:
        """Return what `--probes` and records call it; a class attribute will do."""

    @property
    def needs(self) -> frozenset[Need]:
        """Return what it cannot do without; a class attribute will do."""

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network on pinned samples. Masked and frozen parameters are left out."""

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""


class DescribedProbe(Probe, Protocol):
    """A Probe that says how it and its numbers are called; any other has its plain names.

    Tables, pages, `--probes`, figures along retraining and the docs read these two.
    """

    @property
    def title(self) -> str:
        """Return the heading of its numbers."""

    @property
    def scalars(self) -> tuple[ScalarSpec, ...]:
        """Return how each of its numbers is called."""


def available() -> Mapping[str, type[Probe]]:
    """Return every installed probe's class by name, ours and other packages'."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def find(name: str) -> type[Probe]:
    """Return the class of one probe.

    Raises:
        ProbeError: No installed package has a probe of that name.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise ProbeError(f"no probe is named '{name}'; choose from {', '.join(sorted(points))}")
    loaded: type[Probe] = points[name].load()
    return loaded


def reason_of(error: Exception) -> str:
    """Return why a probe did not measure: what an error says of the network, the data, the memory.

    Raises:
        Exception: The error, where it is of no such kind: it is a bug of the probe.
    """
    if isinstance(error, TrainscopeError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "there is not enough memory; give a smaller --batch-size or fewer --samples"
    raise error


def measured_or_skipped(
    name: str, measure: Callable[[], Measurement], reason: Callable[[Exception], str] = reason_of
) -> Measurement:
    """Return what was measured; where it could not be, a skipped measurement with the reason.

    So one probe, or one column, never takes the rest of a diagnosis, or a training, with it.

    Args:
        name: The probe's.
        measure: Does it.
        reason: Returns the reason that an error is, or raises it; by default as `reason_of`.
    """
    try:
        return measure()
    except Exception as error:
        return Measurement.skipped(name, reason(error))


def attempt(probe: Probe, network: nn.Module, data: ProbeData) -> Measurement:
    """Measure; a probe that cannot is skipped with the reason, and one that has a bug raises."""
    return measured_or_skipped(probe.name, lambda: probe.measure(network, data))


def lacking(probe: Probe, data: ProbeData) -> Need | None:
    """Return the first thing a probe needs and the data does not have, or None."""
    offered = {
        Need.INPUTS: True,
        Need.LABELS: data.labelled,
        Need.TRAINING: data.train is not None and data.test is not None,
    }
    return next((need for need in sorted(probe.needs) if not offered[need]), None)
