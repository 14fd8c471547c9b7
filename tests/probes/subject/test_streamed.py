"""Gradients one tensor at a time: the same numbers, and no more memory than a sum of them takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from peak_bytes import PeakBytes
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.networks import undo
from trainscope.networks.masks import set_masks
from trainscope.probes.gradient import Gradient
from trainscope.probes.subject.streamed import Total, dot, squared, stream_gradient

WIDTH, DEPTH = 48, 8


def stack(seed: int = 0) -> tuple[nn.Module, ProbeData]:
    """A network whose weights take far more than what a few samples leave in it."""
    torch.manual_seed(seed)
    layers = [part for _ in range(DEPTH) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    network = nn.Sequential(*layers, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)).eval()
    inputs = torch.randn(4, WIDTH)
    data = ProbeData("random", inputs, torch.tensor([0, 1, 2, 0]), batch_size=1)
    return network, data


class TiedAndUnused(nn.Module):
    """A weight that is used twice, one that is not used, and one in no order of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Parameter(torch.randn(5, 5))
        self.unused = nn.Parameter(torch.randn(2))
        self.turned = nn.Parameter(torch.randn(5, 5).T)

    def forward(self, x: Tensor) -> Tensor:
        """Return one number a row."""
        return (torch.tanh(x @ self.twice) @ self.twice @ self.turned).sum(1)


def test_each_gradient_is_handed_on_whole_and_once() -> None:
    torch.manual_seed(0)
    network = TiedAndUnused()
    out = network(torch.randn(3, 5)).square().sum()
    weights = list(network.parameters())
    expected = torch.autograd.grad(out, weights, retain_graph=True, allow_unused=True)
    found: dict[int, Tensor] = {}
    stream_gradient(out, weights, lambda i, g: found.setdefault(i, g.clone()), retain_graph=True)
    assert sorted(found) == [0, 2]
    assert all(torch.equal(found[i], expected[i]) for i in found)
    assert all(p.grad is None and not p._backward_hooks for p in weights)
    twice: list[Tensor] = []
    stream_gradient(out, [network.twice], lambda _, g: twice.append(g), create_graph=True)
    (second,) = torch.autograd.grad(twice[0].sum(), network.turned)
    assert second.abs().sum() > 0


def test_hooks_of_the_networks_own_come_before() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.register_hook(lambda g: 10 * g)
    found: list[Tensor] = []
    stream_gradient(weight.sum(), [weight], lambda _, g: found.append(g.clone()))
    assert torch.equal(found[0], torch.full((3,), 10.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_made_in_float64(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    one, two = torch.randn(700, 901).to(dtype), torch.randn(901, 700).to(dtype).T
    assert float(squared(one)) == pytest.approx(float(one.double().square().sum()), rel=1e-12)
    exact = float((one.double() * two.double()).sum())
    assert float(dot(one, two)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("large", [0, 2**40], ids=["at random", "in float32"])
def test_many_small_parts_are_not_lost_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(undo, "LARGE", large)
    weight = torch.zeros(1000, dtype=torch.bfloat16)
    total, part = Total([weight], parts=1000), torch.full((1000,), 0.001).bfloat16()
    plain = torch.zeros_like(weight)
    for _ in range(1000):
        total.add(0, part)
        plain += part
    exact = 1000 * float(part[0])
    assert float(plain.double().mean()) < 0.6 * exact  # what is guarded against
    assert float(total.values[0].double().mean()) == pytest.approx(exact, rel=2e-3)
    assert float(total.values[0].double().std()) < 0.05 * exact
    assert (total.values[0].dtype == torch.bfloat16) == (large == 0)


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_takes_one_copy_of_the_weights(
    monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    monkeypatch.setattr(undo, "LARGE", 0)
    network, data = stack()
    if masked:
        set_masks(network, {"2.weight": torch.rand(WIDTH, WIDTH) > 0.5})
    size = sum(p.nbytes for p in network.parameters())
    monkeypatch.setattr("trainscope.probes.gradients.rule_gradients.rules_of", lambda *_: {})
    for module in ("rule", "sample"):
        monkeypatch.setattr(f"trainscope.probes.gradients.{module}_gradients.BUDGET", 0)
    monkeypatch.setattr("trainscope.probes.subject.streamed.BLOCK", 256)
    with PeakBytes(*network.parameters(), *network.buffers()) as peak:
        found = Gradient().measure(network, data)
    assert found.notes["per-sample gradients"] == "one by one"
    # The mean gradient; beside it one tensor's at a time, and the few samples' own.
    assert size < peak.most < 1.4 * size
    monkeypatch.undo()
    expected = Gradient().measure(network, data)
    assert expected.notes["per-sample gradients"] != "one by one"
    assert found.scalars["norm"].value == pytest.approx(expected.scalars["norm"].value, rel=1e-6)
    assert found.scalars["snr"].value == pytest.approx(
        expected.scalars["snr"].value, rel=1e-4, abs=1e-6
    )
    assert found.arrays["sample_norms"] == pytest.approx(expected.arrays["sample_norms"], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_in_bfloat16_the_error_holds_what_rounding_does(seed: int) -> None:
    network, data = stack(seed)
    network.bfloat16()
    found = Gradient().measure(network, data)
    exact = Gradient().measure(network.double(), data)
    assert "bfloat16" in found.notes["rounding"]
    assert "rounding" not in exact.notes
    for name in ("norm", "loss", "snr"):
        value, error = found.scalars[name].value, found.scalars[name].stderr
        assert abs(value - exact.scalars[name].value) < error
        assert error > abs(value) / 256 or name == "snr"
    logits = network.bfloat16()(data.inputs.bfloat16())
    terms = F.cross_entropy(logits.detach().double(), data.labels)
    assert found.scalars["loss"].value == pytest.approx(float(terms), rel=1e-5)


def test_one_sample_in_bfloat16_has_the_error_of_its_rounding() -> None:
    network, data = stack()
    one = ProbeData("random", data.inputs[:1], data.labels[:1])
    found = Gradient().measure(network.bfloat16(), one)
    exact = Gradient().measure(network.double(), one)
    assert found.scalars["norm"].stderr == pytest.approx(found.scalars["norm"].value / 256)
    assert (
        abs(found.scalars["norm"].value - exact.scalars["norm"].value)
        < found.scalars["norm"].stderr
    )
    assert exact.scalars["norm"].stderr is None
