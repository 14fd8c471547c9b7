"""The masked language model's task against plain formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from trainscope.errors import TaskError
from trainscope.task import MaskedLanguageModelling, find_task


def test_masked_tokens_alone_count():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, dtype=torch.float64)
    labels = torch.full((2, 5), -100)
    labels[0, 1], labels[1, 4], labels[1, 0] = 3, 6, 2
    task, out = find_task("masked-language-modelling"), SimpleNamespace(logits=logits)
    batch = {"input_ids": torch.zeros(2, 5).long(), "labels": labels}
    places = ((0, 1, 3), (1, 0, 2), (1, 4, 6))
    terms = [-logits[i, t].log_softmax(0)[k] for i, t, k in places]
    assert torch.allclose(task.losses(out, batch), torch.stack(terms))
    total, count = task.score(out, batch)
    assert count == 3
    assert task.value(total, count) == pytest.approx(math.exp(float(sum(terms)) / 3))
    assert torch.allclose(task.signal(out), logits.mean(1))
    with pytest.raises(TaskError, match="without labels"):
        MaskedLanguageModelling().losses(out, {"input_ids": batch["input_ids"]})
