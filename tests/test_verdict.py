from __future__ import annotations

from dataclasses import replace

from diagnoses import diagnosis, jacobian, retraining

from trainscope.records import Columns, Measurement, Status
from trainscope.verdict import verdict


def sentences(**changed) -> str:
    whole = diagnosis()
    probes = {**whole.probes, **changed}
    probes = {name: columns for name, columns in probes.items() if columns is not None}
    return "\n".join(verdict(whole.network, whole.action, probes))


def test_it_names_the_action_and_the_fall():
    text = sentences()
    assert "90 % of the filters of 6 inner convolutions" in text
    assert "5.00× speedup" in text
    assert "fell from 98.6 % to 12.0 %" in text
    assert "with batch norm recalibrated, and no retraining, it is 40.0 %" in text


def test_stale_batch_norm_is_told_from_lost_weights():
    assert "stale batch-norm statistics, not lost weights" in sentences()
    lost = Columns(jacobian(1.0), jacobian(0.05), jacobian(0.1))
    assert "the weights that are gone" in sentences(jacobian=lost)
    kept = Columns(jacobian(1.0), jacobian(0.9), jacobian(0.9))
    assert "The signal passes as before" in sentences(jacobian=kept)
    dead = Columns(jacobian(1.0), jacobian(0.05, dead=2))
    assert "2 outputs of the pruned network do not respond" in sentences(jacobian=dead)


def test_an_lr_above_the_ceiling_is_named():
    assert "0.01 is above it" in sentences()
    assert "0.001 is above it" not in sentences()


def test_the_small_lr_is_slower_not_worse():
    text = sentences()
    assert "up to 10 times as many first-stage epochs" in text
    assert "still rising by 7.0 points an epoch" in text


def test_intact_trainability_is_called_intact():
    same = Columns(retraining(98.6, [98.0, 98.2]), retraining(98.0, [97.9, 98.2]))
    text = sentences(trainability_accuracy=same)
    assert "trainability is intact" in text
    assert "still rising" not in text


def test_divergence_is_said_and_not_extrapolated():
    broken = replace(
        retraining(12.0, [10.0, 10.0]),
        status=Status.NONFINITE,
        reason="retraining diverged at LR 1e-2 (epoch 1)",
    )
    text = sentences(trainability_accuracy=Columns(retraining(98.6, [98.0, 98.0]), broken))
    assert "diverged at LR 1e-2 (epoch 1): retrain with a smaller LR" in text
    assert "rising" not in text


def test_probes_that_are_missing_or_skipped_say_nothing():
    whole = diagnosis()
    assert len(verdict(whole.network, whole.action, {})) == 1
    skipped = {name: Columns(*[Measurement.skipped(name, "no data")] * 2) for name in whole.probes}
    assert len(verdict(whole.network, whole.action, skipped)) == 1
