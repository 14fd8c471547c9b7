"""The protocol by which the estimator is judged, and that it beats what people do without it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from curves import law, passage

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT.parent / "shared/data"


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark's modules, which lie outside the package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import estimator
    import estimator_baselines
    import estimator_protocol

    yield estimator, estimator_baselines, estimator_protocol
    sys.path.remove(str(ROOT / "benchmarks"))


def pair(protocol, ratio: float, steps: int):
    """Two clean runs of 100 epochs whose paces differ by the ratio of their LRs."""
    time = np.arange(101.0)
    return [
        protocol.TrainingRun(
            "law", "law", 10 ** (-0.2 * k), law(time, pace=p), (100 - law(time, pace=p)) / 30, 10.0
        )
        for p, k in ((ratio, steps), (1.0, 0))
    ]


def test_a_case_knows_its_truth(benchmark):
    protocol = benchmark[2]
    found = list(protocol.cases(pair(protocol, 10 ** (3 / 5), 3)))
    assert {case.share for case in found} == {0.2, 0.5}
    for case in found:
        assert case.ratio == 4.0
        assert case.epochs == max(6, round(case.watched * 100))
        true = passage(case.target, pace=10 ** (3 / 5))
        if true < 97:
            assert case.truth == pytest.approx(true, rel=0.03)
        elif true > 101:
            assert case.truth == math.inf


def test_cases_are_dropped_as_said(benchmark):
    protocol = benchmark[2]
    small, large = pair(protocol, 4.0, 3)
    time = np.arange(101.0)
    low = protocol.TrainingRun("law", "law", 1.0, 15 + 0 * time, 1 + 0 * time, 10.0)
    assert not list(protocol.cases([small, low]))  # never doubles chance
    falls = large.accuracy - 0.5 * time
    worse = protocol.TrainingRun("law", "law", 1.0, falls, large.loss, 10.0)
    assert not list(protocol.cases([small, worse]))  # ends 15 points below
    assert all(c.truth > c.epochs for c in protocol.cases([small, large]))


def test_scores_are_what_they_say(benchmark):
    estimator, _, protocol = benchmark
    questions = [c for c in protocol.cases(pair(protocol, 4.0, 3)) if c.share == 0.2]
    truth = questions[0].truth
    answers = [estimator.Interval(2 * truth, truth / 2, 4 * truth) for _ in questions]
    row = estimator.score(questions, answers)
    assert (row.median, row.tail) == (pytest.approx(1), pytest.approx(1))
    assert (row.known, row.covered, row.never) == (1, 1, 0)
    assert row.width == pytest.approx(3)
    assert row.within == 0


@pytest.fixture(scope="module")
def rows(benchmark):
    """Figures of every method by share watched, on a third of the public cases."""
    if not (PUBLIC / "deepobs_curves.csv").exists():
        pytest.skip("the public runs (deepobs_curves.csv) are not here")
    estimator, baselines, protocol = benchmark
    questions = list(protocol.cases(protocol.read_deepobs(PUBLIC)))[::3]
    methods = {
        "factor": estimator.point(baselines.time_factor),
        "line": estimator.point(baselines.log_line),
        "with": estimator.ours(reference=True, loss=True),
        "alone": estimator.ours(reference=False, loss=True),
    }
    found = {}
    for name, method in methods.items():
        for share in protocol.WATCHED:
            part = [case for case in questions if case.watched == share]
            found[name, share] = estimator.score(part, [method(case) for case in part])
    return found


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5])
def test_on_problems_left_out_it_beats_the_fitted_time_factor(rows, share):
    ours, theirs = rows["with", share], rows["factor", share]
    assert ours.median < 0.6 * theirs.median
    assert ours.tail < 0.7 * theirs.tail
    assert ours.within > 0.88
    assert ours.never < 0.05
    assert 0.75 <= ours.known <= 0.97
    assert ours.width < 1.2


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5])
def test_on_problems_left_out_it_beats_the_line_in_log_epoch(rows, share):
    ours, line = rows["alone", share], rows["line", share]
    assert ours.median < line.median
    assert ours.tail < line.tail
    assert ours.never < 0.05
    assert ours.known > 0.75
