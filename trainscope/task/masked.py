"""Saying the tokens that were masked."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainscope.errors import TaskError
from trainscope.records.metric import LOWER, Metric
from trainscope.task.batches import Batch, described, targets
from trainscope.task.language import LanguageModelling
from trainscope.task.task import Outputs, pooled


@dataclass(frozen=True)
class MaskedLanguageModelling(LanguageModelling):
    """Cross-entropy of every masked token (nats) and its exponential, the pseudo-perplexity.

    Batches are dictionaries with `input_ids`, in which tokens are masked, and `labels`, which are
    -100 wherever no token was. The same batch is masked in the same way in every pass: masking is
    the data's business. The Jacobian is of the logits' means over positions.
    """

    @property
    def metric(self) -> Metric:
        """Return the pseudo-perplexity."""
        return Metric("pseudo-perplexity", "", LOWER)

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return the logits' means over positions, [N, vocabulary]."""
        return pooled(self._logits(outputs).movedim(-1, 1))

    def _next(
        self, outputs: Outputs, batch: Batch, moved: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits [N, T, vocabulary] and labels [N, T], which are not those of the next."""
        logits, labels = self._logits(outputs), targets(batch, self.inputs)
        if not isinstance(labels, Tensor):
            raise TaskError(
                f"a batch is {described(batch)}, without labels: give dictionaries with 'labels', "
                "-100 where no token is masked"
            )
        if labels.shape != logits.shape[:2]:
            raise TaskError(
                f"the network returns {described(logits)} for labels of shape "
                f"{tuple(labels.shape)}: give one label for each position"
            )
        return logits, labels.to(logits.device)
