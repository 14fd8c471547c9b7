from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from curves import curve, law, passage

from trainscope.convergence import LearningCurve
from trainscope.convergence.extrapolation import extrapolate, loss_slope
from trainscope.convergence.forecast import forecast
from trainscope.convergence.level_match import level_match, reference_passages
from trainscope.convergence.matching import KNOTS, Matches, in_steps, match_levels, memory, rising
from trainscope.convergence.stage import first_stage

TARGETS = np.array([45.0, 55.0, 60.0])


@pytest.mark.parametrize("pace", [2.0, 4.0, 8.0])
def test_matched_levels_find_the_pace_of_two_clean_curves(pace):
    large = first_stage(curve(200, lr=0.1))
    small = first_stage(curve(30, pace=pace, lr=0.1 / pace))
    matches = match_levels(small, small.accuracy, rising(large, large.accuracy, large.start[0]))
    late = matches.at > np.log(1.5)
    assert late.sum() >= 3
    assert np.allclose(np.exp(matches.ratio[late]), pace, rtol=0.06)


@pytest.mark.parametrize("true", [3.0, 6.0])
def test_the_curves_overrule_the_ratio_of_the_learning_rates(true):
    """The LRs say 8 times slower; the curves say less, and are believed."""
    large, small = first_stage(curve(200, lr=0.1)), first_stage(curve(60, pace=true, lr=0.0125))
    found = forecast(small, large, TARGETS)
    expected = [passage(t, pace=true) for t in TARGETS]
    assert found.kind == "matched"
    ahead = np.array(expected) > 60
    assert np.allclose(np.exp(found.centre)[ahead], np.array(expected)[ahead], rtol=0.15)


def test_with_nothing_matched_the_ratio_of_the_learning_rates_decides():
    large = first_stage(LearningCurve(range(1, 201), law(np.arange(1.0, 201)), 0.1))
    small = first_stage(LearningCurve([1], [10.0], 0.01))
    found = forecast(small, large, TARGETS)
    assert found.kind == "rule"
    assert np.allclose(np.exp(found.centre), [10 * passage(t) for t in TARGETS], rtol=0.15)


def test_a_line_in_log_time_is_carried_on():
    time = np.arange(1.0, 61)
    small = first_stage(curve(60))
    straight = type(small)(
        time, 20 + 8 * np.log(time), None, 0.1, None, end=60.0, lag=0.0, decayed=False
    )
    level = 20 + 8 * np.log(np.array([80.0, 120.0]))
    found = 60 * np.exp(extrapolate(straight, level).median)
    assert np.allclose(found, [80, 120], rtol=0.25)


def test_a_curve_that_levels_off_does_not_see_beyond_its_asymptote():
    time = np.arange(1.0, 201)
    flat = first_stage(curve(200))
    flat = type(flat)(
        time, 60 - 30 * np.exp(-time / 10), 0.5 / time**1.5, 0.1, None, 200.0, 0.0, False
    )
    found = extrapolate(flat, np.array([60.5, 70.0]))
    assert (found.in_sight < 0.2).all()
    assert loss_slope(flat) == 1.0
    assert loss_slope(replace(flat, loss=0.5 / time**0.4)) == pytest.approx(0.4)


@pytest.mark.parametrize("bounded", [True, False])
def test_the_error_of_a_forecast_is_the_inverse_of_its_passages(bounded):
    small = replace(first_stage(curve(30)), bounded=bounded)
    found = forecast(small, None, TARGETS)
    for z in (-3.0, -0.4, 0.0, 1.5):
        assert found.error(found.at(z)) == pytest.approx(np.full(3, z), abs=1e-9)
    # However early, never before what was watched, where levels are those of a percentage.
    assert (found.at(-30.0) >= found.watched - 1e-12).all() == bounded
    assert found.error(np.inf).min() > 1e9


def test_what_is_lacking_by_little_more_than_noise_may_come_early():
    quiet, loud = (first_stage(curve(30, noise=noise, seed=3)) for noise in (0.05, 2.0))
    of_quiet, of_loud = (forecast(stage, None, np.array([71.0])) for stage in (quiet, loud))
    assert of_loud.early[0] > 2 * of_quiet.early[0]
    few = forecast(first_stage(curve(8, noise=0.05, seed=3)), None, np.array([71.0]))
    assert few.early[0] < of_quiet.early[0]


@pytest.mark.parametrize("bounded", [True, False])
def test_of_few_records_a_trend_alone_is_told_later_the_more_so_what_is_near(bounded):
    above = np.array([0.5, 1.5, 3.0])
    for count, later in ((4, 0.5), (6, 0.5), (12, 0.5 / 8), (60, 0.5 / 1000)):
        small = replace(first_stage(curve(count)), bounded=bounded)
        sight = extrapolate(small, small.accuracy[-1] + above)
        found = forecast(small, None, small.accuracy[-1] + above)
        ahead = found.centre - np.log(small.time[-1])
        assert ahead == pytest.approx(sight.median + later * np.exp(-sight.median))
        assert (np.diff(ahead) > 0).all()


def test_a_match_far_from_the_ratio_of_the_lrs_is_less_sure():
    large = first_stage(curve(200, lr=0.1))
    at = np.array([66.0])
    as_the_lrs = forecast(first_stage(curve(30, pace=8.0, lr=0.0125)), large, at)
    unlike = forecast(first_stage(curve(30, pace=8.0, lr=0.1 / 64)), large, at)
    assert unlike.scale[0] ** 2 - as_the_lrs.scale[0] ** 2 > 0.1


def forgetting(times):
    """Return the prior covariance of the log ratio: one is forgotten by e in 7 of log time."""
    return np.array([[0.7**2 * np.exp(-abs(a - b) / 7.0) for b in times] for a in times])


def test_the_log_ratio_is_carried_on_and_forgotten_seen_through_noise():
    seen, ahead, prior = np.array([1.0, 1.5, 2.5]), np.array([3.0, 5.0]), 2.0
    ratio, variance, shared = np.array([1.2, 1.4, 1.1]), np.array([0.01, 0.04, 0.09]), 0.3
    found = Matches(seen, ratio, variance, np.full(3, shared))
    joint = forgetting(np.concatenate((seen, ahead)))
    known = joint[:3, :3] + np.diag(2 * variance + 1e-4) + shared**2
    gain = joint[3:, :3] @ np.linalg.inv(known)
    mean, spread = found.carry_on(ahead, prior, 7.0)
    assert np.allclose(mean, prior + gain @ (ratio - prior))
    far, _ = found.carry_on(np.array([80.0]), prior, 7.0)
    assert far[0] == pytest.approx(prior, abs=1e-3)  # the rule comes back
    assert np.allclose(spread, np.diag(joint[3:, 3:] - gain @ joint[:3, 3:]))


def begun_at(start, bounded=True):
    """Return a small and a large run of pace 1.5 whose LRs are apart by 8, from a start."""
    large, small = first_stage(curve(200, lr=0.1)), first_stage(curve(30, pace=1.5, lr=0.0125))
    begin = {"start": (start, None), "bounded": bounded, "loss": None}
    return replace(small, **begin), replace(large, **begin)


def test_a_network_that_began_trained_forgets_the_ratio_of_its_first_levels():
    best = float(first_stage(curve(200)).accuracy.max())
    for share, length in ((0.1, 7.0), (0.3, 7.0), (0.45, 7 / 10**0.5), (0.6, 0.7), (0.9, 0.7)):
        small, large = begun_at(share * best)
        assert memory(small, large, 0.0) == pytest.approx(length, rel=0.02)
    assert memory(*begun_at(0.9 * best, bounded=False), 0.0) == 7.0
    small, large = begun_at(0.0)
    assert memory(replace(small, start=None), replace(large, start=None), 0.0) == 7.0


def apart_by(*shares, variance=None):
    """Return levels whose passages are apart by shares of the log ratio of the LRs, 8."""
    ratio, none = np.array(shares) * np.log(8), np.zeros(len(shares))
    return Matches(none, ratio, none if variance is None else np.array(variance), none)


def test_levels_that_come_after_equally_many_steps_at_any_lr_are_forgotten():

    def kept(small, large, matches):
        return memory(small, large, in_steps(small, large, matches))

    pair = begun_at(0.0)
    for share, length in ((1.0, 7.0), (0.35, 7.0), (0.225, 7 / 10**0.5), (0.1, 0.7), (-0.2, 0.7)):
        assert kept(*pair, apart_by(share)) == pytest.approx(length)
    # A mean of the levels, each by what is known of it: its variance and a hundredth.
    assert kept(*pair, apart_by(0.1, 0.35)) == pytest.approx(7 / 10**0.5)
    middle = (0.1 * 100 + 0.35 * 50) / 150
    told = kept(*pair, apart_by(0.1, 0.35, variance=(0.0, 0.01)))
    assert told == pytest.approx(7 / 10 ** ((0.35 - middle) / 0.25))
    small, large = pair
    assert kept(small, replace(large, lr=small.lr), apart_by(0.0)) == 7.0  # no ratio to tell by


def run(lr, pace, count):
    """Return a run that rises by 40 points in 12 epochs at any LR, and goes on in its own time."""
    epochs = np.arange(1.0, count + 1)
    after = 40 * (1 - (1 + epochs / pace / 10) ** -0.7)
    return LearningCurve(epochs, 40 * (1 - np.exp(-epochs / 4)) + after, lr)


def test_what_came_after_equally_many_steps_does_not_foretell_what_needs_lr_time():
    """A rise of 12 epochs at any LR, then one that takes 8 times as long; the first is watched."""
    whole = run(0.0125, 8.0, 1000)
    truth = whole.epochs[np.argmax(whole.accuracy >= 60.0)]
    large = first_stage(run(0.1, 1.0, 200))
    told = forecast(first_stage(run(0.0125, 8.0, 14)), large, np.array([60.0])).centre[0]
    equally_many = np.argmax(large.accuracy >= 60.0) + 1
    assert truth > 5 * equally_many
    assert abs(told - np.log(truth)) < abs(told - np.log(equally_many))


def test_a_trend_counts_less_the_further_a_level_is_beyond_what_came_in_steps(monkeypatch):
    small, large = first_stage(run(0.0125, 8.0, 14)), first_stage(run(0.1, 1.0, 200))
    matches = match_levels(small, small.accuracy, rising(large, large.accuracy, None))
    steps = in_steps(small, large, matches)
    assert 0.2 < steps < 0.9
    levels = np.array([large.accuracy[7], large.accuracy[14], large.accuracy[60]])
    told = level_match(small, large, levels)
    at, _, _ = reference_passages(large, levels)
    ahead = at - matches.at.max()
    assert ahead[0] < 0.5 < ahead[2]
    assert told.after == pytest.approx(steps * np.clip(2 * ahead, 0, 1))
    # The forecast moves from the trend towards the match, by how much less the trend is believed.
    believed = forecast(small, large, levels).centre
    monkeypatch.setattr("trainscope.convergence.forecast.STEPS_ERROR", 0.0)
    whole = forecast(small, large, levels).centre
    own = np.log(small.time[-1]) + extrapolate(small, levels).median
    apart = np.sign(told.centre - own)
    moved = apart * (believed - whole)
    assert (moved > 0.001).all()
    # A run to whose LRs the levels keep is not beyond anything.
    alike = first_stage(curve(30, pace=8.0, lr=0.0125)), first_stage(curve(200, lr=0.1))
    assert level_match(*alike, TARGETS).after.tolist() == [0.0, 0.0, 0.0]


def test_what_began_trained_is_told_later_by_equal_lr_time_than_the_same_from_scratch():
    """Levels so far came 1.5 times later than to the large run; the LRs say 8 times."""
    best = float(first_stage(curve(200)).accuracy.max())
    scratch, trained = (
        forecast(*begun_at(start), np.array([70.0, 72.0])).centre for start in (1.0, 0.65 * best)
    )
    later = np.exp(trained - scratch)
    assert (later > 1.1).all()
    assert (later < 8 / 1.5).all()


def test_a_log_ratio_with_no_match_keeps_to_its_prior():
    none = np.array([])
    mean, spread = Matches(none, none, none, none).carry_on(np.array([1.0, 4.0]), 2.0, 7.0)
    assert mean.tolist() == [2.0, 2.0]
    assert np.allclose(spread, [0.7**2, 0.7**2])


def test_a_long_curve_is_smoothed_at_few_of_its_records_from_the_first_to_the_last():
    stage = first_stage(curve(2 * KNOTS))
    found = rising(stage, stage.accuracy, stage.start[0])
    assert found.time[:2].tolist() == [0.0, stage.time[0]]
    assert found.time[-1] == stage.time[-1]
    assert KNOTS / 2 < len(found.time) <= KNOTS + 1
    assert (np.diff(found.time) > 0).all()


def test_a_network_that_starts_above_its_first_record_has_reached_no_more_than_that_record():
    stage = first_stage(curve(20))
    start = stage.accuracy[3]
    above, without = (rising(stage, stage.accuracy, level) for level in (start, None))
    assert start > above.level[0] == above.level[1]
    assert above.level[1:].tolist() == without.level[1:].tolist()
