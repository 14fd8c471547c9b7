"""Pruning over epochs as a person types it: retrain, pipeline, and a study's file."""

from __future__ import annotations

import json

import pytest
from commands import invoke
from small_studies import NETWORK, one_thread

from trainscope.networks import open_checkpoint
from trainscope.networks.masks import masks_of
from trainscope.records import Run
from trainscope.studies.results import results

COMMON = ("--model", NETWORK, "--data", "digits", "--batch-size", 256, "--no-norms")
HALF = ("--structure", "unstructured", "--ratio", 0.5)


@pytest.fixture(autouse=True)
def _one_thread():
    one_thread()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pipeline with gradual pruning, and the stem that it left."""
    root = tmp_path_factory.mktemp("plans")
    result = invoke(
        *("pipeline", *COMMON, *HALF, "--recipe", "P1F1,1e-1", "--plan", "gradual:2"),
        *("--stem", root / "stem", "--stage", root / "stage", "--output", root / "run"),
    )
    assert "gradual:2: 2 epochs under 0:1e-1, " in result.stdout
    return root


def test_pipeline_prunes_over_epochs(base):
    run = Run.load(base / "run")
    assert (run.pruning.plan, run.pruning.stage_epochs) == ("gradual:2", 2)
    assert run.pruning.epoch == run.pretraining.epochs == 1
    assert [record.epoch for record in run.epochs] == [1]
    told = json.loads((base / "stage" / "stage.json").read_text())
    assert run.pruning.stage_flops == told["flops"]
    assert [event["reached"] for event in told["events"]] == [0.4375, 0.5]
    network = open_checkpoint(base / "run" / "checkpoint.pt", model=NETWORK)
    assert [float((~mask).double().mean()) for mask in masks_of(network.module).values()] == [0.5]


def test_retrain_takes_up_a_stage_that_is_done(base):
    """Another retraining after the same stage; its epochs are not trained again."""
    before = (base / "stage" / "state.pt").stat().st_mtime_ns
    checkpoint = base / "stem" / "epoch-0001" / "checkpoint.pt"
    result = invoke(
        *("retrain", checkpoint, *COMMON, *HALF, "--recipe", "F2,1e-2", "--json"),
        *("--plan", "gradual:2,lr=1e-1", "--stage", base / "other", "--output", base / "second"),
    )
    assert json.loads(result.stdout)["pruning"]["stage_schedule"] == "0:1e-1"
    again = invoke(
        *("retrain", checkpoint, *COMMON, *HALF, "--recipe", "F1,1e-1", "--json"),
        *("--plan", "gradual:2", "--stage", base / "stage", "--output", base / "third"),
    )
    assert (base / "stage" / "state.pt").stat().st_mtime_ns == before
    assert json.loads(again.stdout)["end"] == Run.load(base / "run").end


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*HALF, "--plan", "gradul:2"), "no pruning schedule is named 'gradul'"),
        (("--plan", "gradual:2"), "the pruning schedule gradual needs a sparsifying action"),
        ((*HALF, "--stage", "x"), "--stage is the folder of a pruning schedule's epochs"),
        (("--structure", "2:4", "--plan", "gradual:2"), "2:4 has one ratio: use greg-1 or greg-2"),
        ((*HALF, "--lora", 2, "--plan", "greg-1:2"), "trains all weights, which LoRA freezes"),
        (
            (*HALF, "--plan", "iterative:2", "--weights", "winning-ticket"),
            "a winning ticket needs the weights to rewind to",
        ),
        ((*HALF, "--plan", "greg-1:2,delta=1e-5"), "a smaller every or a larger delta"),
    ],
)
def test_what_cannot_be_is_one_sentence(base, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = base / "stem" / "epoch-0001" / "checkpoint.pt"
    result = invoke("retrain", checkpoint, *COMMON, "--recipe", "F1,1e-1", *options, code=2)
    (line,) = result.stderr.strip().splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


STUDY = f"""
data = "digits"
[settings]
batch_size = 256
[[base]]
architecture = "{NETWORK}"
recipe = "F1,1e-1"
[[action]]
ratio = 0.5
[[recipes]]
recipe = ["F1,1e-1", "F1,1e-2"]
plan = "greg-2:1,every=1,lr=1e-1"
"""


def test_a_study_prunes_over_epochs(tmp_path, monkeypatch):
    """Two recipes share a stage; what a study left is collected, and its stage with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(STUDY)
    planned = invoke("study", "run", "grid.toml", "--dry-run").stdout
    assert "F1,1e-2, filter l1 0.5, greg-2:1,lr=1e-1,every=1, seed 0" in planned
    assert "2 runs, 2 of them to do; 4 epochs" in planned
    invoke("study", "run", "grid.toml")
    assert len(list((tmp_path / "runs").glob("stage-*"))) == 1
    rows = results(tmp_path / "study.db")
    assert {row["recipe"] for row in rows} == {"F1,1e-1", "F1,1e-2"}
    assert {(row["plan"], row["stage_epochs"]) for row in rows} == {
        ("greg-2:1,lr=1e-1,every=1", 1),
    }
    assert rows[0]["stage_flops"] == rows[1]["stage_flops"] > rows[0]["flops"]
    assert rows[0]["speedup"] == rows[1]["speedup"] > 1
    assert "greg-2:1" in invoke("study", "results", "grid.toml").stdout
    assert "0 folders" in invoke("study", "gc", "grid.toml", "--dry-run").stdout
    (tmp_path / "grid.toml").write_text(STUDY.replace(', "F1,1e-2"', "").replace(",lr=1e-1", ""))
    invoke("study", "run", "grid.toml")
    assert "3 folders" in invoke("study", "gc", "grid.toml", "--dry-run").stdout


def test_a_bad_plan_of_a_study_is_said_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for old, new, said in (
        ("greg-2:1,every=1", "greg-3:1", "no pruning schedule is named 'greg-3'"),
        ("greg-2:1,every=1", "gradual:4,every=3", "every is a number of epochs that divides 4"),
        ('"greg-2:1,every=1,lr=1e-1"', "3", "line 12: recipes.plan is text, not 3"),
    ):
        (tmp_path / "grid.toml").write_text(STUDY.replace(old, new))
        line = invoke("study", "run", "grid.toml", code=2).stderr
        assert said in line
        assert "grid.toml, line 1" in line
