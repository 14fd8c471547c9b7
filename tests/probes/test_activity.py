"""Dead and dormant units and the rank of features, against plain float64 formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import student
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.activity import Activity
from trainscope.sparsify.masks import set_masks
from trainscope.task import Classification

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Activations as a module called twice, a function, a method, and one of its own making."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.hidden = nn.Linear(6, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        x = self.act(self.again(self.act(self.conv(x))))
        return self.head(F.gelu(self.hidden(x.mean((2, 3)))))


def made(samples=20, batch_size=7):
    torch.manual_seed(0)
    network = Net().double()
    with torch.no_grad():
        network.conv.bias[1] = -100  # dead
        network.conv.weight[2].mul_(1e-3)  # dormant
        network.conv.bias[2] = 1e-3
    inputs = torch.randn(samples, 1, 5, 5).double()
    data = ProbeData("x", inputs, torch.arange(samples) % 4, batch_size=batch_size)
    return network.eval(), data


def seen(network, x):
    """Return the activations [N, places, units] of each call, and the features."""
    first = F.relu(F.conv2d(x, network.conv.weight, network.conv.bias, padding=1))
    second = F.relu(F.conv2d(first, network.again.weight, network.again.bias, padding=1))
    third = F.gelu(second.mean((2, 3)) @ network.hidden.weight.T + network.hidden.bias)
    places = [each.flatten(2).transpose(1, 2) for each in (first, second)]
    return [each.detach() for each in (*places, third.unsqueeze(1))], third.detach()


def shares(layers, tau=0.025):
    dead = torch.cat([(each == 0).all(0).all(0) for each in layers])
    means = [each.abs().mean((0, 1)) for each in layers]
    dormant = torch.cat([mean / mean.mean() <= tau for mean in means])
    return 100 * float(dead.double().mean()), 100 * float(dormant.double().mean())


def ranks(features, delta=0.01):
    values = torch.linalg.svdvals(features)
    p = values / values.sum()
    effective = math.exp(-float((p * p.clamp_min(1e-300).log()).sum()))
    srank = next(k for k in range(1, len(p) + 1) if float(p[:k].sum()) >= 1 - delta - 1e-12)
    return effective, srank


@pytest.mark.parametrize("tau", [0.025, 0.2])
def test_units_and_features(tau):
    network, data = made()
    found = Activity(tau=tau).measure(network, data)
    layers, features = seen(network, data.inputs)
    dead, dormant = shares(layers, tau)
    assert dead > 0
    assert dormant > dead
    assert found.value("dead_share") == pytest.approx(dead)
    assert found.value("dormant_share") == pytest.approx(dormant)
    effective, srank = ranks(features)
    assert found.value("effective_rank") == pytest.approx(effective, rel=1e-10)
    assert found.value("srank") == srank
    assert found.arrays["layers"] == ["act", "act#2", "the network"]
    assert found.arrays["units"] == [6, 6, 10]
    assert found.arrays["dead_shares"][0] == pytest.approx(100 / 6)


def test_the_errors_are_the_jackknifes_over_groups():
    network, data = made()
    found = Activity().measure(network, data)
    _, features = seen(network, data.inputs)
    left = [ranks(features[[i for i in range(20) if i % 8 != group]])[0] for group in range(8)]
    mean = sum(left) / 8
    error = student(8) * math.sqrt(7 / 8 * sum((each - mean) ** 2 for each in left))
    assert found.scalars["effective_rank"].stderr == pytest.approx(error, rel=1e-8)


def test_an_error_is_at_least_half_a_step():
    """No unit of 22 comes to life or dies with these samples, and one more might."""
    network, data = made()
    same = ProbeData("x", data.inputs[:1].repeat(8, 1, 1, 1), data.labels[:8])
    found = Activity().measure(network, same)
    assert found.scalars["dead_share"].stderr == pytest.approx(50 / 22)
    assert found.scalars["srank"].stderr == 0.5


def test_batches_do_not_matter():
    one, two = (Activity().measure(*made(batch_size=size)) for size in (20, 3))
    assert one.scalars.keys() == two.scalars.keys()
    for name, scalar in one.scalars.items():
        assert scalar.value == pytest.approx(two.value(name))


def test_a_mask_kills_units():
    network, data = made()
    before = Activity().measure(network, data).value("dead_share")
    with torch.no_grad():
        network.again.bias.zero_()
    mask = torch.ones(6, 6, 3, 3, dtype=torch.bool)
    mask[:3] = False
    set_masks(network, {"again.weight": mask})
    found = Activity().measure(network, data)
    assert found.arrays["dead_shares"][1] >= 50
    assert found.value("dead_share") > before


def test_an_activation_of_ones_own_counts_once_and_tokens_have_units_last():
    class NewGELUActivation(nn.Module):
        def forward(self, x):
            return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Embedding(9, 4), nn.Linear(4, 12), NewGELUActivation(), nn.Linear(12, 3)
    ).double()
    tokens = torch.randint(9, (6, 5))
    data = ProbeData(
        "x", batch=(tokens, torch.randint(3, (6, 5))), task=Classification(classes_axis=-1)
    )
    found = Activity().measure(network, data)
    assert found.arrays["layers"] == ["2"]
    assert found.arrays["units"] == [12]
    hidden = network[2](network[1](network[0](tokens))).detach()
    assert found.value("effective_rank") == pytest.approx(ranks(hidden.mean(1))[0])


def test_reasons():
    torch.manual_seed(0)
    data = ProbeData("x", torch.randn(6, 3), torch.arange(6) % 2)
    found = Activity().measure(nn.Linear(3, 2), data)
    assert "no activation function is seen" in found.scalars["dead_share"].reason
    assert found.value("srank") >= 1
    zero = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        zero[0].weight.zero_()
        zero[0].bias.fill_(-1)
    found = Activity().measure(zero, data)
    assert found.value("dead_share") == 100
    assert found.value("dormant_share") == 100
    assert "all zero" in found.scalars["srank"].reason
    for wrong in ({"tau": -0.1}, {"tau": 1.0}, {"delta": 0.0}):
        with pytest.raises(ProbeError, match="give"):
            Activity(**wrong)
