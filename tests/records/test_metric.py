"""What a metric is: a name, a unit and a direction."""

import math

import pytest

from trainscope.records.metric import ACCURACY, LOSS, Metric
from trainscope.report.series import loss_axis


def test_a_metric_survives_json() -> None:
    metric = Metric("perplexity", "", "lower")
    assert Metric.from_json(metric.to_json()) == metric


def test_the_sign_points_to_better() -> None:
    assert ACCURACY.sign == 1
    assert Metric("mean absolute error", "m", "lower").sign == -1


def test_an_axis_names_the_unit_where_there_is_one() -> None:
    assert ACCURACY.label == "accuracy (%)"
    assert Metric("perplexity", "", "lower").label == "perplexity"


@pytest.mark.parametrize(
    ("value", "said"), [(101.0, "0 to 100"), (-1.0, "0 to 100"), (float("nan"), "finite")]
)
def test_a_percentage_has_bounds(value: float, said: str) -> None:
    assert said in str(ACCURACY.fault(value))


def test_other_units_have_none() -> None:
    assert Metric("perplexity", "", "lower").fault(1e6) is None


@pytest.mark.parametrize("fields", [("accuracy", "%", "up"), (" ", "%", "higher")])
def test_what_is_no_metric_is_refused(fields: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match=r"better is|has a name"):
        Metric(*fields)


@pytest.mark.parametrize(
    ("metric", "written", "named", "gap"),
    [
        (ACCURACY, "97.3 ± 0.6 %", "97.3 ± 0.6 %", "+1.20 points"),
        (Metric("error", "%", "lower"), "97.3 ± 0.6 %", "error 97.3 ± 0.6 %", "+1.20 points"),
        (LOSS, "97.34 ± 0.60", "loss 97.34 ± 0.60", "+1.200 in loss"),
        (Metric("PSNR", "dB", "higher"), "97.34 ± 0.60 dB", "PSNR 97.34 ± 0.60 dB", "+1.200 dB"),
    ],
)
def test_values_are_written_with_their_unit(metric, written, named, gap) -> None:
    assert metric.written(97.34, spread=0.6) == written
    assert metric.called(97.34, spread=0.6) == named
    assert metric.gap(1.2, sign="+") == gap


def test_points_are_of_a_percentage_or_of_the_level() -> None:
    assert ACCURACY.points(0.5, 90.0) == 0.5
    assert LOSS.points(0.5, 2.0) == 25.0
    assert LOSS.points(-0.5, -2.0) == -25.0
    assert LOSS.points(0.0, 0.0) == 0.0
    assert LOSS.points(1.0, 0.0) == math.inf


def test_the_better_value_lies_ahead() -> None:
    assert (ACCURACY.best([1.0, 3.0, 2.0]), LOSS.best([2.0, 1.0])) == (3.0, 1.0)
    assert LOSS.best([]) is None
    assert (ACCURACY.ahead, ACCURACY.behind) == (LOSS.behind, LOSS.ahead) == ("above", "below")


def test_the_training_loss_is_in_nats_where_the_metric_tells_a_cross_entropy() -> None:
    told = [ACCURACY, Metric("error", "%", "lower"), Metric("perplexity", "", "lower")]
    assert [metric.loss_unit for metric in told] == ["nats"] * 3
    other = [
        Metric("R²", "", "higher"),
        Metric("mAP", "%", "higher"),
        Metric("PSNR", "dB", "higher"),
    ]
    assert [metric.loss_unit for metric in other] == [""] * 3
    assert loss_axis(ACCURACY) == "training loss [nats]"
    assert loss_axis(other[0]) == "training loss"
