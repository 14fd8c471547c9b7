"""Comparing by any metric: a mirrored one gives the mirrored comparison, and no two are mixed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from comparisons import (
    ERROR,
    LARGE,
    SMALL,
    SMALL_LONGER,
    eighths,
    five_settings,
    mirrored,
    run,
    seeds,
    told_by,
)

from trainscope.comparison.bases import same_bases
from trainscope.comparison.comparison import compare
from trainscope.comparison.crossing import cross_validate
from trainscope.comparison.curves import check_target
from trainscope.comparison.settings import group
from trainscope.convergence import LearningCurve, decayed_too_early
from trainscope.errors import RecordError
from trainscope.records import EpochRecord, Kind, Metric, Run, RunStatus
from trainscope.records.metric import ACCURACY, LOSS

PERPLEXITY = Metric("perplexity", "", "lower")
R2 = Metric("R2", "", "higher")


def best_at_first():
    """Return a run whose best epoch is not its last one."""
    falling = [50.0, 70.0, 90.0, *(90.0 - k / 2 for k in range(1, 12))]
    epochs = tuple(EpochRecord(k, 0.01, 1.0, 1.0, a) for k, a in enumerate(falling, 1))
    return replace(run(), epochs=epochs, schedule="0:1e-2", total=len(epochs))


def still_rising():
    """Return a run that rises to its end, and one whose LR dropped while it rose."""
    rates = [1e-3] * 20
    epochs = tuple(EpochRecord(k, lr, 1.0, 1.0, 40.0 + 1.5 * k) for k, lr in enumerate(rates, 1))
    steady = replace(run(SMALL), epochs=epochs, schedule="0:1e-3")
    dropped = tuple(
        replace(record, lr=1e-3 if record.epoch < 12 else 1e-4) for record in steady.epochs
    )
    return [steady, replace(steady, epochs=dropped, schedule="0:1e-3,11:1e-4")]


def methods(gap: float, first: str = "l1", second: str = "l2"):
    """Return two methods under two setups, apart by a gap of their ceilings."""
    return [
        made
        for criterion, ceiling in ((first, 96.0), (second, 96.0 - gap))
        for schedule in (LARGE, SMALL)
        for made in seeds(4, schedule=schedule, criterion=criterion, ceiling=ceiling, noise=0.4)
    ]


def across_ratios():
    return [
        made
        for ratio, ceiling, speed in ((0.5, 98.0, 90.0), (0.95, 90.0, 30.0))
        for schedule in (LARGE, SMALL)
        for made in seeds(2, schedule=schedule, ratio=ratio, ceiling=ceiling, speed=speed)
    ]


SETS = {
    "five settings": five_settings,
    "methods": lambda: methods(4.0),
    "methods alike": lambda: methods(0.05),
    "one seed": lambda: [run(LARGE), run(SMALL)],
    "longer": lambda: [*seeds(2, schedule=SMALL), *seeds(2, schedule=SMALL_LONGER, total=80)],
    "ratios": across_ratios,
    "best epoch": lambda: [best_at_first(), run(SMALL)],
    "rising": still_rising,
    "diverged": lambda: [*seeds(2), replace(run(seed=2), status=RunStatus.DIVERGED)],
}


def skeleton(text: str) -> str:
    """Return a sentence without its numbers, and without what tells an error from an accuracy."""
    text = text.replace("error ", "").replace("errors", "accuracies")
    text = re.sub(r"[-+]?\d+(\.\d+)?(e-?\d+)?", "#", text)
    for one, other in (
        ("accuracy ", ""), ("accuracy", ""), ("error", ""), ("above", "~"), ("below", "~"),
        ("rising", "~"), ("falling", "~"), ("rises", "~"), ("falls", "~"), ("highest", "~"),
        ("lowest", "~"), ("take off", "~"), ("add", "~"), ("lower", "~"), ("higher", "~"),
        ("an of", "of"), ("  ", " "), ("TA", "~"), ("Trainability", "~"), ("trainability ", "~"),
    ):  # fmt: skip
        text = text.replace(one, other)
    return text


@pytest.mark.parametrize("name", SETS)
def test_runs_of_an_error_give_the_mirrored_comparison(name):
    made = [eighths(one) for one in SETS[name]()]
    plain, other = compare(made), compare([mirrored(one) for one in made])
    assert [item.label for item in other.groups] == [item.label for item in plain.groups]
    for one, two in zip(plain.groups, other.groups, strict=True):
        assert two.mean == pytest.approx(100 - one.mean)
        assert two.spread == (None if one.spread is None else pytest.approx(one.spread))
        assert two.quality - 0.0 == pytest.approx(one.quality - 100.0)
    assert other.fairness == plain.fairness
    for one, two in zip(plain.traps, other.traps, strict=True):
        assert (two.name, two.label, two.weight) == (one.name, one.label, one.weight)
        assert (two.runs, two.epoch) == (one.runs, one.epoch)
        for key, value in one.evidence.items():
            turned = 100 - value if key in ("ta", "reference_ta") else value
            assert two.evidence[key] == pytest.approx(turned)
    for one, two in zip(plain.duels, other.duels, strict=True):
        assert (two.methods, two.decided, two.missing) == (one.methods, one.decided, one.missing)
        if one.verdict is not None:
            assert two.verdict.outcome == one.verdict.outcome
            assert two.verdict.main.value == pytest.approx(one.verdict.main.value)
            assert two.verdict.main.p == pytest.approx(one.verdict.main.p)
    for one, two in zip(plain.estimates, other.estimates, strict=True):
        assert two.target == pytest.approx(100 - one.target)
        assert two.result.status == one.result.status
        assert two.result.extra_epochs.median == pytest.approx(one.result.extra_epochs.median)
        assert two.result.reachable == pytest.approx(one.result.reachable)
    assert [skeleton(line) for line in other.verdict()] == [
        skeleton(line) for line in plain.verdict()
    ]


def test_the_sets_reach_every_sentence_and_trap_of_a_direction():
    """What the mirrors above are to hold for is there to be mirrored."""
    found = [compare([eighths(one) for one in make()]) for make in SETS.values()]
    traps = {trap.name for one in found for trap in one.traps}
    wanted = {"decayed too early", "not converged", "test-set selection", "diverged"}
    assert wanted | {"LR below what the damage needs"} <= traps
    assert any(one.estimates for one in found)
    assert any(duel.decided for one in found for duel in one.duels)
    assert any(not duel.decided for one in found for duel in one.duels if duel.verdict)
    text = " ".join(line for one in found for line in one.verdict())
    for words in (
        "the learning rate decides",
        "more first-stage epochs take",
        "the gap between LRs grows",
    ):
        assert words in text


def test_an_error_is_written_by_its_name_unit_and_direction():
    made = [mirrored(eighths(one)) for one in five_settings()]
    told = compare(made)
    text = " ".join(told.verdict())
    assert re.search(r"LR 1e-2 error \d+\.\d ± \d\.\d %", text)
    assert "Trainability error (mean test error of the first 10 epochs)" in text
    assert "accuracy" not in text
    traps = {trap.name: trap.sentence for trap in told.traps}
    assert "points above LR 1e-2" in traps["LR below what the damage needs"]
    raw = told.as_dict()["settings"][0]
    assert raw["metric"] == {"name": "error", "unit": "%", "better": "lower"}
    assert raw["accuracy"] is None
    assert raw["final"]["mean"] == told.groups[0].mean


@pytest.mark.parametrize(
    ("metric", "value"),
    [(PERPLEXITY, lambda a: 400 - 4 * a), (R2, lambda a: a / 100), (LOSS, lambda a: 3 - a / 40)],
)
def test_other_metrics_have_the_same_winners_in_their_own_unit(metric, value):
    made = [eighths(one) for one in five_settings()]
    plain, other = compare(made), compare([told_by(one, metric, value) for one in made])
    best = max(plain.groups, key=lambda item: item.quality).label
    assert max(other.groups, key=lambda item: item.quality).label == best
    assert [held.label for held in other.estimates] == [held.label for held in plain.estimates]
    for one, two in zip(plain.estimates, other.estimates, strict=True):
        assert two.target == pytest.approx(value(one.target), rel=1e-2)
        assert metric.called(two.target) in two.sentence()
    text = " ".join((*other.verdict(), *(trap.sentence for trap in other.traps)))
    assert "%" not in text.replace("95 %", "").replace("close", "") or "of its gap" in text
    assert "points" not in text
    behind = {trap.label for trap in plain.traps if trap.name.startswith("LR below")}
    assert {trap.label for trap in other.traps if trap.name.startswith("LR below")} == behind


def test_runs_of_two_metrics_are_never_held_against_each_other():
    accuracies = five_settings(2)
    losses = [told_by(one, LOSS, lambda a: 3 - a / 40) for one in accuracies]
    told = compare([*accuracies, *losses])
    assert len(told.groups) == 10
    assert {item.metric for item in told.groups} == {ACCURACY, LOSS}
    said = (
        "The runs are told by 2 metrics, accuracy (%) for 5 settings and loss for 5 settings: no "
        "setting is held against one of another metric."
    )
    assert said in told.notes
    assert told.fairness.strictest is None
    assert told.fairness_sentence().startswith("Not one comparison: metrics accuracy (%) and loss.")
    assert "One metric at a time" in told.fairness_sentence()
    assert told.fairness.advice[0] == "Compare one metric at a time."
    alone = compare(accuracies)
    mine = [trap for trap in told.traps if trap.label.startswith("accuracy · ")]
    assert [trap.evidence for trap in mine] == [trap.evidence for trap in alone.traps]
    for line in told.facts():
        assert not ("loss" in line and re.search(r"\.\d %", line))


def test_a_lower_value_wins_a_duel_of_a_falling_metric():
    low, high = (1.0, 1.1, 0.9, 1.0), (2.0, 2.1, 1.9, 2.0)
    won = cross_validate(low, high, low, high, methods=("a", "b"), metric=LOSS)
    assert won.sentence.startswith("a wins: it is ahead of b under both setups, by 1.000 in loss")
    assert won.main.value == pytest.approx(1.0)
    lost = cross_validate(low, high, low, high, methods=("a", "b"))
    assert lost.sentence.startswith("b wins")


def test_another_base_model_is_said_with_the_direction():
    groups = group(
        [mirrored(run(base="x" * 8, criterion="l1")), mirrored(run(base="y" * 8, criterion="l2"))]
    )
    _, told = same_bases(groups, ("l1", "l2"))
    assert re.search(r"l\d ends \d+\.\d\d points below l\d, but from another base model", told)


def test_a_falling_loss_decays_too_early():
    losses = [2.0 - 0.05 * k for k in range(1, 11)] + [1.2] * 5
    rates = [1e-2] * 10 + [1e-3] * 5
    records = tuple(
        EpochRecord(k, lr, 1.0, x, x, metric=LOSS)
        for k, (lr, x) in enumerate(zip(rates, losses, strict=True), 1)
    )
    found = decayed_too_early(LearningCurve.from_run(Run(Kind.RETRAIN, records, metric=LOSS)))
    assert found.too_early
    accuracy = LearningCurve([r.epoch for r in records], [100 - 10 * x for x in losses], rates)
    assert 10 * found.slope == pytest.approx(decayed_too_early(accuracy).slope)
    assert "the loss was still falling by 0.0" in found.explanation
    assert "may take off up to 0." in found.explanation
    rising = tuple(replace(r, test_metric=4 - r.test_metric) for r in records)
    found = decayed_too_early(LearningCurve.from_run(Run(Kind.RETRAIN, rising, metric=LOSS)))
    assert not found.too_early
    assert ERROR.sign == LOSS.sign


def test_a_target_in_percent_is_no_share_and_not_negative():
    iou, error = Metric("mean IoU", "%", "higher"), Metric("error", "%", "lower")
    with pytest.raises(RecordError, match=r"a value of mean IoU in percent, and 0\.4 .* write 40"):
        check_target(0.4, iou)
    with pytest.raises(RecordError, match="an accuracy in percent, 0 to 100, and not -5"):
        check_target(-5)
    check_target(0.4, error)  # 0.4 % of errors
    check_target(-5, Metric("log likelihood", "", "higher"))
