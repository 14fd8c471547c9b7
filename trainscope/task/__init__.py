"""What a network is asked to do: batches, outputs, losses, a metric. Below everything else."""

from __future__ import annotations

from dataclasses import fields

from trainscope.errors import TaskError
from trainscope.foreign import find_object, reason
from trainscope.records.metric import Metric
from trainscope.task.batches import Batch
from trainscope.task.classification import Classification, Segmentation
from trainscope.task.detection import Detection
from trainscope.task.from_loss import FromLoss
from trainscope.task.labels import Binary, MultiLabel
from trainscope.task.language import LanguageModelling
from trainscope.task.masked import MaskedLanguageModelling
from trainscope.task.regression import Regression
from trainscope.task.task import Outputs, Task, mean_loss, metric_value, per_sample

__all__ = [
    "NAMES",
    "Batch",
    "Binary",
    "Classification",
    "Detection",
    "FromLoss",
    "LanguageModelling",
    "MaskedLanguageModelling",
    "Metric",
    "MultiLabel",
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
    "binary": Binary,
    "multi-label": MultiLabel,
    "detection": Detection,
    "language-modelling": LanguageModelling,
    "masked-language-modelling": MaskedLanguageModelling,
}
"""Every task that has a name of its own; `--task` takes them."""


def find_task(text: str) -> Task:
    """Return a task by its name, or one of the user's own: "package.module:object".

    A name may be followed by fields of the task: "classification:output=logits,classes_axis=1".

    Raises:
        TaskError: There is no such name or field, or the object is no task.
    """
    name, _, options = text.partition(":")
    if name in NAMES:
        return _with_fields(name, options)
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


def _with_fields(name: str, options: str) -> Task:
    """Return a task by its name, with fields as a person writes them: "output=0,ignore=255".

    Raises:
        TaskError: It has no such field, or the field takes no such value.
    """
    kind = NAMES[name]
    known = [f.name for f in fields(kind) if f.name != "weights"]  # type: ignore[arg-type]
    given: dict[str, str | int] = {}
    for part in filter(None, options.split(",")):
        field, equals, value = (word.strip() for word in part.partition("="))
        if field not in known or not equals or not value:
            raise TaskError(
                f"--task {name} takes fields as {name}:FIELD=VALUE, of "
                f"{', '.join(known) or 'which it has none'}, and not '{part}'"
            )
        number = value.lstrip("-").isdigit()
        if field in ("inputs", "ignore", "classes_axis") and not number:
            raise TaskError(f"{field} of the task {name} is a whole number, not '{value}'")
        given[field] = int(value) if number else value
    return kind(**given)


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
