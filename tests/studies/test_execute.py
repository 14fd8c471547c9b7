"""One run: the same as the parts do by hand, on a stem that is trained once."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from small_studies import NETWORK, SETTINGS, one_thread, pretraining, retraining
from small_training import without_seconds

from trainscope.data import load
from trainscope.diagnosis.measuring import measured
from trainscope.errors import TrainscopeError
from trainscope.networks import open_checkpoint
from trainscope.probes.gradient import Gradient
from trainscope.records import Run
from trainscope.sparsify import Action, sparsify
from trainscope.studies import BaseModel, RunSpec, before, execute
from trainscope.studies.rows import row_of
from trainscope.training.evaluation import evaluate
from trainscope.training.jobs import training_job
from trainscope.training.pipeline import pipeline_job
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import run_job

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(autouse=True)
def _one_thread():
    one_thread()


def done(spec: RunSpec, folder) -> Run:
    return execute(spec, folder / spec.key)


def test_it_is_the_pipeline_that_the_parts_make(tmp_path):
    action = Action(ratio=0.5)
    found = done(retraining("P1F2,1e-1"), tmp_path / "study")
    first = training_job(
        "small_studies:network", load("digits", (1, 8, 8)), pretraining().schedule, SETTINGS
    )

    def opened(path):
        return open_checkpoint(path, model="small_studies:network", input_shape=(1, 8, 8))

    job = pipeline_job(
        first,
        action,
        parse_recipe("P1F2,1e-1").schedule(),
        folder=tmp_path / "stem",
        epoch=1,
        opened=opened,
    )
    wanted = run_job(job, tmp_path / "hand")
    assert without_seconds(found) == without_seconds(wanted)
    assert found.pretraining.epochs == 1


def test_recipes_share_one_stem(tmp_path):
    for recipe in ("P1F1,1e-1", "P2F1,1e-1", "F1,1e-2"):
        done(retraining(recipe), tmp_path)
    stems = list(tmp_path.glob("stem-*"))
    assert len(stems) == 1
    assert sorted(p.name for p in stems[0].glob("epoch-*")) == [
        "epoch-0000",
        "epoch-0001",
        "epoch-0002",
    ]


def test_a_run_that_is_done_is_read_and_not_repeated(tmp_path, monkeypatch):
    spec = retraining("F1,1e-1")
    first = done(spec, tmp_path)
    monkeypatch.setattr("trainscope.studies.executing.job_of", None)  # would raise
    assert done(spec, tmp_path) == first


def test_the_row_has_the_losses_of_a_plain_evaluation(tmp_path):
    spec = retraining("F1,1e-1", probes=("gradient",), probe_epochs=(1,))
    run = done(spec, tmp_path)
    row = row_of(spec, run, tmp_path / spec.key)
    stem = next(tmp_path.glob("stem-*")) / "epoch-0002" / "checkpoint.pt"
    dense = open_checkpoint(stem, model="small_studies:network", input_shape=(1, 8, 8))
    pruned = sparsify(dense.module, spec.action, (1, 8, 8)).module
    data = load("digits", (1, 8, 8))
    assert row["dense"] == evaluate(dense.module, data.test).metric
    assert row["dense_loss"] == pytest.approx(evaluate(dense.module, data.train).loss, rel=1e-12)
    assert row["pruned"] == run.start_metric
    assert row["pruned_loss"] == pytest.approx(evaluate(pruned, data.train).loss, rel=1e-12)
    assert row["pruned_test_loss"] == pytest.approx(evaluate(pruned, data.test).loss, rel=1e-12)
    assert row["final"] == row["best"] == row["early"] == row["ta"] == run.epochs[0].test_metric
    assert row["digest"] == spec.digest
    assert row["action.ratio"] == 0.5
    for column in ("dense", "pruned", "epoch1"):
        assert row[f"{column}.gradient.norm"] > 0
    json.dumps(row, allow_nan=False)


def test_a_base_model_is_measured_once_for_all_that_prune_it(tmp_path, monkeypatch):
    asked = []

    def counted(probe, module, data):
        asked.append(probe.name)
        return measured(Gradient(), module, data)  # the curvature's takes long

    monkeypatch.setattr(before, "measured", counted)
    probes = {"probes": ("gradient", "curvature")}
    base = pretraining("F1,1e-1")
    first = retraining("F1,1e-1", base=base, **probes)
    second = retraining("F1,1e-2", base=base, seed=3, action=Action(ratio=0.25), **probes)
    done(first, tmp_path / "a")
    assert asked.count("curvature") == 2  # the pruned network, and the dense one
    done(second, tmp_path / "a")
    assert asked.count("curvature") == asked.count("gradient") == 3
    done(second, tmp_path / "b")
    assert asked.count("curvature") == 5
    starts = [before.start_of(tmp_path / each / second.key) for each in "ab"]
    assert starts[0]["dense"]["train_loss"] == starts[1]["dense"]["train_loss"]
    for name in probes["probes"]:
        values = [start["dense"]["probes"][name].scalars for start in starts]
        assert values[0] == values[1]


def test_what_is_kept_of_a_base_model_from_a_file(tmp_path):
    run = done(pretraining("F1,1e-1"), tmp_path)
    path = tmp_path / "mine.pt"
    shutil.copy(tmp_path / pretraining("F1,1e-1").key / "checkpoint.pt", path)
    base = BaseModel(str(path), run.end, model=NETWORK)
    for data in ("digits", None):
        done(retraining("F1,1e-1", base=base, data=data), tmp_path)
    shared = tmp_path / f"dense-{run.end[:16]}"
    kept = sorted(shared.iterdir())
    assert len(kept) == 2
    for each in kept:
        each.write_text("{")
    with pytest.raises(TrainscopeError, match="damaged, remove it"):
        done(retraining("F1,1e-2", base=base), tmp_path)


def test_of_two_that_ask_at_once_one_measures_a_base_model(tmp_path):
    made, both = [], threading.Barrier(2)

    def make():
        made.append(1)
        time.sleep(0.05)
        return {"metric": 1.0}

    def ask():
        both.wait()
        return before._once(tmp_path / "stem-x", {"losses": 1}, make)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(ask) for _ in range(2)]
    assert [each.result() for each in found] == [{"metric": 1.0}] * 2
    assert made == [1]


@pytest.mark.parametrize("weights", ["winning-ticket", "random", "scratch-e", "scratch-b"])
def test_other_weights(tmp_path, weights):
    run = done(retraining("P2F2,1e-1", weights=weights), tmp_path)
    assert str(run.kind) == {"random": "random-reinit"}.get(weights, weights)
    speedup = run.pruning.speedup
    assert run.total == {"scratch-e": 4, "scratch-b": round(2 * speedup + 2)}.get(weights, 2)
    assert len({run.start, run.base, run.end}) == 3


def test_a_run_prunes_what_another_run_left(tmp_path):
    before = retraining("F1,1e-1")
    after = retraining("F1,1e-2", base=before, data=None)
    run = done(after, tmp_path)
    assert run.base == done(before, tmp_path).end
    base = BaseModel(digest=run.base, model=NETWORK)
    by_digest = retraining("F1,1e-2", base=base)
    assert without_seconds(done(by_digest, tmp_path)) == without_seconds(run)


def test_a_changed_checkpoint_is_refused(tmp_path):
    done(pretraining("F1,1e-1"), tmp_path)
    path = next(tmp_path.glob("*/checkpoint.pt"))
    base = retraining("F1,1e-1", base=str(path))
    base = replace(base, base=replace(base.base, model="small_studies:network"))
    planned = replace(base, base=replace(base.base, digest="0" * 64))
    with pytest.raises(TrainscopeError, match="others than when the study was planned"):
        done(planned, tmp_path)
    assert not (tmp_path / planned.key).exists()


def test_an_action_that_cannot_be_done_leaves_no_folder(tmp_path):
    spec = retraining(action=Action(ratio=0.5, ratios={"nothing*": 0.5}, structure="2:4"))
    with pytest.raises(TrainscopeError):
        done(spec, tmp_path)
    assert not (tmp_path / spec.key).exists()


def test_a_folder_of_another_run_is_refused(tmp_path):
    execute(retraining("F1,1e-1"), tmp_path / "run")
    with pytest.raises(TrainscopeError, match="another run"):
        execute(retraining("F1,1e-2"), tmp_path / "run")
