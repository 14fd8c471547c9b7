from __future__ import annotations

import random
import shlex

import click
import pytest
from comparisons import LARGE, SMALL, seeds
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from trainscope.cli.retrain import command as retrain
from trainscope.studies.crossing import Outcome, cross_validate
from trainscope.studies.groups import group
from trainscope.studies.methods import duels
from trainscope.studies.significance import contrast, hedges_g, welch

percent = st.lists(
    st.floats(50, 100).map(lambda x: round(x, 2)), min_size=2, max_size=8, unique=True
)


@given(percent, percent)
def test_welch_agrees_with_scipy(first, second):
    reference = ttest_ind(first, second, equal_var=False)
    interval = reference.confidence_interval(0.95)
    found = welch(first, second)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_hedges_g_of_a_known_case():
    # Means 2 apart, both standard deviations 1, 4 degrees of freedom: d = 2, J = 1 - 3 / 15.
    assert hedges_g([4, 5, 6], [2, 3, 4]) == pytest.approx(2 * 0.8)
    assert hedges_g([1.0], [2.0, 3.0]) is None


def cells(means, count=10, spread=0.3, seed=0):
    rng = random.Random(seed)
    return [[rng.gauss(mean, spread) for _ in range(count)] for mean in means]


# A under a, B under a, A under b, B under b.
TRUTHS = {
    (98, 97, 97.5, 96.5): Outcome.FIRST,
    (97, 98, 96, 97): Outcome.SECOND,
    (98, 97, 96, 97.5): Outcome.INTERACT,
    (97, 97, 97, 97): Outcome.UNDECIDED,
}


@pytest.mark.parametrize("means", TRUTHS)
def test_known_truths_are_found(means):
    found = cross_validate(*cells(means))
    assert found.outcome is TRUTHS[means]
    assert found.main.value == pytest.approx(
        (means[0] - means[1] + means[2] - means[3]) / 2, abs=0.3
    )


def test_the_better_cells_are_compared_where_the_two_interact():
    found = cross_validate(*cells((98, 97, 96, 99)), methods=("l1", "l2"))
    assert found.better is not None
    assert found.better.value == pytest.approx(-1, abs=0.3)
    assert "by its better cell l2 is ahead of l1" in found.sentence


def test_names_may_be_swapped():
    one = cross_validate(*cells((98, 97, 97.5, 96.5)))
    a, b, c, d = cells((98, 97, 97.5, 96.5))
    two = cross_validate(b, a, d, c)
    assert (one.outcome, two.outcome) == (Outcome.FIRST, Outcome.SECOND)
    assert one.main.value == pytest.approx(-two.main.value)
    assert one.main.p == pytest.approx(two.main.p)


def test_single_runs_decide_nothing():
    found = cross_validate([98.0], [90.0], [98.0], [90.0])
    assert found.outcome is Outcome.UNDECIDED
    assert "two seeds a cell" in found.sentence
    assert found.as_dict()["main"]["low"] is None


def test_two_tied_seeds_prove_nothing():
    assert not contrast([[98.0, 98.0], [98.3, 98.3]], (1, -1)).significant
    assert contrast([[98.0] * 5, [98.3] * 5], (1, -1)).significant
    assert contrast([[1.0, 1.0], [1.0, 1.0]], (1, -1)).p == 1.0


def test_missing_cells_are_commands_that_the_command_line_takes(tmp_path):
    runs = seeds(2, schedule=LARGE, criterion="l1") + seeds(2, schedule=SMALL, criterion="l2")
    (duel,) = duels(group(runs))
    assert duel.verdict is None
    assert len(duel.missing) == 4
    wanted = {("l1", SMALL), ("l2", LARGE)}
    for line in duel.missing:
        words = shlex.split(line)
        assert words[:2] == ["trainscope", "retrain"]
        found = retrain.make_context("retrain", words[2:], resilient_parsing=False).params
        assert (found["criterion"], found["schedule"]) in wanted
        assert found["ratio"] == 0.9
        assert found["epochs"] == 20
        assert found["seed"] in (0, 1)
        assert found["data"] == "digits"


def test_a_full_square_is_cross_validated_and_one_setup_is_not():
    square = [
        made
        for criterion, ceiling in (("l1", 98.0), ("l2", 95.0))
        for schedule in (LARGE, SMALL)
        for made in seeds(4, schedule=schedule, criterion=criterion, ceiling=ceiling)
    ]
    (duel,) = duels(group(square))
    assert duel.verdict is not None
    assert duel.verdict.outcome is Outcome.FIRST
    assert duel.sentence().startswith("l1 wins: it is ahead of l2 under both setups")
    (single,) = duels(group([made for made in square if made.schedule == LARGE]))
    assert single.verdict is None
    assert "one setup does not show" in single.sentence()


def test_click_refuses_an_option_that_does_not_exist():
    with pytest.raises(click.UsageError):
        retrain.make_context("retrain", ["CHECKPOINT", "--nothing", "1"])
