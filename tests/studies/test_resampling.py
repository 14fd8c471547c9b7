"""Intervals by simulation, p values against scipy's, the ceiling of a known noise level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainscope.studies.association import NAMES, association
from trainscope.studies.ceiling import attainable, repeated
from trainscope.studies.resampling import bounds, p_value
from trainscope.studies.together import left_out_predictions


def pair(n: int, r: float, rng: np.random.Generator):
    x, e = rng.normal(size=(2, n))
    return x, r * x + math.sqrt(1 - r * r) * e


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_holds_the_truth_as_often_as_it_says(name):
    r, n, rng = 0.5, 40, np.random.default_rng(1)
    truth = {
        "kendall": 2 / math.pi * math.asin(r),
        "spearman": 6 / math.pi * math.asin(r / 2),
        "pearson": r,
    }[name]
    strata, held = np.zeros(n, np.int64), 0
    for trial in range(150):
        x, y = pair(n, r, rng)
        found = bounds(
            lambda w, x=x, y=y: association(name, x, y, w), strata, draws=300, seed=trial, level=0.9
        )
        assert found is not None
        assert found.method == "BCa"
        held += found.low <= truth <= found.high
    # 0.9 of 150 with a standard error of 3.7; the bootstrap itself misses a point or two.
    assert 120 <= held <= 147


def test_draws_stay_within_strata():
    strata = np.repeat([0, 1], [10, 30])
    seen = []

    def statistic(weights):
        seen.append(weights)
        return weights[:, 0]

    bounds(statistic, strata, draws=50)
    assert set(seen[0][:, :10].sum(axis=1)) == {10}
    assert set(seen[0][:, 10:].sum(axis=1)) == {30}


def test_few_candidates_have_no_interval():
    assert bounds(lambda w: w[:, 0], np.zeros(7, np.int64)) is None


def test_kendall_without_ties_has_its_exact_p():
    x, y = pair(30, 0.4, np.random.default_rng(2))
    p, how = p_value("kendall", x, y, np.zeros(30, np.int64))
    assert (p, how) == (stats.kendalltau(x, y, method="exact").pvalue, "exact")


def test_kendall_with_ties_has_the_corrected_normal_p():
    x, y = (np.round(v) for v in pair(90, 0.15, np.random.default_rng(3)))
    p, how = p_value("kendall", x, y, np.zeros(90, np.int64))
    assert how == "normal"
    assert p == pytest.approx(stats.kendalltau(x, y, method="asymptotic").pvalue, rel=1e-9)


def test_strata_add_up_in_the_normal_p():
    x, y = (np.round(v, 1) for v in pair(120, 0.2, np.random.default_rng(4)))
    strata = np.repeat([0, 1], 60)
    p, how = p_value("kendall", x, y, strata)
    z = 0.0
    variance = 0.0
    for part in (slice(0, 60), slice(60, 120)):
        one = stats.kendalltau(x[part], y[part], method="asymptotic")
        a, b = (
            np.sign(np.subtract.outer(x[part], x[part])),
            np.sign(np.subtract.outer(y[part], y[part])),
        )
        score = (a * b).sum() / 2
        z += score
        variance += (score / stats.norm.isf(one.pvalue / 2)) ** 2
    assert how == "normal"
    assert p == pytest.approx(2 * stats.norm.sf(abs(z) / math.sqrt(variance)), rel=1e-6)


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_few_candidates_have_all_permutations(name):
    x, y = pair(6, 0.7, np.random.default_rng(5))
    own = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[name]
    p, how = p_value(name, x, y, np.zeros(6, np.int64))
    exact = stats.permutation_test(
        (x,), lambda v: own(v, y).statistic, permutation_type="pairings", n_resamples=10**6
    )
    assert how == "exact"
    seen = abs(exact.statistic)
    assert p == pytest.approx(np.mean(np.abs(exact.null_distribution) >= seen - 1e-12))


@pytest.mark.parametrize("name", NAMES)
def test_permutations_stay_within_strata(name):
    # All of the association lies between the strata, which no permutation within them can break.
    strata = np.repeat(np.arange(4), 5)
    x = strata + np.tile([0.0, 0.1, 0.2, 0.3, 0.4], 4)
    y = strata + np.tile([0.1, 0.4, 0.2, 0.0, 0.3], 4)
    assert association(name, x, y)[0] > 0.7
    p, how = p_value(name, x, y, strata)
    assert how == "permutations"
    assert p > 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_the_ceiling_of_a_known_noise_level(name, noise):
    n, seeds, rng = 1500, 3, np.random.default_rng(8)
    true = rng.normal(size=n)
    ends = true[:, None] + noise * rng.normal(size=(n, seeds))
    reliability = 1 / (1 + noise**2)

    def said(r: float) -> float:
        return {
            "kendall": 2 / math.pi * math.asin(r),
            "spearman": 6 / math.pi * math.asin(r / 2),
            "pearson": r,
        }[name]

    found = repeated(name, list(ends), np.ones((1, n)), np.zeros(n, np.int64))[0]
    assert found == pytest.approx(said(reliability), abs=0.04)
    once = association(name, true, ends[:, 0])[0]
    assert attainable(name, found) == pytest.approx(once, abs=0.03)
    thrice = association(name, true, ends.mean(axis=1))[0]
    assert attainable(name, found, seeds) == pytest.approx(thrice, abs=0.03)


def test_candidates_may_have_unequally_many_retrainings():
    values = [np.array([1.0, 1.0]), np.array([2.0, 2, 2]), np.array([3.0, 3, 3, 3, 3])]
    found = repeated("kendall", values, np.ones((1, 3)), np.zeros(3, np.int64))
    assert found[0] == pytest.approx(1)


def test_each_is_predicted_by_a_fit_to_the_others():
    rng = np.random.default_rng(9)
    n = 14
    columns, strata = rng.normal(size=(2, n)), np.repeat([0, 1], 7)
    y = columns[0] + 5 * strata + rng.normal(size=n)
    weights = np.ones((2, n))
    weights[1, 3], weights[1, 4] = 3, 0
    found = left_out_predictions(columns, y, weights, strata)
    ranked = np.empty((2, n))
    for part in (strata == 0, strata == 1):
        for k in range(2):
            ranked[k, part] = (2 * stats.rankdata(columns[k, part]) - 1) / 7 - 1
    x = np.column_stack([strata == 0, strata == 1, *ranked]).astype(float)
    for row, w in zip(found, weights, strict=True):
        for i in range(n):
            left = w.copy()
            left[i] = 0  # with all of its copies
            root = np.sqrt(left)[:, None]
            fit = np.linalg.lstsq(root * x, root[:, 0] * y, rcond=None)[0]
            assert row[i] == pytest.approx(x[i] @ fit, abs=1e-5)
