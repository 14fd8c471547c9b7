"""Every figure there is, for data of all sizes: what the tests of layout draw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from comparisons import five_settings, run, seeds
from curves import curve
from diagnoses import diagnosis, jacobian, measurement, retraining

from trainscope.comparison.comparison import Comparison, compare
from trainscope.convergence import LearningCurve, estimate_extra_epochs
from trainscope.records import Columns, Diagnosis, Measurement, Run, RunStatus, Scalar, Taken
from trainscope.report.candidate_display import CandidateDisplay
from trainscope.report.comparison_figures import displays
from trainscope.report.convergence_display import ConvergenceDisplay
from trainscope.report.correlation_display import CorrelationDisplay
from trainscope.report.figures import FIGURES
from trainscope.report.layout import Display
from trainscope.report.schedule_display import ScheduleDisplay
from trainscope.studies.columns import candidates
from trainscope.studies.correlate import correlate
from trainscope.training.schedule import parse_schedule

LONG = "a criterion of somebody's whose name goes on for sixty letters"
TITLE = "a_network_with_a_name_of_forty_letters_x, 90 % of the filters of 6 inner convolutions"

WHOLE = ("small", "crowd")
"""Comparisons of which every figure is drawn; of the others one of curves, and one of settings."""


def resnet18() -> list[str]:
    """Return the layers of torchvision's ResNet-18, each with parameters, in order: 41."""
    layers = ["conv1", "bn1"]
    for stage in range(1, 5):
        for block in range(2):
            name = f"layer{stage}.{block}"
            layers += [f"{name}.{part}" for part in ("conv1", "bn1", "conv2", "bn2")]
            if stage > 1 and block == 0:
                layers += [f"{name}.downsample.0", f"{name}.downsample.1"]
    return [*layers, "fc"]


def deep() -> list[str]:
    """Return 160 layers whose names have 50 letters and more."""
    start = "backbone.feature_extractor.encoder.stage"
    parts = ("attention.query", "attention.key", "norm1", "mlp.0", "norm2")
    return [
        f"{start}{stage}.blocks.{block}.{part}"
        for stage in range(4)
        for block in range(8)
        for part in parts
    ]


def diagnosed(layers: list[str], scale: float = 1.0) -> Diagnosis:
    """Return a Diagnosis of a network with the layers given; `scale` is what the action did."""
    xs = [math.copysign(10 ** (k / 4), k) * abs(k) for k in range(-12, 13)]

    def gradient(norm: float) -> Measurement:
        small = ["bn" in name or "norm" in name or name.endswith(".1") for name in layers]
        kinds = ["norms" if held else "weights" for held in small]
        norms = [
            norm * (0.2 if kind == "norms" else 1.0) * (1.5 + math.sin(k))
            for k, kind in enumerate(kinds)
        ]
        return measurement(
            "gradient", {"norm": norm}, layers=layers, layer_kinds=kinds, layer_norms=norms
        )

    def curvature(top: float) -> Measurement:
        ys = [math.exp(-abs(k) / 2) for k in range(-12, 13)]
        arrays = {"density_x": [x * top / 12 for x in xs], "density_y": ys}
        return measurement("curvature", {"top_eigenvalue": top, "max_stable_lr": 2 / top}, **arrays)

    lrs = (1e-1, 1e-2, 1e-3)
    rising = [[90.0 - 60 / (k + 1) - 9 * j for k in range(12)] for j in range(3)]
    probes = {
        "trainability_accuracy": Columns(
            *(retraining(10.0 * k, *rising, lrs=lrs) for k in range(1, 4))
        ),
        "gradient": Columns(gradient(0.1), gradient(0.1 * scale), gradient(0.02 * scale)),
        "jacobian": Columns(jacobian(1.0), jacobian(1 / scale), jacobian(0.9)),
        "curvature": Columns(curvature(4.0), curvature(4.0 * scale), curvature(400.0)),
    }
    return replace(diagnosis(), probes=probes)


def diverged(made: Run) -> Run:
    """Return a run that guesses from its first epoch on."""
    guesses = tuple(replace(record, test_metric=10.0) for record in made.epochs)
    return replace(made, status=RunStatus.DIVERGED, epochs=guesses)


def crowd(count: int = 12, *, words: str = LONG, lost: int = 2) -> list[Run]:
    """Return runs in many settings with long names, some of them diverged, measured on the way."""
    made = [
        run(f"0:{k}e-3,{8 + k % 5}:1e-4,17:1e-5", criterion=f"{words} {k}")
        for k in range(1, count + 1)
    ]
    made[:lost] = map(diverged, made[:lost])
    return [replace(one, measurements=measured()) for one in made]


def measured(points: int = 6) -> tuple[Taken, ...]:
    """Return what a hook measured along retraining."""
    return tuple(
        Taken(
            Measurement(probe, scalars={name: Scalar.of(10.0 ** (k % 3), unit)}),
            *(k, "after step", float(k)),
        )
        for k in range(1, points + 1)
        for probe, name, unit in (
            ("step_gradient", "mean_norm", "nats/weight"),
            ("jacobian", "mean_jsv", "logit/input"),
        )
    )


def comparisons() -> dict[str, Comparison]:
    """Return comparisons of all sizes."""
    measured_settings = [replace(one, measurements=measured()) for one in five_settings(3)]
    ratios = (0.1, 0.3, 0.5, 0.7, 0.9)
    sweep = [
        one
        for k, ratio in enumerate(ratios)
        for method in ("l1", "random", LONG)
        for one in seeds(2, criterion=method, ratio=ratio, ceiling=98 - 3 * k)
    ]
    lost = [
        diverged(one) if action.ratio == 0.9 and action.criterion != "l1" else one
        for one in sweep
        if (action := one.pruning.action)
    ]
    return {
        "one run": compare([run()]),
        "small": compare(measured_settings[:9]),
        "crowd": compare(crowd()),
        "short crowd": compare(crowd(14, words="m", lost=5)),
        "large crowd": compare(crowd(30)),
        "diverged sweep": compare(lost),
        "diverged": compare(crowd(2, lost=2)),
    }


def estimates() -> Iterator[tuple[str, Display]]:
    """Yield estimates with and without a reference, with one point, without an answer."""
    small, large = curve(30, pace=8, lr=0.0125, noise=0.2), curve(200, lr=0.1, noise=0.2, seed=1)
    for name, target, watched, reference in (
        ("reached", 66.0, small, large),
        ("alone", 66.0, small, None),
        ("never", 101.0, small, None),
        ("one epoch", 60.0, LearningCurve([1], [50.0], 0.1), None),
        ("passed", 20.0, small, large),
    ):
        found = estimate_extra_epochs(watched, target, reference)
        yield f"estimate, {name}", ConvergenceDisplay.from_estimate(found, watched, reference)


def correlations() -> Iterator[tuple[str, Display]]:
    """Yield correlations of few columns and of many with long names, with and without strata."""
    for name, columns, strata in (("small", ["pruned_loss", "ta"], 1), ("many", [], 9)):
        columns = columns or [f"{LONG} {k}" for k in range(20)]
        rows = [
            {column: math.sin(k * (j + 2)) + k / 9 for j, column in enumerate(columns)}
            | {"final": 90 + k / 9 + math.cos(5 * k + seed) / 5, "c": k, "data": f"d{k % strata}"}
            for k in range(9 * 4)
            for seed in range(2)
        ]
        given = {"group": ["c"], "within": ["data"] if strata > 1 else []}
        few = [row for row in rows if strata == 1 or row["c"] % 9 < 2]  # all orders are soon tried
        found = correlate(few, known=columns, draws=50, **given)
        yield f"correlation, {name}", CorrelationDisplay.from_correlation(found)
        held = candidates(rows, "final", columns, **given)
        yield (
            f"candidates, {name}",
            CandidateDisplay.from_candidates(held, columns[0], better=found[columns[0]].better),
        )


def diagnoses() -> Iterator[tuple[str, Display]]:
    """Yield what is drawn of diagnoses of few layers and of many with long names."""
    cases = {
        "small": diagnosis(),
        "real": diagnosed(resnet18(), 30.0),
        "deep": diagnosed(deep(), 3e3),
        "one layer": diagnosed(["fc"]),
    }
    for size, held in cases.items():
        for name, (_, _, kind) in FIGURES.items():
            if name == "gradient_norms" or size in ("small", "real"):
                yield f"{name}, {size}", kind.from_diagnosis(held)


def compared() -> Iterator[tuple[str, Display]]:
    """Yield what is drawn of comparisons."""
    for size, found in comparisons().items():
        for name, display, _ in displays(found):
            if size in WHOLE or name in ("accuracy", "ta"):
                yield f"{name}, {size}", display


def schedules() -> Iterator[tuple[str, Display]]:
    """Yield one schedule, and many with long names."""
    short = parse_schedule("0:1e-1,30:1e-2,60:1e-3,75:1e-4,83:1e-5", 90)
    names = [f"{LONG} {k}" for k in range(12)]
    yield "schedules", ScheduleDisplay.from_schedules(dict.fromkeys(names, short))
    constant = parse_schedule("0:1e-3", 3)
    yield "schedule", ScheduleDisplay.from_schedules({"0:1e-3": constant})


GROUPS = {made.__name__: made for made in (diagnoses, compared, estimates, correlations, schedules)}
"""Every Display by a name that says what it shows: small, real, and crowded data."""


@cache
def shown(group: str) -> dict[str, Display]:
    """Return one group of them, made once."""
    return dict(GROUPS[group]())
