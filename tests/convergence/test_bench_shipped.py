"""The table of RetrainBench that comes with the package."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from trainscope.convergence.bench import KINDS, PUT_ASIDE, load, questions, splits

PAGE = Path(__file__).parents[2] / "docs/retrainbench.md"


@pytest.fixture(scope="module")
def curves():
    return load()


def test_it_is_as_large_as_the_card_says(curves):
    table = files("trainscope.convergence.bench").joinpath("retrainbench.npz")
    assert len(table.read_bytes()) < 20_000_000
    assert f"\n{len(curves)} curves of {len({c.family for c in curves})} families" in (
        PAGE.read_text("utf-8")
    )


def test_every_curve_is_whole(curves):
    assert len({(c.family, c.schedule, c.peak_lr, c.first, c.planned) for c in curves}) == len(
        curves
    )
    for curve in curves:
        assert curve.diverged or curve.length == curve.planned
        assert curve.remaining < curve.parameters
        assert np.isnan(curve.train_loss[0])
        assert curve.lr.max() == pytest.approx(curve.peak_lr, rel=0.05)
        if not curve.diverged:
            assert (curve.test_loss > 0).all()
            assert ((curve.accuracy >= 0) & (curve.accuracy <= 100)).all()


def test_a_decayed_run_is_the_constant_one_up_to_its_decay(curves):
    constant = {(c.family, c.peak_lr): c for c in curves if c.schedule == "constant"}
    decayed = [c for c in curves if c.schedule in ("steps", "wsd")]
    assert len(decayed) > len(curves) / 2
    for curve in decayed:
        whole = constant[curve.family, curve.peak_lr]
        n = curve.first + 1
        np.testing.assert_array_equal(curve.accuracy[:n], whole.accuracy[:n])
        np.testing.assert_array_equal(curve.lr[:n], whole.lr[:n])
        assert (curve.lr[n:] < curve.peak_lr).all()


def test_every_kind_of_run_is_there(curves):
    of = {c.family: c for c in curves}.values()
    for field, kinds in (("optimizer", 3), ("structure", 3), ("problem", 5), ("network", 9)):
        assert len({getattr(c, field) for c in of}) == kinds
    assert set(Counter(c.schedule for c in curves)) == {"constant", "steps", "wsd", "cosine"}
    assert {c.ratio for c in curves} >= {0.5, 0.75, 0.9, 0.95, 0.98}
    assert {c.seed for c in curves} == {0, 1}


def test_every_split_has_questions_of_every_kind():
    found = splits()
    assert list(found) == ["code-classes", "digits", "fashion-mnist", "mnist", PUT_ASIDE]
    for split in found.values():
        for kind in KINDS:
            for metric in ("accuracy", "test_loss"):
                assert len(questions(split, kind, metric)) > 20
