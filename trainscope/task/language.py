"""Saying the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.errors import TaskError
from trainscope.records.metric import LOWER, Metric
from trainscope.task.batches import TARGETS, Batch, called, described, targets
from trainscope.task.classification import IGNORED
from trainscope.task.task import Amount, Common, Outputs, ratio, single

DECODED = "decoder_input_ids"
"""What the decoder of an encoder-decoder reads: the labels, moved by one."""


@dataclass(frozen=True)
class LanguageModelling(Common):
    """Cross-entropy of every next token (nats) and perplexity.

    Batches are dictionaries with `input_ids` (with `attention_mask` and `labels` where they have
    them), token ids [N, T] alone, or pairs (ids, labels). Labels are the ids themselves and are
    shifted here: the logits at t are compared with the label at t + 1. Pairs whose labels are the
    ids moved by one already (labels[t] = ids[t + 1]) are taken as they are. Labels of -100, and
    places that the attention mask leaves out, are not counted. The Jacobian is of the logits at the
    last position.

    Batches of an encoder-decoder have `decoder_input_ids` too: the labels are of these, which are
    the labels moved by one, so that the logits at t are compared with the label at t.
    """

    @property
    def metric(self) -> Metric:
        """Return the perplexity."""
        return Metric("perplexity", "", LOWER)

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the forward pass; labels are kept from the network, which would shift them."""
        if isinstance(batch, Mapping) and not isinstance(batch.get("input_ids"), Tensor):
            raise TaskError(f"a batch is {described(batch)}: give token ids as 'input_ids'")
        if _lacks_decoder_ids(model, batch):
            raise TaskError(
                f"{type(model).__name__} is an encoder-decoder and a batch is {described(batch)}: "
                f"give '{DECODED}' too, which the network's prepare_decoder_input_ids_from_labels "
                "makes of the labels"
            )
        return called(model, batch, self.inputs)

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the cross-entropy of each token that counts, nats."""
        logits, labels = self._next(outputs, batch)
        counted = labels != IGNORED
        return F.cross_entropy(single(logits[counted]), labels[counted].long(), reduction="none")

    def sum_and_count(self, outputs: Outputs, batch: Batch, moved: bool) -> tuple[Tensor, Tensor]:
        """Return the sum of `losses` and their number, without a look at a value.

        Args:
            outputs: A network's.
            batch: The samples.
            moved: What `moved` says of the batch that they are of.
        """
        logits, labels = self._next(outputs, batch, moved)
        total = F.cross_entropy(
            single(logits.flatten(0, 1)),
            labels.flatten().long(),
            reduction="sum",
            ignore_index=IGNORED,
        )
        return total, (labels != IGNORED).sum()

    def moved(self, batch: Batch) -> bool:
        """Tell whether the labels of a batch are the ids moved by one already."""
        ids, labels, _ = _parts(batch, self.inputs)
        return _moved(ids, labels)

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return the sum of the cross-entropies and the number of tokens."""
        found = self.losses(outputs, batch).detach().double()
        return float(found.sum()), float(found.numel())

    def value(self, total: Amount, count: Amount) -> float:
        """Return the perplexity: the exponential of the mean cross-entropy."""
        mean = ratio(total, count)
        return math.exp(mean) if mean < 700 else math.inf

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the logits at the last position, [N, vocabulary]."""
        return self._logits(outputs)[:, -1]

    def _logits(self, outputs: Outputs) -> Tensor:
        logits = self.main(outputs)
        if logits.ndim != 3:
            raise TaskError(
                f"the network returns {described(logits)}, and not logits of shape [samples, "
                "tokens, vocabulary]: wrap it in a module that does, or name another task"
            )
        return logits

    def _next(
        self, outputs: Outputs, batch: Batch, moved: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits [N, T, vocabulary] and their labels [N, T], `IGNORED` where none counts."""
        logits = self._logits(outputs)
        ids, labels, mask = _parts(batch, self.inputs)
        if labels.shape != logits.shape[:2]:
            raise TaskError(
                f"the network returns {described(logits)} for labels of shape "
                f"{tuple(labels.shape)}: give one label for each position"
            )
        labels = labels.to(logits.device)
        if moved is None:
            moved = _moved(ids, labels)
        if mask is not None:
            absent = mask.to(labels.device) == 0
            if moved:  # what a label says stands one further on
                absent = torch.cat([absent[:, 1:], absent[:, -1:]], 1)
            labels = labels.masked_fill(absent, IGNORED)
        return (logits, labels) if moved else (logits[:, :-1], labels[:, 1:])


def _parts(batch: Batch, inputs: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the token ids, the labels and the attention mask of a batch."""
    if isinstance(batch, Mapping):
        start = "decoder_" if DECODED in batch else ""
        ids = batch[f"{start}input_ids"]
        labels = next((batch[name] for name in TARGETS if name in batch), ids)
        return ids, labels, batch.get(f"{start}attention_mask")
    if isinstance(batch, Tensor):
        return batch, batch, None
    labels = targets(batch, inputs)
    return batch[0], batch[0] if labels is None else labels, None


def _lacks_decoder_ids(model: nn.Module, batch: Batch) -> bool:
    """Tell an encoder-decoder of transformers without what its decoder is to read."""
    makes = hasattr(model, "prepare_decoder_input_ids_from_labels")
    return makes and isinstance(batch, Mapping) and DECODED not in batch


def _moved(ids: Tensor, labels: Tensor) -> bool:
    """Tell whether labels are the ids moved by one, where they count."""
    if ids.shape != labels.shape or ids.shape[1] < 2:
        return False
    after, said = ids[:, 1:].to(labels.device), labels[:, :-1]
    counted = said != IGNORED
    moved = torch.equal(after[counted], said[counted].to(after.dtype))
    same = ids.to(labels.device)[:, :-1][counted]
    return moved and not torch.equal(same, said[counted].to(same.dtype))
