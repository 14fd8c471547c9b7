"""What somebody else did to a network, told from the network before and after."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from trainscope.errors import ActionError
from trainscope.networks import build, flops, parameters
from trainscope.sparsify import Action, given_action, sparsify

SHAPE = (1, 8, 8)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return build("digits_resnet", 10).eval()


def _weights(network: nn.Module) -> list[nn.Module]:
    return [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def _smallest_to_zero(network: nn.Module, ratio: float) -> nn.Module:
    """Zero the smallest weights of every layer by hand, without a mask."""
    with torch.no_grad():
        for part in _weights(network):
            size = part.weight.abs().flatten()
            part.weight.view(-1)[size.argsort()[: round(ratio * size.numel())]] = 0
    return network


@pytest.mark.parametrize(
    ("action", "scope", "criterion", "ratio", "words"),
    [
        (Action(ratio=0.9), "cut", "unknown", 0.9, "90 % of the filters of 6 layers"),
        (Action(ratio=0.5, scope="all"), "cut", "unknown", 0.5, "50 % of the filters"),
        (
            Action(structure="unstructured", ratio=0.7, scope="all"),
            "masked",
            "smallest |w| in each layer",
            0.7,
            "70 % of the weights of 14 layers, held by masks",
        ),
        (
            Action(structure="unstructured", ratio=0.7, global_ranking=True),
            "masked",
            "smallest |w| over all layers",
            None,
            "% of the weights of 12 layers, held by masks",
        ),
        (
            Action(structure="unstructured", ratio=0.7, criterion="random"),
            "masked",
            "unknown",
            0.7,
            "70 % of the weights of 12 layers",
        ),
        (Action(structure="2:4"), "masked", "unknown", 0.5, "2 of every 4 weights"),
        (Action(structure="1:4"), "masked", "unknown", 0.75, "3 of every 4 weights"),
    ],
    ids=["filters", "coupled", "magnitude", "global", "random", "2:4", "1:4"],
)
def test_our_own_actions_are_told_back(action, scope, criterion, ratio, words):
    net = _net()
    done = sparsify(net, action, SHAPE)
    told = given_action(net, done.module, SHAPE)
    assert told.module is done.module
    assert told.notes == ()
    record = told.record
    assert (record.structure, record.scope, record.criterion) == ("given", scope, criterion)
    assert record.ratio == ratio
    assert words in record.meaning
    assert (record.parameters, record.flops) == (done.record.parameters, done.record.flops)
    assert record.speedup == done.record.speedup
    if action.structure == "filter" and action.scope == "inner":
        assert {x.name: (x.before, x.after) for x in record.layers} == {
            x.name: (x.before, x.after) for x in done.record.layers
        }


def test_masks_of_torch_are_told():
    net, pruned = _net(), _net()
    for part in _weights(pruned):
        prune.l1_unstructured(part, "weight", 0.6)
    record = given_action(net, pruned, SHAPE).record
    assert "60 % of the weights of 14 layers, held by masks" in record.meaning
    assert record.criterion == "smallest |w| in each layer"
    assert record.parameters == parameters(pruned) < 0.42 * parameters(net)


def test_zeros_without_masks_are_told():
    net, pruned = _net(), _smallest_to_zero(_net(), 0.7)
    record = given_action(net, pruned, SHAPE).record
    assert "70 % of the weights of 14 layers, zeroed without masks" in record.meaning
    zeros = sum(int((part.weight == 0).sum()) for part in _weights(pruned))
    assert record.parameters == parameters(net) - zeros
    assert sum(layer.before - layer.after for layer in record.layers) == zeros


def test_a_network_pruned_and_retrained_is_told_so():
    net, pruned = _net(), _smallest_to_zero(_net(), 0.7)
    with torch.no_grad():
        for part in _weights(pruned):
            part.weight.mul_(1.01)
    told = given_action(net, pruned, SHAPE)
    assert len(told.notes) == 1
    assert "retrained after the action: 100 % of its surviving weights differ" in told.notes[0]
    assert told.record.criterion == "unknown"


def test_a_cut_and_retrained_network_is_told_so():
    net = _net()
    pruned = sparsify(net, Action(ratio=0.5), SHAPE).module
    assert given_action(net, pruned, SHAPE).notes == ()
    with torch.no_grad():
        for part in _weights(pruned)[:7]:
            part.weight.add_(1e-4)
    assert "retrained after the action" in given_action(net, pruned, SHAPE).notes[0]


def test_a_cut_by_torch_pruning_is_told():
    tp = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()
    pruned = copy.deepcopy(net)
    pruner = tp.pruner.BasePruner(
        pruned,
        torch.randn(1, *SHAPE),
        importance=tp.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[pruned[-1]],
    )
    pruner.step()
    record = given_action(net, pruned, SHAPE).record
    assert record.meaning == "50 % of the filters of 2 layers"
    assert [(layer.name, layer.before, layer.after) for layer in record.layers] == [
        ("0", 8, 4),
        ("3", 16, 8),
    ]
    assert record.flops == flops(pruned, SHAPE)


def test_cut_and_masked_at_once_are_both_told():
    net = _net()
    pruned = _smallest_to_zero(sparsify(net, Action(ratio=0.5), SHAPE).module, 0.5)
    record = given_action(net, pruned, SHAPE).record
    assert record.scope == "cut and masked"
    assert "50 % of the filters of 6 layers, and 50 % of the weights of 14 layers" in record.meaning


def test_what_is_no_pruned_network_is_one_sentence():
    net = _net()
    cut = sparsify(net, Action(ratio=0.5), SHAPE).module
    masked = sparsify(net, Action(structure="unstructured", ratio=0.5), SHAPE).module
    with pytest.raises(ActionError, match="nothing was pruned"):
        given_action(net, _net(), SHAPE)
    for dense_last in (cut, masked):
        with pytest.raises(ActionError, match="give the dense network first"):
            given_action(dense_last, net, SHAPE)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ActionError, match="no layer of one name in common"):
        given_action(net, other, SHAPE)
    with pytest.raises(ActionError, match="outputs from 2x10 to 2x7"):
        given_action(net, build("digits_resnet", 7), SHAPE)
