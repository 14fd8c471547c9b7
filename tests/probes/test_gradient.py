"""The gradient of a linear network by hand, in uneven batches; and what noise withholds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.gradient import Gradient, _inverse, _root
from trainscope.probes.gradients.mean_gradient import mean_gradient
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.sparsify.masks import set_masks


def linear(samples: int) -> tuple[nn.Sequential, ProbeData, Tensor]:
    """Return a masked network, its data, and each sample's gradient of the weights and the bias."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 2)).double()
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]], dtype=torch.bool)
    set_masks(network, {"0.weight": mask})
    inputs = 2 + torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (samples,), generator=generator)
    p = network(inputs).softmax(1).detach() - nn.functional.one_hot(labels, 2)
    rows = torch.cat([(p[:, :, None] * inputs[:, None] * mask).flatten(1), p], 1)
    return network, ProbeData("l", inputs, labels, batch_size=2), rows


def test_batches_count_by_their_size_and_masked_weights_not_at_all() -> None:
    network, data, rows = linear(5)
    with evaluation(network, data) as lent:
        before = lent.passes.backward
        found = mean_gradient(lent, measured(network))
        weights, mean, losses = found.weights, found.values, found.sums
        assert lent.passes.backward - before == 5
    flat = torch.cat([each.flatten() for each in mean])
    assert torch.allclose(flat, rows.mean(0), rtol=0, atol=1e-15)
    assert weights.survivors == 8
    expected = nn.functional.cross_entropy(network(data.inputs), data.labels, reduction="none")
    assert torch.allclose(losses, expected)
    found = Gradient().measure(network, data)
    assert found.value("norm") == pytest.approx(float(rows.mean(0).norm()))
    assert found.arrays["layer_kinds"] == ["weights"]
    assert found.arrays["layer_rms"] == [pytest.approx(float(rows.mean(0).norm()) / math.sqrt(8))]


@pytest.mark.parametrize(("samples", "known"), [(1, False), (15, False), (16, True)])
def test_sixteen_samples_are_enough_to_tell_signal_from_noise(samples: int, known: bool) -> None:
    network, data, _ = linear(samples)
    found = Gradient().measure(network, replace(data, labels=torch.zeros_like(data.labels)))
    for name in ("norm_unbiased", "noise_scale"):
        assert (found.value(name) is not None) == known
        if samples == 1:
            assert "one sample has no variance" in found.scalars[name].reason


def test_samples_that_are_all_the_same_have_no_noise() -> None:
    network, data, _ = linear(16)
    same = replace(
        data,
        inputs=torch.ones(16, 4, dtype=torch.float64),
        labels=torch.zeros(16, dtype=torch.int64),
    )
    network[0].weight.data.zero_()
    network[0].bias.data.zero_()
    found = Gradient().measure(network, same)
    for name in ("norm_unbiased", "snr", "noise_scale"):
        assert "do not differ" in found.scalars[name].reason


def test_an_unbiased_norm_reaches_to_its_farther_side() -> None:
    found = _root(9.0, 2.0)
    assert found.value == 3.0
    assert found.stderr == pytest.approx(3 - math.sqrt(9 - 2))
    edge = 9.0 / 2
    assert _root(9.0, edge * 0.999).value == 3.0
    assert _root(9.0, edge * 1.001).value is None
    none = _root(-1.0, 8.0)
    assert none.value is None
    assert f"at most {math.sqrt(16):.3g};" in none.reason
    assert "at most" not in _root(9.0, None).reason


def test_a_noise_scale_reaches_to_its_farther_side() -> None:
    found = _inverse(0.5, 0.1)
    assert found.value == 2.0
    assert found.stderr == pytest.approx(1 / (0.5 - 0.1) - 2)
    edge = 0.5 / 2
    assert _inverse(0.5, edge * 0.999).value == 2.0
    assert _inverse(0.5, edge * 1.001).value is None
    none = _inverse(-0.1, 0.1)
    assert none.value is None
    assert f"at least {1 / (0.2):.3g} samples" in none.reason
    assert "at least" not in _inverse(0.5, None).reason
