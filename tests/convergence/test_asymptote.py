"""How likely a curve that is watched alone comes to a level: what levels off, and what goes on."""

from itertools import pairwise

import numpy as np
import pytest

from trainscope.convergence import LearningCurve, estimate_extra_epochs
from trainscope.convergence.asymptote import HORIZON, LAWS, chances
from trainscope.convergence.stage import first_stage

TIME = np.arange(1.0, 31.0)
LEVELS = np.array([80.5, 82.0, 85.0, 90.0, 100.0])


def stage_of(values, unit=1.0):
    stage = first_stage(LearningCurve(TIME * unit, values, 1e-3))
    assert stage is not None
    return stage


def saturating(scales):
    """Return a curve that ends at 80 %, watched for some of its time scales."""
    return 80.0 - 60.0 * np.exp(-TIME * scales / TIME[-1])


def logarithm(now=80.0, rise=15.0):
    return now + rise * np.log(TIME / TIME[-1])


def reachable(values, target):
    return estimate_extra_epochs(LearningCurve(TIME, values, 1e-3), target).reachable


def test_no_law_that_fits_a_saturated_curve_goes_beyond_its_end():
    seen = chances(stage_of(saturating(6.0)), LEVELS)
    assert seen.weight[2:].max() < 0.05
    going_on = chances(stage_of(logarithm()), LEVELS)
    assert going_on.weight[1] > 0.7  # an eighth of a doubling away
    assert (np.diff(going_on.weight) <= 0).all()


def test_what_lacks_is_the_share_of_what_is_left_to_a_hundred():
    values = saturating(6.0)
    stage = stage_of(values)
    best = 80 - 60 * np.exp(-6 * np.array([28, 29, 30]) / 30).mean()
    seen = chances(stage, LEVELS)
    assert seen.lacking == pytest.approx((LEVELS - best) / (100 - best))
    columns = seen.columns()
    assert columns[:, 0] == pytest.approx(1.0)
    assert columns[:, 3] == pytest.approx(np.log(seen.lacking))


def test_the_unit_of_time_does_not_matter():
    here, there = (chances(stage_of(saturating(3.0), unit), LEVELS) for unit in (1.0, 390.0))
    assert here.columns() == pytest.approx(there.columns(), abs=1e-6)


def test_a_curve_that_has_not_risen_shows_nothing_either_way():
    assert chances(stage_of(np.full(30, 10.0)), np.array([20.0, 60.0])).weight.tolist() == [0.5] * 2


def test_the_laws_stand_where_they_stand_at_the_horizon():
    # A straight line in log time is the law without damping: it rises by log(100) of its pace.
    stage = stage_of(logarithm(now=50.0, rise=4.0))
    top = 50.0 + 4.0 * np.log(HORIZON)
    below, above = chances(stage, np.array([top - 3.0, top + 3.0])).weight
    assert below - above > 0.02
    assert LAWS.exponential + 0.3 == pytest.approx(1.0)


@pytest.mark.parametrize("loss", [None, "tied"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_target_above_where_a_curve_levels_off_is_not_sure(loss, noise):
    values = saturating(6.0) + noise * np.random.default_rng(0).normal(size=30)
    told = None if loss is None else (100.01 - saturating(6.0)) * 0.023
    curve = LearningCurve(TIME, values, 1e-3, told)
    sure = [estimate_extra_epochs(curve, target).reachable for target in (80.5, 85.0, 100.0)]
    assert sure[1] < 0.4  # it was 1.00 with this loss, which levels off at half a nat
    assert sure[2] < 0.1
    assert sure == sorted(sure, reverse=True)


def test_a_target_close_by_on_a_curve_that_goes_on_is_likely():
    assert reachable(logarithm(), 82.0) > 0.8
    assert reachable(logarithm(), 82.0) > reachable(saturating(6.0), 82.0) + 0.2


def test_reachable_falls_with_the_target_and_never_rises():
    told = [reachable(logarithm(), float(target)) for target in np.linspace(80, 100, 15)]
    assert all(a >= b - 1e-9 for a, b in pairwise(told))
