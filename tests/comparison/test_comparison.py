from __future__ import annotations

import json
from dataclasses import replace

import pytest
from comparisons import LARGE, SMALL, SMALL_LONGER, five_settings, run, seeds
from diagnoses import diagnosis

from trainscope.comparison.cards import published, read_cards
from trainscope.comparison.comparison import compare
from trainscope.comparison.estimates import GroupEstimate
from trainscope.comparison.findings import findings
from trainscope.comparison.settings import group
from trainscope.convergence import Estimate, EstimateStatus, Interval, LearningCurve
from trainscope.convergence.estimate import NEVER
from trainscope.records import Kind, RunStatus
from trainscope.report.comparison_figures import displays
from trainscope.training.shapes import cosine, warm_up


@pytest.fixture(scope="module")
def five():
    return compare(five_settings())


def test_the_two_facts_come_first(five):
    first, second = five.verdict()[:2]
    assert first.startswith("After 20 epochs the learning rate decides: LR 1e-1")
    assert second.startswith("60 more first-stage epochs take LR 1e-3 from")
    assert "gap" in second or "level" in second or "past" in second


def test_every_number_in_the_first_finding_is_the_groups(five):
    first = five.findings[0]
    for item in five.groups:
        if item.epochs == 20:
            assert f"{item.mean:.1f} ± {item.spread:.1f} %" in first


def test_table_5_tells_the_papers_story():
    (path,) = [path for path in published() if "table5" in path.name]
    lines = findings(group(read_cards(path)))
    told = " ".join(lines)
    gap = "P60: After 60 epochs the learning rates end 7.3 points apart (one seed: no test): "
    assert (
        gap + "LR 1e-2 77.8 %, LR 1e-3 70.5 %. The gap of 7.3 points comes from retraining" in told
    )
    assert "if the pruned network is the same" in told  # the table names no base model
    assert "30 / 60 more first-stage epochs take LR 1e-2 from 77.6 to 79.1 / 79.6 %" in told


def test_estimates_are_for_the_smaller_lrs_only(five):
    assert {held.label for held in five.estimates} <= {"LR 1e-3", "LR 1e-4", "LR 1e-2"}
    assert "LR 1e-4" in {held.label for held in five.estimates}
    for held in five.estimates:
        extra = held.result.extra_epochs
        assert 0 <= extra.low <= extra.median <= extra.high
        assert held.label in held.sentence()


def test_the_document_is_json_without_nan(five):
    text = json.dumps(five.as_dict(), allow_nan=False)
    raw = json.loads(text)
    assert raw["schema"] == "trainscope.comparison/1"
    assert raw["fairness"]["strictest"] == "S2"
    assert len(raw["settings"]) == 5
    assert len(raw["pairs"]) == 10


def test_ratios_are_told_together():
    made = [
        one
        for ratio, ceiling in ((0.5, 98.0), (0.9, 95.0))
        for schedule in (LARGE, SMALL)
        for one in seeds(2, ratio=ratio, schedule=schedule, ceiling=ceiling)
    ]
    assert any(line.startswith("From ratio 0.5 to 0.9, LR 1e-2") for line in findings(group(made)))


def test_one_run_and_no_run():
    one = compare([run()])
    assert one.fairness is None
    assert one.verdict()[0].startswith("The best setting is")
    assert compare([], [diagnosis()]).groups == ()
    assert json.dumps(compare([], [diagnosis()]).as_dict(), allow_nan=False)


def test_runs_without_accuracy():
    blank = replace(run(), epochs=(), start_metric=None)
    assert compare([blank]).findings == ("No run has an accuracy.",)


def test_different_data_sets_give_a_verdict_not_an_error():
    found = compare([run(), replace(run(), data="mnist:data")])
    assert found.verdict()[-1].startswith(("Not one comparison", "1 of", "2 of"))
    assert found.fairness.strictest is None


def test_data_sets_are_not_ranked():
    one, two = run(), replace(run(SMALL), data="mnist:data")
    lines = findings(group([one, two]))
    assert not any("best setting" in line or "above" in line for line in lines)
    assert [line.split(" ends at ")[1] for line in lines] == [
        f"{one.final_accuracy:.1f} %.",
        f"{two.final_accuracy:.1f} %.",
    ]
    more = findings(group([one, run(criterion="l2"), two]))
    assert more[0].startswith("On digits, the best setting is")
    assert "mnist" not in more[0]


def test_a_tie_has_no_winner():
    made = [run(criterion=criterion, noise=0) for criterion in ("l1", "l2")]
    assert findings(group(made))[0].startswith("l1 and l2 end highest, both with")


def test_a_diverged_seed_is_counted_and_not_averaged():
    fine = seeds(3)
    broken = replace(fine[1], status=RunStatus.DIVERGED, epochs=fine[1].epochs[:3])
    found = compare([fine[0], broken, fine[2]])
    kept, lost = found.groups
    assert kept.finals == [fine[0].final_accuracy, fine[2].final_accuracy]
    assert found.ta_epochs == 10
    assert lost.ta(10) is None
    assert f"1 of 3 runs of {kept.label} diverged and is not in its mean." in found.findings
    (trap,) = [trap for trap in found.traps if trap.name == "diverged"]
    assert trap.sentence.startswith("1 of 3 runs diverged after 3 of 20 epochs: it is not in")
    assert trap.runs == (1, 3)
    assert found.fairness is None  # one setting: nothing is compared


def test_diverged_runs_take_no_part_in_findings_or_pairs():
    broken = [replace(one, status=RunStatus.DIVERGED) for one in seeds(2, schedule="0:5e1")]
    found = compare([*seeds(2), *seeds(2, schedule=SMALL), *broken])
    assert len(found.groups) == 3
    assert "LR 5e1" not in " ".join(found.findings)
    assert found.fairness.one_network


def test_nothing_is_ranked_where_no_run_finished():
    cut = [replace(run(schedule), status=RunStatus.INTERRUPTED) for schedule in (LARGE, SMALL)]
    assert compare(cut).findings == ("No run came to the end of its schedule, so none is ranked.",)


def test_of_many_learning_rates_the_two_that_are_compared_are_named():
    made = [run(f"0:{k}e-3,10:1e-4,15:1e-5", noise=0) for k in range(1, 9)]
    line = findings(group(made))[0]
    assert "of 8, the best and the lowest are LR 8e-3" in line
    assert "between LR 8e-3 and LR 1e-3" in line
    told = next(line for line in findings(group(made)) if line.startswith("Trainability"))
    assert told.count("% at LR") == 2


def test_copies_are_noted():
    assert compare([run(), run(), run(SMALL)]).notes == (
        "1 of the runs is a copy of another, counted once",
    )


def estimate(status, reachable, converged=True):
    """Return an estimate that can name no number of epochs."""
    result = Estimate(98.0, 0.8, NEVER, NEVER, reachable, None, status, "All.", doubt="Why.")
    curve = LearningCurve(epochs=[1, 2], accuracy=[1.0, 2.0], lr=[0.1, 0.1])
    return GroupEstimate("small", "large", 98.0, 10, result, curve, curve, converged)


@pytest.mark.parametrize(
    ("status", "reachable", "converged", "words"),
    [
        (
            EstimateStatus.UNREACHABLE,
            0.1,
            True,
            "is not expected to reach the 98.0 % of large",
        ),
        (
            EstimateStatus.UNREACHABLE,
            0.3,
            True,
            "may not reach the 98.0 % of large (the chance is",
        ),
        (
            EstimateStatus.FALLING,
            0.1,
            True,
            "may not reach the 98.0 % of large (the chance is",
        ),
        (EstimateStatus.UNREACHABLE, 0.1, False, "cannot be told"),
    ],
)
def test_never_is_said_only_where_the_estimate_and_the_traps_say_it(
    status, reachable, converged, words
):
    told = estimate(status, reachable, converged).sentence()
    assert words in told
    assert ("however long" in told) is (words.startswith("is not expected"))
    assert told.endswith(" Why.") is converged  # one sentence, not the whole explanation
    assert "All." not in told


def test_epochs_beyond_the_horizon_are_no_number():
    def told(median):
        held = estimate(EstimateStatus.OK, 0.8)
        late = Interval(median, 20.0, 990.0, horizon=990.0, beyond=0.2)
        return replace(held, result=replace(held.result, extra_epochs=late)).sentence()

    assert told(40.0).startswith(
        "small needs about 40 more first-stage epochs (20 or more, 80 % interval; not within 990 "
        "more epochs with probability 0.20) to reach the 98.0 % of large."
    )
    assert told(990.0).startswith("small may not reach the 98.0 % of large (the chance is put at")
    assert "990" not in told(990.0)


def test_an_estimate_knows_which_settings_had_not_converged(monkeypatch):
    monkeypatch.setattr(
        "trainscope.comparison.estimates.estimate_extra_epochs",
        lambda *_, **__: estimate(EstimateStatus.UNREACHABLE, 0.0).result,
    )
    found = compare(five_settings())
    unfinished = {trap.label for trap in found.traps if trap.name == "not converged"}
    told = {held.label: held.sentence() for held in found.estimates}
    assert unfinished & set(told)
    for label, sentence in told.items():
        assert ("however long" in sentence) is (label not in unfinished)


def test_a_setting_level_with_the_target_has_no_estimate():
    made = [run(LARGE, speed=1e4, noise=0.1), run(SMALL, speed=1e4, noise=0.1)]
    made.append(run(SMALL_LONGER, 80, speed=1e4, noise=0.1))
    assert compare(made).estimates == ()


def test_the_longer_run_is_held_against_the_best_larger_lr_it_had_time_for():
    def last(made, accuracy):
        ended = replace(made.epochs[-1], test_metric=accuracy)
        return replace(made, epochs=(*made.epochs[:-1], ended))

    made = [
        last(run(LARGE), 97.8),
        last(run("0:1e-2", 40), 98.3),
        last(run(SMALL), 96.9),
        last(run(SMALL_LONGER, 80), 97.8),
    ]
    (told,) = [line for line in findings(group(made)) if line.startswith("60 more")]
    assert "close 64 % of its gap to the 98.3 % of LR 1e-2, 40 epochs (one seed: no test)" in told
    assert "not further" not in told


def test_scratch_training_is_judged_by_its_budget_not_by_its_setup():
    scratch = run("0:1e-1", 180, kind=Kind.SCRATCH_B, base="unknown")
    found = compare([run(), scratch])
    assert found.duels == ()
    assert found.fairness.strictest == "SX-B"
    assert found.fairness.fair
    assert found.verdict()[1].startswith("Fair between pipelines: SX-B holds")


def test_a_gap_is_called_alike_only_where_it_is_small():
    apart = findings(group(seeds(2, schedule=LARGE, noise=9) + seeds(2, schedule=SMALL, noise=9)))
    alike = [run(schedule, seed=k, speed=1e4) for schedule in (LARGE, SMALL) for k in range(3)]
    assert "cannot tell from chance" in apart[0]
    assert "end alike" in findings(group(alike))[0]


def test_ratios_are_told_of_one_pruning_epoch_at_a_time():
    made = [
        run(schedule, ratio=ratio, pretrained=pretrained, ceiling=ceiling)
        for pretrained, ceiling in ((20, 98.0), (40, 60.0))
        for ratio in (0.5, 0.9)
        for schedule in (LARGE, SMALL)
    ]
    (line,) = [line for line in findings(group(made)) if "from ratio 0.5 to 0.9" in line]
    assert line.startswith("l1 after epoch 20: from ratio 0.5 to 0.9, LR 1e-2 97.")


def test_methods_are_fair_within_only_if_all_of_them_are():
    fair = [run(criterion=c, ratio=0.5) for c in ("l1", "l2")]
    assert compare([*fair, run(ratio=0.9)]).within == "S4.2"
    unfair = [run(ratio=0.9), run(criterion="l2", ratio=0.9, base="cd" * 32)]
    assert compare([*fair, *unfair]).within is None


def test_one_compression_at_a_time_is_judged_where_there_are_several():
    def sized(criterion, speedup, **changes):
        made = run(criterion=criterion, **changes)
        return replace(made, pruning=replace(made.pruning, ratio=None, speedup=speedup))

    made = [sized("l1", 2.0), sized("l2", 2.05, base="cd" * 32), sized("l1", 4.0)]
    found = compare(made)
    assert found.fairness.strictest is None
    assert found.apart.startswith(
        "One compression at a time, S1 at best (2.00× to 2.05×, 2 settings);"
    )
    assert found.fairness_sentence().startswith(
        "Not one comparison: speedups 2.00×, 2.05× and 4.00×."
    )
    assert found.apart in found.fairness_sentence()
    fair = compare([sized("l1", 2.0), sized("l2", 2.0), sized("l1", 4.0)])
    assert fair.apart == "One compression at a time, S4.2 holds at best (2.00×, 2 settings)."
    assert compare([sized("l1", 2.0), sized("l1", 4.0)]).apart == ""


def test_an_estimate_does_not_say_that_its_own_target_was_never_reached():
    """The target is where the reference ends, which its last epochs' mean may not reach."""
    (held,) = compare(five_settings(2)).estimates
    assert float(held.large.accuracy[-1]) == pytest.approx(held.target)
    assert held.result.status is EstimateStatus.REFERENCE_DECAYED


@pytest.mark.parametrize("warmup", [0, 6])
def test_a_cosine_is_told_how_much_longer_its_whole_schedule_must_be(warmup):
    """Its first LR stage, or its warm-up, is nothing to estimate from."""
    made = []
    for lr, total in ((1e-2, 40), (1e-3, 40)):
        schedule = cosine(lr, total - warmup)
        text = str(warm_up(schedule, warmup) if warmup else schedule)
        made += [run(text, total, seed=seed, speed=15.0) for seed in range(3)]
    found = compare(made)
    (held,) = found.estimates
    assert held.stretched
    assert held.watched == 40
    extra = held.result.extra_epochs
    assert "LR 1e-3 needs its whole schedule about" in held.sentence()
    assert f"{extra.median:.0f} epochs longer ({extra.low:.0f} to" in held.sentence()
    # Accuracy is a function of the LR time, that of the peak's cosine a tenth of the other's.
    assert extra.low <= 360 <= extra.high
    assert not [each for each in displays(found) if each.name.startswith("estimate")]
    assert found.ta_epochs == (7 if warmup else 5)
    longer = cosine(1e-3, 90 - warmup)
    text = str(warm_up(longer, warmup) if warmup else longer)
    more = compare([*made, *(run(text, 90, seed=seed, speed=15.0) for seed in range(3))])
    assert [each.label for each in more.estimates] == ["LR 1e-3, 90 epochs"]
    assert not any("TA over 1 epochs" in trap.sentence for trap in more.traps)
