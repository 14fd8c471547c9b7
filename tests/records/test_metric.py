"""What a metric is: a name, a unit and a direction."""

import pytest

from trainscope.records.metric import ACCURACY, Metric


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
