from __future__ import annotations

import random
import shlex
from dataclasses import replace

import click
import pytest
from comparisons import BASE, LARGE, OTHER_BASE, SMALL, run, seeds
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from trainscope.cli.retrain import command as retrain
from trainscope.comparison.bases import same_bases
from trainscope.comparison.commands import CRITERIA, retrain_line
from trainscope.comparison.comparison import compare
from trainscope.comparison.crossing import CrossOutcome, cross_validate
from trainscope.comparison.duels import duels
from trainscope.comparison.settings import Setting, group
from trainscope.comparison.significance import contrast, hedges_g, welch
from trainscope.records import Pretraining, Pruning, RunStatus
from trainscope.records.run import UNKNOWN
from trainscope.sparsify import criteria
from trainscope.training.schedule import parse_schedule

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
    (98, 97, 97.5, 96.5): CrossOutcome.FIRST,
    (97, 98, 96, 97): CrossOutcome.SECOND,
    (98, 97, 96, 97.5): CrossOutcome.INTERACT,
    (97, 97, 97, 97): CrossOutcome.UNDECIDED,
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
    assert (one.outcome, two.outcome) == (CrossOutcome.FIRST, CrossOutcome.SECOND)
    assert one.main.value == pytest.approx(-two.main.value)
    assert one.main.p == pytest.approx(two.main.p)


@pytest.mark.parametrize("means", [(98, 97, 97.5, 96.5), (97, 98, 96, 97), (98, 97, 96, 99)])
def test_the_interval_in_words_lies_about_the_lead_that_is_told(means):
    found = cross_validate(*cells(means), methods=("l1", "l2"))
    part = found.main if found.better is None else found.better
    low, high = sorted((abs(part.low), abs(part.high)))
    assert 0 < low < abs(part.value) < high
    assert f"{abs(part.value):.2f} points" in found.sentence
    assert f"95 % interval {low:+.2f} to {high:+.2f}, p < 0.0001" in found.sentence


def test_single_runs_decide_nothing():
    found = cross_validate([98.0], [90.0], [98.0], [90.0])
    assert found.outcome is CrossOutcome.UNDECIDED
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
    assert duel.verdict.outcome is CrossOutcome.FIRST
    assert duel.sentence().startswith("l1 wins: it is ahead of l2 under both setups")
    (single,) = duels(group([made for made in square if made.schedule == LARGE]))
    assert single.verdict is None
    assert "one setup does not show" in single.sentence()


def square(**second):
    """Return two methods under both setups; changes are the second method's."""
    return [
        replace(made, **(second if criterion == "l2" else {}))
        for criterion, ceiling in (("l1", 98.0), ("l2", 95.0))
        for schedule in (LARGE, SMALL)
        for made in seeds(4, schedule=schedule, criterion=criterion, ceiling=ceiling)
    ]


def test_nobody_wins_from_another_base_model():
    (duel,) = duels(group(square(base=OTHER_BASE)))
    assert duel.verdict is None
    assert not duel.decided
    assert "wins" not in duel.sentence()
    assert duel.sentence().startswith("l1 ends ")
    assert f"from another base model (l1: {BASE[:12]}; l2: {OTHER_BASE[:12]})" in duel.sentence()
    one_setup = [made for made in square(base=OTHER_BASE) if made.schedule == LARGE]
    (single,) = duels(group(one_setup))
    assert single.difference is None
    assert "cannot be told" in single.sentence()


def test_unknown_base_models_are_a_condition():
    made = [replace(one, base=UNKNOWN, pretraining=None) for one in square()]
    (duel,) = duels(group(made))
    assert duel.verdict.outcome is CrossOutcome.FIRST
    assert duel.sentence().endswith("if their base models are the same, which is not known.")


def test_cells_are_held_to_the_base_models_that_all_have():
    made = [
        replace(one, base=OTHER_BASE) if one.seed == 3 and one.pruning.criterion == "l2" else one
        for one in square()
    ]
    (duel,) = duels(group(made))
    assert "1 of 2 base models" in duel.sentence()
    whole = duels(group(square()))[0].verdict.main
    assert duel.verdict.main != whole


def test_a_method_from_two_base_models_is_two_comparisons():
    made = [*square(), *(replace(one, base=OTHER_BASE) for one in square())]
    found = duels(group(made))
    assert len(found) == 2
    assert all(duel.verdict is not None for duel in found)
    assert {duel.where for duel in found} == {
        f"ratio 0.9 from base {base[:12]}" for base in (BASE, OTHER_BASE)
    }


def test_many_methods_are_told_apart_in_words():
    made = [one for name in "abcde" for one in seeds(2, criterion=name)]
    found = compare(made)
    assert found.duels == ()
    (line,) = [line for line in found.verdict() if "5 methods" in line]
    assert "10 pairs" in line
    assert "compare 4 at most" in line


def test_commands_are_given_once_and_none_for_what_is_fair():
    made = [*seeds(1, criterion="l1"), *seeds(1, schedule=SMALL, criterion="l2")]
    found = compare(made)
    lines = [line.removeprefix("Run: ") for line in found.fairness.advice]
    lines += [line for duel in found.duels for line in duel.missing]
    assert len(lines) == len(set(lines)) > 1
    assert not [line for duel in compare(square()[:4]).duels for line in duel.missing]


@pytest.mark.parametrize(
    ("changes", "words", "absent"),
    [
        ({"base": "good base"}, "retrain CHECKPOINT-good-base --ratio", "'"),
        ({"base": "$(ls) `x`"}, "retrain CHECKPOINT-ls-x --ratio", "$"),
        ({"data": "cifar10"}, "--data cifar10:ROOT", "cifar10 "),
        ({"data": "imagenet"}, "--data imagefolder:ROOT", "imagenet"),
        ({"data": "text:their/corpus.txt"}, "--data text:FILE", "their"),
        ({"data": "mnist:my folder"}, "--data 'mnist:my folder'", "--data mnist"),
        ({"pruning": Pruning(criterion="GReg-1", ratio=0.9)}, "GReg-1 again", "trainscope"),
        ({"pruning": Pruning(criterion="l1", speedup=2.0)}, "l1 again", "trainscope"),
    ],
)
def test_commands_can_be_pasted(changes, words, absent):
    made = replace(run(), **changes)
    schedule = parse_schedule(LARGE, 20)
    (line,) = retrain_line(made, schedule, made, base=made.base, seeds=[1])
    assert words in line
    assert absent not in line
    if line.startswith("trainscope"):
        parsed = shlex.split(line)
        retrain.make_context("retrain", parsed[2:], resilient_parsing=False)


def test_the_criteria_of_a_command_are_those_that_the_library_has():
    assert set(CRITERIA) == set(criteria.CRITERIA)


def test_click_refuses_an_option_that_does_not_exist():
    with pytest.raises(click.UsageError):
        retrain.make_context("retrain", ["CHECKPOINT", "--nothing", "1"])


def test_runs_that_did_not_finish_are_in_no_pair_of_methods():
    made = [*seeds(2), *seeds(2, criterion="l2")]
    assert len(duels(group(made))) == 1
    lost = [replace(one, status=RunStatus.DIVERGED) for one in made[2:]]
    assert duels(group([*made[:2], *lost])) == []


def test_base_models_that_are_not_known_are_not_shared():
    def cell(criterion):
        known, unknown = seeds(2, criterion=criterion)
        return Setting(criterion, (known, replace(unknown, base=UNKNOWN)))

    held, told = same_bases((cell("l1"), cell("l2")), ("l1", "l2"))
    assert [len(item.runs) for item in held] == [1, 1]
    assert told == "Told from the 1 of 2 base models that both share."


def test_each_contrast_keeps_to_half_of_the_level():
    cells = (
        [90.2, 90.7, 90.6, 90.9],
        [90.7, 88.3, 89.7, 89.5],
        [90.3, 91.1, 91.2, 93.7],
        [90.3, 90.0, 90.9, 89.0],
    )
    found = cross_validate(*cells)
    assert found.main.p == pytest.approx(0.0327, abs=1e-4)  # under 5 %, above the half of it
    assert found.outcome is CrossOutcome.UNDECIDED


def test_base_models_told_apart_by_their_accuracies_decide_nothing():
    def cell(criterion, accuracy):
        made = seeds(2, criterion=criterion, base=UNKNOWN)
        return Setting(
            criterion,
            tuple(replace(one, pretraining=Pretraining(accuracy=accuracy)) for one in made),
        )

    held, told = same_bases((cell("l1", 93.5), cell("l2", 93.7)), ("l1", "l2"))
    assert held is None
    assert "l1: 93.5 % before pruning; l2: 93.7 % before pruning" in told
    held, told = same_bases((cell("l1", 93.5), cell("l2", 93.5)), ("l1", "l2"))
    assert held is not None
    assert told.startswith("This holds if their base models are the same")


def test_setups_of_one_schedule_are_told_by_the_settings_that_differ():
    one, other = run(criterion="l1"), run(criterion="taylor")
    other = replace(other, settings={**other.settings, "momentum": 0.5})
    (duel,) = duels(group([one, other]))
    assert len(set(duel.setups)) == 2
    assert {setup.rpartition(" with ")[2] for setup in duel.setups} == {
        f"momentum {one.settings['momentum']}",
        "momentum 0.5",
    }
