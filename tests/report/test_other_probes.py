"""A probe of another package: one file and one entry point, and every report knows its words."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from comparisons import run
from diagnoses import diagnosis, measurement
from rich.console import Console
from torch import nn

from trainscope import Action, diagnose
from trainscope.comparison.comparison import compare
from trainscope.probes.scalar_spec import ScalarSpec, described
from trainscope.records import Columns, Diagnosis, Taken
from trainscope.report.along_display import AlongDisplay
from trainscope.report.page.build import page_html
from trainscope.report.page.diagnosis_page import diagnosis_page
from trainscope.report.rows import rows
from trainscope.report.series import measured_along
from trainscope.report.table import diagnosis_table

TOY = """
from dataclasses import dataclass
from typing import ClassVar

from trainscope.probes import Need, ScalarSpec
from trainscope.records import Cost, Measurement, Scalar


@dataclass(frozen=True)
class Toy:
    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Weights of a toy"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("share", "share that is not zero", "%", "higher", "linear"),
        ScalarSpec("size@*", "weights above {at}", "weights"),
    )

    def measure(self, network, data):
        held = [p.detach() for p in network.parameters()]
        count = sum(p.numel() for p in held)
        alive = sum(int(p.count_nonzero()) for p in held)
        return Measurement(
            self.name,
            scalars={
                "share": Scalar.of(100 * alive / count, "%"),
                "size": Scalar.of(alive, "weights"),
                "size@0": Scalar.of(alive, "weights"),
                "size@9": Scalar(None, "weights", reason="no weight is above 9"),
            },
        )

    def estimate(self, network, data):
        return Cost()


class Plain:
    name = "plain"
    needs = frozenset({Need.INPUTS})
    scalars = "not what it should be"

    def measure(self, network, data):
        return Measurement(self.name, scalars={"one": Scalar.of(1.0)})

    def estimate(self, network, data):
        return Cost()
"""
POINTS = """[trainscope.probes]
toy = toy_of_a_test:Toy
plain = toy_of_a_test:Plain
gone = no_such_module_of_a_test:Gone
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a distribution with three probes: one whole, one without words, one broken."""
    info = tmp_path / "toy_of_a_test-1.0.dist-info"
    info.mkdir()
    (tmp_path / "toy_of_a_test.py").write_text(TOY, encoding="utf-8")
    (info / "METADATA").write_text("Name: toy-of-a-test\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(POINTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    described.cache_clear()
    yield
    sys.modules.pop("toy_of_a_test", None)
    described.cache_clear()


def measured() -> Diagnosis:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    data = [(torch.randn(8, 4), torch.arange(8) % 3)]
    options = {"structure": "unstructured", "scope": "all", "ratio": 0.5}
    return diagnose(network, action=Action(**options), data=data, probes=["toy", "plain"])


def shown(found: Diagnosis) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(diagnosis_table(found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.usefixtures("toy")
def test_its_words_units_and_damage_are_in_the_table_the_page_and_the_json():
    found = measured()
    cells = {(row.probe, row.label): row.cells for row in rows(found)}
    before, after = (found.probes["toy"].before, found.probes["toy"].after)
    share = cells["Weights of a toy", "share that is not zero [%]"]
    assert share[:2] == ("100.0", f"{after.value('share'):.2f}")
    assert share[3] == f"×{after.value('share') / before.value('share'):.4f}"
    assert ("Weights of a toy", "weights above 0 [weights]") in cells
    assert len([label for _, label in cells if "weights above 0" in label]) == 1
    assert ("plain", "one") in cells
    assert '<th scope="row" title="higher is better">share that' in diagnosis_page(found)
    for text in (shown(found), re.sub(r"<[^>]+>", " ", diagnosis_page(found)), found._repr_html_()):
        for word in ("Weights of a toy", "share that is not zero [%]", share[3]):
            assert word in text
        assert "weights above 9 [weights]" in text  # and no console takes it for markup
        assert "weights above 9: no weight is above 9" in text
    raw = json.loads(found.to_json())["probes"]["toy"]
    assert raw["damage"]["share"] == after.value("share") / before.value("share")
    assert raw["after"]["scalars"]["share"]["unit"] == "%"


@pytest.mark.usefixtures("toy")
def test_what_it_wants_drawn_is_followed_along_retraining():
    taken = [
        Taken(measurement("toy", {"share": 50.0 + k, "size": 9.0}), k, "after step", float(k))
        for k in range(3)
    ]
    compared = compare([run(measurements=tuple(taken))])
    assert measured_along(compared.groups) == [("toy", "share")]
    page = page_html(compared)
    assert "Share that is not zero along retraining" in page
    assert "not retrained. Higher is better." in page
    display = AlongDisplay.from_groups(compared.groups, probe="toy", scalar="share").plot()
    assert (display.name, display.ax_.get_yscale()) == ("share that is not zero", "linear")


def test_the_help_names_it(toy, monkeypatch):
    for module in ("trainscope.cli.probe", "trainscope.cli.options"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    from trainscope.cli.probe import command

    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    own = "trainability_accuracy, gradient, jacobian, curvature, ntk, activity"
    assert f"installed: {own}, gone, plain, toy" in text


def test_a_file_of_a_probe_that_is_not_installed_has_plain_names():
    columns = Columns(measurement("toy", {"share": 1.0}), measurement("toy", {"share": 0.5}))
    found = replace(diagnosis(), probes={"toy": columns})
    assert [(row.probe, row.label) for row in rows(found)] == [("toy", "share [u]")]


@pytest.mark.usefixtures("toy")
def test_a_probe_that_cannot_be_imported_has_plain_names_and_breaks_no_report():
    columns = Columns(measurement("gone", {"x": 1.0}), measurement("gone", {"x": 0.5}))
    found = replace(diagnosis(), probes={"gone": columns})
    assert [(row.probe, row.label) for row in rows(found)] == [("gone", "x [u]")]


@pytest.mark.parametrize("wrong", [{"better": "more"}, {"drawn": "yes"}])
def test_a_spec_takes_the_words_that_it_has(wrong):
    with pytest.raises(ValueError, match=f"x: {next(iter(wrong))} is"):
        ScalarSpec("x", "an x", **wrong)
