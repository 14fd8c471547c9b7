from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trainscope.convergence.calibration import EDGES, KINDS, PROBABILITIES, Reach, load, pool


def test_pooled_quantiles_are_those_of_the_mixture():
    problems = [
        {"z": (s * np.array([np.sqrt(2)]) * (2 * PROBABILITIES - 1)).tolist()} for s in (1, 3)
    ]
    errors = pool(problems)
    samples = np.concatenate([np.linspace(-s, s, 20001) * np.sqrt(2) for s in (1, 3)])
    for p in (0.1, 0.25, 0.75, 0.9):
        assert errors.quantile(p) == pytest.approx(np.quantile(samples, p), abs=0.15)
    assert errors.quantile(0.5) == 0


def test_reach_rises_with_what_is_in_sight():
    counts = {"seen": [40, 40, 40, 40, 40], "reached": [4, 2, 20, 30, 36]}
    errors = pool([{"z": [0.0] * 39, **counts}])
    found = errors.reached(np.array([0.0, 0.2, 0.5, 0.8, 1.0]))
    assert (np.diff(found) >= 0).all()
    assert found[-1] == 1
    assert found[0] == pytest.approx(0.08, abs=0.03)


def test_the_shipped_calibration_is_whole_and_can_leave_a_problem_out():
    whole, less = load(), load("retrainbench digits mlp")
    for kind in KINDS:
        assert len(less[kind].z) == len(whole[kind].z) - len(PROBABILITIES)
        assert whole[kind].quantile(0.1) < 0 < whole[kind].quantile(0.95)
        assert len(whole[kind].reach) == len(EDGES) - 1


def test_early_errors_can_be_those_that_few_problems_exceed():
    # The early quantiles of ten problems are 1 to 10 times those of the first; late ones the same.
    shape = 2 * PROBABILITIES - 1
    problems = [{"z": np.where(shape < 0, k * shape, shape).tolist()} for k in range(1, 11)]
    errors = pool(problems, cautious=0.3)
    # Three of the ten have earlier errors than the 30 % quantile of 1..10 from above, 7.3.
    assert errors.quantile(0.25) == pytest.approx(7.3 * -0.5, abs=0.15)
    assert errors.quantile(0.1) == pytest.approx(7.3 * -0.8, abs=0.25)
    assert errors.quantile(0.75) == pytest.approx(0.5, abs=0.05)


def test_below_is_the_inverse_of_the_quantile():
    errors = load()["alone"]
    for p in (0.1, 0.25, 0.75, 0.9):
        assert errors.below(errors.quantile(p)) == pytest.approx(p, abs=0.01)
    assert errors.below(np.array([-np.inf, np.inf])).tolist() == [0.0, 1.0]


def test_the_probability_to_reach_goes_with_the_columns():
    reach = Reach(np.array([1.0, 2.0, 0.0, -1.0]))
    columns = np.array([[1.0, 0.0, 0.5, 1.0], [1.0, 1.0, 0.5, 0.0]])
    expected = 1 / (1 + np.exp([0.0, -3.0]))
    assert reach.probability(columns) == pytest.approx(expected)


def test_the_shipped_weights_shift_by_every_problem_that_is_left_out():
    whole, one, two = load().reach, load("cifar10_3c3d").reach, load("fmnist_2c2d").reach
    both = load("cifar10_3c3d", "fmnist_2c2d").reach
    assert (one.weights != whole.weights).any()
    added = one.weights + two.weights - whole.weights
    assert both.weights == pytest.approx(added)
    # More of the laws' weight and a nearer level never make it less likely.
    for reach in (whole, one, two, both):
        assert reach.weights[1] > 0
        assert reach.weights[2] > 0
        assert reach.weights[3] < 0


def test_the_package_needs_neither_torch_nor_scipy_to_be_imported():
    code = (
        "import sys, trainscope.convergence as c; c.estimate_extra_epochs; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
