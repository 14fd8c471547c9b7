"""What keeps one probe from taking a diagnosis or a training with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.hooks.careful import measured
from trainscope.probes.probe import attempt
from trainscope.records import Measurement, Status


class Raises:
    """A probe that ends as it is told to."""

    name = "raises"
    needs: frozenset = frozenset()

    def __init__(self, how):
        self.how = how

    def measure(self, network, data):
        if isinstance(self.how, Exception):
            raise self.how
        return self.how

    def estimate(self, network, data):
        raise NotImplementedError


DATA = ProbeData("x", torch.zeros(2, 1))
REASONS = [
    (ProbeError("the loss is constant"), "the loss is constant"),
    (MemoryError(), "there is not enough memory"),
    (torch.OutOfMemoryError(), "there is not enough memory"),
]


@pytest.mark.parametrize(("error", "reason"), REASONS)
def test_what_the_network_or_the_memory_cannot_do_is_a_reason(error, reason):
    found = attempt(Raises(error), nn.Linear(1, 1), DATA)
    assert found.status is Status.SKIPPED
    assert found.reason.startswith(reason)


def test_a_bug_passes_in_a_diagnosis_and_is_told_in_a_training():
    told = []

    def tell(name, error):
        told.append((name, error))
        return "a bug"

    bug = KeyError("x")
    with pytest.raises(KeyError):
        attempt(Raises(bug), nn.Linear(1, 1), DATA)
    found = measured(Raises(bug), nn.Linear(1, 1), DATA, tell)
    assert (found.status, found.reason, told) == (Status.SKIPPED, "a bug", [("raises", bug)])
    done = Measurement("raises")
    assert measured(Raises(done), nn.Linear(1, 1), DATA, tell) is done
    assert measured(Raises(None), nn.Linear(1, 1), DATA, tell).reason == "it returned a NoneType"


def test_an_error_around_the_probe_ends_no_training(monkeypatch):
    def fails(self, device):
        raise RuntimeError("no room on the device")

    monkeypatch.setattr(ProbeData, "to", fails)
    found = measured(Raises(None), nn.Linear(1, 1), DATA, lambda _, error: str(error))
    assert found.reason == "no room on the device"
