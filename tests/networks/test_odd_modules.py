"""Modules that hold more, or something else, than floating-point tensors."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import trainscope
from trainscope.errors import CheckpointError
from trainscope.networks.network import digest


class Counted(nn.Linear):
    """Keeps what is no tensor in its state dict."""

    calls = 3

    def get_extra_state(self):
        return {"calls": self.calls, "seen": torch.ones(2)}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def network(last=nn.Linear):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), last(8, 4))


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 6, generator=generator)
    return x, torch.randint(4, (32,), generator=generator)


def test_extra_state_is_part_of_the_digest_and_of_no_traceback():
    model = network(Counted)
    assert digest(model) == digest(copy.deepcopy(model))
    other = copy.deepcopy(model)
    other[2].calls = 4
    assert digest(model) != digest(other)
    plain = trainscope.measure(network(), data=data(), probes=["gradient"])["gradient"]
    found = trainscope.measure(model, data=data(), probes=["gradient"])["gradient"]
    assert found.value("norm") == pytest.approx(plain.value("norm"))


def test_quantised_layers_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear})
    with pytest.raises(CheckpointError, match="'0' is a quantised layer"):
        trainscope.measure(model, data=data(), probes=["gradient"])
    with pytest.raises(CheckpointError, match="from before quantisation"):
        trainscope.diagnose(network(), after=model, data=data(), probes=["gradient"])
