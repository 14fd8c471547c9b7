"""What a probe may be able to do beside measuring: a protocol for each, which `isinstance` asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import nn

from trainscope.data import ProbeData
from trainscope.probes.probe import Probe
from trainscope.records import Measurement


@runtime_checkable
class LighterProbe(Probe, Protocol):
    """A probe that can do with less, where the time is short."""

    def lighter(self, network: nn.Module, data: ProbeData) -> Iterator[tuple[Probe, str]]:
        """Yield ways to measure less of a network, the least first: a probe, and words."""


@runtime_checkable
class TwinProbe(Probe, Protocol):
    """A probe that measures a network and its recalibrated copy with less work than each alone."""

    def measure_both(
        self, network: nn.Module, recalibrated: nn.Module, data: ProbeData
    ) -> tuple[Measurement, Measurement] | None:
        """Measure both; None where they are to be measured one by one."""


@runtime_checkable
class PartialProbe(Probe, Protocol):
    """A probe that says what it has when it is cut short (see `trainscope.pace.cut_short`)."""

    @property
    def tells_parts(self) -> bool:
        """Tell whether it does, with its options; a class attribute will do."""


def tells_parts(probe: Probe) -> bool:
    """Tell whether a probe that is cut short says what it has."""
    return isinstance(probe, PartialProbe) and probe.tells_parts
