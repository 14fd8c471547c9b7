"""Telling classes apart: one label a sample, or one a position (tags, pixels)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainscope.errors import TaskError
from trainscope.records.metric import ACCURACY, HIGHER, Metric
from trainscope.task.batches import Batch, described, targets
from trainscope.task.task import Amount, Common, Outputs, Task, mean_of, pooled, single

IGNORED = -100
"""The label of what is not counted, as torch has it."""


@dataclass(frozen=True)
class Classification(Common):
    """Softmax cross-entropy (nats) and top-1 accuracy (percent).

    The network returns logits [N, C] for labels [N], or [N, ..., C] for labels [N, ...]. Where it
    returns several tensors, the one called `logits` or `out` is meant. Labels of -100 are not
    counted.

    Attributes:
        classes_axis: Where the classes stand among the axes of logits of several positions: -1, or
            1 for [N, C, ...]. It is not guessed, since the Jacobian is taken along it.
    """

    classes_axis: int = -1

    def __post_init__(self) -> None:
        """Check the axis.

        Raises:
            TaskError: It is neither.
        """
        if self.classes_axis not in (-1, 1):
            raise TaskError(f"classes_axis is {self.classes_axis}: give -1 or 1")

    @property
    def metric(self) -> Metric:
        """Return top-1 accuracy."""
        return ACCURACY

    def logits(self, outputs: Outputs) -> Tensor:
        """Return the logits among a network's outputs."""
        return self.main(outputs)

    def labelled(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits [positions, C] and labels [positions] of the positions that count.

        Raises:
            TaskError: There are no labels, or they do not fit the logits.
        """
        logits, labels = self._matched(outputs, batch)
        counted = labels != self._ignored
        return (logits, labels) if bool(counted.all()) else (logits[counted], labels[counted])

    def loss(self, outputs: Outputs, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of a training step, a scalar, without a wait for it.

        It is the mean of `losses` where a class derived from this one has its own. A batch in which
        no label counts has the loss 0 where there are several labels a sample.
        """
        if type(self).losses is not Classification.losses:
            if label_smoothing:
                raise TaskError(f"{type(self).__name__} has losses of its own: smooth labels there")
            return mean_of(self.losses(outputs, batch))
        logits, labels = self._matched(outputs, batch)
        options: dict[str, Any] = {"ignore_index": self._ignored}
        options["label_smoothing"] = label_smoothing
        if self._labels(batch).ndim < 2:
            return F.cross_entropy(single(logits), labels, **options)
        count = (labels != self._ignored).sum().clamp(min=1)
        return F.cross_entropy(single(logits), labels, reduction="sum", **options) / count

    def _matched(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits [positions, C] and labels [positions], those that do not count too."""
        logits, labels = self.logits(outputs), self._labels(batch)
        labels = labels.to(logits.device)
        if labels.ndim == 2 == logits.ndim and labels.shape[1] == 1:
            labels = labels.squeeze(1)
        if logits.ndim == 1 and len(labels) == 1:  # a batch of one, its axis squeezed away
            logits = logits.unsqueeze(0)
        shape = logits.shape
        if logits.ndim > 2:
            logits = logits.movedim(self.classes_axis, -1)
        if logits.shape[:-1] != labels.shape:
            other = shape[:-1] if self.classes_axis == 1 else (shape[:1] + shape[2:])
            wanted = self._wanted
            if len(shape) > 2 and other == labels.shape:
                wanted = (
                    f"classes on axis {self.classes_axis}: give classes_axis={-self.classes_axis}"
                )
            elif len(shape) == 2 and self.logits(outputs).shape == labels.shape:
                wanted += " with one label a sample (give one-hot labels as labels.argmax(1))"
            raise TaskError(
                f"the network returns {described(self.logits(outputs))} for labels of shape "
                f"{tuple(labels.shape)}, and not {wanted}"
            )
        return logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the cross-entropy of each label, nats."""
        logits, labels = self.labelled(outputs, batch)
        return F.cross_entropy(single(logits), labels, reduction="none")

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return 100 times the number of labels that have the largest logit, and their number."""
        logits, labels = self.labelled(outputs, batch)
        return 100.0 * float((logits.argmax(1) == labels).sum()), float(len(labels))

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the logits [N, C]; with several positions their mean over positions."""
        logits = self.logits(outputs)
        if logits.ndim > 2:
            logits = logits.movedim(self.classes_axis, 1)
        return pooled(logits) if logits.ndim > 1 else None

    _ignored = IGNORED
    _wanted = (
        "logits of shape [samples, classes]: wrap it in a module that does, or name its task "
        "(task=, --task)"
    )

    def _labels(self, batch: Batch) -> Tensor:
        labels = targets(batch, self.inputs)
        if not isinstance(labels, Tensor):
            raise TaskError(
                f"a batch is {described(batch)}, without labels: give batches (inputs, labels), "
                "or dictionaries with 'labels'"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.is_complex():
            raise TaskError(
                f"the labels are of {labels.dtype}: give whole numbers, one class index a sample, "
                "or name another task"
            )
        return labels.long()


@dataclass(frozen=True)
class Segmentation(Classification):
    """A class for every pixel: cross-entropy a pixel (nats) and mean IoU (percent).

    The network returns logits [N, C, ...] (alone, or as `out`) for labels [N, ...]. The mean IoU is
    over the classes that labels or predictions have at all, intersections and unions being added up
    over all test samples. The Jacobian is of the class scores, means over pixels.

    Attributes:
        ignore: The label of pixels that are not counted.
    """

    classes_axis: int = 1
    ignore: int = 255

    @property
    def metric(self) -> Metric:
        """Return the mean IoU."""
        return Metric("mean IoU", "%", HIGHER)

    _wanted = (
        "logits [samples, classes, height, width] for labels [samples, height, width]: give a "
        "label for each pixel, in the size of the outputs"
    )

    @property
    def _ignored(self) -> int:  # type: ignore[override]
        return self.ignore

    def _labels(self, batch: Batch) -> Tensor:
        labels = super()._labels(batch)
        return labels.squeeze(1) if labels.ndim > 3 and labels.shape[1] == 1 else labels

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return the intersection and the union of labels and predictions of each class, [C]."""
        logits, labels = self.labelled(outputs, batch)
        classes = logits.shape[1]
        said = logits.argmax(1)
        both = torch.bincount(labels[said == labels], minlength=classes)
        either = (
            torch.bincount(labels, minlength=classes)
            + torch.bincount(said, minlength=classes)
            - both
        )
        return both.double().cpu(), either.double().cpu()

    def value(self, total: Tensor, count: Tensor) -> float:
        """Return the mean IoU, percent."""
        there = count > 0
        return 100.0 * float((total[there] / count[there]).mean())


def one_label_each(task: Task, batch: Batch) -> bool:
    """Tell whether the loss is one cross-entropy a sample: one label each, and every one counts."""
    if type(task) is not Classification:
        return False
    labels = targets(batch, task.inputs)
    return not isinstance(labels, Tensor) or (labels.ndim == 1 and bool((labels >= 0).all()))
