from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import LARGE, OTHER_BASE, SETTINGS, SMALL, SMALL_LONGER, run, seeds

from trainscope.comparison.comparison import compare
from trainscope.comparison.estimates import estimates
from trainscope.comparison.findings import findings
from trainscope.comparison.grounds import Known, fuller, kin, share, widest
from trainscope.comparison.settings import group
from trainscope.comparison.traps import detect
from trainscope.records import Kind
from trainscope.records.run import UNKNOWN

BASES = ("ab" * 32, "cd" * 32, "ef" * 32)


def of_base(schedule, seed, total=20, **changes):
    """Return a run of the seed's own base model and pruned network."""
    options = {"base": BASES[seed], "start": BASES[seed][::-1], **changes}
    return run(schedule, total, seed=seed, **options)


def uneven():
    """Return two LRs on three base models, and two more settings on the first one alone."""
    made = [of_base(schedule, k) for schedule in (LARGE, SMALL) for k in range(3)]
    return [*made, of_base(SMALL_LONGER, 0, 80), of_base("0:1e-4,10:1e-5", 0)]


def accuracies(found):
    return {item.label: item.finals for item in found.groups}


def test_settings_are_held_to_the_networks_that_all_of_them_have():
    groups = group(uneven())
    found = share(groups)
    assert (found.known, found.networks, found.among) == (Known.NETWORK, 1, 3)
    assert found.partial == "on the one pruned network of 3 that all retrained (seed 0)"
    assert all(len(item.runs) == 1 and item.first.seed == 0 for item in found.groups)
    more = fuller(groups, found)
    assert {item.label for item in more.groups} == {"LR 1e-2", "LR 1e-3"}
    assert (more.networks, more.partial) == (3, "")


def test_the_gap_is_that_of_the_shared_network_and_not_of_the_means():
    made = uneven()
    lines = findings(group(made))
    large, small = made[0].final_accuracy, made[-1].final_accuracy
    means = {item.label: item.mean for item in group(made)}
    assert abs(means["LR 1e-2"] - large) > 0.05  # else the test could not tell
    assert f"LR 1e-2 {large:.1f} %" in lines[0]
    assert f"The gap of {large - small:.1f} points between LR 1e-2 and LR 1e-4" in lines[0]
    assert "(seed 0)" in lines[0]
    assert "one seed: no test" in lines[0]
    assert "decides" not in lines[0]
    assert lines[1].startswith("After 20 epochs and on 3 pruned networks the learning rate")


def test_traps_and_estimates_name_the_shared_networks():
    groups = group(uneven())
    told = [trap for trap in detect(groups) if trap.label == "LR 1e-4"]
    (low,) = [trap for trap in told if trap.name.startswith("LR below")]
    assert "on the same pruned network (1 of 3)" in low.sentence
    first, last = uneven()[0], uneven()[-1]
    assert low.evidence["behind"] == pytest.approx(first.final_accuracy - last.final_accuracy)
    (found,) = [held for held in estimates(groups) if held.label == "LR 1e-4"]
    assert found.target in {made.final_accuracy for made in uneven() if made.seed == 0}


def test_missing_base_models_are_the_advice():
    found = compare(uneven())
    reason = found.fairness.checks[1].reasons[0]
    assert reason.endswith("are not among those of LR 1e-3 (+60) and LR 1e-4")
    advice = found.fairness.advice
    assert advice[0].startswith("Give every setting the same base models: they share 1 of 3")
    commands = [line for line in advice if line.startswith("Run: ")]
    assert len(commands) == 4
    assert f"CHECKPOINT-{BASES[1][:8]}" in commands[0]
    assert {line.split()[-1] for line in commands} == {"1", "2"}


@pytest.mark.parametrize(
    ("changes", "known", "words"),
    [
        ({"start": "aa" * 32}, Known.NETWORK, "the pruned network is the same."),
        ({}, Known.BASE, "the base model and the pruning are the same."),
        ({"base": UNKNOWN}, Known.UNKNOWN, "if the pruned network is the same, which is not"),
    ],
)
def test_what_is_known_is_what_is_said(changes, known, words):
    made = [*seeds(3, **changes), *seeds(3, schedule=SMALL, **changes)]
    assert share(group(made)).known is known
    lines = findings(group(made))
    assert words in lines[0]
    assert ("the pruned network is the same." in lines[0]) is (known is Known.NETWORK)
    if known is Known.UNKNOWN:
        (trap,) = [t for t in detect(group(made)) if t.name.startswith("LR below")]
        assert "as far as is known" in trap.sentence
        assert not compare(made).fairness.one_network


def test_random_masks_of_two_seeds_are_two_networks():
    def drawn(schedule, seed):
        return run(schedule, seed=seed, criterion="random", start=f"{seed}" * 64)

    apart = group([drawn(LARGE, 0), drawn(SMALL, 1)])
    assert share(apart) is None
    assert len(kin(apart)) == 2
    assert not compare([drawn(LARGE, 0), drawn(SMALL, 1)]).fairness.one_network
    assert "pruned network is the same" not in " ".join(findings(apart))
    stated = [replace(made, start=UNKNOWN) for item in apart for made in item.runs]
    assert share(group(stated)) is None  # the seed stands for the mask


def test_optimizers_are_not_held_against_each_other():
    adamw = {**SETTINGS, "optimizer": "adamw"}
    made = seeds(3) + [replace(one, settings=adamw) for one in seeds(3, schedule=SMALL)]
    groups = group(made)
    assert len(kin(groups)) == 2
    assert estimates(groups) == []
    assert not [trap for trap in detect(groups) if trap.name.startswith("LR below")]
    assert (
        compare(made)
        .fairness.advice[0]
        .endswith("the same LR schedule and optimizer settings, such as LR 1e-2 · optimizer sgd.")
    )


def test_settings_without_a_common_network_are_told_where_most_share_one():
    made = [of_base(LARGE, 0), of_base(SMALL, 0), of_base(SMALL, 1), of_base("0:1e-4,10:1e-5", 1)]
    found = widest(group(made))
    assert len(found.groups) == 2
    assert found.networks == 1
    assert widest(group([of_base(LARGE, 0), of_base(SMALL, 1)])) is None


def test_scratch_training_is_known_by_its_first_weights():
    made = [run(s, kind=Kind.SCRATCH_E, base=UNKNOWN, start=OTHER_BASE) for s in (LARGE, SMALL)]
    assert share(group(made)).known is Known.NETWORK
    assert share(group([replace(one, start=UNKNOWN) for one in made])).known is Known.UNKNOWN


def test_a_network_that_some_runs_do_not_name_is_known_by_its_base_model():
    made = [run(LARGE, start="ab" * 32), run(SMALL)]
    assert share(group(made)).known is Known.BASE


@pytest.mark.parametrize(
    ("size", "known"),
    [
        ({"ratio": 0.9, "speedup": None}, Known.BASE),
        ({"ratio": None, "speedup": 8.0}, Known.BASE),
        ({"ratio": None, "speedup": None}, Known.UNKNOWN),
    ],
)
def test_the_pruned_network_is_not_known_to_be_the_same_where_its_size_is_not(size, known):
    made = [replace(one, pruning=replace(one.pruning, **size)) for one in (run(LARGE), run(SMALL))]
    assert share(group(made)).known is known
