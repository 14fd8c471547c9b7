"""Records that anybody may have written: values of other types, sizes and letters are refused."""

from __future__ import annotations

import inspect
import json
import typing

import pytest
from diagnoses import diagnosis

import trainscope
from trainscope.errors import RecordError, TrainscopeError
from trainscope.records import Diagnosis, EpochRecord, Kind, Measurement, Run, Scalar
from trainscope.records.json_text import parse
from trainscope.records.text import escape, plain


def raw_run():
    epochs = tuple(EpochRecord(n, 0.1, 1.0, 1.0, 50.0 + n) for n in range(1, 4))
    return json.loads(Run(Kind.TRAIN, epochs, "0:1e-1", 3, settings={"momentum": 0.9}).to_json())


def changed(raw, path, value):
    whole = json.loads(json.dumps(raw))
    place = whole
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("start",), []),
        (("architecture",), 3),
        (("total",), "x"),
        (("total",), True),
        (("flops",), 10**400),
        (("seed",), 0.5),
        (("epochs", 2, "lr"), 10**400),
        (("epochs", 2, "test_accuracy"), "50"),
        (("epochs", 2, "test_metric"), "50"),
        (("metric",), {"name": "loss", "unit": "", "better": "up"}),
        (("metric",), None),
        (("epochs",), {}),
        (("settings",), []),
        (("settings", "momentum"), 10**400),
        (("environment",), {"torch": 2}),
        (("notes",), "a note"),
        (("given",), [1]),
        (("pretraining",), {"epochs": [[]]}),
        (("measurements",), [{"probe": "gradient"}]),
        (("kind",), ["train"]),
    ],
)
def test_a_run_with_a_value_of_another_type_is_refused_in_a_sentence(path, value):
    Run.from_json(json.dumps(raw_run()))
    with pytest.raises(RecordError, match="incomplete or damaged") as told:
        Run.from_json(changed(raw_run(), path, value))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("network", "parameters"), "many"),
        (("action", "speedup"), 10**400),
        (("data", "samples"), None),
        (("verdict",), "It broke."),
        (("probes", "jacobian", "before", "scalars", "mean_jsv", "value"), "1"),
        (("probes", "jacobian", "before", "arrays"), {"singular_values": [1.0, "x"]}),
        (("estimates",), [1]),
    ],
)
def test_a_diagnosis_with_a_value_of_another_type_is_refused(path, value):
    raw = json.loads(diagnosis().to_json())
    with pytest.raises(RecordError, match="incomplete or damaged"):
        Diagnosis.from_json(changed(raw, path, value))


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "[" * 101 + "]" * 101, "[" * 9000 + "]" * 9000, "1" + "0" * 5000]
)
def test_json_of_no_sensible_size_is_refused(text):
    with pytest.raises(ValueError, match=r"JSON number|nested|digits"):
        parse(text)
    with pytest.raises(RecordError, match="it is not JSON"):
        Run.from_json(text)


def test_halves_of_surrogate_pairs_become_a_letter():
    assert parse(r'{"\ud800": ["a\udfff", "\ud83d\ude00"]}') == {"\ufffd": ["a\ufffd", "😀"]}
    run = Run.from_json(changed(raw_run(), ("architecture",), "net\ud800"))
    assert run.to_json().encode()


def test_a_setting_is_a_number_or_it_is_none():
    for value, number in ((0.9, 0.9), ("0.9", 0.9), ("x", None), ([1], None), ("inf", None)):
        assert Run(Kind.TRAIN, (), settings={"momentum": value}).number("momentum") == number
    assert Run(Kind.TRAIN, ()).number("momentum") is None


def test_a_name_that_a_measurement_does_not_have_raises():
    found = Measurement("gradient", scalars={"norm": Scalar(1.0), "snr": Scalar(None, reason="0")})
    assert (found.value("norm"), found.value("snr")) == (1.0, None)
    with pytest.raises(TrainscopeError, match="gradient measured no 'nrm': it has norm, snr"):
        found.value("nrm")
    with pytest.raises(KeyError):
        found.value("nrm")
    assert (found.get("norm"), found.get("nrm")) == (1.0, None)
    assert Measurement.skipped("gradient", "no labels").value("norm") is None


def test_diagnose_has_the_options_of_examine():
    of, told = (inspect.signature(f) for f in (trainscope.examine, trainscope.diagnose))
    assert list(of.parameters.values()) == list(told.parameters.values())
    assert told.return_annotation is trainscope.Diagnosis
    hints = typing.get_type_hints(trainscope.diagnose)
    assert hints["ratio"] == float | None
    assert hints["return"] is trainscope.Diagnosis
    for name in of.parameters:
        assert f"{name}:" in trainscope.diagnose.__doc__


def test_text_from_files_is_plain():
    assert plain("a\x1b[31m\r\n\u202eb\ud800\x9b→😀") == ("a\\x1b[31m\\r\\n\\u202eb\\ud800\\x9b→😀")
    assert escape("<b>\x1b") == "&lt;b&gt;\\x1b"
