"""In every figure, at its own size, no text lies on another, and none is cut off."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from click.testing import CliRunner
from comparisons import run
from matplotlib.figure import Figure
from pictures import GROUPS, LONG, TITLE, crowd, diagnosed, resnet18, shown

from trainscope.cli.main import main
from trainscope.comparison.comparison import compare
from trainscope.report.comparison_figures import displays, write_comparison_figures
from trainscope.report.gradient_display import GradientDisplay
from trainscope.report.layout import WIDTH, apart, fold, spaced
from trainscope.report.learning_curve_display import LearningCurveDisplay
from trainscope.report.pictures import picture
from trainscope.report.series import lr_drops

SLACK = 0.5
"""Pixels: a layout is found by iteration."""


def axes_of(figure):
    return [part for ax in figure.axes for part in (ax, *ax.child_axes) if part.axison]


def boxes(figure):
    """Return what every visible text says, with its box in pixels."""
    figure.draw_without_rendering()
    held = [figure._supxlabel] if figure._supxlabel else []
    for ax in axes_of(figure):
        held += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            held += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
            held.append(axis.get_offset_text())
        legend = ax.get_legend()
        held += legend.get_texts() if legend else []
    said = [text for text in held if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in said]


def overlap(one, other):
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > SLACK and high > SLACK


def collisions(found):
    return [(a, b) for (a, x), (b, y) in combinations(found, 2) if overlap(x, y)]


def cut_off(found, figure):
    edge = figure.bbox.padded(1)
    inside = [
        edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
        for _, box in found
    ]
    return [text for (text, _), fits in zip(found, inside, strict=True) if not fits]


@pytest.mark.parametrize("group", GROUPS)
def test_no_text_lies_on_another_or_is_cut_off(group):
    for name, display in shown(group).items():
        figure = picture(display, title=f"{display.title}: {TITLE}")
        found = boxes(figure)
        assert collisions(found) == [], name
        assert cut_off(found, figure) == [], name
        ax, legend = figure.axes[0], figure.axes[0].get_legend()
        assert ax.get_window_extent().width > 0.3 * figure.bbox.width, name
        if legend is not None:
            box = legend.get_window_extent()
            assert not overlap(box, ax.title.get_window_extent()), name
            assert not overlap(box, ax.get_window_extent()), f"{name}: it covers data"
            assert box.width <= ax.get_window_extent().width + 2, f"{name}: it takes width"


def test_the_check_sees_a_legend_on_a_title():
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    ax.plot([1, 2], label="a setting")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.3)
    ax.set_title("A title")
    assert collisions(boxes(figure)) == [("A title", "a setting")]


@pytest.mark.parametrize("layout", ["constrained", None])
def test_a_title_that_is_set_later_keeps_off_the_legend(layout):
    figure = Figure(layout=layout)
    shown = GradientDisplay.from_diagnosis(diagnosed(resnet18())).plot(figure.subplots())
    shown.ax_.set_title("Another title")
    found = boxes(figure)
    assert ("before", "Another title") not in [(b, a) for a, b in collisions(found)]
    legend = shown.ax_.get_legend().get_window_extent()
    assert shown.ax_.title.get_window_extent().y0 >= legend.y1 - SLACK


def test_names_from_files_are_text_and_not_formulas():
    runs = crowd(3, words="$\\frac{1 and x_2$", lost=0)
    for name, display, _ in displays(compare(runs)):
        if name in ("accuracy", "ta"):
            told = [text for text, _ in boxes(picture(display, title="$\\frac{1$"))]
            assert any("$\\frac{1 and" in text.replace("\n", " ") for text in told)


def test_figures_can_be_without_titles(tmp_path):
    pictures = [
        picture(display, title="")
        for display in (shown("compared")["ta, small"], shown("diagnoses")["gradient_norms, real"])
    ]
    assert [figure.axes[0].get_title() for figure in pictures] == ["", ""]
    for extra in ((), ("--no-titles",)):
        drawn = tmp_path / "drawn.svg"
        done = CliRunner().invoke(main, ["schedule", "F9,1e-1", "--plot", str(drawn), *extra])
        assert done.exit_code == 0, done.output
        assert ("<!-- LR schedule -->" in drawn.read_text()) == (not extra)
    for titles in (True, False):
        (path,) = write_comparison_figures(
            compare([run("0:1e-2", 1, start_metric=None)]), tmp_path, ("svg",), titles=titles
        )
        assert ("<!-- Final accuracy -->" in path.read_text()) == titles


def test_a_figure_of_three_points_is_no_wider_than_it_needs():
    small, large = (shown("compared")[f"ta, {size}"] for size in ("small", "crowd"))
    assert small.size[0] < 4
    assert large.size[0] == WIDTH  # long names stand beside rows
    figure = picture(large)
    told = "".join(text.get_text() for text in figure.axes[0].get_yticklabels())
    assert all(letters in told.replace("\n", " ") for letters in LONG.split())


def test_rows_of_weights_stand_apart_from_those_of_normalisation():
    display = GradientDisplay.from_diagnosis(diagnosed(resnet18()))
    shown = display.plot(Figure(figsize=display.size, layout="constrained").subplots())
    upper = [text.get_text() for text in shown.ax_.get_yticklabels()]
    lower = [text.get_text() for text in shown.norms_ax_.get_yticklabels()]
    assert upper == [n for n in resnet18() if "bn" not in n and n[-2:] != ".1"]
    assert lower == [n for n in resnet18() if "bn" in n or n[-2:] == ".1"]
    assert shown.ax_.get_ylim()[0] > shown.ax_.get_ylim()[1]  # the input is on top
    assert shown.ax_.get_xlim() == shown.norms_ax_.get_xlim()


def test_a_diagnosis_that_does_not_say_what_its_layers_are_is_split_by_names():
    names = resnet18()
    display = GradientDisplay({"before": (names, [1.0] * len(names))})
    told = GradientDisplay.from_diagnosis(diagnosed(names))
    assert display.panels == told.panels
    assert set(GradientDisplay({"before": (["fc"], [1.0])}).panels) == {"weights"}


def test_layers_without_a_gradient_have_no_row():
    display = GradientDisplay({"before": (["a", "b", "c"], [1.0, 0.0, None])})
    assert display.panels == {"weights": ["a"]}


def test_stages_are_named_where_layers_are_too_many():
    figure = picture(shown("diagnoses")["gradient_norms, deep"])
    told = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert told == [f"backbone.feature_extractor.encoder.stage{k}.blocks" for k in range(4)]


def test_labels_of_large_groups_come_first_and_keep_their_distance():
    groups = [(0, "conv1"), (1, "layer1"), (9, "layer2"), (20, "fc")]
    assert spaced(groups, 21, 1) == groups
    assert spaced(groups, 21, 4) == [(1, "layer1"), (9, "layer2"), (20, "fc")]
    assert spaced(groups, 21, 12) == [(9, "layer2")]


def test_marks_keep_apart():
    assert apart([(0, 0), (1, 1), (20, 0), (21, 0), (21, 30)], 10) == [0, 2, 4]


def test_names_are_broken_between_their_parts():
    name = "a criterion · LR 1e-3 (+60)"
    assert fold(name, 40) == [name]
    assert fold(name, 20) == ["a criterion", "LR 1e-3 (+60)"]
    assert fold(name, 11) == ["a criterion", "LR 1e-3", "(+60)"]


def test_drops_of_one_curve_do_not_pile_up_in_lr_time():
    made = run("0:1e-2,10:1e-3,12:1e-4,14:1e-5,16:1e-6,18:1e-7", noise=0.0)
    marks = {}
    for x in ("epoch", "lr_time"):
        shown = LearningCurveDisplay.from_runs([made], x=x)
        figure = picture(shown)
        held = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
        marks[x] = [figure.axes[0].transData.transform(line.get_xydata()[0]) for line in held]
        told = figure.axes[0].get_xlabel()
        assert ("first LR drops" in told) == (x == "lr_time")
    assert len(marks["epoch"]) == 5
    assert len(marks["lr_time"]) < 5
    for places in marks.values():
        assert all(math.dist(a, b) > 8 for a, b in combinations(places, 2))


def test_an_lr_that_falls_at_every_epoch_has_no_marks():
    assert lr_drops([1.0, 0.9, 0.8, 0.7]) == ()
    assert lr_drops([1.0, 1.0, 0.1, 0.1]) == (1,)
