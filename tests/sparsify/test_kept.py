"""Filters that are named: they stay, and all others of their layers go."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.errors import ActionError
from trainscope.networks import build
from trainscope.sparsify import Action, sparsify

SHAPE = (1, 28, 28)


def lenet():
    torch.manual_seed(0)
    return build("lenet5", 10).eval()


def test_the_filters_that_are_named_stay():
    network = lenet()
    done = sparsify(network, Action(kept={"conv1": (0, 2, 5), "conv2": (1, 14)}), SHAPE)
    cut = done.module
    assert torch.equal(cut.conv1.weight, network.conv1.weight[[0, 2, 5]])
    assert torch.equal(cut.conv2.weight, network.conv2.weight[[1, 14]][:, [0, 2, 5]])
    assert cut.fc1.in_features == 2 * 25
    record = done.record
    assert record.criterion == "chosen"
    assert record.ratio is None
    assert record.reached == pytest.approx(17 / 22)
    assert "0, 2, 5 of conv1 and 1, 14 of conv2 stay" in record.meaning
    assert {(each.name, each.before, each.after) for each in record.layers} == {
        ("conv1", 6, 3),
        ("conv2", 16, 2),
    }
    assert {each.name for each in record.left_alone} == {"fc1", "fc2", "fc3"}


def test_it_is_what_zeros_in_the_same_places_give():
    network = lenet()
    cut = sparsify(network, Action(kept={"conv1": (1, 3)}), SHAPE).module
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        gone = [0, 2, 4, 5]
        maps = F.max_pool2d(F.relu(network.conv1(x)), 2)
        maps[:, gone] = 0
        rest = F.max_pool2d(F.relu(network.conv2(maps)), 2)
        for name in ("fc1", "fc2"):
            rest = F.relu(network.get_submodule(name)(rest.flatten(1)))
        assert torch.allclose(cut(x), network.fc3(rest), atol=1e-5)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 6, 3, groups=2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "kept", "words"),
    [
        (lenet, {"conv1": (6,)}, "has 6 filters, 0 to 5, and 6 are to stay"),
        (lenet, {"conv1": tuple(range(6))}, "name some of them, not all"),
        (lenet, {"conv3": (1,)}, "no layer is named 'conv3'; choose from conv1, conv2"),
        (lenet, {"fc1": (1,)}, "the filters of fc1 cannot be chosen"),
        (Grouped, {"conv1": (0, 1)}, "must lose equally many"),
    ],
)
def test_filters_that_cannot_stay_are_refused(network, kept, words):
    with pytest.raises(ActionError) as error:
        sparsify(network(), Action(kept=kept), SHAPE)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"ratio": 0.5},
        {"ratios": {"conv1": 0.5}},
        {"structure": "2:4"},
        {"heads": 0.5},
        {"global_ranking": True},
    ],
)
def test_nothing_else_is_asked_for_beside_them(asked):
    with pytest.raises(ActionError, match="nothing else can be asked for"):
        Action(kept={"conv1": (1,)}, **asked)


@pytest.mark.parametrize("places", [(), (1, 1), (-1,)])
def test_places_that_are_none(places):
    with pytest.raises(ActionError, match="name one or more, each once"):
        Action(kept={"conv1": places})
