"""Every result shows itself in a notebook, and on one line; records hold no HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from cases import Plain
from comparisons import LARGE, SMALL, run
from diagnoses import diagnosis

import trainscope
from trainscope.networks.given import given_network
from trainscope.records import EpochRecord, Kind, Measurement, Measurements, Metric, Run, Scalar
from trainscope.task import Classification

RECORDS = Path(trainscope.__file__).parent / "records"


def measurement() -> Measurement:
    return Measurement(
        "gradient",
        scalars={"norm": Scalar(0.25, "nats/weight", 0.01), "snr": Scalar(None, reason="<few>")},
        notes={"unused": "<b> is not used"},
    )


def estimate() -> trainscope.Estimate:
    curve = trainscope.LearningCurve.from_run(run(SMALL, 20))
    return trainscope.estimate(curve, 97.0)


def perplexities() -> Run:
    metric = Metric("perplexity", "", "lower")
    records = tuple(EpochRecord(k, 1e-3, 3.2, 3.1, 22.2 - k, metric=metric) for k in range(1, 12))
    return Run(kind=Kind.RETRAIN, epochs=records, metric=metric, architecture="<tiny>")


RESULTS = {
    "diagnosis": (diagnosis, ["<th>before</th>"]),
    "measurement": (measurement, ["0.250 ± 0.010", "nats/weight", "&lt;few&gt;", "&lt;b&gt;"]),
    "measurements": (lambda: Measurements(gradient=measurement()), ["0.250 ± 0.010"]),
    "run": (run, ["final test accuracy", LARGE, "digits_resnet"]),
    "run of another metric": (perplexities, ["11.2", "test perplexity", "&lt;tiny&gt;"]),
    "comparison": (lambda: trainscope.compare([run(LARGE), run(SMALL)]), ["<th>setting</th>"]),
    "estimate": (estimate, ["<td>target</td><td>97.0 %</td>", "extra epochs"]),
    "network": (
        lambda: given_network(
            Plain(), (torch.zeros(2, 2, 8, 8), torch.zeros(2).long()), Classification()
        ),
        ["<td>one input</td><td>2x8x8</td>", "parameters"],
    ),
}


TAGS = {"h4", "p", "small", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


class Balance(HTMLParser):
    """Fails where a tag is closed that is not the open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert tag in TAGS, tag
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_and_has_one_line(name):
    make, parts = RESULTS[name]
    result = make()
    page = result._repr_html_()
    for part in parts:
        assert part in page
    reader = Balance()
    reader.feed(page)
    reader.close()
    assert not reader.open
    line = repr(result)
    assert "\n" not in line
    assert len(line) < 200


def test_a_run_shows_its_last_epochs_only():
    page = perplexities()._repr_html_()
    assert page.count("<tr><td>11</td>") == 1
    assert "<tr><td>3</td>" not in page


def test_an_estimate_without_numbers_says_why():
    few = trainscope.LearningCurve.from_run(replace(run(SMALL), epochs=run(SMALL).epochs[:2]))
    found = trainscope.estimate(few, 97.0)
    shown = found._repr_html_()
    assert re.search(r"first passage</t[hd]>\s*<td[^>]*>unknown<", shown)
    assert "too few epochs" in shown
    assert "never" not in shown
    assert "inf" not in repr(found)
    assert "unknown" in repr(found)


def test_measure_returns_measurements_by_name():
    found = Measurements(gradient=measurement())
    assert found["gradient"].value("norm") == 0.25
    assert repr(found) == "<Measurements of gradient>"


def test_records_hold_no_html():
    paths = list(RECORDS.rglob("*.py"))
    assert len(paths) > 10
    for path in paths:
        assert "</" not in path.read_text(encoding="utf-8"), path.name
