"""Measurements in an MLflow run."""

from __future__ import annotations

import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trainscope.probes.sinks.tracker import PROJECT, Tracker
from trainscope.records import Taken

_LONGEST_TAG, _LONGEST_PARAMETER = 5000, 500
_TOGETHER = 100
"""Numbers that every version of MLflow takes in one call."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own wait for a server that is away is minutes, in which a training would stand still."""


class MLflow(Tracker):
    """Metrics of an MLflow run: the active one, that of MLFLOW_RUN_ID, or one of our own.

    A run of ours is not made the active one, so that `mlflow.start_run` stays the user's. Texts are
    tags. Names have `_` for letters that MLflow does not take.
    """

    package, label = "mlflow", "MLflow"

    def _client(self) -> Any:
        return self._library().MlflowClient()

    def _active(self) -> str | None:
        active = self._library().active_run()
        if active is not None:
            return str(active.info.run_id)
        return os.environ.get("MLFLOW_RUN_ID") or None

    def _start(self, name: str | None, project: str | None, resume: str | None) -> str:
        with _impatient():
            client = self._client()
            if resume is not None:
                client.update_run(resume, status="RUNNING")
                self._id = resume
            else:
                run = client.create_run(_experiment(client, project), run_name=name)
                self._id = str(run.info.run_id)
        return self._id

    def _describe(self, parameters: Mapping[str, str | float]) -> None:
        from mlflow.entities import Param, RunTag

        before = "" if self._own else "trainscope."
        params = [(_name(before + k), str(v)[:_LONGEST_PARAMETER]) for k, v in parameters.items()]
        with _impatient():
            client = self._client()
            known = client.get_run(self._run).data.params
            client.log_batch(
                self._run,
                params=[Param(key, value) for key, value in params if key not in known][:_TOGETHER],
                tags=[RunTag("trainscope", "1")],
            )

    def _log(self, values: dict[str, float], texts: dict[str, str], taken: Taken) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(_name(k), value, now, int(taken.step)) for k, value in values.items()]
        tags = [RunTag(_name(key), text[:_LONGEST_TAG]) for key, text in texts.items()]
        with _impatient():
            client = self._client()
            for at in range(0, max(len(metrics), 1), _TOGETHER):
                client.log_batch(self._run, metrics[at : at + _TOGETHER], tags=tags)
                tags = []

    def seen(self, key: str) -> int | None:
        """Return the last step at which our run has a number."""
        if self._id is None:
            return None
        with _impatient():
            history = self._client().get_metric_history(self._id, _name(key))
        return max((int(metric.step) for metric in history), default=None)

    def _end(self, run: Any) -> None:
        with _impatient():
            self._client().set_terminated(run)


def _experiment(client: Any, project: str | None) -> str:
    """Return the experiment's id: the one asked for, MLflow's own choice, or one of our name."""
    said = os.environ.get("MLFLOW_EXPERIMENT_ID")  # `mlflow.set_experiment` says it there too
    if project is None and said:
        return said
    name = project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _name(text: str) -> str:
    """Return a name that MLflow takes: it may become a path."""
    plain = re.sub(r"[^/\w.\- ]", "_", text)
    return posixpath.normpath(plain).lstrip("./")[:250] or "_"


@contextmanager
def _impatient() -> Iterator[None]:
    """Let MLflow give up a server that is away soon, unless a person said how long to wait."""
    unset = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)
