from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import BASE, LARGE, OTHER_BASE, SMALL, SMALL_LONGER, action, run, seeds
from diagnoses import diagnosis

from trainscope.comparison.settings import group
from trainscope.comparison.traps import Severity, detect
from trainscope.comparison.traps.convergence import slope
from trainscope.records import (
    EpochRecord,
    LayerChange,
    Measurement,
    Pruning,
    RunStatus,
    Scalar,
    Taken,
)


def names(runs, diagnoses=(), *, weight=None):
    found = detect(group(runs), diagnoses)
    return {trap.name for trap in found if weight is None or trap.weight is weight}


def curve(accuracies, lrs, losses=None):
    """Return a run with the accuracies and LRs given."""
    losses = losses or [0.1] * len(accuracies)
    rows = zip(accuracies, lrs, losses, strict=True)
    epochs = [EpochRecord(k, lr, loss, loss, a, 0.1) for k, (a, lr, loss) in enumerate(rows, 1)]
    return replace(run(), epochs=tuple(epochs), total=len(epochs), schedule=None)


FLAT = [90.0, 90.1, 90.0, 89.9, 90.0, 90.1, 90.0, 89.9, 90.0, 90.0]
RISING = [60.0, 64.0, 68.0, 72.0, 76.0, 80.0, 84.0, 88.0, 92.0, 96.0]


def test_slope_of_a_line_and_of_noise():
    assert slope([1.0, 3.0, 5.0, 7.0]) == (2.0, 0.0)
    rise, error = slope([0.0, 1.0, 0.0])
    assert rise == 0.0
    assert error == pytest.approx((2 / 3 / 1 / 2) ** 0.5)
    with pytest.raises(ValueError, match="three values"):
        slope([1.0, 2.0])


@pytest.mark.parametrize(("before", "early"), [(RISING, True), (FLAT, False)])
def test_decayed_too_early(before, early):
    made = curve(before + [before[-1]] * 5, [1e-2] * 10 + [1e-3] * 5)
    found = [t for t in detect(group([made])) if t.name == "decayed too early"]
    assert bool(found) is early
    if early:
        assert found[0].epoch == 10
        assert 2 < found[0].evidence["slope"] < 6
        assert "points an epoch" in found[0].sentence


@pytest.mark.parametrize(("end", "rising"), [(RISING, True), (FLAT, False)])
def test_not_converged_at_the_end(end, rising):
    assert ("not converged" in names([curve(end, [1e-2] * 10)])) is rising


def test_a_rise_that_only_the_decay_gave_is_no_trap():
    lift = [90.0] * 10 + [95.0] * 10
    assert "not converged" not in names([curve(lift, [1e-2] * 10 + [1e-3] * 10)])


def test_a_training_loss_that_others_left_behind():
    behind = curve(FLAT, [1e-3] * 10, [0.9] * 10)
    ahead = curve(FLAT, [1e-2] * 10, [0.1] * 10)
    found = [t for t in detect(group([behind, ahead])) if t.name == "not converged"]
    assert [trap.label for trap in found] == ["LR 1e-3"]
    assert found[0].evidence == {"train_loss": pytest.approx(0.9), "lowest": pytest.approx(0.1)}
    assert found[0].sentence.endswith("its flat end is the small LR, not convergence.")
    longer = curve(FLAT * 2, [1e-3] * 20, [0.1] * 20)
    found = [t for t in detect(group([behind, longer])) if t.name == "not converged"]
    assert found[0].sentence.endswith("its flat end is its schedule, not convergence.")


def test_too_low_an_lr_is_told_with_its_ta():
    found = detect(group(seeds(3, schedule=LARGE) + seeds(3, schedule=SMALL)))
    (trap,) = [t for t in found if t.name == "LR below what the damage needs"]
    assert trap.label == "LR 1e-3"
    assert trap.evidence["reference_ta"] > trap.evidence["ta"]
    alike = seeds(3, schedule=LARGE, speed=1e4) + seeds(3, schedule=SMALL, speed=1e4)
    assert "LR below what the damage needs" not in names(alike)


@pytest.mark.parametrize(("large", "told"), [(97.7, False), (99.2, True)])
def test_one_seed_needs_more_than_a_few_samples(large, told):
    def ending(lr, accuracy):
        return curve([accuracy - 1] * 9 + [accuracy], [lr] * 10)

    found = [
        trap
        for trap in detect(group([ending(1e-2, large), ending(1e-3, 96.9)]))
        if trap.name == "LR below what the damage needs"
    ]
    assert bool(found) is told
    assert all("(one seed: no test)" in trap.sentence for trap in found)


def test_a_longer_run_is_not_held_against_a_shorter_small_one():
    slow = seeds(3, schedule=SMALL)
    fast = seeds(3, schedule=SMALL_LONGER.replace("1e-3", "1e-2", 1), total=80)
    assert "LR below what the damage needs" not in names(slow + fast)


def measured(lr_max, momentum):
    """Return a run whose curvature was measured before its first step."""
    scalars = {"max_stable_lr": Scalar.of(lr_max)}
    taken = Taken(Measurement("curvature", scalars=scalars), 0, "after action", 0.0)
    made = run()
    return replace(made, measurements=(taken,), settings={**made.settings, "momentum": momentum})


@pytest.mark.parametrize(
    ("lr_max", "momentum", "above"),
    [(0.006, 0.0, True), (0.006, 0.9, False), (0.004, 0.9, True), (0.02, 0.0, False)],
)
def test_the_stability_ceiling_is_raised_by_momentum(lr_max, momentum, above):
    name = "LR above the stability ceiling"
    assert (name in names([measured(lr_max, momentum)])) is above


def test_the_ceiling_may_come_from_a_diagnosis_of_the_same_pruned_network():
    made = diagnosis()  # max_stable_lr after the action: 0.1
    same = replace(made, network=replace(made.network, digest=BASE))
    big = run("0:3e-1", 20)
    assert "LR above the stability ceiling" in names([big], [same])
    other = replace(made, network=replace(made.network, digest=OTHER_BASE))
    assert "LR above the stability ceiling" not in names([big], [other])


def test_no_op_pruning():
    nothing = replace(action(), layers=(LayerChange("conv1", 16, 16),))
    assert "no-op pruning" in names([replace(run(), pruning=Pruning.of(nothing))])
    assert "no-op pruning" in names([replace(run(), pruning=Pruning(speedup=1.0))])
    assert "no-op pruning" not in names([run()])


def test_whole_layers_that_are_gone_are_no_no_op():
    gone = replace(action(), layers=(), speedup=1.5)
    assert "no-op pruning" not in names([replace(run(), pruning=Pruning.of(gone))])
    none = replace(gone, speedup=1.0)
    assert "no-op pruning" in names([replace(run(), pruning=Pruning.of(none))])


def test_stale_batch_norm_is_told_by_recalibration():
    assert "batch-norm statistics stale" in names([], [diagnosis()])  # 12 % → 40 %
    columns = diagnosis().probes["trainability_accuracy"]
    fine = replace(columns, recalibrated=columns.after)
    mended = replace(diagnosis(), probes={"trainability_accuracy": fine})
    assert "batch-norm statistics stale" not in names([], [mended])


def test_the_best_epoch_is_selection_on_the_test_set():
    falling = curve([95.0, 97.0, 96.0, 95.0, 94.0], [1e-2] * 5)
    assert "test-set selection" in names([falling], weight=Severity.NOTE)
    assert "test-set selection" not in names([curve(FLAT, [1e-2] * 10)])
    told = replace(run(), settings={**run().settings, "reported": "best"})
    assert "test-set selection" in names([told], weight=Severity.WARNING)


@pytest.mark.parametrize("status", [RunStatus.DIVERGED, RunStatus.INTERRUPTED])
def test_runs_that_did_not_finish(status):
    found = detect(group([replace(run(), status=status)]))
    assert str(status) in {trap.name for trap in found}


def test_half_of_the_seeds_is_not_enough():
    early = curve(RISING + [96.0] * 5, [1e-2] * 10 + [1e-3] * 5)
    late = replace(curve(FLAT + [90.0] * 5, [1e-2] * 10 + [1e-3] * 5), seed=1)
    assert "decayed too early" in names([early])
    assert "decayed too early" not in names([early, late])


def test_one_epoch_is_told_in_the_singular():
    made = [
        replace(run(seed=0), **fields)
        for lr, accuracy in ((1e-2, 95.0), (1e-3, 60.0))
        for record in (EpochRecord(1, lr, 0.1, 0.1, accuracy, 0.1),)
        for fields in ({"epochs": (record,), "total": 1, "schedule": f"0:{lr}"},)
    ]
    (trap,) = [t for t in detect(group(made)) if t.name == "LR below what the damage needs"]
    assert "in 1 epoch against 1 (one seed: no test)" in trap.sentence
