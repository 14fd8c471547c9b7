from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from diagnoses import diagnosis, jacobian
from hypothesis import given
from hypothesis import strategies as st

from trainscope.errors import RecordError
from trainscope.records import Columns, Diagnosis, Measurement, Scalar
from trainscope.records.numbers import estimate, number, quantity
from trainscope.report.rows import has_recalibrated, reasons, rows


def test_json_round_trips_exactly():
    whole = diagnosis()
    assert Diagnosis.from_json(whole.to_json()) == whole
    assert Diagnosis.from_json(whole.to_json()).to_json() == whole.to_json()


def test_json_has_the_pinned_keys():
    raw = json.loads(diagnosis().to_json())
    assert raw["schema"] == "trainscope.diagnosis/1"
    assert {"architecture", "parameters", "flops", "digest"} <= raw["network"].keys()
    action = {"structure", "scope", "criterion", "ratio", "parameters", "flops", "speedup"}
    assert action | {"layers"} <= raw["action"].keys()
    assert raw["action"]["layers"] == [{"name": "layer1.0.conv1", "before": 16, "after": 1}]
    assert {"name", "samples", "labels"} <= raw["data"].keys()
    column = raw["probes"]["gradient"]["before"]
    assert {"status", "reason", "scalars", "arrays", "cost"} <= column.keys()
    assert {"value", "stderr", "unit"} <= column["scalars"]["norm"].keys()
    assert {"seconds", "forward", "backward"} <= column["cost"].keys()
    assert raw["probes"]["gradient"]["damage"] == {"norm": pytest.approx(30)}


@given(st.floats(), st.one_of(st.none(), st.floats()))
def test_no_number_that_is_not_finite_gets_in(value, stderr):
    scalar = Scalar.of(value, "u", stderr)
    assert Scalar.from_json(json.loads(json.dumps(scalar.to_json(), allow_nan=False))) == scalar
    assert (scalar.value is None) == (not math.isfinite(value))
    if scalar.value is None:
        assert scalar.reason


def test_scalars_are_strict():
    with pytest.raises(ValueError, match="finite"):
        Scalar(math.nan)
    with pytest.raises(ValueError, match="reason"):
        Scalar(None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "schema is None"),
        ('{"schema": "trainscope.diagnosis/99"}', "trainscope.diagnosis/99"),
        ('{"schema": "trainscope.diagnosis/1"}', "incomplete or damaged"),
    ],
)
def test_what_is_no_diagnosis_is_refused(text, message):
    with pytest.raises(RecordError, match=message):
        Diagnosis.from_json(text)


def test_damage_leaves_out_what_cannot_be_divided():
    columns = Columns(jacobian(0.0), jacobian(1.0))
    assert columns.damage() == {}
    assert Columns(jacobian(2.0), jacobian(1.0)).damage()["mean_jsv"] == 0.5


def test_a_skipped_probe_is_a_row_with_its_reason():
    skipped = Measurement.skipped("trainability_accuracy", "needs labels: add --data")
    probes = {"trainability_accuracy": Columns(skipped, skipped)}
    found = replace(diagnosis(), probes=probes)
    assert [row.cells for row in rows(found)] == [("skipped", "skipped", "", "")]
    assert reasons(found) == ["Trainability accuracy: skipped: needs labels: add --data"]
    assert not has_recalibrated(found)


def test_a_missing_number_is_a_dash_and_a_reason():
    columns = Columns(jacobian(1.0), jacobian(1.0, dead=2))
    found = replace(diagnosis(), probes={"jacobian": columns})
    cells = {row.label: row.cells for row in rows(found)}
    assert cells["condition number"][1] == "–"
    assert reasons(found) == ["condition number (after): 2 outputs are dead"]


def test_one_reason_of_several_columns_is_said_once():
    dead = jacobian(1.0, dead=2)
    found = replace(diagnosis(), probes={"jacobian": Columns(dead, dead, dead)})
    assert reasons(found) == ["condition number: 2 outputs are dead"]
    found = replace(diagnosis(), probes={"jacobian": Columns(dead, jacobian(1.0), dead)})
    assert reasons(found) == ["condition number (before, recalibrated): 2 outputs are dead"]
    late = Measurement.skipped("jacobian", "it was interrupted")
    found = replace(diagnosis(), probes={"jacobian": Columns(jacobian(1.0), late, late)})
    said = "Jacobian singular values (after, recalibrated): skipped: it was interrupted"
    assert reasons(found) == [said]


def test_the_notebook_page_shows_everything_and_escapes():
    page = diagnosis()._repr_html_()
    assert "&lt;b&gt;tags&lt;/b&gt;" in page
    assert "<b>tags" not in page
    for text in ("digits_resnet", "mean JSV", "0.0500 ± 0.0050", "×0.05000", "recalibrated"):
        assert text in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.23456, "1.235"), (98.6111, "98.61"), (12345.6, "12346"), (1e-5, "1.00e-05")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (98.6111, 0.6172, "98.61 ± 0.62"),
        (1234.5, 67.8, "1234 ± 68"),
        (0.5, 0, "0.5000"),
        (0, 0, "0 ± 0"),
        (3.3002, 1e-23, "3.300"),
        (1.234e-5, 2.3e-7, "1.234e-05 ± 2.3e-07"),
        (3.1, 250.0, "3 ± 250"),
    ],
)
def test_estimates_are_written_as_far_as_they_are_known(value, stderr, text):
    assert estimate(value, stderr) == text


def test_quantities_have_letters():
    assert [quantity(n) for n in (12, 97_000, 3.66e9)] == ["12", "97.00 k", "3.66 G"]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("layer_norms", [1.0], "has 1 values, and layers has 2"),
        ("layer_norms", [1.0, "x"], "mixes text and numbers|something else than numbers"),
        ("layer_norms", "ab", "is no list"),
        ("layers", [1.0, 2.0], "something else than names"),
        ("epoch_accuracies", [[1.0]], "has 1 values, and lrs has 2"),
        ("epoch_accuracies", [[1.0], []], "something else than rows"),
        ("epoch_accuracies", [1.0, 2.0], "something else than rows"),
        ("epoch_accuracies", [[1.0], [None]], "something else than numbers"),
        ("singular_values", [[1.0, -1.0]], "negative"),
        ("density_y", [1.0, 2.0, 3.0], "density_x .* has 2 values, and density_y has 3"),
        ("lrs", [], "has 2 values, and lrs has 0"),
        ("density_y", [], "has 2 values, and density_y has 0"),
        ("density_x", [0.0, True], "something else than numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, values, said):
    whole = {
        "layers": ["a", "b"],
        "layer_norms": [1.0, None],
        "lrs": [1e-2, 1e-3],
        "epoch_accuracies": [[1.0, 2.0], [1.0]],
        "singular_values": [[1.0], [2.0, 3.0]],
        "density_x": [0.0, 1.0],
        "density_y": [1.0, 0.0],
        "anything": [{"of": "others"}],
    }
    probe = Measurement("gradient", arrays=whole)
    raw = json.loads(json.dumps(probe.to_json()))
    assert Measurement.from_json("gradient", raw) == probe
    raw["arrays"][name] = values
    Measurement.from_json("of_others", raw | {"arrays": {name: [1.0]}})
    found = json.loads(diagnosis().to_json())
    found["probes"]["jacobian"]["before"] = raw
    with pytest.raises(RecordError, match=said):
        Diagnosis.from_json(json.dumps(found))


def test_units_of_earlier_versions_are_read_in_the_words_of_today():
    raw = {"value": 1.0, "stderr": None, "unit": "loss/param²"}
    assert Scalar.from_json(raw) == Scalar(1.0, "nats/weight²")
    assert Scalar.from_json(raw | {"unit": "loss/param"}).unit == "nats/weight"
