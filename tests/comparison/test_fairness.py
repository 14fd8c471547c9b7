from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import (
    DENSE_EPOCH,
    LARGE,
    OTHER_BASE,
    SETTINGS,
    SMALL,
    SMALL_LONGER,
    SPEEDUP,
    action,
    run,
)

from trainscope.comparison.agreement import SPECIAL
from trainscope.comparison.commands import retrain_command
from trainscope.comparison.facts import schedule_of
from trainscope.comparison.fairness import fairness
from trainscope.comparison.settings import Setting, group
from trainscope.comparison.setups import CROSSING, SETUPS
from trainscope.errors import RecordError
from trainscope.records import Kind, Pretraining, Pruning, Run, RunStatus
from trainscope.records.run import UNKNOWN
from trainscope.training.shapes import cosine, warm_up

A = run(criterion="l1")


def check(found, setup):
    return next(item for item in found.checks if item.setup == setup)


def staged(made, epochs, schedule=None, flops=None):
    """Return a run whose pruning stage took some training, as regularised pruning does."""
    stage = {"stage_epochs": epochs, "stage_schedule": schedule, "stage_flops": flops}
    return replace(made, pruning=replace(made.pruning, plan="regularised", **stage))


def across(epoch, retrain):
    """Return a run pruned after another pruning epoch, retrained for another number of epochs."""
    schedule = f"0:1e-2,{retrain // 2}:1e-3,{retrain - 2}:1e-4"
    return run(schedule, retrain, pretrained=epoch, base=OTHER_BASE)


# Each pair satisfies exactly the setup named; then what the next stricter one is refused for.
PAIRS = {
    "S1": (run(criterion="l2", base=OTHER_BASE), "S2", "base models"),
    "S2": (run(SMALL_LONGER, 80, criterion="l2"), "S3.1", "retraining epochs 20 and 80"),
    "S3.1": (run(SMALL, criterion="l2"), "S3.2", f"LR schedules {LARGE} and {SMALL}"),
    "S3.2": (staged(run(criterion="l2"), 10), "S4.1", "epochs of the pruning stage 0 and 10"),
    "S4.2": (run(criterion="l2", after=3), None, None),
    "SX-A": (across(10, 30), "SX-B", "training FLOPs"),
    "SX-B": (across(19, 28), None, None),
}


@pytest.mark.parametrize("setup", PAIRS)
def test_each_setup_has_a_pair_that_satisfies_exactly_it(setup):
    other, stricter, reason = PAIRS[setup]
    found = fairness([A, other])
    assert found.strictest == setup
    chain = [s.name for s in SETUPS]
    if setup in chain:
        held = [c.setup for c in found.checks if c.holds]
        assert held == chain[: chain.index(setup) + 1]
    if stricter is not None:
        refused = check(found, stricter)
        assert not refused.holds
        assert refused.reasons[0].startswith(reason)


def test_the_schedule_is_the_reason_named_for_the_recommended_setup():
    found = fairness([A, run(SMALL, criterion="l2")])
    assert not found.fair
    assert found.sentence().endswith(f"S3.2 fails: LR schedules {LARGE} and {SMALL}.")


def test_from_s3_2_on_it_is_fair():
    for setup, (other, _, _) in PAIRS.items():
        expected = setup in ("S3.2", "S4.1", "S4.2", "SX-A", "SX-B")
        assert fairness([A, other]).fair is expected
        assert bool(fairness([A, other]).advice) is not expected


def test_sx_b_is_a_budget_of_flops_not_of_epochs():
    scratch = round(A.pretraining.epochs * SPEEDUP + 20)
    made = run("0:1e-1", scratch, kind=Kind.SCRATCH_B, base=UNKNOWN)
    made = replace(made, flops=round(scratch * DENSE_EPOCH / SPEEDUP))
    found = fairness([A, made])
    assert found.strictest == "SX-B"
    assert check(found, "SX-A").reasons[0].startswith("epochs of the whole pipeline 40 and 180")
    assert "none: random weights" in check(found, "S2").reasons[0]


def test_a_budget_says_nothing_of_methods_that_differ():
    other = replace(across(10, 30), pruning=Pruning.of(action("l2"), 10))
    found = fairness([A, other])
    assert found.strictest == "SX-A"
    assert not found.fair
    assert found.sentence().startswith("Not fair between methods: SX-A holds")
    assert "; S2 fails: base models" in found.sentence()
    assert found.advice


def test_where_base_models_alone_differ_no_budget_is_traded():
    found = fairness([A, run(criterion="l2", base=OTHER_BASE)])
    assert found.strictest == "S1"
    assert not check(found, "SX-A").applies
    assert check(found, "SX-A").reasons[0].startswith("every stage of the pipelines")


def test_scratch_training_beside_several_methods():
    scratch = replace(run("0:1e-1", 180, kind=Kind.SCRATCH_B, base=UNKNOWN), flops=A.flops * 9)
    held = fairness([A, run(criterion="l2"), scratch])
    assert held.strictest == "SX-B"
    assert held.sentence().startswith("Fair between pipelines: SX-B holds")
    assert not fairness([A, run(SMALL, criterion="l2"), scratch]).fair


def test_adamw_needs_no_momentum_and_missing_keys_are_named():
    def made(criterion, **settings):
        return replace(run(criterion=criterion), settings=settings)

    known = {"optimizer": "AdamW", "weight_decay": 1e-4, "batch_size": 128}
    assert fairness([made("l1", **known), made("l2", **known)]).strictest == "S4.2"
    carried = fairness([made("l1", **known), made("l2", momentum=0.9, **known)])
    assert carried.strictest == "S4.2"  # trainscope writes one down, and AdamW has none
    sgd = {"optimizer": "sgd", "weight_decay": 1e-4}
    found = fairness([made("l1", **sgd), made("l2", **sgd)])
    reason = check(found, "S3.2").reasons[0]
    assert reason.endswith("unknown for every run: momentum and batch_size not stated")
    assert "(momentum and batch_size): unknown is not the same" in found.advice[0]


def test_crossing_setups_do_not_apply_to_one_pipeline():
    found = fairness([A, run(criterion="l2")])
    for setup in CROSSING:
        assert not check(found, setup.name).applies
        assert not check(found, setup.name).holds


@pytest.mark.parametrize(
    ("changes", "setup", "words"),
    [
        ({"base": UNKNOWN}, "S2", "base models are unknown"),
        ({"data": None}, "S1", "data sets are unknown"),
        ({"architecture": None}, "S1", "networks are unknown"),
        ({"settings": {}}, "S3.2", "optimizer settings are unknown"),
        ({"schedule": None, "epochs": (), "total": None}, "S3.1", "retraining epochs are unknown"),
    ],
)
def test_unknown_is_not_the_same(changes, setup, words):
    one, two = replace(A, **changes), replace(run(criterion="l2"), **changes)
    found = fairness([one, two])
    assert not check(found, setup).holds
    assert any(reason.startswith(words) for reason in check(found, setup).reasons)
    assert "unknown is not the same" in " ".join(found.advice)


def test_an_unknown_base_model_can_still_be_known_to_differ():
    def card(accuracy, criterion):
        made = run(criterion=criterion, base=UNKNOWN)
        return replace(made, pretraining=Pretraining(accuracy=accuracy))

    reason = check(fairness([card(93.5, "l1"), card(93.7, "l2")]), "S2").reasons[0]
    assert reason.endswith("and differ: 93.5 and 93.7 % before pruning")


def test_a_name_and_a_digest_of_a_base_model_are_not_compared():
    named = replace(run(criterion="l2"), base="torchvision resnet50")
    reason = check(fairness([A, named]), "S2").reasons[0]
    assert "some by digest and some by name" in reason


def test_base_models_may_differ_by_seed_if_every_setting_has_the_same_ones():
    bases = [OTHER_BASE, A.base]
    groups = [run(criterion=c, seed=k, base=bases[k]) for c in ("l1", "l2") for k in range(2)]
    assert fairness(groups).strictest == "S4.2"
    assert fairness(groups[:-1]).strictest == "S1"


@pytest.mark.parametrize(("speedup", "same"), [(8.3, True), (8.6, False)])
def test_compression_agrees_within_five_percent(speedup, same):
    other = replace(A, pruning=Pruning.of(replace(action("l2"), speedup=speedup), 20))
    assert check(fairness([A, other]), "S1").holds is same


def test_notation_does_not_tell_schedules_apart():
    other = run("0:0.01,10:0.001,15:0.0001", criterion="l2")
    assert fairness([A, other]).strictest == "S4.2"


def test_optimizer_settings_count():
    other = replace(run(criterion="l2"), settings={**SETTINGS, "weight_decay": 1e-4})
    reason = check(fairness([A, other]), "S3.2").reasons[0]
    assert "weight decay 0.0005" in reason
    assert "weight decay 0.0001" in reason


def test_one_network_under_two_schedules_compares_retraining():
    found = fairness([A, run(SMALL)])
    assert found.one_network
    assert found.sentence().startswith("These runs retrain one pruned network")


def test_one_setting_is_no_comparison():
    with pytest.raises(RecordError, match="differ in nothing but their seed"):
        fairness([A, run(seed=1)])


def test_different_data_sets_are_no_comparison():
    found = fairness([A, replace(A, data="mnist:data")])
    assert found.strictest is None
    assert found.sentence() == "Not one comparison: data sets digits and mnist:data."
    assert found.as_dict()["setups"]["S1"]["reasons"] == ["data sets digits and mnist:data"]


def of_seeds(criterion, *changes):
    """Return one run a seed, each with its changes."""
    return [
        replace(run(criterion=criterion, seed=k), **changed) for k, changed in enumerate(changes)
    ]


@pytest.mark.parametrize(
    ("lacks", "setup"),
    [
        ({"base": UNKNOWN}, "S1"),
        ({"pretraining": None, "flops": None}, "S4.2"),
    ],
)
def test_what_one_seed_lacks_is_unknown_of_the_setting(lacks, setup):
    made = [*of_seeds("l1", {}, lacks), *of_seeds("l2", {}, lacks)]
    found = fairness(made)
    assert found.strictest == setup
    groups = group(made)
    assert len(groups) == 2
    assert fairness(groups).strictest == setup


def test_facts_that_one_seed_of_a_group_lacks_are_unknown():
    for name, setup in (
        ("data", None),
        ("architecture", None),
        ("schedule", "S3.1"),
        ("settings", "S3.1"),
        ("pruning", "S3.2"),
    ):
        groups = [Setting(c, tuple(of_seeds(c, {}, lacking(c, name)))) for c in ("l1", "l2")]
        found = fairness(groups)
        assert found.strictest == setup, name


def lacking(criterion, name):
    """Return the changes that make one fact unknown and leave the others."""
    made = run(criterion=criterion)
    if name == "schedule":
        return {"schedule": "?", "epochs": made.epochs}
    if name == "pruning":
        unsaid = replace(made.pruning, plan=None, stage_epochs=None, stage_flops=None)
        return {"pruning": unsaid}
    return {name: {} if name == "settings" else None}


def test_one_network_is_one_whose_base_model_is_known():
    start = "ab" * 32
    known = [run(schedule, start=start) for schedule in (LARGE, SMALL)]
    assert fairness(known).one_network
    unknown = [replace(made, base=UNKNOWN) for made in known]
    assert not fairness(unknown).one_network  # S2 does not hold
    apart = [known[0], replace(known[1], base=OTHER_BASE)]
    assert not fairness(apart).one_network
    assert not fairness([known[0], replace(known[1], start=OTHER_BASE)]).one_network


def test_runs_that_did_not_finish_take_no_part():
    cut = [
        replace(run(criterion="l2", base=OTHER_BASE, schedule="0:5e0"), status=status)
        for status in (RunStatus.DIVERGED, RunStatus.INTERRUPTED)
    ]
    found = fairness([A, run(criterion="l2"), *cut])
    assert found.strictest == "S4.2"
    with pytest.raises(RecordError, match="two settings or more"):
        fairness([A, run(seed=1), cut[0]])
    assert fairness([replace(A, status=RunStatus.DIVERGED), cut[1]]).strictest == "S1"


def test_granularity_is_said_beside_the_verdict_and_part_of_no_setup():
    masks = replace(
        run(criterion="l2"), pruning=replace(A.pruning, structure="2:4", criterion="l2")
    )
    found = fairness([A, masks])
    assert found.strictest == "S4.2"
    assert found.sentence().startswith("Fair: S4.2 holds")
    assert found.sentence().count("Granularities differ (filter and 2:4)") == 1
    assert found.as_dict()["beside"] == list(found.beside)
    assert fairness([A, run(criterion="l2")]).beside == ()


def size(criterion="l1", parameters=None, **known):
    made = Pruning(criterion=criterion, plan="one-shot", **known)
    return replace(run(), pruning=made, parameters=parameters)


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ({"speedup": 2.0}, {"speedup": 2.09}, None),
        ({"speedup": 2.0}, {"speedup": 2.11}, "speedups 2.00× and 2.11×"),
        ({"speedup": 2.0}, {"ratio": 0.5}, "compressions are not known to be the same: 2.00×"),
        ({"speedup": 2.0}, {}, "compressions are unknown for l2"),
        ({}, {}, "compressions are unknown for every run"),
        ({"ratio": 0.5}, {"ratio": 0.5}, None),
        ({"ratio": 0.5}, {"ratio": 0.6}, "ratios 0.5 and 0.6"),
        (
            {"ratio": 0.5, "structure": "filter"},
            {"ratio": 0.5, "structure": "2:4"},
            "compressions are",
        ),
        ({"ratio": 0.5, "scope": "all"}, {"ratio": 0.5, "scope": "inner"}, "compressions are not"),
        (
            {"ratio": 0.5, "structure": "unstructured", "speedup": 2.0},
            {"ratio": 0.5, "structure": "2:4", "speedup": 1.5},
            None,
        ),
        (
            {"ratio": 0.5, "structure": "unstructured", "speedup": 2.0},
            {"ratio": 0.6, "structure": "2:4", "speedup": 1.5},
            "speedups 1.50× and 2.00×",
        ),
        ({"parameters": 1000, "ratio": 0.5}, {"parameters": 1040, "speedup": 2.0}, None),
        ({"parameters": 1000, "ratio": 0.5}, {"parameters": 1060, "speedup": 2.0}, "compressions"),
    ],
)
def test_a_compression_is_a_speedup_a_share_of_masks_or_what_survives(one, two, words):
    found = check(fairness([size("l1", **one), size("l2", **two)]), "S1")
    assert found.holds is (words is None)
    assert words is None or found.reasons[0].startswith(words)


def test_known_differences_are_told_before_what_is_unknown():
    made = [run(LARGE), run("0:1e-2", 40, criterion="l2"), run("0:1e-2", 60, criterion="bn-scale")]
    lost = replace(run(criterion="random"), epochs=(), total=None, schedule=None)
    found = fairness([*made, lost])
    (reason, *_) = check(found, "S3.1").reasons
    assert reason == "retraining epochs 20, 40 and 60, and unknown for random"
    more = [run("0:1e-2", k, criterion=f"m{k}") for k in (90, 20, 30, 180)]
    assert check(fairness(more), "S3.1").reasons[0] == "retraining epochs 20 to 180"


def test_what_is_possible_is_said_where_little_is_known():
    bare = [replace(made, architecture=None) for made in (A, run("0:1e-2", 40, criterion="l2"))]
    found = fairness(bare)
    assert (found.strictest, found.possible) == (None, "S2")
    assert found.sentence() == (
        "Not known to be one comparison: networks are unknown for every run. Were that the same, "
        "it would be S2 at best: S3.1 fails: retraining epochs 20 and 40."
    )
    same = fairness([replace(made, architecture=None) for made in (A, run(criterion="l2"))])
    assert (same.strictest, same.possible) == (None, "S4.2")
    assert same.sentence().endswith("networks are unknown for every run.")
    assert same.advice == ("State the networks of l1 and 1 more: unknown is not the same.",)
    apart = fairness([A, replace(A, data="mnist:data")])
    assert apart.possible is None
    assert apart.advice == ("Compare one data set at a time.",)


@pytest.mark.parametrize(("speedup", "holds"), [(2.1, True), (2.1001, False)])
def test_five_percent_is_within(speedup, holds):
    assert (
        check(fairness([size("l1", speedup=2.0), size("l2", speedup=speedup)]), "S1").holds is holds
    )


def test_what_is_one_network_must_be_known_and_whole():
    drawn = [run(schedule, criterion="random", seed=None) for schedule in (LARGE, SMALL)]
    assert not fairness(drawn).one_network  # the seed drew the masks, and is not known
    assert fairness([replace(made, seed=0) for made in drawn]).one_network
    starts = {LARGE: ("ab", "cd"), SMALL: ("ab", "ef")}
    apart = [
        run(schedule, seed=k, start=start * 32)
        for schedule, held in starts.items()
        for k, start in enumerate(held)
    ]
    assert check(fairness(apart), "S2").holds
    assert not fairness(apart).one_network


def test_momentum_that_adamw_does_not_have_tells_nothing_apart():
    known = {"optimizer": "adamw", "weight_decay": 1e-4, "batch_size": 128}
    made = [
        replace(run(criterion=c), settings={**known, "momentum": m})
        for c, m in (("l1", 0), ("l2", 0.9))
    ]
    assert fairness(made).strictest == "S4.2"


def test_methods_that_are_not_known_may_be_several():
    unnamed = [
        replace(made, pruning=replace(made.pruning, criterion=None)) for made in (A, across(10, 30))
    ]
    found = fairness(unnamed)
    assert (found.strictest, found.fair) == ("SX-A", False)
    scratch = run("0:1e-1", 40, kind=Kind.SCRATCH_E, base=UNKNOWN)
    assert fairness([unnamed[0], scratch]).fair  # there is one, whatever it is called


def test_advice_names_a_setting_of_which_one_seed_lacks_what_is_needed():
    groups = [Setting(c, tuple(of_seeds(c, {}, {"settings": {}}))) for c in ("l1", "l2")]
    assert fairness(groups).advice[0].startswith("State the optimizer settings of l1 and 1 more")


def own(**settings) -> Run:
    """Return a run of trainscope's own with other settings."""
    return replace(run(criterion=settings.pop("criterion", "l1")), settings=settings)


ADAMW = {"optimizer": "adamw", "weight_decay": 5e-4, "batch_size": 64}


def disagreements(*runs: Run) -> list[str]:
    """Return what S3.2 finds to differ, or not to be known."""
    return [each.words for each in SPECIAL["settings"](group(list(runs)))]


def test_two_optimizers_differ_in_the_optimizer_and_no_setting_is_missing():
    text = disagreements(own(**SETTINGS), own(**ADAMW, betas=[0.9, 0.999], eps=1e-8))
    assert text == ["training settings differ: optimizer adamw and optimizer sgd"]


def test_betas_differ_and_an_earlier_run_of_our_own_had_the_usual_ones():
    plain, told = own(**ADAMW), own(**ADAMW, betas=[0.9, 0.999], eps=1e-8)
    assert disagreements(plain, told) == []
    (text,) = disagreements(told, own(**ADAMW, betas=[0.9, 0.95], eps=1e-8))
    assert text == "training settings differ: betas [0.9, 0.95] and betas [0.9, 0.999]"
    (text,) = disagreements(replace(plain, source="csv"), told)
    assert "betas and eps are stated for" in text


def test_lora_differs_from_training_the_weights():
    lora = {"lora_rank": 4, "lora_alpha": 8.0, "lora_targets": "all"}
    adapted, weights = own(**ADAMW, **lora), own(**ADAMW)
    (text,) = disagreements(adapted, weights)
    assert text == "training settings differ: lora rank 4 and lora rank none"
    (text,) = disagreements(adapted, own(**{**ADAMW, **lora, "lora_rank": 8}))
    assert text == "training settings differ: lora rank 4 and lora rank 8"
    (text,) = disagreements(adapted, replace(weights, source="csv", settings={**ADAMW}))
    assert "unknown" in text
    assert [item.label for item in group([adapted, weights])] == ["LoRA rank 4", "all weights"]


def test_the_command_for_a_fair_comparison_names_betas_and_lora():
    setup = own(**ADAMW, betas=[0.9, 0.95], eps=1e-8, lora_rank=4, lora_alpha=4.0)
    schedule = schedule_of(setup)
    text = retrain_command(run(criterion="l2"), schedule, setup)
    assert "--optimizer adamw --betas 0.9,0.95 --lora 4 --lora-alpha 4 --data" in text


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (cosine(1e-2, 40), "--recipe F40,1e-2 --shape cosine --data"),
        (warm_up(cosine(3e-3, 35), 5), "--recipe F35,3e-3 --shape cosine --warmup 5 --data"),
        (cosine(1e-2, 40, minimum=1e-3), "--schedule 0:1e-2,1:9.98613e-3,"),
    ],
)
def test_a_command_names_the_shape_that_makes_the_same_schedule(schedule, words):
    method = run(str(schedule), 40)
    assert words in retrain_command(method, schedule, method)


def test_cosines_that_differ_are_told_by_their_shape():
    made = [run(str(cosine(lr, n)), n) for lr, n in ((1e-2, 40), (1e-3, 60))]
    reasons = " ".join(check(fairness(group(made)), "S3.2").reasons)
    assert "cosine, 1e-2 to 0 over 40 epochs and cosine, 1e-3 to 0 over 60 epochs" in reasons
