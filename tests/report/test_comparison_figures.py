from __future__ import annotations

import re
import statistics
from dataclasses import replace
from importlib import resources

import pytest
from comparisons import LARGE, SMALL, five_settings, run, seeds
from diagnoses import diagnosis
from matplotlib.figure import Figure

from trainscope.comparison.comparison import compare
from trainscope.comparison.settings import group
from trainscope.records import Kind, Measurement, RunStatus, Scalar, Taken
from trainscope.report.along_display import AlongDisplay
from trainscope.report.comparison_figures import displays, write_comparison_figures
from trainscope.report.learning_curve_display import LearningCurveDisplay
from trainscope.report.series import Curve, curve, lr_times
from trainscope.report.setting_display import SettingDisplay
from trainscope.report.style import SERIES


def test_a_curve_is_the_mean_with_the_lowest_and_highest_seed():
    runs = seeds(3)
    (item,) = group(runs)
    found = curve(item)
    assert found.x == tuple(range(21))
    fifth = [made.epochs[4].test_accuracy for made in runs]
    assert found.mean[5] == pytest.approx(statistics.fmean(fifth))
    assert (found.low[5], found.high[5]) == (min(fifth), max(fifth))
    assert found.mean[0] == 10.0
    assert [found.x[k] for k in found.drops] == [10, 15]


def test_lr_time_is_the_running_sum_of_the_lr():
    times = lr_times(run())
    assert times[9] == pytest.approx(0.1)
    assert times[-1] == pytest.approx(0.1 + 0.005 + 0.0005)
    assert times[-1] == pytest.approx(run().lr_time)


@pytest.mark.parametrize("y", ["metric", "loss"])
@pytest.mark.parametrize("x", ["epoch", "lr_time"])
def test_learning_curves_have_a_line_a_setting_and_units(x, y, axes):
    shown = LearningCurveDisplay.from_runs(five_settings(2), x=x, y=y).plot(axes())
    lines = [line for line in shown.ax_.lines if len(line.get_xdata()) > 1]
    assert [line.get_label() for line in lines] == [
        *("LR 1e-1", "LR 1e-2", "LR 1e-3", "LR 1e-3 (+60)", "LR 1e-4")
    ]
    assert ("[%]" if y == "metric" else "[nats]") in shown.ax_.get_ylabel()
    assert shown.ax_.get_xscale() == ("log" if x == "lr_time" else "linear")
    assert shown.figure_ is shown.ax_.figure
    assert len({line.get_color() for line in lines}) == 5


def test_a_decay_that_came_too_early_is_ringed(axes):
    shown = LearningCurveDisplay.from_runs(five_settings(2)).plot(axes())
    assert shown.early
    assert set(shown.early.values()) <= {10, 70}
    rings = [line for line in shown.ax_.lines if line.get_fillstyle() == "none"]
    assert len(rings) == len(shown.early)
    assert not LearningCurveDisplay.from_runs(five_settings(2), y="loss").early


def test_settings_stand_side_by_side_or_against_the_ratio(axes):
    alone = SettingDisplay.from_runs(five_settings(2)).plot(axes())
    assert [text.get_text() for text in alone.ax_.get_xticklabels()][1] == "LR 1e-2"
    sweep = [m for r in (0.5, 0.9) for s in (LARGE, SMALL) for m in seeds(2, ratio=r, schedule=s)]
    shown = SettingDisplay.from_runs(sweep, number="ta").plot(axes())
    assert shown.sweeps
    assert shown.ax_.get_xlabel() == "ratio"
    assert {point.line for point in shown.points} == {"LR 1e-2", "LR 1e-3"}
    assert sorted({point.x for point in shown.points}) == [0.5, 0.9]


def test_measurements_along_retraining(axes):
    taken = tuple(
        Taken(
            Measurement("jacobian", scalars={"mean_jsv": Scalar.of(value, "logit/input")}),
            step,
            "after step",
            float(step),
        )
        for step, value in ((0, 0.1), (1, 0.5), (2, 0.9))
    )
    shown = AlongDisplay.from_runs(
        [run(measurements=taken)], probe="jacobian", scalar="mean_jsv"
    ).plot(axes())
    assert shown.ax_.lines[0].get_ydata().tolist() == [0.1, 0.5, 0.9]
    assert shown.ax_.get_ylabel() == "mean JSV [logit/input]"


def lines_of(ax):
    """Return the colour and the dash of every named line."""
    known = [line for line in ax.lines if not line.get_label().startswith("_")]
    return {line.get_label(): (line.get_color(), line.get_linestyle()) for line in known}


def test_a_setting_has_one_colour_in_every_figure(axes):
    taken = tuple(
        Taken(
            Measurement("step_gradient", scalars={"mean_norm": Scalar.of(1.0 / k, "nats/weight")}),
            k,
            "after step",
            float(k),
        )
        for k in (1, 2)
    )
    # The first settings lack a loss or a measurement: figures leave them out.
    runs = [
        replace(made, measurements=taken if place else ())
        for place, made in enumerate(five_settings(1))
    ]
    blind = [replace(record, train_loss=None) for record in runs[1].epochs]
    runs[1] = replace(runs[1], epochs=tuple(blind))
    comparison = compare(runs)
    drawn = {}
    for name, display, _ in displays(comparison):
        if name.startswith("estimate"):
            continue
        found = display.plot(axes())
        if name in ("ta", "final_ratio"):
            dots = [line for line in found.ax_.lines if line.get_marker() == "."]
            for point, dot in zip(found.points, dots, strict=True):
                assert dot.get_color() == drawn["accuracy"][point.label][0]
        else:
            drawn[name] = lines_of(found.ax_)
    assert len(drawn["accuracy"]) == 5
    assert {len(drawn["loss"]), len(drawn["along_mean_norm"])} == {4}
    for held in drawn.values():
        for label, style in held.items():
            assert style == drawn["accuracy"][label], label
    estimates = [(d, n) for n, d, _ in displays(comparison) if n.startswith("estimate")]
    assert estimates
    for (display, _), held in zip(estimates, comparison.estimates, strict=False):
        colours = {label: style[0] for label, style in lines_of(display.plot(axes()).ax_).items()}
        watched = next(c for label, c in colours.items() if label.startswith("watched"))
        reference = next(c for label, c in colours.items() if label.startswith("reference"))
        assert watched == drawn["accuracy"][held.label][0]
        assert reference == drawn["accuracy"][held.reference][0]


def test_the_page_and_the_figures_have_the_same_colours():
    css = (resources.files("trainscope.report.page") / "style.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--s(\d): (#[0-9a-f]{6})", css.split("color-scheme: light")[0]))
    assert [light[str(k)] for k in range(len(SERIES))] == [colour.lower() for colour in SERIES]


def test_what_a_figure_leaves_out_is_said_in_it(tmp_path, monkeypatch):
    lrs = [f"{k}e-3" for k in range(1, 21)]
    made = compare([run(f"0:{lr},10:1e-5") for lr in lrs])
    shown = {drawing.name: drawing for drawing in displays(made)}
    note = "14 of 20 settings shown: those that end best"
    assert shown["accuracy"].note == shown["loss"].note == note
    ends = {item.label: item.mean for item in made.groups}
    drawn = {curve.label for curve in shown["accuracy"].display.curves}
    assert len(drawn) == 14
    assert min(ends[label] for label in drawn) >= max(ends[label] for label in set(ends) - drawn)
    for name in ("ta", "final_ratio"):  # dots stand side by side: all of them
        assert len(shown[name].display.points) == 20
        assert shown[name].note == ""
    some = [shown["accuracy"], shown["ta"]]
    monkeypatch.setattr("trainscope.report.comparison_figures.displays", lambda _: some)
    write_comparison_figures(made, tmp_path, ("svg",))
    assert f"<!-- {note} -->" in (tmp_path / "accuracy.svg").read_text()
    assert "settings shown" not in (tmp_path / "ta.svg").read_text()


def test_lines_over_ratios_are_all_drawn():
    schedules = [f"0:{lr},10:1e-5" for lr in ("1e-1", "1e-2", "1e-3", "1e-4")]
    runs = [run(s, ratio=r) for s in schedules for r in (0.1, 0.3, 0.5, 0.7, 0.9)]
    shown = {drawing.name: drawing for drawing in displays(compare(runs))}
    assert len(shown["final_ratio"].display.points) == 20
    assert shown["final_ratio"].note == ""


def test_a_diverged_run_sets_no_axis_and_is_marked(axes):
    lost = run("0:1e3")
    guesses = tuple(replace(record, test_metric=10.0) for record in lost.epochs)
    lost = replace(lost, status=RunStatus.DIVERGED, epochs=guesses)
    runs = [*five_settings(1), lost]
    for number in ("ta", "final"):
        shown = SettingDisplay.from_runs(runs, number=number).plot(axes())
        finite = [point.value for point in shown.points if not point.diverged]
        assert len(finite) == 5
        assert 10 < shown.ax_.get_ylim()[0] < min(finite)
        assert [text.get_text() for text in shown.ax_.texts] == ["10.0 %, diverged"]
    assert SettingDisplay.from_runs(five_settings(1)).plot(axes()).ax_.texts[:] == []
    alone = SettingDisplay.from_runs([lost]).plot(axes())
    low, high = alone.ax_.get_ylim()
    assert low < 10 < high
    time = LearningCurveDisplay.from_runs(runs, x="lr_time").plot(axes())
    assert time.ax_.get_xlim()[1] < 100 < lost.lr_time
    for x in ("epoch", "lr_time"):
        shown = LearningCurveDisplay.from_runs(runs, x=x).plot(axes())
        assert "ends below, at 10.0 %" in [text.get_text() for text in shown.ax_.texts]
        low = shown.ax_.get_ylim()[0]
        told = [f"ends below, at {c.mean[-1]:.1f} %" for c in shown.curves if max(c.mean) < low]
        assert set(told) <= {text.get_text() for text in shown.ax_.texts}


def test_a_pretraining_among_the_runs_is_on_an_axis_of_epochs(axes):
    retrained = LearningCurveDisplay.from_runs(five_settings()).plot(axes())
    assert retrained.ax_.get_xlabel().startswith("epoch of retraining")
    dense = replace(run(), kind=Kind.TRAIN, pruning=None)
    both = LearningCurveDisplay.from_runs([*five_settings(), dense]).plot(axes())
    assert both.ax_.get_xlabel().startswith("epoch (")


def test_points_of_one_ratio_stand_apart(axes):
    sweep = [m for r in (0.5, 0.9) for s in (LARGE, SMALL) for m in seeds(2, ratio=r, schedule=s)]
    shown = SettingDisplay.from_runs(sweep).plot(axes())
    first, second = (bars.lines[0].get_xdata() for bars in shown.ax_.containers)
    assert all(a < b for a, b in zip(first, second, strict=True))
    for xs in (first, second):
        assert list(xs) == pytest.approx([0.5, 0.9], abs=0.01)
    alone = SettingDisplay.from_runs([m for m in sweep if m.schedule == LARGE]).plot(axes())
    assert list(alone.ax_.containers[0].lines[0].get_xdata()) == [0.5, 0.9]


@pytest.mark.parametrize(("count", "name"), [(3, "LR {}"), (9, "LR {}"), (9, "LR {} " + "x" * 40)])
def test_a_legend_of_many_settings_covers_no_data(count, name):
    curves = [
        Curve(name.format(k), (1, 2, 3), (50 + k,) * 3, (50 + k,) * 3, (50 + k,) * 3)
        for k in range(count)
    ]
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    shown = LearningCurveDisplay(curves).plot(figure.subplots())
    figure.draw_without_rendering()
    box, legend = shown.ax_.get_window_extent(), shown.ax_.get_legend().get_window_extent()
    assert not box.overlaps(legend)
    assert not shown.ax_.title.get_window_extent().overlaps(legend)
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert box.height > 200


def test_the_label_of_an_axis_fits(axes):
    taken = tuple(
        Taken(
            Measurement("step_gradient", scalars={"mean_norm": Scalar.of(1.0, "nats/weight")}),
            k,
            "after step",
            float(k),
        )
        for k in (1, 2)
    )
    shown = AlongDisplay.from_runs(
        [run(measurements=taken)], probe="step_gradient", scalar="mean_norm"
    ).plot(axes())
    assert shown.ax_.get_ylabel() == "gradient norm [nats/weight]"
    assert shown.ax_.get_title() == "Gradient norm, mean over an epoch's steps along retraining"


def test_every_figure_is_written_as_svg_and_png(tmp_path):
    made = compare(five_settings(2), [diagnosis()])
    paths = write_comparison_figures(made, tmp_path)
    names = {path.stem for path in paths}
    assert names == {
        *("accuracy", "accuracy_lr_time", "loss", "loss_lr_time", "ta", "final_ratio"),
        "singular_values",
    } | {f"estimate_{k}" for k in range(1, 1 + len(made.estimates[:4]))}
    for path in paths:
        head = path.read_bytes()[:5]
        assert head == (b"<?xml" if path.suffix == ".svg" else b"\x89PNG\r")
