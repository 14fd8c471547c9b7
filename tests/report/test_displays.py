from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from diagnoses import diagnosis
from rich.console import Console

from trainscope import report
from trainscope.errors import RecordError
from trainscope.records import Columns, Measurement
from trainscope.report.density_display import DensityDisplay
from trainscope.report.figures import FIGURES, diagnosis_figures
from trainscope.report.gradient_display import GradientDisplay
from trainscope.report.retraining_display import RetrainingDisplay
from trainscope.report.singular_values_display import SingularValuesDisplay
from trainscope.report.table import diagnosis_table


def test_singular_values_integrate_to_one_per_decade(axes):
    shown = SingularValuesDisplay.from_diagnosis(diagnosis()).plot(axes())
    outlines = [patch for patch in shown.ax_.patches if not patch.get_fill()]
    assert len(outlines) == 3
    for patch in outlines:
        values, edges, _ = patch.get_data()
        assert math.isclose(float(np.sum(values * np.diff(np.log10(edges)))), 1)
    assert shown.figure_ is shown.ax_.figure


def test_gradient_norms_keep_the_networks_order_through_renamed_layers(axes):
    columns = diagnosis().probes["gradient"]
    after = replace(columns.after, arrays={"layers": ["fc.weight"], "layer_norms": [2.0]})
    display = GradientDisplay.from_diagnosis(
        replace(diagnosis(), probes={"gradient": Columns(columns.before, after)})
    ).plot(axes())
    lines = {line.get_label(): line for line in display.ax_.lines}
    assert lines["before"].get_ydata().tolist() == [0, 1]
    assert lines["after"].get_ydata().tolist() == [1]
    assert lines["after"].get_xdata().tolist() == [2.0]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_what_was_not_measured_says_why(name):
    probe, _, display = FIGURES[name]
    skipped = Columns(Measurement.skipped(probe, "there is no training half"))
    with pytest.raises(
        RecordError, match=f"{probe} has nothing to draw: there is no training half"
    ):
        display.from_diagnosis(replace(diagnosis(), probes={probe: skipped}))
    with pytest.raises(RecordError, match=f"{probe} has nothing to draw: was not asked for"):
        display.from_diagnosis(replace(diagnosis(), probes={}))


def test_every_figure_is_a_name_of_the_room():
    assert all(getattr(report, name).__name__ == name for name in report.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = report.nothing


def test_density_marks_the_largest_eigenvalue(axes):
    display = DensityDisplay.from_diagnosis(diagnosis()).plot(axes())
    dotted = [line for line in display.ax_.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [4.0, 20.0, 400.0]


@pytest.mark.parametrize(
    ("tested", "worst", "scale"),
    [
        ("test perplexity", 1e8, "log"),
        ("test perplexity", 40.0, "linear"),
        ("test R²", -1.0, "linear"),
        ("top-1 test accuracy [%]", 90.0, "linear"),
    ],
)
def test_a_metric_that_an_lr_blew_up_is_on_a_logarithmic_axis(axes, tested, worst, scale):
    curves = {("before", 1e-3): [2.0, 3.0], ("after", 0.1): [2.0, worst]}
    display = RetrainingDisplay(curves, tested=tested, steps=5).plot(axes())
    assert display.ax_.get_yscale() == scale
    assert display.logarithmic == (scale == "log")


def test_retraining_starts_at_the_accuracy_without_retraining(axes):
    display = RetrainingDisplay.from_diagnosis(diagnosis()).plot(axes())
    lines = {line.get_label(): line for line in display.ax_.lines}
    assert lines["after, LR 0.001"].get_ydata().tolist() == [12.0, 20.0, 35.0, 50.0]
    assert len(lines) == 6


def test_every_probe_has_its_figure_and_skipped_probes_have_none():
    assert [name for name, _ in diagnosis_figures(diagnosis())] == [f"{n}.png" for n in FIGURES]
    skipped = Measurement.skipped("jacobian", "no inputs")
    bare = replace(diagnosis(), probes={"jacobian": Columns(skipped, skipped)})
    assert list(diagnosis_figures(bare)) == []


@pytest.mark.parametrize("width", [70, 120])
def test_the_table_has_every_number_and_sentence(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(diagnosis_table(diagnosis()))
    text = console.export_text()
    for part in ("digits_resnet", "mean JSV", "recalibrated", "It broke.", "Measured by hand."):
        assert part in text
    assert "×0.05000" in text
