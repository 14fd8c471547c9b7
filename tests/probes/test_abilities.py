"""Which probe can do more than measure is asked by protocols, not by names of attributes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.diagnosis.effort import fewer
from trainscope.diagnosis.measuring import measured_both
from trainscope.probes import LighterProbe, Need, PartialProbe, Probe, TwinProbe, available
from trainscope.probes.abilities import tells_parts
from trainscope.records import Cost, Measurement


@dataclass(frozen=True)
class Plain:
    rough: bool = False

    name: ClassVar[str] = "plain"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        return Measurement(self.name)

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        return Cost()


@dataclass(frozen=True)
class Able(Plain):
    tells_parts: ClassVar[bool] = True

    def lighter(self, network: nn.Module, data: ProbeData) -> Iterator[tuple[Probe, str]]:
        yield Able(rough=True), "roughly"

    def measure_both(
        self, network: nn.Module, recalibrated: nn.Module, data: ProbeData
    ) -> tuple[Measurement, Measurement]:
        return Measurement("one"), Measurement("two")


def test_a_probe_has_none_of_them_or_any():
    for ability in (LighterProbe, TwinProbe, PartialProbe):
        assert isinstance(Able(), ability)
        assert not isinstance(Plain(), ability)
    assert (tells_parts(Able()), tells_parts(Plain())) == (True, False)


def test_they_are_used():
    network, data = nn.Linear(2, 2), ProbeData("random", torch.randn(4, 2))
    least = fewer(Able(), network, data)[0]
    assert least.probe == Able(rough=True)
    assert least.said == "on 2 of 4 pinned samples, roughly"
    assert {e.probe for e in fewer(Plain(), network, data)} == {Plain()}
    both = measured_both(Able(), network, network, data)
    assert both == (Measurement("one"), Measurement("two"))
    assert measured_both(Plain(), network, network, data) is None


@pytest.mark.parametrize(
    ("name", "abilities"),
    [
        ("trainability_accuracy", {LighterProbe, TwinProbe, PartialProbe}),
        ("curvature", {LighterProbe, PartialProbe}),
        ("jacobian", {LighterProbe}),
        ("ntk", {LighterProbe}),
        ("gradient", set()),
        ("activity", set()),
    ],
)
def test_what_our_own_probes_can(name, abilities):
    probe = available()[name]()
    found = {each for each in (LighterProbe, TwinProbe, PartialProbe) if isinstance(probe, each)}
    assert found == abilities
