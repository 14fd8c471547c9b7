"""Pairs whose pruning stages cost differently, and rows that differ in their pruning epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import BASE, DENSE_EPOCH, OTHER_BASE, SETTINGS, SMALL, SPEEDUP, run

from trainscope.comparison.cards import published, read_cards
from trainscope.comparison.comparison import compare
from trainscope.comparison.fairness import fairness
from trainscope.comparison.pipelines import stage_flops
from trainscope.comparison.settings import group
from trainscope.comparison.setups import ONE_SCHEDULE
from trainscope.records import Kind, Pretraining, Pruning, Run
from trainscope.records.run import UNKNOWN

STAGE = "0:1e-2"


def pipeline(
    criterion="l1",
    pretrained=60,
    stage=0,
    retrained=40,
    *,
    lr="1e-2",
    stage_schedule=STAGE,
    base=BASE,
    speedup=SPEEDUP,
    stage_cost=1.0,
    **changes,
):
    """Return pretraining, a pruning stage on `stage_cost` of the dense network, and retraining."""
    pruning = Pruning(
        "filter",
        0.9,
        criterion,
        "inner",
        speedup,
        pretrained,
        "one-shot" if not stage else "regularised",
        stage_epochs=stage,
        stage_schedule=stage_schedule if stage else None,
        stage_flops=round(stage * DENSE_EPOCH * stage_cost),
    )
    made = Run(
        Kind.RETRAIN,
        (),
        f"0:{lr},{retrained // 2}:1e-4",
        retrained,
        "digits_resnet",
        "digits",
        base,
        pruning=pruning,
        pretraining=Pretraining("0:1e-1,90:1e-2", 120, pretrained, pretrained * DENSE_EPOCH),
        settings=SETTINGS,
        flops=round(retrained * DENSE_EPOCH / speedup),
    )
    return replace(made, **changes)


def scratch(epochs):
    """Return the pruned network trained from scratch."""
    made = pipeline(retrained=epochs)
    return replace(made, kind=Kind.SCRATCH_E, base=UNKNOWN, pretraining=None)


ONE_SHOT = pipeline()
GREG = pipeline("GReg-1", stage=10)
PAIRS = {
    "another network": (ONE_SHOT, replace(GREG, architecture="other"), None),
    "another base model": (ONE_SHOT, pipeline("GReg-1", base=OTHER_BASE, stage=10), "S1"),
    "a base model that is not known": (ONE_SHOT, pipeline("GReg-1", stage=10, base=UNKNOWN), "S1"),
    "more retraining after a stage": (ONE_SHOT, pipeline("GReg-1", stage=10, retrained=60), "S2"),
    "another LR after a stage": (ONE_SHOT, pipeline("GReg-1", stage=10, lr="1e-3"), "S3.1"),
    "one-shot and a stage": (ONE_SHOT, GREG, "S3.2"),
    "a stage that is not known": (
        ONE_SHOT,
        replace(GREG, pruning=Pruning("filter", 0.9, "GReg-1", "inner", SPEEDUP, 60)),
        "S3.2",
    ),
    "as long a stage at another LR": (
        GREG,
        pipeline("GReg-2", stage=10, stage_schedule="0:1e-3"),
        "S4.1",
    ),
    "as long a stage at an LR not known": (
        GREG,
        pipeline("GReg-2", stage=10, stage_schedule=None),
        "S4.1",
    ),
    "the same stage": (GREG, pipeline("GReg-2", stage=10, stage_schedule="0:0.01"), "S4.2"),
    "the stage's epochs taken from retraining": (
        ONE_SHOT,
        pipeline("GReg-1", stage=10, retrained=30),
        "SX-A",
    ),
    "the stage's epochs taken from pretraining": (
        pipeline("GReg-1", 50, 10),
        pipeline(base=OTHER_BASE),
        "SX-B",
    ),
    "epochs from pretraining, at a smaller network's cost": (
        pipeline("GReg-1", 50, 10, stage_cost=0.1),
        pipeline(base=OTHER_BASE),
        "SX-A",
    ),
    "scratch training as long as all three": (GREG, scratch(110), "SX-A"),
    "scratch training as long as two of three": (GREG, scratch(100), "S1"),
    "scratch training at the cost of all three": (GREG, scratch(70 * 8 + 40), "SX-B"),
    "scratch training at the cost of two of three": (GREG, scratch(60 * 8 + 40), "S1"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_pruning_stages_count_as_the_paper_counts_them(pair):
    one, two, setup = PAIRS[pair]
    assert fairness([one, two]).strictest == setup
    assert fairness([two, one]).strictest == setup


def test_the_fair_ones_are_s3_2_and_budgets_against_scratch_training():
    fair = {pair for pair, (one, two, _) in PAIRS.items() if fairness([one, two]).fair}
    assert fair == {
        "one-shot and a stage",
        "a stage that is not known",
        "as long a stage at another LR",
        "as long a stage at an LR not known",
        "the same stage",
        "scratch training as long as all three",
        "scratch training at the cost of all three",
    }


def test_the_cost_of_pretraining_cancels_where_the_base_model_is_the_same():
    plain = [
        replace(one, pretraining=None, pruning=replace(one.pruning, epoch=None))
        for one in (ONE_SHOT, pipeline("GReg-1", stage=10, retrained=30))
    ]
    assert fairness(plain).strictest == "SX-A"
    apart = [plain[0], replace(plain[1], base=OTHER_BASE)]
    assert fairness(apart).strictest == "S1"
    reason = fairness(apart).checks[-2].reasons[0]
    assert reason == "epochs of the whole pipeline are unknown for every run"


def test_flops_follow_from_epochs_and_speedup_where_they_were_not_counted():
    cards = [
        replace(one, flops=None) for one in (pipeline(pretrained=5, retrained=60), scratch(100))
    ]
    assert fairness(cards).strictest == "SX-B"
    reasons = (
        fairness([cards[0], replace(cards[1], total=120, schedule="0:1e-2")]).checks[-1].reasons
    )
    assert reasons == (
        "training FLOPs of the whole pipeline, in epochs of the dense network, 12.5 and 15.0",
    )
    staged = replace(pipeline(pretrained=5, stage=2, retrained=60), flops=None)
    assert fairness([staged, cards[1]]).strictest == "S1"  # what its stage cost is not known


def test_whole_epochs_of_pretraining_cannot_match_a_budget_more_closely():
    squeezed = pipeline(pretrained=2, retrained=90, speedup=12.06)
    direct = replace(scratch(120), pruning=squeezed.pruning, flops=round(120 * DENSE_EPOCH / 12.06))
    assert fairness([squeezed, direct]).strictest == "SX-B"  # 30 / 12.06 is 2.49 epochs
    longer = pipeline(pretrained=3, retrained=96, speedup=12.06)
    assert fairness([longer, direct]).strictest == "S1"
    bases = pipeline(criterion="l2", pretrained=2, retrained=93, speedup=12.06)
    assert fairness([squeezed, bases]).strictest == "S2"  # retraining epochs are small change


def table4(ratio):
    """Return the rows of Table 4 at one ratio: scratch training, then the three blocks."""
    (path,) = [path for path in published() if "table4" in path.name]
    rows = [row for row in read_cards(path) if row.pruning.ratio == ratio]
    blocks = {
        name: [row for row in rows if row.notes[1].startswith(f"{name}; P")]
        for name in ("S4.2", "SX-A", "SX-B")
    }
    (first,) = [row for row in rows if row.kind is Kind.SCRATCH_E]
    return first, blocks


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_the_blocks_of_table_4_are_what_the_paper_calls_them(ratio):
    first, blocks = table4(ratio)
    assert [len(rows) for rows in blocks.values()] == [6, 3, 2]
    for name, rows in blocks.items():
        for held in ([first, *rows], rows):
            found = fairness(held)
            assert found.strictest == name
            assert found.fair
            assert found.sentence().startswith(f"Fair between pipelines: {name} holds")
        for row in rows:
            assert fairness([first, row]).strictest == name


def test_one_overall_schedule_takes_the_place_of_the_base_model():
    first, blocks = table4(0.95)
    found = fairness([first, *blocks["S4.2"]])
    unnamed = replace(first, pruning=replace(first.pruning, criterion=None))  # it has no method
    assert fairness([unnamed, *blocks["S4.2"]]).strictest == "S4.2"
    checks = {check.setup: check for check in found.checks}
    assert checks["S4.2"].meaning == ONE_SCHEDULE
    assert not any(checks[name].applies for name in ("S2", "S3.1", "S3.2", "S4.1"))
    assert checks["SX-A"].holds
    # A schedule that turns aside in pretraining is not the same one.
    one, two = blocks["S4.2"][:2]
    aside = replace(two, pretraining=replace(two.pretraining, schedule="0:1e-2"))
    assert fairness([one, aside]).strictest == "SX-A"
    unknown = replace(two, pretraining=replace(two.pretraining, schedule=None))
    assert fairness([one, unknown]).strictest == "SX-A"
    # Nor are two methods told apart by it, nor two base models after one epoch.
    other = replace(two, pruning=replace(two.pruning, criterion="l2"))
    assert fairness([one, other]).strictest == "SX-A"
    assert not fairness([one, other]).fair
    again = replace(one, seed=1, settings={**one.settings, "accuracy": 80.0})
    assert compare([one, again, first]).fairness.strictest == "S4.2"  # seeds of one setting


def test_a_stage_is_part_of_the_overall_schedule():
    whole = "0:1e-1,90:1e-2"
    direct = replace(scratch(120), schedule=whole)

    def staged(stage_schedule):
        made = pipeline(pretrained=60, stage=20, retrained=40, stage_schedule=stage_schedule)
        return replace(made, schedule="0:1e-1,10:1e-2")

    assert fairness([direct, staged("0:1e-1")]).strictest == "S4.2"
    assert fairness([direct, staged("0:1e-2")]).strictest == "SX-A"


@pytest.mark.parametrize("stated", [{"nesterov": True}, {"mixup": 0.2, "cutmix": 1.0}])
def test_a_setting_that_one_run_states_is_unknown_of_the_others(stated):
    one, two = run(criterion="l1"), run(criterion="l2")
    told = replace(two, settings={**SETTINGS, **stated})
    found = fairness([one, told])
    assert found.strictest == "S3.1"
    (reason,) = next(check for check in found.checks if check.setup == "S3.2").reasons
    names = " and ".join(stated)
    assert (
        reason == f"{names} {'are' if len(stated) > 1 else 'is'} stated for l2 and unknown for l1"
    )
    assert f"optimizer settings of l1 ({names})" in found.advice[0]
    both = [replace(made, settings={**SETTINGS, **stated}) for made in (one, two)]
    assert fairness(both).strictest == "S4.2"
    apart = replace(one, settings={**SETTINGS, **dict.fromkeys(stated, 0)})
    assert fairness([apart, told]).strictest == "S3.1"
    reason = fairness([apart, told]).checks[3].reasons[0]
    assert reason.startswith(f"training settings differ: {next(iter(stated))} 0 and")


@pytest.mark.parametrize(
    "written",
    [
        {"momentum": "0.90", "weight_decay": "5e-4", "optimizer": "SGD", "batch_size": "64"},
        {"momentum": 0.9, "weight_decay": 0.00050, "optimizer": "sgd ", "batch_size": 64.0},
    ],
)
def test_settings_are_compared_by_value(written):
    assert fairness([run(), replace(run(criterion="l2"), settings=written)]).strictest == "S4.2"


def test_a_recipe_by_name_stands_for_the_settings_and_is_not_guessed():
    named = [replace(run(criterion=c), settings={"recipe": "example"}) for c in ("l1", "l2")]
    assert fairness(named).strictest == "S4.2"
    mixed = fairness([named[0], run(criterion="l2")])
    assert mixed.strictest == "S3.1"
    other = replace(named[1], settings={"recipe": "another"})
    assert fairness([named[0], other]).strictest == "S3.1"


def test_learning_rates_that_differ_in_the_last_bit_are_one():
    recorded = replace(run(criterion="l2"), schedule=None)
    shaken = [replace(e, lr=e.lr * (1 + 2e-16)) for e in recorded.epochs]
    assert fairness([run(), replace(recorded, epochs=tuple(shaken))]).strictest == "S4.2"


def test_reasons_are_told_once():
    found = fairness([run(), run(SMALL, criterion="l2")])
    (names, reasons), *rest = found.failures
    assert names == ("S3.2", "S4.1", "S4.2")
    assert len(reasons) == 1
    assert rest == []
    more = fairness([run(), pipeline_like_run(stage=10)])
    assert [names for names, _ in more.failures] == [("S3.2",), ("S4.1", "S4.2")]
    assert [len(why) for _, why in more.failures] == [1, 1]


def pipeline_like_run(stage):
    made = run(SMALL, criterion="l2")
    return replace(made, pruning=replace(made.pruning, stage_epochs=stage, stage_schedule=STAGE))


def test_half_of_an_overall_schedule_is_none():
    def unsaid(pretrained, retrained):
        made = pipeline(pretrained=pretrained, retrained=retrained, base=UNKNOWN)
        return replace(made, schedule="0:1e-2", pretraining=Pretraining(epochs=pretrained))

    found = fairness([unsaid(20, 40), unsaid(30, 40)])
    assert found.strictest == "S1"  # retraining is the same, and pretraining is not known


def test_two_base_models_after_one_epoch_are_not_one_overall_schedule():
    one = pipeline(seed=0)
    two = replace(pipeline(seed=0, base=OTHER_BASE), settings=SETTINGS)
    found = fairness([one, two])
    assert found.strictest == "SX-B"
    assert next(check for check in found.checks if check.setup == "S4.2").applies


def test_a_stage_is_part_of_the_setting_and_of_its_name():
    short, long = pipeline("GReg-1", stage=10), pipeline("GReg-1", stage=20)
    other = pipeline("GReg-1", stage=10, stage_schedule="0:1e-3")
    assert [item.label for item in group([short, long])] == [
        "10 epochs of pruning",
        "20 epochs of pruning",
    ]
    assert len(group([short, other])) == 2
    plans = [replace(short, pruning=replace(short.pruning, plan=p)) for p in ("a:10", "b:10")]
    assert [item.label for item in group([*plans, ONE_SHOT])] == [
        "GReg-1 · a:10 · 10 epochs of pruning",
        "GReg-1 · b:10 · 10 epochs of pruning",
        "l1 · one-shot · 0 epochs of pruning",
    ]
    assert len(group([short, replace(short, seed=1)])) == 1


def test_scratch_training_is_no_method_among_others():
    direct = replace(scratch(110), pruning=replace(GREG.pruning, criterion=None))
    found = fairness([GREG, direct])
    assert (found.strictest, found.fair) == ("SX-A", True)


def test_what_a_stage_cost_is_unknown_where_nothing_is_known_of_the_pruning():
    assert stage_flops(pipeline()) == 0
    assert stage_flops(GREG) == GREG.pruning.stage_flops
    assert stage_flops(scratch(110)) == 0
    bare = replace(pipeline(), pruning=None)
    assert stage_flops(bare) is None
    assert fairness([pipeline(), bare]).strictest is None
