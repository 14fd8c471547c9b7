"""`--report-to`: what a person types, and what is in the tracker then."""

from __future__ import annotations

import json

import pytest
from commands import invoke
from trackers import mlflow_points, mlflow_runs, need, points, trackio_rows, wandb_runs

from trainscope.probes.sinks.tensorboard import TensorBoard
from trainscope.records import Run

pytestmark = pytest.mark.usefixtures("few_digits")

TRAIN = ("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F2,1e-2")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--report-to", "mlfow"], "no sink is named 'mlfow': did you mean mlflow?"),
        (["--report-to", "mlflow,,wandb"], "a name is empty"),
        (["--report-to", "none,tensorboard"], "'none' stands beside other names"),
        (["--project", "p"], "--project is for trackers: name one with --report-to"),
        (["--run-name", "n", "--report-to", "none"], "--run-name is for trackers"),
    ],
)
@pytest.mark.parametrize("command", ["train", "probe"])
def test_what_is_wrong_is_said_before_any_work(command, options, sentence, tmp_path):
    args = TRAIN if command == "train" else ("probe", tmp_path / "no such file.pt")
    result = invoke(*args, *options, "--output", tmp_path / "run", code=2)
    assert sentence in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # of tensorboard's package
def test_a_run_and_a_diagnosis_in_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    for _ in range(2):  # the second call finds all done, and sends nothing more
        invoke(*TRAIN, "--output", folder, "--report-to", "tensorboard")
    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    run = Run.load(folder)
    found = [(event.step, event.value) for event in reader.Scalars("training/test_accuracy")]
    right = [(0, run.start_accuracy), *((r.epoch, r.test_accuracy) for r in run.epochs)]
    assert found == [(step, pytest.approx(value)) for step, value in right]
    (final,) = reader.Scalars("result/final_accuracy")
    assert final.value == pytest.approx(run.final_accuracy)
    assert json.loads((folder / "trackers.json").read_text())["tensorboard"]["sent"] > 4

    monkeypatch.chdir(tmp_path)
    invoke(
        *("probe", folder / "checkpoint.pt", "--ratio", 0.5, "--probes", "gradient"),
        *("--samples", 16, "--report-to", "tensorboard", "--output", tmp_path / "out"),
    )
    (events,) = (tmp_path / "runs").iterdir()
    reader = TensorBoard(events)
    assert reader.seen("gradient before action/norm") == 0
    assert reader.seen("gradient after action/norm_se") == 0
    reader.close()


@pytest.mark.filterwarnings("ignore")  # of the trackers' packages
def test_a_run_in_all_trackers(tmp_path, monkeypatch):
    mlflow = need("mlflow")
    need("trackio")
    need("wandb").teardown()  # a service of an earlier test would write where that one told it to
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    told = ("--report-to", "mlflow,wandb", "--report-to", "trackio", "--project", tmp_path.name)
    result = invoke(*TRAIN, "--output", folder, *told, "--run-name", "mine", "--json")
    run = Run.from_json(result.stdout)  # and nothing of a tracker's stands in stdout
    right = [(0, run.start_accuracy), *((r.epoch, r.test_accuracy) for r in run.epochs)]
    key, norms = "training/test_accuracy", "step_gradient/mean_norm"
    (one,) = mlflow_runs(tmp_path.name)
    assert (one.info.run_name, one.info.status) == ("mine", "FINISHED")
    assert one.data.params["schedule"] == run.schedule
    assert mlflow_points(one.info.run_id, key) == right
    (two,) = wandb_runs(tmp_path)
    assert points(two.rows, key, "trainscope/epoch") == right
    assert two.axes["training/*"] == "trainscope/epoch"
    assert two.axes["step_gradient/*"] == "trainscope/step"
    rows = trackio_rows(tmp_path.name, "mine")
    assert points(rows, key) == right
    means = [(t.step, t.measurement.value("mean_norm")) for t in run.measurements]
    assert points(rows, norms) == mlflow_points(one.info.run_id, norms) == means
    assert points(two.rows, norms, "trainscope/step") == means
