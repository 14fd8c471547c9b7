"""Schedules: functions from a step to a bool."""

from __future__ import annotations

import pickle

import pytest

from trainscope.errors import ProbeError
from trainscope.probes import when
from trainscope.probes.when import Step


def due(schedule, last=40, steps_per_epoch=None):
    return [s for s in range(last + 1) if schedule(Step(s, steps_per_epoch))]


def test_every_is_due_from_the_start():
    assert due(when.every(10)) == [0, 10, 20, 30, 40]
    assert when.every(10)(20)  # a plain int will do


def test_at_epochs_needs_to_know_how_long_one_is():
    assert due(when.at_epochs(0, 1, 3), steps_per_epoch=7) == [0, 7, 21]
    assert due(when.at_epochs(0, 1, 3, steps_per_epoch=5)) == [0, 5, 15]
    assert due(when.at_epochs(0.5), steps_per_epoch=8) == [4]
    assert when.at_epochs(0, 1)(0)
    with pytest.raises(ProbeError, match="steps_per_epoch"):
        when.at_epochs(1)(3)


def test_every_epochs():
    assert due(when.every_epochs(2), steps_per_epoch=6) == [0, 12, 24, 36]


def test_log_spaced_is_even_in_the_logarithm():
    assert due(when.log_spaced(4), 100) == [0, 1, 2, 3, 6, 10, 18, 32, 56, 100]
    assert due(when.log_spaced(1), 1000) == [0, 1, 10, 100, 1000]


def test_schedules_compose():
    even = when.every(2)
    assert due(when.all_of(even, when.every(3)), 20) == [0, 6, 12, 18]
    assert due(when.any_of(when.at_steps(5), when.every(20))) == [0, 5, 20, 40]
    assert due(when.all_of(even, when.between(3, 9))) == [4, 6, 8]
    assert due(when.all_of(when.always, lambda s: s == 3)) == [3]
    assert due(when.never) == []


@pytest.mark.parametrize("make", [when.every, when.every_epochs, when.log_spaced])
def test_none_at_all_is_refused(make):
    with pytest.raises(ProbeError, match="or more"):
        make(0)


@pytest.mark.parametrize(
    "schedule",
    [
        when.every(3),
        when.at_steps(3),
        when.at_epochs(3),
        when.every_epochs(2),
        when.log_spaced(2),
        when.between(2, 3),
        when.any_of(when.every(3), when.at_steps(1)),
        when.all_of(when.every(3), when.between(1, 4)),
        when.always,
    ],
)
def test_a_schedule_is_pickled_with_the_hook_that_holds_it(schedule):
    copied = pickle.loads(pickle.dumps(schedule))
    assert due(copied, steps_per_epoch=1) == due(schedule, steps_per_epoch=1) != []
