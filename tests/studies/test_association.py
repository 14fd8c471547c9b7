"""The coefficients against scipy's, with ties, copies and strata."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trainscope.studies.association import NAMES, association, ranks

SCIPY = {"kendall": stats.kendalltau, "spearman": stats.spearmanr, "pearson": stats.pearsonr}


def drawn(n: int, seed: int, *, tied: bool):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 0.6 * x + rng.normal(size=n)
    return (np.round(x, 0), np.round(y, 0)) if tied else (x, y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [6, 17, 700])  # more than a block of pairs
def test_each_is_what_scipy_says(name, tied, n):
    x, y = drawn(n, 7, tied=tied)
    assert association(name, x, y)[0] == pytest.approx(SCIPY[name](x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_copies(name):
    x, y = drawn(25, 3, tied=True)
    weights = np.random.default_rng(0).multinomial(25, np.full(25, 1 / 25), 6).astype(float)
    found = association(name, x, y, weights)
    for row, counts in zip(found, weights.astype(int), strict=True):
        copied = np.repeat(np.arange(25), counts)
        assert row == pytest.approx(SCIPY[name](x[copied], y[copied]).statistic, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_own_values_for_each_sample(name):
    x, y = drawn(12, 5, tied=False)
    own = np.stack([y, y[::-1], np.roll(y, 3)])
    found = association(name, x, own, np.ones((3, 12)))
    each = [SCIPY[name](x, row).statistic for row in own]
    assert found == pytest.approx(each, abs=1e-12)


def test_tau_compares_within_strata_alone():
    x = np.array([1.0, 2, 3, 11, 12, 13])
    y = np.array([3.0, 2, 1, 13, 12, 11])  # falls in each, rises from one to the other
    strata = np.array([0, 0, 0, 1, 1, 1])
    assert association("kendall", x, y)[0] > 0
    for name in NAMES:
        assert association(name, x, y, strata=strata)[0] == pytest.approx(-1)


def test_ranks_within_strata():
    values = np.array([5.0, 1, 1, 9, 9, 9])
    strata = np.array([0, 0, 0, 1, 1, 1])
    assert ranks(values, np.ones((1, 6)), strata)[0] == pytest.approx([3, 1.5, 1.5, 2, 2, 2])


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_vary_has_no_coefficient(name):
    flat, rising = np.full(5, 0.1 + 0.2), np.arange(5.0)
    assert np.isnan(association(name, flat, rising)[0])
    assert np.isnan(association(name, rising, flat)[0])
