"""Sentences on what an action did: what could go, what is no retraining, what is tested."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainscope


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()),
        nn.Linear(128, 3),
    )


def loader():
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(24, 1, 8, 8), torch.randint(3, (24,))), 8)


def test_a_verdict_says_what_could_go_of_a_ratio():
    """One filter must stay of eight, so 7/8 is the most that can go."""
    options = {"data": loader(), "samples": 8, "probes": ["gradient"]}
    found = trainscope.diagnose(network(), ratio=0.999, **options)
    assert (
        "took 99.9 % of the filters of 1 inner convolution, of which 87.5 % could go:"
        in (found.verdict[0])
    )
    assert found.action.reached == 7 / 8
    found = trainscope.diagnose(network(), ratio=0.75, **options)
    assert "could go" not in found.verdict[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_no_retraining(dtype):
    dense = network()
    pruned = copy.deepcopy(dense)
    weight = pruned[2].weight.data
    weight[weight.abs() < weight.abs().median()] = 0
    options = {"data": loader(), "samples": 8, "probes": ["gradient"]}
    found = trainscope.diagnose(dense, after=pruned.to(dtype), **options)
    assert not any("was retrained" in note for note in found.notes)
    assert found.action.criterion == "smallest |w| in each layer"
    pruned[5].weight.data.mul_(1.1)
    found = trainscope.diagnose(dense, after=pruned, **options)
    assert any("was retrained after the action" in note for note in found.notes)


def test_a_metric_without_a_name_is_called_metric():
    found = trainscope.diagnose(
        network(),
        ratio=0.5,
        data=(loader(), loader()),
        loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 9.0])),
        metric=lambda outputs, labels: (outputs.argmax(1) == labels).float(),
        better="higher",
        samples=8,
        retrain_epochs=1,
        probes=["trainability_accuracy"],
    )
    said = " ".join([*found.verdict, *found.notes])
    assert "Test metric went from" in said
    assert "the test metric is of batches of" in said
    assert "lambda" not in said
