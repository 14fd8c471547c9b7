from __future__ import annotations

import pytest
from diagnoses import diagnosis, retraining

from trainscope.diagnosis.outlook import outlook
from trainscope.diagnosis.verdict import verdict
from trainscope.records import Columns, Measurement, Scalar
from trainscope.records.retrained import CURVES, CURVES_METRIC, START_METRIC


def found(*curves: list[float], lrs=(1e-2, 1e-3)):
    after = retraining(12.0, *curves, lrs=lrs)
    losses = [[5.0 / (e + 1) for e in range(len(curve))] for curve in curves]
    after = Measurement(**{**_fields(after), "arrays": {**after.arrays, "epoch_losses": losses}})
    return outlook(Columns(after, after))


def _fields(measurement: Measurement) -> dict:
    return {name: getattr(measurement, name) for name in Measurement.__slots__}


LARGE = [60.0, 78.0, 86.0, 90.0, 92.0, 93.0, 93.5, 94.0]
SMALL = [15.0, 25.0, 34.0, 42.0, 49.0, 55.0, 60.0, 64.0]


def test_a_smaller_lr_gets_an_estimate_against_the_better_larger_one():
    (estimate,) = found(LARGE, SMALL)
    assert (estimate["lr"], estimate["reference_lr"], estimate["epochs"]) == (1e-3, 1e-2, 8)
    assert estimate["target"] == sum(LARGE[-3:]) / 3
    extra = estimate["extra_epochs"]
    assert 0 <= extra["low"] <= extra["median"]
    assert extra["median"] > 4


def test_the_order_of_the_lrs_does_not_matter():
    (one,), (two,) = found(LARGE, SMALL), found(SMALL, LARGE, lrs=(1e-3, 1e-2))
    assert one == two


def test_nothing_is_estimated_for_one_lr_or_where_the_smaller_leads():
    assert found(LARGE) == ()
    assert found(SMALL, LARGE) == ()
    skipped = Measurement.skipped("trainability_accuracy", "no data")
    assert outlook(Columns(skipped, skipped)) == ()


def test_an_lr_that_diverged_is_left_out():
    after = retraining(12.0, LARGE, SMALL)
    losses = {"epoch_losses": [[None] * 8, [1.0] * 8]}
    after = Measurement(**{**_fields(after), "arrays": {**after.arrays, **losses}})
    assert outlook(Columns(after, after)) == ()


def test_the_target_leaves_out_the_accuracy_before_retraining():
    (estimate,) = found([88.0], [60.0])
    assert estimate["target"] == 88.0


def test_a_loss_over_steps_is_estimated_in_its_own_unit_and_direction():
    """The curves of an error of 100 - accuracy, tested every 20 steps."""

    def turned(curve: list[float]) -> list[float]:
        return [(100.0 - value) / 25 for value in curve]

    after = retraining(12.0, LARGE, SMALL)
    arrays = {name: rows for name, rows in after.arrays.items() if name != CURVES}
    arrays |= {
        CURVES_METRIC: [turned(LARGE), turned(SMALL)],
        "epoch_losses": [[5.0 / (e + 1) for e in range(8)]] * 2,
        "metric": ["loss", "nats", "lower"],
        "steps": [20],
    }
    scalars = {START_METRIC: Scalar(3.5)}
    after = Measurement(**{**_fields(after), "arrays": arrays, "scalars": scalars})
    (estimate,) = outlook(Columns(after, after))
    (plain,) = found(LARGE, SMALL)
    assert (estimate["lr"], estimate["epochs"], estimate["per"]) == (1e-3, 160, "step")
    assert estimate["target"] == pytest.approx((100.0 - plain["target"]) / 25)
    ratio = estimate["extra_epochs"]["median"] / (20 * plain["extra_epochs"]["median"])
    assert 0.5 < ratio < 2
    whole = diagnosis()
    told = verdict(whole.network, whole.action, {}, [estimate])[-1]
    assert "to get to the loss 0.2600 nats of LR 0.01 after 160 steps" in told
    assert "extra steps (80% interval" in told
