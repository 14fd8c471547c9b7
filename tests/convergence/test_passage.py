from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainscope.convergence.passage import (
    centred_mean,
    first_passage,
    local_level,
    noise,
    running_maximum,
)

VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=40).map(np.array)


@settings(derandomize=True)
@given(VALUES)
def test_centred_mean_is_the_mean_of_the_window(values):
    for i, mean in enumerate(centred_mean(values)):
        assert math.isclose(mean, values[max(i - 2, 0) : i + 3].mean(), abs_tol=1e-9)


@settings(derandomize=True)
@given(VALUES, st.floats(0, 100))
def test_first_passage_agrees_with_a_walk_along_the_curve(values, level):
    best = running_maximum(values)
    time = np.arange(1.0, len(values) + 1)
    found = float(first_passage(time, best, np.array([level]))[0])
    reached = np.flatnonzero(best >= level)
    if not len(reached):
        assert found == math.inf or best[-1] >= level - 1e-11
    else:
        assert reached[0] <= found <= reached[0] + 1 + 1e-6


def test_first_passage_interpolates():
    time, curve = np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 40.0])
    found = first_passage(time, curve, np.array([5.0, 15.0, 30.0, 41.0]))
    assert found.tolist() == [1.0, 1.5, 3.0, math.inf]


def test_noise_is_that_of_the_records_whatever_the_trend():
    rng = np.random.default_rng(0)
    time = np.arange(1.0, 401)
    found = [noise(70 - 50 * time**-0.5 + 0.4 * rng.normal(size=400)) for _ in range(20)]
    assert abs(np.mean(found) - 0.4) < 0.02
    assert noise(np.array([1.0, 2.0, 5.0])) == 0.0


def test_local_level_is_exact_on_a_line_in_log_time_and_knows_its_error():
    time = np.arange(1.0, 61)
    at = np.array([1.0, 2.5, 10.0, 60.0])
    level, slope, leverage = local_level(time, 3 + 2 * np.log(time), at, 0.35)
    assert np.allclose(level, 3 + 2 * np.log(at))
    assert np.allclose(slope, 2)
    rng = np.random.default_rng(0)
    levels = [local_level(time, rng.normal(size=60), at, 0.35)[0] for _ in range(2000)]
    assert np.allclose(np.std(levels, axis=0), leverage, rtol=0.08)
