"""What a network is asked to do: batches, outputs, losses, a metric. Below everything else."""

from __future__ import annotations

from trainscope.errors import TaskError
from trainscope.foreign import find_object, reason
from trainscope.records.metric import Metric
from trainscope.task.batches import Batch
from trainscope.task.classification import Classification, Segmentation
from trainscope.task.from_loss import FromLoss
from trainscope.task.language import LanguageModelling
from trainscope.task.masked import MaskedLanguageModelling
from trainscope.task.regression import Regression
from trainscope.task.task import Outputs, Task, mean_loss, metric_value, per_sample

__all__ = [
    "NAMES",
    "Batch",
    "Classification",
    "FromLoss",
    "LanguageModelling",
    "MaskedLanguageModelling",
    "Metric",
    "Outputs",
    "Regression",
    "Segmentation",
    "Task",
    "as_task",
    "find_task",
    "mean_loss",
    "metric_value",
    "per_sample",
]

NAMES: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "segmentation": Segmentation,
    "language-modelling": LanguageModelling,
    "masked-language-modelling": MaskedLanguageModelling,
}
"""Every task that has a name of its own; `--task` takes them."""


def find_task(text: str) -> Task:
    """Return a task by its name, or one of the user's own: "package.module:object".

    Raises:
        TaskError: There is no such name, or the object is no task.
    """
    if text in NAMES:
        return NAMES[text]()
    if ":" not in text:
        raise TaskError(
            f"no task is named '{text}': choose from {', '.join(NAMES)}, or give your own as "
            "package.module:object"
        )
    found = find_object(text, "--task", TaskError)
    if isinstance(found, type) or (callable(found) and not isinstance(found, Task)):
        try:
            found = found()
        except Exception as error:  # whatever the user's code raises
            raise TaskError(f"--task {text} failed: {reason(error)}") from error
    return as_task(found, f"--task {text}")


def as_task(given: object, where: str = "the task") -> Task:
    """Return a task that was given as an object or by name.

    Raises:
        TaskError: It is none; the message says what it lacks.
    """
    if isinstance(given, str):
        return find_task(given)
    wanted = ("metric", "size", "select", "outputs", "losses", "score", "signal")
    lacking = [name for name in wanted if not hasattr(given, name)]
    if lacking or isinstance(given, type):
        what = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        why = f" without {', '.join(lacking)}" if lacking else ": give an object of it"
        raise TaskError(f"{where} is {what}{why}; see trainscope.task.Task for what one has")
    metric = given.metric  # type: ignore[attr-defined]
    if not isinstance(metric, Metric):
        raise TaskError(f"the metric of {where} is a {type(metric).__name__}, not a task.Metric")
    assert isinstance(given, Task)
    return given
