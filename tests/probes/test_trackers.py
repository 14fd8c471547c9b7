"""MLflow, W&B and Trackio by their real packages: what is sent is there, and nothing else moved."""

from __future__ import annotations

import copy
import os
import pickle

import pytest
import torch
from torch import nn
from trackers import mlflow_points, mlflow_runs, need, points, trackio_rows, wandb_runs

from trainscope.probes.hooks import ProbeHook
from trainscope.probes.sinks import About, MLflow, Trackio, WandB, find
from trainscope.probes.sinks.sink import NotAskedError
from trainscope.probes.sinks.wandb_offline import history
from trainscope.records import Measurement, Scalar, Status, Taken

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' packages, not ours


def taken(step, moment="after step", norm=0.5):
    scalars = {
        "norm": Scalar(norm + step, "nats", 0.01),
        "ta@1e-2": Scalar(2.0),
        "lost": Scalar(None, reason="why"),
    }
    return Taken(Measurement("gradient", scalars=scalars), step, moment, 0.5)


NOT = Taken(Measurement("curvature", Status.SKIPPED, "no second derivative"), 4, "after step")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store of MLflow's, as to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow(store, monkeypatch, tmp_path):
    package = need("mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    package.set_tracking_uri(store)
    yield package
    package.end_run()


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    package = need("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield package
    package.teardown()


@pytest.fixture
def trackio(monkeypatch, tmp_path):
    package = need("trackio")
    monkeypatch.setenv("TRACKIO_PROJECT", tmp_path.name)
    yield package
    package.context_vars.current_run.set(None)


def write(sink):
    sink.begin(About({"task": "Classification", "samples": 8}, name="mine"))
    for each in (taken(3), taken(5), taken(5, "after action"), NOT):
        sink.write(each)
    return sink


# ---- a run of our own


def test_mlflow_has_the_numbers_the_texts_and_the_parameters(mlflow, tmp_path):
    sink = write(MLflow())
    assert mlflow.active_run() is None  # start_run stays the user's
    sink.close()
    (run,) = mlflow_runs(tmp_path.name)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mine"
    assert run.data.params == {"task": "Classification", "samples": "8"}
    assert mlflow_points(run.info.run_id, "gradient/norm") == [(3, 3.5), (5, 5.5)]
    assert mlflow_points(run.info.run_id, "gradient/norm_se") == [(3, 0.01), (5, 0.01)]
    assert run.data.metrics["gradient after action/norm"] == 5.5
    assert run.data.metrics["gradient/ta_1e-2"] == 2.0
    assert run.data.tags["gradient/lost_reason"] == "why"
    assert run.data.tags["curvature/status"] == "skipped: no second derivative"
    assert "gradient/status" not in run.data.tags
    assert sink.seen("gradient/norm") == 5
    sink.write(taken(7))  # opened again, it is the same run
    assert len(mlflow_runs(tmp_path.name)) == 1
    sink.close()


def test_wandb_offline_has_the_numbers_on_an_axis_of_their_own(wandb, tmp_path):
    sink = write(WandB())
    assert wandb.run is None
    sink.close()
    (run,) = wandb_runs(tmp_path)
    assert run.id == sink.run_id
    assert points(run.rows, "gradient/norm", "trainscope/step") == [(3, 3.5), (5, 5.5)]
    assert points(run.rows, "gradient/norm_se", "trainscope/step") == [(3, 0.01), (5, 0.01)]
    assert points(run.rows, "gradient after action/norm", "trainscope/step") == [(5, 5.5)]
    assert run.axes["gradient/*"] == "trainscope/step"
    assert run.summary["curvature/status"] == "skipped: no second derivative"
    assert run.config["samples"] == 8


def test_wandb_offline_goes_on_after_what_is_on_the_disk(wandb, tmp_path):
    sink = write(WandB())
    sink.close()
    wandb.teardown()
    again = WandB()
    again.begin(About(resume=sink.run_id))
    assert again.seen("gradient/norm") == 5
    assert again.seen("training/lr") is None
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    data = path.read_bytes()
    lengths = range(len(data), 0, -16)  # torn by a kill: the rows before are there
    torn = next(n for n in lengths if points_of(path, data[:n]) == [(3, 3.5)])
    path.write_bytes(data[:torn])
    assert again.seen("gradient/norm") == 3
    path.write_bytes(b":W&B of another version" * 10)
    with pytest.raises(NotAskedError):
        again.seen("gradient/norm")
    path.write_bytes(data)
    again.write(taken(7))
    again.close()
    first, second = wandb_runs(tmp_path)
    assert first.id == second.id
    assert points(second.rows, "gradient/norm", "trainscope/step") == [(7, 7.5)]
    assert again.seen("gradient/norm") == 7


def points_of(path, data):
    path.write_bytes(data)
    return points(list(history(path)), "gradient/norm", "trainscope/step")


def test_wandb_disabled_takes_everything_and_writes_nothing(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    write(WandB()).close()
    assert wandb_runs(tmp_path) == []


def test_trackio_has_the_numbers_the_texts_and_the_parameters(trackio, tmp_path, capsys):
    sink = write(Trackio())
    assert trackio.context_vars.current_run.get() is None
    sink.close()
    rows = trackio_rows(tmp_path.name)
    assert points(rows, "gradient/norm") == [(3, 3.5), (5, 5.5)]
    assert points(rows, "gradient/norm_se") == [(3, 0.01), (5, 0.01)]
    assert points(rows, "gradient after action/norm") == [(5, 5.5)]
    assert points(rows, "curvature/status") == [(4, "skipped: no second derivative")]
    (run,) = trackio.Api().runs(tmp_path.name)
    assert run.name == "mine"
    assert run.config["samples"] == 8
    assert sink.seen("gradient/norm") == 5
    assert capsys.readouterr().out == ""  # stdout is the caller's


# ---- the run that the training has


def test_mlflow_writes_to_the_active_run_and_leaves_it_open(mlflow, tmp_path):
    sink = MLflow()
    with mlflow.start_run() as own:
        mlflow.log_param("samples", 100)
        write(sink)
        sink.close()
        assert mlflow.active_run().info.run_id == own.info.run_id
        mlflow.log_metric("loss", 1.0, step=1)
    (run,) = mlflow_runs(tmp_path.name)
    assert run.data.params == {
        "samples": "100",
        "trainscope.samples": "8",
        "trainscope.task": "Classification",
    }
    assert mlflow_points(run.info.run_id, "gradient/norm") == [(3, 3.5), (5, 5.5)]
    assert run.data.metrics["loss"] == 1.0
    assert sink.run_id is None


def test_mlflow_keeps_to_the_run_that_was_active_when_the_hook_began(mlflow, tmp_path):
    sink = MLflow()
    with mlflow.start_run() as own:
        sink.begin(About())
    sink.write(taken(3))
    sink.close()
    (run,) = mlflow_runs(tmp_path.name)
    assert run.info.run_id == own.info.run_id
    assert run.data.metrics["gradient/norm"] == 3.5


def test_mlflow_writes_to_the_run_that_the_environment_names(mlflow, tmp_path, monkeypatch):
    with mlflow.start_run() as own:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", own.info.run_id)
    write(MLflow()).close()
    (run,) = mlflow_runs(tmp_path.name)
    assert run.data.metrics["gradient/norm"] == 5.5


def test_a_server_that_is_away_is_given_up_soon_and_the_environment_is_left(monkeypatch):
    from trainscope.probes.sinks.mlflow import _impatient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with _impatient():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize("explicit", [False, True])
def test_wandb_drops_nothing_of_the_users_own_rows(wandb, tmp_path, explicit):
    sink = WandB()
    with wandb.init(project="own") as own:
        sink.begin(About())
        sink.write(taken(0))  # as probes at step 0, before the loop's first row
        for step in range(6):
            own.log({"loss": float(step)}, step=step if explicit else None)
            if step % 2:  # two at once, as norms that were waiting
                sink.write(taken(step))
                sink.write(taken(step + 1))
        sink.close()
        assert wandb.run is own
    (run,) = wandb_runs(tmp_path)
    assert [value for _, value in points(run.rows, "loss", "_step")] == [0, 1, 2, 3, 4, 5]
    if explicit:
        assert [step for step, _ in points(run.rows, "loss", "_step")] == [0, 1, 2, 3, 4, 5]
    found = points(run.rows, "gradient/norm", "trainscope/step")
    kept = [0, 2, 4, 6] if explicit else [0, 1, 2, 3, 4, 5, 6]
    assert found == [(step, step + 0.5) for step in kept]


def test_several_probes_at_one_step_share_a_row_of_the_users(wandb, tmp_path):
    sink = WandB()
    with wandb.init(project="own") as own:
        sink.write(taken(0))
        sink.write(taken(0, "before action"))
        own.log({"loss": 1.0}, step=0)
    (run,) = wandb_runs(tmp_path)
    (row,) = [row for row in run.rows if "loss" in row]
    assert row["gradient/norm"] == row["gradient before action/norm"] == 0.5


def test_trackio_leaves_the_number_of_the_users_next_row(trackio, tmp_path, capsys):
    own = trackio.init(project=tmp_path.name, name="own", embed=False)
    trackio.log({"loss": 1.0})
    sink = write(Trackio())
    sink.close()
    trackio.log({"loss": 2.0})
    assert trackio.context_vars.current_run.get() is own
    trackio.finish()
    rows = trackio_rows(tmp_path.name)
    assert points(rows, "loss") == [(0, 1.0), (1, 2.0)]
    assert points(rows, "gradient/norm") == [(3, 3.5), (5, 5.5)]


# ---- in a hook


def test_a_hook_writes_to_all_by_their_names(mlflow, wandb, trackio, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    monkeypatch.chdir(tmp_path)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    names = ["mlflow", "wandb", "trackio", "tensorboard"]
    hook = ProbeHook(sink=[*names, each := []][:4])
    with hook.attach(nn.ParameterList([weight]), optimizer):
        for step in (1, 2, 3):
            weight.grad = torch.full((1,), float(step))
            optimizer.step()
    assert each == hook.unwritten == []
    right = [(1, 1.0), (2, 2.0), (3, 3.0)]
    (run,) = mlflow_runs(tmp_path.name)
    assert mlflow_points(run.info.run_id, "step_gradient/norm") == right
    assert points(wandb_runs(tmp_path)[0].rows, "step_gradient/norm", "trainscope/step") == right
    assert points(trackio_rows(tmp_path.name), "step_gradient/norm") == right
    assert hook.sinks[3].seen("step_gradient/norm") == 3


@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio", "tensorboard"])
def test_a_copy_has_a_run_of_its_own(name, request, tmp_path, monkeypatch):
    request.getfixturevalue(name) if name != "tensorboard" else need(name)
    monkeypatch.chdir(tmp_path)
    sink = find(name)
    sink.write(taken(1))
    for copied in (copy.deepcopy(sink), pickle.loads(pickle.dumps(sink))):
        if name != "tensorboard":
            assert copied.run_id is None
        copied.write(taken(2))
        assert (copied.run_id == sink.run_id) is (name == "tensorboard")
        copied.close()
    sink.close()
