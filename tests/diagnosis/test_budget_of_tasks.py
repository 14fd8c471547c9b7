"""A network whose whole measurement is dear: every kind of task gets a whole table in rounds."""

from __future__ import annotations

import pytest
import torch
from reference.detectors import collate, pictures, tiny
from task_cases import task_case

from trainscope import Action, diagnose
from trainscope.diagnosis import budget, clock
from trainscope.probes.scalar_spec import described
from trainscope.task import Detection, Task

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = (
    "classification",
    "tagging",
    "segmentation",
    "regression, huber",
    "language, dictionaries",
    "two outputs",
    "detection",
)


def _case(kind: str) -> tuple[torch.nn.Module, Task, object]:
    if kind == "detection":
        return tiny(), Detection(), collate(pictures(4))
    case = task_case(kind)
    return case.network, case.task, case.batch


@pytest.mark.parametrize("kind", KINDS)
def test_every_probe_is_measured_in_rounds_or_says_why_not(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "SPEED", 1e-6)
    monkeypatch.setattr(budget, "LATE", 1e9)
    monkeypatch.setattr(clock.Clock, "remaining", lambda _: 1e9)
    first: list[str] = []
    taken = budget.Measuring._first
    monkeypatch.setattr(
        budget.Measuring, "_first", lambda self, p, n: (first.append(p.name), taken(self, p, n))
    )
    network, task, batch = _case(kind)
    found = diagnose(
        network,
        action=Action(structure="unstructured", ratio=0.5, scope="all"),
        data=([batch], [batch]),
        task=task,
        samples=4,
        retrain_epochs=1,
        budget=1e-3,
    )
    assert set(first) >= {"gradient", "curvature"}, "it was not measured in rounds"
    assert list(found.probes) == ["trainability_accuracy", "gradient", "jacobian", "curvature"]
    for name, columns in found.probes.items():
        for column in (columns.before, columns.after):
            assert column is not None
            if (kind, name) == ("detection", "jacobian"):
                assert "as many boxes as it finds" in column.reason
            elif (kind, name) == ("detection", "trainability_accuracy"):
                assert column.status == "ok" or "torchmetrics" in column.reason
            else:
                assert column.status == "ok", (name, column.reason)
    told = " ".join(note for note in found.notes if "in part:" in note)
    for name, columns in found.probes.items():
        if not columns.before.scalars:
            assert described(name).heading(task.metric) not in told
