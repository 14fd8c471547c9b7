"""Smoothed references of long runs, and what is known of their passages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainscope.convergence import matching
from trainscope.convergence.matching import rising
from trainscope.convergence.stage import FirstStage


def stage(records: int) -> FirstStage:
    """A run whose accuracy rises with the logarithm of time, without noise."""
    time = np.arange(1.0, records + 1)
    return FirstStage(time, 50 + 5 * np.log(time), None, 0.1, None, float(records), 0.0, False)


@pytest.mark.parametrize(("records", "at_most"), [(7, 7), (500, 500), (501, 500), (2000, 500)])
def test_a_reference_has_a_knot_for_each_record_up_to_five_hundred(
    records: int, at_most: int
) -> None:
    one = stage(records)
    found = rising(one, one.accuracy, None)
    knots = found.time[1:]
    assert found.time[0] == 0
    assert (knots[0], knots[-1]) == (1.0, float(records))
    assert set(knots) <= set(one.time)
    if records == at_most:
        assert len(knots) == records
    else:  # evenly in log time, where whole records allow it
        assert len(knots) <= at_most
        apart = np.diff(np.log(knots))
        assert (apart <= np.log(records) / (at_most - 1) + 1.01 / knots[:-1]).all()


def test_fewer_knots_change_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage(1200)
    few = rising(one, one.accuracy, None)
    monkeypatch.setattr(matching, "KNOTS", 10_000)
    every = rising(one, one.accuracy, None)
    assert len(every.time) == 1201
    assert np.interp(every.time[1:], few.time, few.level) == pytest.approx(
        every.level[1:], abs=0.05
    )


def test_the_noise_of_a_reference_is_that_of_its_accuracy() -> None:
    rng = np.random.default_rng(0)
    one = stage(300)
    noisy = replace(one, accuracy=one.accuracy + rng.normal(0, 0.5, 300))
    found = rising(noisy, noisy.accuracy, None)
    off = np.abs(found.level[1:] - one.accuracy)[20:-20]
    stderr = found.stderr[1:][20:-20]
    assert 0.02 < np.median(stderr) < 0.5
    assert (off <= 4 * stderr).mean() > 0.9
