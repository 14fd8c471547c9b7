"""Encoder-decoders: whose labels are those of the decoder's tokens, not moved once more."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import trainscope
from trainscope.errors import TrainscopeError

SAMPLES, LENGTH, WORDS = 12, 5, 11


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.out = nn.Embedding(WORDS, 6), nn.Linear(6, WORDS)
        self.read, self.say = nn.GRU(6, 6, batch_first=True), nn.GRU(6, 6, batch_first=True)

    def forward(self, input_ids, attention_mask=None, decoder_input_ids=None, labels=None):
        state = self.read(self.embed(input_ids))[1]
        return {"logits": self.out(self.say(self.embed(decoder_input_ids), state)[0])}

    def prepare_decoder_input_ids_from_labels(self, labels):
        first = torch.zeros(len(labels), 1, dtype=torch.long)
        return torch.cat([first, labels[:, :-1].clamp(min=0)], 1)


def batches(*, decoded=True):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, WORDS, (SAMPLES, LENGTH), generator=generator)
    labels = torch.randint(1, WORDS, (SAMPLES, LENGTH), generator=generator)
    labels[::3, 3:] = -100
    mask = torch.ones_like(ids)
    mask[::2, 4:] = 0  # of what is read, not of what is said
    whole = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if decoded:
        whole["decoder_input_ids"] = Translator().prepare_decoder_input_ids_from_labels(labels)
    return [{name: value[k : k + 4] for name, value in whole.items()} for k in (0, 4, 8)], whole


def test_the_loss_is_that_of_the_decoders_tokens():
    """Labels were moved by one, and left out by the mask of the tokens that are read."""
    data, whole = batches()
    module = Translator()
    found = trainscope.measure(
        module, data=data, task="language-modelling", probes=["gradient"], samples=SAMPLES
    )["gradient"]
    twin = copy.deepcopy(module).double()
    logits = twin(whole["input_ids"], decoder_input_ids=whole["decoder_input_ids"])["logits"]
    loss = functional.cross_entropy(logits.flatten(0, 1), whole["labels"].flatten())
    slopes = torch.autograd.grad(loss, list(twin.parameters()))
    norm = torch.cat([slope.flatten() for slope in slopes]).norm().item()
    assert found.value("loss") == pytest.approx(loss.item(), rel=1e-5)
    assert found.value("norm") == pytest.approx(norm, rel=1e-4)


def test_what_the_decoder_reads_is_asked_for():
    data, _ = batches(decoded=False)
    with pytest.raises(TrainscopeError, match=r"is an encoder-decoder .* give 'decoder_input_ids'"):
        trainscope.measure(
            Translator(), data=data, task="language-modelling", probes=["gradient"], samples=4
        )
