"""The schedule of a run that is under way: its own LRs, then the rest of a shape."""

import math

import numpy as np
import pytest

from trainscope.convergence import LearningCurve, continued_schedule, estimate_extra_epochs
from trainscope.convergence.plan import read_plan
from trainscope.errors import ScheduleError
from trainscope.training.shapes import cosine, warm_up


def watched(rates, count, *, step=None):
    """Return the first records of a run: a record an epoch, or one every so many steps."""
    at = np.arange(1, count + 1) * (step or 1)
    lr = [rates[int(n) - 1] for n in at] if step is None else [rates(n) for n in at]
    loss = 3 + 2 / np.sqrt(at / at[0])
    return LearningCurve(
        at, lr=lr, metric=loss, better="lower", unit="nats", per="epoch" if step is None else "step"
    )


def rates_of(schedule, total):
    """Return the LR of every epoch of a schedule as text."""
    track = read_plan(schedule, total).track
    return track.rates[np.searchsorted(track.edges, np.arange(total) + 0.5)]


@pytest.mark.parametrize(("warmup", "minimum"), [(0, 0.0), (4, 0.0), (0, 0.01), (4, 0.01)])
@pytest.mark.parametrize("count", [12, 20])
def test_the_epochs_of_a_cosine_go_on_as_it_was_planned(warmup, minimum, count):
    plan = cosine(0.1, 40 - warmup, minimum=minimum)
    expected = (warm_up(plan, warmup) if warmup else plan).rates()
    found = continued_schedule(watched(expected, count), "cosine", 40)
    assert rates_of(found, 40) == pytest.approx(expected, abs=2e-6)


def test_a_minimum_that_is_given_is_taken():
    run = watched(cosine(0.1, 40).rates(), 3)
    found = rates_of(continued_schedule(run, "cosine", 40, minimum=0.05), 40)
    assert found[39] == pytest.approx(0.05, abs=1e-3)
    assert rates_of(continued_schedule(run, "cosine", 40), 40)[39] < 1e-3


def linear(total, begun=0.0):
    """Return a line from 0.1 to 0 as a function of the step."""
    return lambda n: 0.1 * min(n / begun if begun else 1.0, (total - n) / (total - begun))


def test_the_stages_of_many_epochs_have_their_mean_rates():
    expected = cosine(0.1, 400).rates()
    track = read_plan(continued_schedule(watched(expected, 40), "cosine", 400), 400).track
    area = np.diff(track.edges, prepend=0.0) @ track.rates
    assert area == pytest.approx(sum(expected), rel=3e-4)


@pytest.mark.parametrize("begun", [0, 1000])
def test_the_steps_of_a_line_go_on(begun):
    total = 30_000
    found = continued_schedule(watched(linear(total, begun), 40, step=200), "linear", total)
    track = read_plan(found, total).track
    assert len(found.split(",")) <= 40 + 25
    edges = np.append(8000.0, track.edges[track.edges > 8000])
    later = track.rates[track.edges > 8000]
    middle = (edges[:-1] + edges[1:]) / 2
    assert later == pytest.approx([linear(total, begun)(n) for n in middle], rel=0.05)
    area = float(later @ np.diff(edges))
    assert area == pytest.approx(0.1 * (total - 8000) ** 2 / (total - begun) / 2, rel=1e-2)


def test_a_stable_lr_is_held_until_the_cooldown():
    found = continued_schedule(watched([0.1] * 10, 10), "wsd", 30, cooldown=0.5)
    expected = [0.1] * 16 + [0.1 * (30 - n) / 15 for n in range(16, 30)]
    assert rates_of(found, 30) == pytest.approx(expected, rel=1e-6)
    begun = watched([0.1] * 16 + [0.1 * (30 - n) / 15 for n in range(16, 20)], 20)
    again = continued_schedule(begun, "wsd", 30, cooldown=0.5)
    assert rates_of(again, 30) == pytest.approx(expected, rel=1e-6)


def test_a_cosine_s_end_is_estimated():
    lr = np.array(cosine(0.1, 60).rates())
    tau = np.cumsum(lr / 0.1)
    loss = 1 + 2 / np.sqrt(tau / tau[0]) + 0.5 * (lr / 0.1) ** 0.8
    run = LearningCurve(np.arange(1, 36), lr=lr[:35], metric=loss[:35], better="lower", unit="nats")
    plan = continued_schedule(run, "cosine", 60)
    found = estimate_extra_epochs(run, loss[-1] - 0.05, schedule=plan, total_epochs=60)
    assert found.final.low <= loss[-1] <= found.final.high
    assert found.curve.epochs  # it is the plan's first part, so that the rest is drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "cosine", "total": 20}, "the run has 20 epochs: the total of its schedule"),
        ({"shape": "cosine", "total": math.inf}, "above that, not inf"),
        ({"shape": "sine", "total": 40}, "no shape of a schedule is named 'sine'"),
        ({"shape": "wsd", "total": 40}, "not those of wsd over 40 epochs: at epoch 20 it would"),
        ({"shape": "cosine", "total": 400}, "not those of cosine over 400 epochs"),
        ({"shape": "cosine", "total": 40, "minimum": 0.2}, "ends at 0 to 0.1, not 0.2"),
        ({"shape": "wsd", "total": 40, "cooldown": 0.0}, "share of the total in"),
        (
            {"shape": "cosine", "total": 40, "cooldown": 0.2},
            "of the shape wsd, and this",
        ),
    ],
)
def test_what_is_no_continuation_is_one_sentence(options, message):
    with pytest.raises(ScheduleError, match=message):
        continued_schedule(watched(cosine(0.1, 40).rates(), 20), **options)


def test_a_run_without_rates_has_no_schedule():
    run = LearningCurve([0], [10.0], 0.1)
    with pytest.raises(ScheduleError, match="no learning rates"):
        continued_schedule(run, "cosine", 40)
