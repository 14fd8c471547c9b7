"""The ways to measure less of a probe, from a first look to all that was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.diagnosis.effort import fewer
from trainscope.probes import Probe
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian


def _pinned(count: int) -> ProbeData:
    return ProbeData("drawn", torch.zeros(count, 6), torch.zeros(count, dtype=torch.int64))


def _said(probe: Probe, count: int, classes: int = 5, *, samples: bool = True) -> list[str]:
    network = nn.Sequential(nn.Linear(6, 200), nn.Linear(200, classes))
    return [each.said for each in fewer(probe, network, _pinned(count), samples=samples)]


def _on(count: int, *rest: str, of: int = 40) -> str:
    return ", ".join((f"on {count} of {of} pinned samples", *rest))


def test_a_probe_that_has_no_first_look_is_measured_on_fewer_samples() -> None:
    assert _said(Gradient(), 40) == [_on(n) for n in (2, 4, 8, 16, 32)]
    assert _said(Jacobian(), 5) == [_on(n, of=5) for n in (2, 4)]
    assert _said(Gradient(), 40, samples=False) == []


def test_more_samples_come_before_all_that_few_of_them_say() -> None:
    (look,) = {said for _, said in Curvature().lighter(nn.Linear(6, 5), _pinned(1))}
    expected = [*(_on(n, look) for n in (2, 4, 8)), *(_on(n) for n in (8, 16, 32))]
    assert _said(Curvature(), 40) == expected
    assert _said(Curvature(), 5) == [*(_on(n, look, of=5) for n in (2, 4)), look]
    assert _said(Curvature(), 2) == [look]
    assert _said(Curvature(), 40, samples=False) == [look]


@pytest.mark.parametrize(
    ("probe", "classes", "combined"),
    [
        (Jacobian(), 100, True),
        (Jacobian(), 64, False),
        (Jacobian(exact=True), 100, False),
        (Jacobian(sketch=8), 100, False),
        (Jacobian(most_outputs=9, sketch=9), 10, True),
    ],
)
def test_many_outputs_are_combined_into_fewer_at_first(
    probe: Jacobian, classes: int, combined: bool
) -> None:
    said = _said(probe, 40, classes)
    assert (said[0] == _on(2, "8 combinations of the outputs")) == combined
    assert said[-1] == _on(32)
