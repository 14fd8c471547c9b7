"""The schedules that people use, against their sources."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainscope.errors import ScheduleError
from trainscope.training import shapes
from trainscope.training.schedule import from_rates, parse_schedule

# Wang et al. (2023), Table 4 and the appendix.
PUBLISHED = {
    (1e-1, 90): "0:1e-1,30:1e-2,60:1e-3,75:1e-4,83:1e-5",
    (1e-2, 60): "0:1e-2,30:1e-3,45:1e-4,53:1e-5",
    (1e-2, 90): "0:1e-2,30:1e-3,60:1e-4,75:1e-5",
    (1e-1, 120): "0:1e-1,30:1e-2,60:1e-3,90:1e-4,105:1e-5",
}


@pytest.mark.parametrize(("lr", "epochs"), PUBLISHED)
def test_the_published_schedules_exactly(lr, epochs):
    assert str(shapes.halving(lr, epochs)) == PUBLISHED[lr, epochs]


@given(st.sampled_from([1e-1, 5e-2, 3e-3, 1e-5, 1e-7]), st.integers(1, 400))
def test_halving_ends_no_lower_than_asked_and_each_stage_is_half_of_what_is_left(lr, epochs):
    schedule = shapes.halving(lr, epochs)
    starts = [stage.start for stage in schedule.stages]
    for start, end in pairwise(starts):
        assert end - start == min(30, math.ceil((epochs - start) / 2))
    assert schedule.total == epochs
    assert schedule.stages[-1].lr >= min(lr, 1e-5)


def test_cosine_is_the_formula():
    schedule = shapes.cosine(0.1, 50, minimum=1e-4)
    for epoch, rate in enumerate(schedule.rates()):
        exact = 1e-4 + (0.1 - 1e-4) * (1 + math.cos(math.pi * epoch / 50)) / 2
        assert rate == pytest.approx(exact, rel=1e-5)
    assert shapes.cosine(0.1, 1).rates() == [0.1]


def test_a_cycle_rises_to_the_largest_rate_and_falls():
    rates = shapes.cyclic_restart(0.1, 20).rates()
    assert len(rates) == 20
    assert rates.index(max(rates)) == 2
    assert max(rates) == 0.1
    assert rates[:3] == sorted(rates[:3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert shapes.cyclic_restart(0.1, 5, warmup=0).rates()[0] == 0.1
    with pytest.raises(ScheduleError, match="share of epochs"):
        shapes.cyclic_restart(0.1, 5, warmup=1)


def test_rewinding_gives_the_last_epochs_of_pretraining():
    pretraining = shapes.halving(1e-1, 120)
    for epochs in (1, 14, 15, 16, 60, 120):
        rewound = shapes.rewind(pretraining, epochs)
        assert rewound.rates() == pretraining.rates()[-epochs:]
    assert str(shapes.rewind(pretraining, 60)) == "0:1e-3,30:1e-4,45:1e-5"
    with pytest.raises(ScheduleError, match="give 1 to 120"):
        shapes.rewind(pretraining, 121)


def test_warm_up_goes_in_front_of_any():
    schedule = shapes.warm_up(shapes.halving(1e-1, 90), 4)
    assert schedule.rates()[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert schedule.rates()[4:] == shapes.halving(1e-1, 90).rates()
    assert schedule.total == 94
    with pytest.raises(ScheduleError, match="warm-up"):
        shapes.warm_up(schedule, 0)


def test_the_first_stage_grows_and_the_rest_moves():
    longer = shapes.lengthen_first_stage(shapes.halving(1e-3, 60), 60)
    assert (str(longer), longer.total) == ("0:1e-3,90:1e-4,105:1e-5", 120)
    constant = shapes.lengthen_first_stage(parse_schedule("0:1e-2", 5), 3)
    assert constant.rates() == [1e-2] * 8
    warmed = shapes.lengthen_first_stage(parse_schedule("0:1e-3,2:1e-2,6:1e-3", 9), 2)
    assert str(warmed) == "0:1e-3,2:1e-2,8:1e-3"
    with pytest.raises(ScheduleError, match="0 epochs or more"):
        shapes.lengthen_first_stage(longer, -1)


def test_a_schedule_is_stretched_with_the_share_that_every_stage_has():
    longer = shapes.stretched(shapes.halving(1e-1, 120), 381)
    assert str(longer) == "0:1e-1,95:1e-2,190:1e-3,286:1e-4,333:1e-5"
    assert longer.total == 381
    assert shapes.stretched(longer, 120) == shapes.halving(1e-1, 120)
    # Of stages that would begin together the last one is left, and none begins at the end.
    assert str(shapes.stretched(parse_schedule("0:1,1:1e-1,10:1e-2,99:1e-3", 100), 10)) == (
        "0:1e-1,1:1e-2"
    )
    with pytest.raises(ScheduleError, match="1 epoch or more, not 0"):
        shapes.stretched(longer, 0)


def test_the_squeezed_pruning_epoch():
    """P30/F90 at 1.11x: 27 dense epochs and 90 pruned ones cost what 120 pruned ones do."""
    assert shapes.squeezed_pruning_epoch(30, 1.11) == 27
    assert shapes.squeezed_pruning_epoch(30, 1.93) == 16
    assert shapes.squeezed_pruning_epoch(60, 1) == 60
    for speedup in (0.5, math.nan, math.inf):
        with pytest.raises(ScheduleError, match="a speedup is 1 or more"):
            shapes.squeezed_pruning_epoch(30, speedup)
    with pytest.raises(ScheduleError, match="leaves nothing"):
        shapes.squeezed_pruning_epoch(3, 12.06)


@pytest.mark.parametrize(("lr", "epochs"), [(0.0, 5), (-1.0, 5), (1e9, 5), (0.1, 0)])
@pytest.mark.parametrize("shape", [shapes.halving, shapes.cosine, shapes.cyclic_restart])
def test_no_schedule_from_nonsense(shape, lr, epochs):
    with pytest.raises(ScheduleError):
        shape(lr, epochs)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (shapes.halving(1e-1, 90), "0:1e-1,30:1e-2,60:1e-3,75:1e-4,83:1e-5"),
        (shapes.cosine(1e-2, 40), "cosine, 1e-2 to 0"),
        (shapes.cosine(1e-1, 200, minimum=1e-3), "cosine, 1e-1 to 1e-3"),
        (shapes.warm_up(shapes.cosine(3e-3, 35), 5), "5 of warm-up, cosine, 3e-3 to 0"),
        (from_rates([0.1 * (1 - e / 30) for e in range(30)]), "linear, 1e-1 to 0"),
        (from_rates([0.1 - 0.09 * e / 30 for e in range(30)]), "linear, 1e-1 to 1e-2"),
        # An LR that is logged at the end of an epoch, to four digits.
        (
            from_rates([round(0.05 * (1 + math.cos(math.pi * e / 30)), 4) for e in range(30)]),
            "cosine, 1e-1 to 0",
        ),
        (
            from_rates([0.1 * (e + 1) / 12 for e in range(12)]),
            "11 of warm-up, 12 stages, 1e-1 to 1e-1",
        ),
        (
            from_rates([*(0.1 * (e + 1) / 12 for e in range(12)), 0.05]),
            "11 of warm-up, 13 stages, 1e-1 to 5e-2",
        ),
        (from_rates([0.1 * 0.8**e for e in range(12)]), "12 stages, 1e-1 to 8.59e-3"),
    ],
)
def test_a_schedule_of_many_stages_is_told_by_its_shape(schedule, words):
    assert shapes.in_words(schedule) == words
