from __future__ import annotations

from dataclasses import replace

from diagnoses import diagnosis, jacobian, measurement, retraining

from trainscope.diagnosis.standing import standing
from trainscope.diagnosis.verdict import verdict
from trainscope.records import Columns, Measurement, Scalar, Status
from trainscope.records.metric import ACCURACY


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
    assert "the weights that are gone, not stale" in sentences(jacobian=lost)
    turned = Columns(jacobian(1.0), jacobian(0.05), jacobian(30.0))
    assert "turns this change round, so it comes of stale" in sentences(jacobian=turned)
    kept = Columns(jacobian(1.0), jacobian(0.9), jacobian(0.9))
    assert "Mean JSV: 0.9000 times what it was, within 0.67 to 1.5." in sentences(jacobian=kept)
    dead = Columns(jacobian(1.0), jacobian(0.05, dead=2))
    assert "2 outputs of the pruned network ignore the input" in sentences(jacobian=dead)


def test_no_change_is_told_whose_error_is_large_or_not_known():
    def off_by(found: Measurement, error: float | None) -> Measurement:
        scalar = replace(found.scalars["mean_jsv"], stderr=error)
        return replace(found, scalars={**found.scalars, "mean_jsv": scalar})

    for after in (0.05, 0.9):
        for error in (0.4, None):
            pair = Columns(off_by(jacobian(1.0), error), off_by(jacobian(after), error))
            assert "Mean JSV" not in sentences(jacobian=pair)
        sure = Columns(off_by(jacobian(1.0), 0.05), off_by(jacobian(after), 0.05))
        assert "Mean JSV" in sentences(jacobian=sure)


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
        "metric": ACCURACY.to_json(),
        "per": "epoch",
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


def test_an_end_at_the_horizon_is_said_with_its_probability():
    horizon = {"horizon": 1980.0, "beyond": 0.12}
    assert (
        "expect 12 or more extra epochs (80% interval, median 20; not within 1980 more epochs with "
        "probability 0.12)"
    ) in estimate(extra_epochs={"median": 20.0, "low": 12.0, "high": 1980.0, **horizon})
    assert estimate(extra_epochs={"median": 1980.0, "low": 300.0, "high": 1980.0, **horizon}) == (
        "LR 0.001 is not expected to get to the 97.4 % of LR 0.01 after 5 epochs soon: not within "
        "1980 more epochs with probability 0.12 (300 at the least) (80% interval)."
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


def test_networks_at_chance_have_no_trainability_to_be_intact():
    """Of ten classes: 13 % is nothing learned, whatever its standard error."""
    untrained = Columns(retraining(12.0, [12.5, 12.7]), retraining(12.0, [12.9, 13.4]))
    rough = {
        column: replace(m, scalars={k: replace(v, stderr=1.5) for k, v in m.scalars.items()})
        for column, m in (("before", untrained.before), ("after", untrained.after))
    }
    text = sentences(trainability_accuracy=Columns(**rough))
    assert "too little for a loss of trainability to show" in text
    assert "intact" not in text


def test_an_lr_that_is_too_large_is_not_praised():
    harmed = Columns(retraining(60.0, [59.0, 60.0]), retraining(98.0, [60.0, 60.0]))
    text = sentences(trainability_accuracy=harmed)
    assert "LR 0.01 is too large" in text
    assert "intact" not in text
    harmful = Columns(retraining(98.0, [60.0, 70.0]), retraining(50.0, [40.0, 70.0]))
    text = sentences(trainability_accuracy=harmful)
    assert "this LR harms the dense network itself, which starts from 98.0 %" in text
    assert "still rising" not in text


def test_a_gap_within_its_error_is_not_called_intact():
    near = Columns(retraining(90.0, [90.0, 90.0]), retraining(80.0, [88.5, 89.0]))
    rough = {
        column: replace(m, scalars={k: replace(v, stderr=2.0) for k, v in m.scalars.items()})
        for column, m in (("before", near.before), ("after", near.after))
    }
    text = sentences(trainability_accuracy=Columns(**rough))
    assert "the 1.2 points between them are within two standard errors, 5.7 points" in text
    assert "intact" not in text


def test_a_dense_network_that_reaches_nothing_has_no_trainability_to_lose():
    nothing = Columns(retraining(0.0, [0.0, 0.4]), retraining(0.0, [0.0, 0.0]))
    text = sentences(trainability_accuracy=nothing)
    assert "too little for a loss of trainability to show" in text
    assert "intact" not in text


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


SGD = [["optimizer", "sgd"], ["momentum", 0.9]]
ADAMW = [["optimizer", "adamw"], ["betas", [0.9, 0.999]]]
PERPLEXITY = ["perplexity", "", "lower"]


def tried(settings: list, start: float, *curves: list[float], lrs, **changed) -> Measurement:
    """Return retrainings by an optimizer; perplexities are given by `metric`."""
    found = retraining(start, *curves, lrs=lrs)
    arrays = {**found.arrays, "settings": settings, **changed}
    scalars = dict(found.scalars)
    if "metric" in changed:
        arrays["epoch_metrics"] = arrays.pop("epoch_accuracies")
        scalars["start_metric"] = scalars.pop("start_accuracy")
    return replace(found, arrays=arrays, scalars=scalars)


def curved(**scalars: float) -> Columns:
    found = measurement("curvature", scalars)
    return Columns(found, found)


def told(retrained: Measurement, curvature: Columns | None) -> str:
    return sentences(
        trainability_accuracy=Columns(retrained, retrained),
        curvature=curvature,
        gradient=None,
        jacobian=None,
    )


def test_momentum_has_its_own_limit():
    found = tried(SGD, 90.0, [91.0, 92.0], [91.0, 91.5], lrs=(1e-2, 1e-3))
    text = told(found, curved(max_stable_lr=0.006))
    assert (
        "Largest stable LR of SGD with momentum 0.9 (2(1 + 0.9)/λmax): 0.01140 after the action; "
        "0.01140 before." in text
    )
    assert "LR 0.01 is above it" not in text
    text = told(found, curved(max_stable_lr=0.005))
    assert "LR 0.01 is above it and may overshoot at first; it did not diverge here." in text
    assert "too large" not in text


def test_an_lr_above_adamws_limit_that_falls_behind_is_too_large():
    found = tried(
        ADAMW, 20.0, [12.0, 11.0], [15.0, 14.0], [900.0, 45.0], lrs=(1e-3, 1e-4, 0.1),
        metric=PERPLEXITY, steps=[20],
    )  # fmt: skip
    text = told(found, curved(max_stable_lr=10.0, preconditioned_eigenvalue=3800.0))
    assert (
        "Largest stable LR of AdamW (38/λmax of the preconditioned Hessian): 0.0100 ± 0.0010 after"
        in text
    )
    assert (
        "LR 0.1 is too large for AdamW: it is above the largest stable LR 0.0100 ± 0.0010, and the "
        "test perplexity after 40 steps is 45.00, worse than the 20.00 it started from and behind "
        "the 11.00 of LR 0.001. Use a smaller LR, or warm up." in text
    )
    assert "LR 0.001 is too large" not in text
    assert "LR 0.0001 is too large" not in text
    assert "At LR 0.1 the perplexity is still falling" not in text
    assert "may overshoot" not in text


def test_an_lr_that_is_too_large_below_the_limit_is_named_all_the_same():
    found = tried(ADAMW, 90.0, [91.0, 92.0], [50.0, 60.0], lrs=(1e-3, 1e-2))
    text = told(found, curved(max_stable_lr=10.0, preconditioned_eigenvalue=380.0))
    assert "LR 0.01 is too large for AdamW, though it is not above the largest stable LR" in text
    assert ": the test accuracy after 2 epochs is 60.0 %, worse than" in text
    text = told(found, None)
    assert "LR 0.01 is too large: the test accuracy after 2 epochs is 60.0 %" in text


def test_divergence_is_said_once_with_the_limit():
    found = tried(
        SGD, 90.0, [91.0, 92.0], [50.0, 60.0], lrs=(1e-3, 1.0),
        epoch_losses=[[1.0, 0.5], [3.0, None]],
    )  # fmt: skip
    found = replace(found, status=Status.NONFINITE, reason="retraining diverged at LR 1 (epoch 2)")
    text = told(found, curved(max_stable_lr=0.1))
    assert (
        "LR 1 is too large for SGD with momentum 0.9: it is above the largest stable LR 0.1900, "
        "and retraining diverged in epoch 2. Use a smaller LR, or warm up." in text
    )
    assert "The pruned network's retraining" not in text


def test_what_was_not_measured_of_adamw_is_not_taken_from_plain_gradient_descent():
    found = tried(ADAMW, 90.0, [91.0, 92.0], lrs=(1e-3,))
    text = told(found, curved(max_stable_lr=0.1))
    assert (
        "2/λmax, 0.1000, is the largest stable LR of plain gradient descent and not of AdamW, for "
        "which it is not known: it was not asked for." in text
    )
    lora = tried([*ADAMW, ["lora_rank", 4]], 90.0, [91.0, 92.0], lrs=(1e-3,))
    text = told(lora, curved(max_stable_lr=0.1, preconditioned_eigenvalue=380.0))
    assert "not of AdamW on LoRA" in text


def test_a_difference_within_the_noise_makes_no_lr_too_large():
    found = tried(SGD, 90.0, [91.0, 92.0], [90.0, 90.8], lrs=(1e-3, 1e-2))
    assert "too large" in told(found, None)
    noisy = {name: replace(s, stderr=2.0) for name, s in found.scalars.items()}
    assert "too large" not in told(replace(found, scalars=noisy), None)


PARTS = [40.0 * (-1) ** i for i in range(16)]
"""What each part of a test half adds to every perplexity: far more than what LRs do."""


def parts(*means: float) -> list[list[float]]:
    return [[mean + part + i % 3 / 10 for i, part in enumerate(PARTS)] for mean in means]


def wide(found: Measurement, *means: float) -> Measurement:
    """Return a measurement whose errors are large, and common to all means."""
    scalars = {name: replace(each, stderr=40.0) for name, each in found.scalars.items()}
    arrays = {**found.arrays, "left_out": parts(*means)} if means else found.arrays
    return replace(found, scalars=scalars, arrays=arrays)


def test_a_harm_beyond_the_error_of_the_difference_is_no_intact_trainability():
    """Both curves are tested on the same samples, of which some are hard for both."""
    options = {"lrs": (0.1,), "metric": PERPLEXITY, "steps": [20]}
    dense = tried(SGD, 20.0, [24.0, 24.0], **options)
    pruned = tried(SGD, 21.0, [28.0, 28.0], **options)
    known = Columns(wide(dense, 20.0, 24.0), wide(pruned, 21.0, 28.0))
    text = sentences(trainability_accuracy=known)
    assert "this LR harms the dense network itself, which starts from 20.00" in text
    assert "the test perplexity after 40 steps is 28.00, worse than the 21.00" in text
    assert "intact" not in text
    independent = Columns(wide(dense), wide(pruned))
    text = sentences(trainability_accuracy=independent)
    assert "within two standard errors" in text
    assert "intact" not in text


def test_a_loss_beyond_the_error_of_the_difference_is_no_intact_trainability():
    options = {"lrs": (1e-3,), "metric": PERPLEXITY, "steps": [20]}
    dense = tried(SGD, 20.0, [19.0, 19.0], **options)
    pruned = tried(SGD, 24.0, [23.0, 23.0], **options)
    known = Columns(wide(dense, 20.0, 19.0), wide(pruned, 24.0, 23.0))
    assert "intact" not in sentences(trainability_accuracy=known)


def test_an_lr_behind_a_smaller_one_is_told_by_the_error_of_the_difference():
    found = tried(
        SGD, 20.0, [19.0, 19.0], [20.0, 20.0], lrs=(1e-3, 1e-2), metric=PERPLEXITY, steps=[20]
    )
    known, unknown = wide(found, 20.0, 19.0, 20.0), wide(found)
    assert "LR 0.01 is too large: the test perplexity after 40 steps" in told(known, None)
    assert "too large" not in told(unknown, None)


def test_one_network_as_it_stands_has_the_same_sentences():
    found = tried(ADAMW, 90.0, [91.0, 92.0], [50.0, 60.0], lrs=(1e-3, 1e-1))
    curvature = measurement("curvature", {"max_stable_lr": 1, "preconditioned_eigenvalue": 3800})
    text = "\n".join(standing({"trainability_accuracy": found, "curvature": curvature}))
    assert (
        "Largest stable LR of AdamW (38/λmax of the preconditioned Hessian): 0.0100 ± 0.0010."
        in text
    )
    assert "LR 0.1 is too large for AdamW: it is above the largest stable LR" in text
    plain = "\n".join(standing({"curvature": measurement("curvature", {"max_stable_lr": 0.1})}))
    assert plain == "Largest stable LR of plain gradient descent (2/λmax): 0.1000."


def of_probe(probe: str, **values: float) -> Measurement:
    return Measurement(probe, scalars={n: Scalar.of(v, "", 0.1) for n, v in values.items()})


def test_steps_of_the_tangent_kernel_are_compared_at_their_own_stable_lr():
    columns = Columns(of_probe("ntk", stable_steps=100.0), of_probe("ntk", stable_steps=800.0))
    text = sentences(ntk=columns)
    assert "of the neural tangent kernel: 800.0 after the action, 100.0 before." in text
    assert "Give retraining more epochs." in text
    mended = replace(columns, recalibrated=of_probe("ntk", stable_steps=50.0))
    assert "50.00 with batch norm recalibrated" in sentences(ntk=mended)
    assert "What is still wrong is learned faster." in sentences(ntk=mended)
    level = Columns(of_probe("ntk", stable_steps=100.0), of_probe("ntk", stable_steps=110.0))
    assert "tangent kernel" not in sentences(ntk=level)


def test_dead_units_are_said_where_there_are_more():
    before = of_probe("activity", dead_share=1.0, dormant_share=4.0)
    columns = Columns(before, of_probe("activity", dead_share=20.0, dormant_share=30.0))
    assert "Dead units: 20.0 % after the action, 1.0 % before." in sentences(activity=columns)
    few = Columns(before, of_probe("activity", dead_share=1.5, dormant_share=5.0))
    assert "Dead units" not in sentences(activity=few)
    assert standing({"activity": before}) == (
        "Dead units: 1.0 % of all; dormant ones, those among them: 4.0 %.",
    )
