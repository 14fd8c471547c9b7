from __future__ import annotations

from dataclasses import replace

from diagnoses import diagnosis, jacobian, retraining

from trainscope.diagnosis.verdict import verdict
from trainscope.records import Columns, Measurement, Status


def sentences(**changed) -> str:
    whole = diagnosis()
    probes = {**whole.probes, **changed}
    probes = {name: columns for name, columns in probes.items() if columns is not None}
    return "\n".join(verdict(whole.network, whole.action, probes))


def test_it_names_the_action_and_the_fall():
    text = sentences()
    assert "90 % of the filters of 6 inner convolutions" in text
    assert "(speedup 5.00×)" in text
    assert "fell from 98.6 % to 12.0 %" in text
    assert "with batch norm recalibrated, and no retraining, it is 40.0 %" in text


def test_the_speedup_of_masks_is_called_theoretical():
    whole = diagnosis()
    masked = replace(whole.action, structure="unstructured")
    assert "in theory, with sparse kernels" in verdict(whole.network, masked, {})[0]


def test_stale_batch_norm_is_told_from_lost_weights():
    assert "with batch norm recalibrated: stale batch-norm statistics explain" in sentences()
    lost = Columns(jacobian(1.0), jacobian(0.05), jacobian(0.1))
    assert "the weights that are gone" in sentences(jacobian=lost)
    kept = Columns(jacobian(1.0), jacobian(0.9), jacobian(0.9))
    assert "Mean JSV: 0.9000 times what it was, within 0.67 to 1.5." in sentences(jacobian=kept)
    dead = Columns(jacobian(1.0), jacobian(0.05, dead=2))
    assert "2 outputs of the pruned network ignore the input" in sentences(jacobian=dead)


def test_an_lr_above_the_ceiling_is_named():
    assert "LR 0.01 is above it and may overshoot at first; it did not diverge here." in sentences()


def test_an_accuracy_that_still_rises_is_no_place_to_stop():
    assert "At LR 0.01 the accuracy is still rising by 7.0 points an epoch" in sentences()


def estimate(**changed) -> str:
    """Return the sentence of one estimate."""
    found = {
        "lr": 1e-3,
        "reference_lr": 1e-2,
        "target": 97.4,
        "epochs": 5,
        "level": 0.8,
        "extra_epochs": {"median": 20.0, "low": 12.0, "high": 33.0},
        "lr_time_bound": 50.0,
        "status": "ok",
        "explanation": "It levels off.",
    }
    whole = diagnosis()
    return verdict(whole.network, whole.action, {}, [found | changed])[-1]


def test_an_estimate_is_said_with_its_interval_and_bound():
    assert estimate() == (
        "LR 0.001 is slower, not necessarily worse: to get to the 97.4 % of LR 0.01 after 5 "
        "epochs, expect 12 to 33 extra epochs (80% interval, median 20), at most 45 by LR time."
    )
    assert "12 or more extra epochs" in estimate(
        extra_epochs={"median": 20.0, "low": 12.0, "high": None}
    )


def test_few_epochs_give_a_bound_and_no_interval():
    few = estimate(status="too few epochs")
    assert "it needs more epochs, at most 45 by LR time; for an interval, watch" in few
    assert "12" not in few


def test_an_estimate_of_never_or_now_says_so():
    never = {"median": None, "low": None, "high": None}
    assert "is not expected to get to" in estimate(status="unreachable", extra_epochs=never)
    assert "It levels off." in estimate(extra_epochs=never)
    assert "no extra epochs" in estimate(status="already reached")


def test_intact_trainability_is_called_intact():
    same = Columns(retraining(98.6, [98.0, 98.2]), retraining(98.0, [97.9, 98.2]))
    text = sentences(trainability_accuracy=same)
    assert "trainability is intact" in text
    assert "still rising" not in text


def test_an_lr_that_harms_the_dense_network_leaves_nothing_intact():
    harmed = Columns(retraining(98.6, [12.0, 10.0]), retraining(12.0, [11.0, 12.0]))
    text = sentences(trainability_accuracy=harmed)
    assert "this LR harms the dense network itself, which starts from 98.6 %" in text
    assert "intact" not in text


def test_the_gradient_is_said_of_both_columns():
    assert (
        "Gradient norm: 30.00 times what it was (5.000 times with batch norm recalib" in sentences()
    )


def test_divergence_is_said_and_not_extrapolated():
    broken = replace(
        retraining(12.0, [10.0, 10.0]),
        status=Status.NONFINITE,
        reason="retraining diverged at LR 1e-2 (epoch 1)",
    )
    text = sentences(trainability_accuracy=Columns(retraining(98.6, [98.0, 98.0]), broken))
    assert "The pruned network's retraining diverged at LR 1e-2 (epoch 1): use a smaller" in text
    assert "rising" not in text


def test_probes_that_are_missing_or_skipped_say_nothing():
    whole = diagnosis()
    assert len(verdict(whole.network, whole.action, {})) == 1
    skipped = {name: Columns(*[Measurement.skipped(name, "no data")] * 2) for name in whole.probes}
    assert len(verdict(whole.network, whole.action, skipped)) == 1
