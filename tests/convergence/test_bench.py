"""RetrainBench: its table, its splits, and that every question's answer is what it says."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from curves import law, passage

from trainscope.convergence.bench import (
    PUT_ASIDE,
    BenchCurve,
    at_the_end,
    load,
    questions,
    save,
    splits,
)
from trainscope.errors import RecordError

STEPS = 10


def bench_curve(lr=0.1, schedule="constant", first=50, tail=(), **other):
    """A power law whose pace goes with the LR, over records; decays add a point each record."""
    n = first + len(tail)
    time = np.arange(n + 1.0)
    accuracy = law(np.minimum(time, first), pace=0.4 / lr)
    accuracy = accuracy + np.maximum(time - first, 0)
    shares = np.append(np.ones(first + 1), tail)
    given = {
        "problem": "law",
        "network": "mlp",
        "optimizer": "sgd",
        "structure": "filter",
        "ratio": 0.5,
        "seed": 0,
        "schedule": schedule,
        "peak_lr": lr,
        "first": 0 if schedule == "cosine" else first,
        "planned": n,
        "steps": STEPS,
        "parameters": 100,
        "remaining": 60,
        "dense_accuracy": 80.0,
        "accuracy": accuracy,
        "test_loss": (100 - accuracy) / 30,
        "train_loss": np.append(np.nan, (100 - accuracy[1:]) / 40),
        "lr": lr * shares,
    }
    return BenchCurve(**(given | other))


def family(**other):
    """Constants at four LRs, and decays in steps from three lengths of each."""
    rates = [0.1 * 10 ** (-k / 5) for k in (0, 2, 5, 7)]
    constants = [bench_curve(lr, **other) for lr in rates]
    tails = [
        bench_curve(lr, "steps", first, (0.1,) * 4, **other)
        for lr in rates
        for first in (12, 25, 50)
    ]
    return [*constants, *tails]


def test_a_table_keeps_its_curves(tmp_path):
    curves = [*family(), bench_curve(problem="other", accuracy=np.array([10.0, np.nan]))]
    curves[-1] = dataclasses.replace(
        curves[-1],
        test_loss=np.array([2.0, np.nan]),
        train_loss=np.array([np.nan, np.nan]),
        lr=np.array([0.1, 0.1]),
    )
    save(curves, tmp_path / "table.npz")
    back = load(tmp_path / "table.npz")
    assert len(back) == len(curves)
    for one, other in zip(curves, back, strict=True):
        for field in dataclasses.fields(BenchCurve):
            mine, its = getattr(one, field.name), getattr(other, field.name)
            if isinstance(mine, np.ndarray):
                np.testing.assert_allclose(its, mine, rtol=6e-5)
            else:
                assert its == mine
                assert type(its) is type(mine)
    assert [curve.diverged for curve in back] == [False] * (len(back) - 1) + [True]


@pytest.mark.parametrize("content", [None, b"nothing", b"PK\x03\x04broken"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "table.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match="no table of RetrainBench"):
        load(path)


def test_a_table_that_lacks_a_column_is_refused(tmp_path):
    np.savez(tmp_path / "table.npz", records=np.array([2]))
    with pytest.raises(RecordError, match="no table of RetrainBench"):
        load(tmp_path / "table.npz")


def test_a_curve_is_told_over_steps_in_any_metric():
    curve = bench_curve()
    told = curve.learning_curve(until=20)
    assert (told.per, told.epochs[-1], len(told)) == ("step", 20 * STEPS, 21)
    assert told.loss is not None
    assert math.isnan(told.loss[0])
    # At the end of a record the loss is below its mean, as it falls.
    assert (told.loss[1:] < curve.train_loss[1:21]).all()
    loss = curve.learning_curve("test_loss")
    assert (loss.metric.better, loss.metric.unit) == ("lower", "nats")
    perplexity = curve.learning_curve("perplexity", loss=False)
    np.testing.assert_allclose(perplexity.accuracy, np.exp(curve.test_loss))
    assert perplexity.loss is None
    with pytest.raises(RecordError, match="no 'speed'"):
        curve.learning_curve("speed")


def test_splits_leave_one_problem_out_and_never_show_what_is_put_aside():
    curves = [
        bench_curve(problem="a"),
        bench_curve(problem="b"),
        bench_curve(problem="b", network="vit"),
        bench_curve(problem="text", network="gpt"),
        bench_curve(problem="text", network="lstm"),
    ]
    found = splits(curves)
    assert list(found) == ["a", "b", PUT_ASIDE]
    assert found["a"].judge == (curves[0],)
    assert found["a"].develop == (curves[1],)
    assert found["b"].judge == (curves[1],)
    assert found[PUT_ASIDE].judge == tuple(curves[2:])
    assert found[PUT_ASIDE].develop == tuple(curves[:2])


@pytest.mark.parametrize("metric", ["accuracy", "test_loss"])
def test_a_passage_is_that_of_the_law(metric):
    found = questions(family(), metric=metric)
    assert {round(q.lr_ratio, 1) for q in found} == {2.5, 4.0, 10.0}
    for q in found:
        accuracy = q.target if metric == "accuracy" else 100 - 30 * q.target
        true = passage(accuracy, pace=0.4 / q.watched.peak_lr) * STEPS
        assert q.truth > q.until * STEPS
        assert q.until == max(6, round(q.share * 50))
        assert q.small.epochs[-1] == q.until * STEPS
        if true < 0.95 * q.horizon:
            assert q.truth == pytest.approx(true, rel=0.03, abs=STEPS)
        elif true > 1.03 * q.horizon:
            assert q.truth == math.inf
    assert any(math.isfinite(q.truth) for q in found)
    assert any(math.isinf(q.truth) for q in found)


def test_families_are_never_mixed():
    curves = [*family(), *family(seed=1), *family(optimizer="adamw"), *family(structure="2:4")]
    for kind in ("passage", "extra"):
        found = questions(curves, kind)
        assert len(found) == 4 * len(questions(family(), kind))
        assert all(q.reference is None or q.reference.family == q.watched.family for q in found)


def test_a_target_within_the_noise_is_not_asked_for():
    flat = np.full(51, 90.0) + 0.3 * np.random.default_rng(0).normal(size=51)
    assert not questions([bench_curve(0.1, accuracy=flat), bench_curve(0.01, accuracy=flat)])


def test_diverged_runs_are_not_asked_about():
    curves = family()
    bad = dataclasses.replace(curves[0], test_loss=np.full(51, np.nan))
    assert not [q for q in questions([bad, *curves[1:]]) if q.reference is bad]


def test_the_steps_to_add_are_those_of_the_law():
    found = questions(family(), "extra")
    for q in found:
        assert q.planned is q.watched
        assert q.reference is not None
        # Every decay adds four points; three records are the mean of the end.
        assert q.target == pytest.approx(at_the_end(q.reference, "accuracy"))
        first = passage(q.target - 3, pace=0.4 / q.watched.peak_lr)
        true = (first - q.watched.first) * STEPS
        if true < 0.9 * q.horizon:  # the lengths that were tried are far apart
            assert q.truth == pytest.approx(true, rel=0.15, abs=2 * STEPS)
        elif true > 1.1 * q.horizon:
            assert q.truth == math.inf
        schedule, total = q.schedule or ("", 0)
        drop = q.watched.first * STEPS
        assert schedule.split(",")[1].startswith(f"{drop}:")
        assert total == drop + 4 * STEPS
    assert any(math.isfinite(q.truth) for q in found)


def test_an_end_is_asked_about_with_and_without_evidence():
    tail = [1 - (k + 0.5) / 12 for k in range(12)]
    wsd = bench_curve(0.1, "wsd", 50, tail)
    half = np.append(1.0, [(1 + math.cos(math.pi * (k + 0.5) / 50)) / 2 for k in range(50)])
    cosine = dataclasses.replace(bench_curve(0.1, "cosine", 50), lr=0.1 * half)
    found = questions([*family(), wsd, cosine], "final")
    mine = {q.evidence: q for q in found if q.watched is wsd}
    assert len(mine) == 3  # no constant LR is larger
    assert mine["nothing else"].reference is None
    same = mine["decays in steps from the same peak LR"].reference
    other = mine["decays in steps from another peak LR"].reference
    assert same is not None
    assert other is not None
    assert (same.peak_lr, same.schedule) == (0.1, "steps")
    assert other.peak_lr < 0.1
    for q in mine.values():
        assert q.until == 50
        assert q.truth == wsd.accuracy[-1]
        assert math.isnan(q.target)
    assert {q.until for q in found if q.watched is cosine} == {25}


def test_a_kind_or_metric_that_is_none_is_refused():
    with pytest.raises(RecordError, match="kind 'when'"):
        questions(family(), "when")
    with pytest.raises(RecordError, match="no 'speed'"):
        questions(family(), metric="speed")


def test_the_loader_needs_no_torch():
    code = "import sys, trainscope.convergence.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
