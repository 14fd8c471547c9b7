"""What trackers hold, read back through their own packages."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from trainscope.probes.sinks.wandb_offline import items, records


def trackio_folder() -> str:
    """Return where Trackio keeps runs, which it reads from the environment once, on import."""
    if "TRACKIO_DIR" not in os.environ:
        os.environ["TRACKIO_DIR"] = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)
    return os.environ["TRACKIO_DIR"]


def need(package: str) -> Any:
    """Import a tracker's package, or skip the test."""
    trackio_folder()
    return pytest.importorskip(package, reason=f"{package} is not installed")


def mlflow_runs(experiment: str) -> list[Any]:
    """Return the runs of an experiment, the newest first."""
    client = need("mlflow").MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def mlflow_points(run_id: str, key: str) -> list[tuple[int, float]]:
    """Return a metric's points."""
    history = need("mlflow").MlflowClient().get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def trackio_rows(project: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a project's runs."""
    from trackio.sqlite_storage import SQLiteStorage

    runs = [run.name for run in need("trackio").Api().runs(project)]
    return [
        row for run in runs if name in (None, run) for row in SQLiteStorage.get_logs(project, run)
    ]


def points(rows: list[dict[str, Any]], key: str, axis: str = "step") -> list[tuple[int, float]]:
    """Return a number's points of rows that have it."""
    return [(int(row[axis]), row[key]) for row in rows if key in row]


class OfflineRun:
    """An offline run of W&B, read from its file record by record.

    Attributes:
        rows: Of its history; `_step` is W&B's own step.
        summary: The texts and numbers that were put there.
        config: What was said of the run.
        axes: Each defined name's axis.
    """

    def __init__(self, path: Path) -> None:
        from wandb.proto import wandb_internal_pb2

        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.id = ""
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.rows.append(items(record.history.item))
            elif kind == "summary":
                self.summary |= items(record.summary.update)
            elif kind == "config":
                self.config |= items(record.config.update)
            elif kind == "run":
                self.id = record.run.run_id
                self.config |= items(record.run.config.update)
            elif kind == "metric" and record.metric.step_metric:
                name = record.metric.name or record.metric.glob_name
                self.axes[name] = record.metric.step_metric


def wandb_runs(folder: Path) -> list[OfflineRun]:
    """Return the offline runs below a folder, in the order in which they were begun.

    The service that writes them is ended first: all is on the disk then, and nothing stays behind.
    """
    need("wandb").teardown()
    files = folder.glob("wandb/offline-run-*/*.wandb")
    return [OfflineRun(path) for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]
