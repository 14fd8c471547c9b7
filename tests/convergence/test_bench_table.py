"""The table of entrants of RetrainBench: its figures, its intervals, and the laws that enter."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from trainscope.convergence import Interval
from trainscope.convergence.bench import BenchCurve, BenchQuestion

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark's modules, which lie outside the package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import retrainbench_entrants
    import retrainbench_laws
    import retrainbench_table

    yield retrainbench_table, retrainbench_entrants, retrainbench_laws
    sys.path.remove(str(ROOT / "benchmarks"))


def run(rates, values, problem="a", schedule="constant", first=50) -> BenchCurve:
    """A curve with the given LRs and losses, both [N+1]."""
    values = np.asarray(values, dtype=float)
    return BenchCurve(
        problem=problem,
        network="mlp",
        optimizer="sgd",
        structure="filter",
        ratio=0.5,
        seed=0,
        schedule=schedule,
        peak_lr=float(np.max(rates)),
        first=first,
        planned=len(values) - 1,
        steps=10,
        parameters=100,
        remaining=50,
        dense_accuracy=90.0,
        accuracy=100 - 10 * values,
        test_loss=values,
        train_loss=values,
        lr=np.asarray(rates, dtype=float),
    )


def passage(truth, problem="a", share=0.1) -> BenchQuestion:
    """A question whose answer is the given step."""
    curve = run(np.full(51, 0.1), np.linspace(2, 1, 51), problem)
    return BenchQuestion(
        "passage", "test_loss", curve, 6, share, curve, "constant", 1.2, truth, 500.0
    )


def test_figures_are_what_they_say(benchmark):
    table = benchmark[0]
    asked = [passage(100.0), passage(200.0), passage(400.0), passage(math.inf)]
    said = [
        Interval(100.0, 50.0, 200.0),
        Interval(400.0, 250.0, 500.0),
        Interval(math.inf, 350.0, math.inf),
        Interval(600.0, 400.0, 900.0),
    ]
    row = table.score(asked, said)
    assert (row.count, row.median) == (4, 1.0)  # errors: 0, 1, and that of "never"
    assert row.never == pytest.approx(1 / 3)
    assert row.known == pytest.approx(2 / 3)
    assert row.covered == pytest.approx(3 / 4)
    assert row.endless == pytest.approx(1 / 4)
    assert row.width == pytest.approx(math.log2(900 / 400))


def test_steps_to_add_are_judged_by_the_whole_stage(benchmark):
    table = benchmark[0]
    question = dataclasses.replace(passage(60.0), kind="extra")  # after 6 records of 10 steps
    assert table.error(question, 180.0, 60.0) == pytest.approx(1.0)
    assert table.error(question, 0.0, 60.0) == pytest.approx(-1.0)


def test_intervals_come_from_the_errors_on_other_problems(benchmark):
    table = benchmark[0]
    late = np.linspace(-1, 1, 41)
    asked = [passage(100 * 2.0**x, "a") for x in late] + [passage(800.0, "b") for _ in range(41)]
    said = [Interval(100.0, math.nan, math.nan) for _ in asked]
    found = table.with_intervals(asked, said)
    # Those of b are calibrated on a: 100 times 2 to the quantiles of the errors there.
    assert found[-1].low == pytest.approx(100 * 2**-0.8, rel=0.05)
    assert found[-1].high == pytest.approx(100 * 2**0.8, rel=0.05)
    assert found[0].low == pytest.approx(800.0)
    assert found[0].median == 100.0
    aside = [
        dataclasses.replace(q, watched=dataclasses.replace(q.watched, network="vit"))
        for q in asked[:41]
    ]
    assert math.isnan(table.with_intervals(aside + asked[41:], said)[-1].low)
    mixed = table.with_intervals(asked, [Interval(1.0, 0.5, 2.0), *said[1:]])
    assert (mixed[0], mixed[-1].median) == (Interval(1.0, 0.5, 2.0), 100.0)
    assert mixed[1].low > 0
    kept = table.with_intervals(asked, [Interval(1.0, 0.5, 2.0) for _ in asked])
    assert kept == [Interval(1.0, 0.5, 2.0)] * len(asked)


@pytest.mark.parametrize("shift", [False, True])
def test_a_power_law_arrives_where_it_does(benchmark, shift):
    laws = benchmark[2]
    time = np.arange(1.0, 21)
    values = 80 - 60 * (time + 3 * shift) ** -0.7
    arrives = laws.power_law(time, values, 75.0, shift=shift)
    # The grid of powers and origins is coarse.
    assert arrives == pytest.approx((60 / 5) ** (1 / 0.7) - 3 * shift, rel=0.1)
    assert laws.power_law(time, values, 95.0, shift=shift) == math.inf


def final(metric_values, rates, until, reference=None) -> BenchQuestion:
    """A question about the end of a run."""
    curve = run(rates, metric_values, schedule="wsd", first=until)
    return BenchQuestion(
        "final",
        "test_loss",
        curve,
        until,
        until / (len(rates) - 1),
        reference,
        "",
        math.nan,
        float(curve.test_loss[-1]),
        1e3,
        curve,
    )


def annealed(rates):
    """The sum of the falls of the LR, remembered: the annealing law's gain."""
    falls = -np.diff(rates, prepend=rates[0])
    return 0.01 * np.cumsum(np.cumsum(falls))


def multi_powered(rates):
    """What every fall has gained by the LR time since: the multi-power law's gain."""
    falls, total = -np.diff(rates, prepend=rates[0]), np.cumsum(rates)
    since = np.maximum(total[:, None] - (total - rates)[None, :], 0.0)
    return 0.2 * ((1 - (1 + 3 * since / rates**0.5) ** -0.5) * falls).sum(1)


@pytest.mark.parametrize(
    ("law", "gain"), [("annealing_law", annealed), ("multi_power_law", multi_powered)]
)
def test_the_laws_of_schedules_find_an_end_that_follows_them(benchmark, law, gain):
    def loss(rates):
        total = np.cumsum(rates[1:])
        return np.append(2.5, 1 + 1.5 * (1 + total) ** -0.5 - gain(rates[1:]))

    steps = np.concatenate([np.ones(26), np.full(6, 0.1), np.full(4, 0.01)])
    line = np.concatenate([np.ones(31), 1 - (np.arange(10) + 0.5) / 10])
    question = final(loss(line), line, 30, run(steps, loss(steps), schedule="steps", first=25))
    fallen = question.watched.test_loss[30] - question.truth
    said = getattr(benchmark[2], law)(question).median
    assert abs(said - question.truth) < 0.25 * fallen
    alone = getattr(benchmark[2], law)(dataclasses.replace(question, reference=None)).median
    assert abs(alone - question.truth) > 0.25 * fallen  # no fall of the LR is in evidence


def test_baselines_answer_by_the_protocol_s_units(benchmark):
    entrants = benchmark[1]
    time = np.arange(51.0)
    small = run(np.full(51, 0.1), 1 + (1 + time / 10) ** -0.5, first=50)
    large = run(np.full(51, 0.4), 1 + (1 + time / 2.5) ** -0.5, first=50)
    target = 1 + (1 + 10 / 2.5) ** -0.5  # what the large run has at record 10
    question = BenchQuestion(
        "passage", "test_loss", small, 15, 0.3, large, "constant", target, 400.0, 500.0
    )
    for name in ("LR time", "fitted time factor"):
        assert entrants.PASSAGE[name](question).median == pytest.approx(400, rel=0.05)
    for name in ("trainscope, with the large run", "trainscope, alone"):
        answer = entrants.PASSAGE[name](question)
        assert answer.median == pytest.approx(400, rel=0.3)
        assert answer.low < answer.median < answer.high


def test_anyone_can_enter(benchmark, tmp_path):
    table = benchmark[0]
    path = tmp_path / "twice.py"
    path.write_text(
        "from trainscope.convergence import Interval\n"
        "KIND = 'extra'\n"
        "def answer(question):\n"
        "    return Interval(2 * question.until, float('nan'), float('nan'))\n"
    )
    kind, name, answer = table.added(path)
    assert (kind, name, answer(passage(100.0)).median) == ("extra", "twice", 12)
