from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trainscope.convergence.calibration import EDGES, KINDS, PROBABILITIES, load, pool


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
    whole, less = load(), load("fmnist_2c2d")
    for kind in KINDS:
        assert len(less[kind].z) == len(whole[kind].z) - len(PROBABILITIES)
        assert whole[kind].quantile(0.1) < 0 < whole[kind].quantile(0.95)
        assert len(whole[kind].reach) == len(EDGES) - 1


def test_the_package_needs_neither_torch_nor_scipy_to_be_imported():
    code = (
        "import sys, trainscope.convergence as c; c.estimate_extra_epochs; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
