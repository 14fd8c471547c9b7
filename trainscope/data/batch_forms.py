"""A batch as it comes from a person's loader, checked where the task's form is known."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from trainscope.errors import DataError
from trainscope.task import Batch, Classification, Task
from trainscope.task.batches import described, plain, targets, tensors
from trainscope.task.classification import IGNORED


def taken_batch(batch: object, where: str, task: Task) -> Batch:
    """Return a batch in plain tuples and dictionaries, checked where the task's form is known.

    Raises:
        DataError: It is no batch of the task.
    """
    found = plain(batch)
    if isinstance(found, tuple) and len(found) == 1:
        found = found[0]
    if _packed(found):
        raise DataError(
            f"a batch of {where} holds a packed sequence, whose first axis is no axis of samples: "
            "give padded sequences with their lengths, and let the network pack them"
        )
    if not tensors(found):
        raise DataError(
            f"a batch of {where} is {described(batch)}, without a tensor: give tensors, or tuples "
            "or dictionaries of them"
        )
    if type(task) is not Classification or task.inputs is not None:
        return found
    if isinstance(found, Mapping):
        if targets(found) is None:
            raise DataError(
                f"a batch of {where} is {described(found)}, without labels: name them 'labels', or "
                "give the task (task=, --task)"
            )
        return found
    return _classified(found, where)


def _packed(batch: Batch) -> bool:
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, PackedSequence):
        return True
    return isinstance(batch, Mapping | tuple) and any(map(_packed, parts))


def _classified(batch: Batch, where: str) -> Batch:
    """Return a batch of inputs [N, ...] and labels [N] (int64), and what else is in it.

    Raises:
        DataError: It is no such batch.
    """
    shape = "batches must be pairs (inputs [N, ...], labels [N])"
    if not isinstance(batch, tuple) or len(batch) < 2:
        raise DataError(
            f"a batch of {where} is {described(batch)}: {shape}, or dictionaries with 'labels'"
        )
    inputs, labels = batch[0], batch[1]
    if not isinstance(inputs, Tensor | Mapping | tuple):
        raise DataError(f"the inputs of {where} are {described(inputs)}: {shape}")
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        return batch
    if len(batch) > 2 and (labels.is_floating_point() or labels.ndim != 1):
        return batch  # several inputs: the task looks
    labels = _indices(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    whole = not labels.is_floating_point() and not labels.is_complex()
    if not labels.ndim and whole:
        raise DataError(
            f"{where} holds single samples in the place of batches: give a DataLoader of it with a "
            "batch_size"
        )
    if not labels.ndim or len(labels) != len(inputs) or not whole:
        raise DataError(
            f"the labels of {where} are of shape {tuple(labels.shape)} and {labels.dtype} for "
            f"{len(inputs)} inputs: give one class index a sample, or the task (task=, --task); of "
            "labels that are probabilities, loss=torch.nn.CrossEntropyLoss()"
        )
    if labels.numel() and int(labels.min()) < 0 and bool((labels < 0).ne(labels == IGNORED).any()):
        raise DataError(f"{where} has a label {int(labels.min())}: classes are counted from 0")
    return inputs, labels.long()


def _indices(labels: Tensor) -> Tensor:
    """Return one-hot labels as indices, and others as they are."""
    if not labels.is_floating_point() or labels.ndim != 2 or labels.shape[1] < 2:
        return labels
    hot = bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all())
    return labels.argmax(1) if hot else labels
