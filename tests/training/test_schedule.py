"""The notation: read strictly, written back exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainscope.errors import ScheduleError
from trainscope.training.schedule import (
    LRSchedule,
    Stage,
    constant,
    from_rates,
    parse_rates,
    parse_schedule,
    write_lr,
)

RATES = st.floats(min_value=1e-9, max_value=1e3, exclude_min=True)


@pytest.mark.parametrize("text", ["0:1e-2,30:1e-3", "0:0.1", "0:.5,3:5e-4,7:1E-5", "0:1.50e-3"])
def test_what_was_read_is_written_back_exactly(text):
    assert str(parse_schedule(text, 60)) == text


@given(st.lists(RATES, min_size=1, max_size=30))
def test_any_rates_survive_the_notation_bit_for_bit(rates):
    schedule = from_rates(rates)
    assert parse_schedule(str(schedule), len(rates)).rates() == rates
    assert schedule.lr_time == pytest.approx(math.fsum(rates), rel=1e-15)


@given(RATES)
def test_write_lr_reads_back_as_itself(rate):
    assert float(write_lr(rate)) == rate


def test_a_stage_lasts_to_the_next_one():
    schedule = parse_schedule("0:1e-2,30:1e-3,45:1e-4", 60)
    assert [schedule.lr(e) for e in (0, 29, 30, 44, 45, 59)] == [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4]
    assert schedule.lr(1000) == 1e-4
    assert schedule.first_stage == 30
    assert schedule.lr_time == pytest.approx(0.3 + 0.015 + 0.0015)
    with pytest.raises(ValueError, match="count from 0"):
        schedule.lr(-1)


def test_the_first_stage_ends_at_the_first_decay_not_at_the_first_change():
    assert parse_schedule("0:1e-3,2:1e-2,10:1e-3", 20).first_stage == 10
    assert constant(0.1, 7).first_stage == 7


@pytest.mark.parametrize(
    ("text", "total", "message"),
    [
        ("1:1e-2", 5, "must start at epoch 0"),
        ("0:1e-2,3:1e-3,3:1e-4", 5, "must ascend, but 3 follows 3"),
        ("0:1e-2,3:1e-3,2:1e-4", 5, "must ascend, but 2 follows 3"),
        ("0:-1e-2", 5, r"at character 3, found '-'"),
        ("0:0", 5, "no learning rate in"),
        ("0:1e9", 5, "no learning rate in"),
        ("0:nan", 5, "at character 3, found 'n'"),
        ("0:1e-2,30:1e-3", 30, "the total must be above that, not 30"),
        ("0:1e-2", 0, "the total must be above"),
        ("0:1e-2", 10**9, "more than the 1000000"),
        ("", 5, "expected an epoch .* at character 1, found the end"),
        ("0:1e-2,", 5, "at character 8, found the end"),
        ("0:1e-2;3:1e-3", 5, "expected ',' between stages, or the end at character 7, found ';'"),
        ("0 :1e-2", 5, "expected ':' between epoch and LR at character 2"),
        ("00:1e-2", 5, "at character 1"),
        ("0:1e-2,99999999999:1e-3", 5, "epoch at character 8 is above"),
        ("٠:1e-2", 5, "at character 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text, total, message):
    with pytest.raises(ScheduleError, match=message) as caught:
        parse_schedule(text, total)
    assert "\n" not in str(caught.value)


def test_rates_in_a_list():
    assert parse_rates("1e-2,1e-3") == (1e-2, 1e-3)
    with pytest.raises(ScheduleError, match="'x' is no learning rate"):
        parse_rates("1e-2,x")


def test_a_schedule_cannot_be_made_wrong_by_hand():
    with pytest.raises(ScheduleError, match="must start at epoch 0"):
        LRSchedule((), 5)
    with pytest.raises(ScheduleError, match="no learning rate"):
        LRSchedule((Stage(0, math.nan),), 5)


def test_a_rate_of_zero_is_known_from_a_record_and_never_trained_with():
    recorded = parse_schedule("0:0,1:1e-2,2:0", 4, recorded=True)
    assert recorded.rates() == [0, 1e-2, 0, 0]
    assert recorded == from_rates([0.0, 1e-2, 0.0, 0.0], recorded=True)
    assert parse_schedule("0:1e-2", 4) == parse_schedule("0:1e-2", 4, recorded=True)
    for make in (
        lambda: parse_schedule("0:1e-2,2:0", 4),
        lambda: from_rates([0.0, 1e-2]),
        lambda: parse_schedule("0:-1e-2", 4, recorded=True),
        lambda: from_rates([-1e-2], recorded=True),
        lambda: replace(recorded, recorded=False),
    ):
        with pytest.raises(ScheduleError):
            make()
