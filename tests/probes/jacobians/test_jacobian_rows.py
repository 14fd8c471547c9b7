"""Jacobians through the features of the last layer, and of combinations of many outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import seeded
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.jacobians.rows import Jacobians

pytestmark = pytest.mark.usefixtures("one_thread")


class Wide(nn.Module):
    """Few features, many outputs; the kind says what happens after the last layer."""

    def __init__(self, kind: str = "last", features: int = 5, classes: int = 12) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten())
        self.neck = nn.Linear(64, features)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.neck(self.body(x))))
        if self.kind == "scaled":
            out = out * 2
        if self.kind == "in place":
            out.add_(x.sum((1, 2, 3)).unsqueeze(1))
        if self.kind == "skip":
            out = out + x.flatten(1)[:, :12]
        return out


def _wide(kind: str = "last", **sizes: int) -> tuple[Wide, ProbeData, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Wide(kind, **sizes).double().eval()
    inputs = torch.randn(6, 2, 6, 6, generator=seeded(0), dtype=torch.float64)
    labels = torch.arange(6) % 5
    rows = torch.func.vmap(torch.func.jacrev(lambda x: network(x.unsqueeze(0))[0]))(inputs)
    return network, ProbeData("drawn", inputs, labels), rows.flatten(2).detach()


@pytest.mark.parametrize("kind", ["last", "scaled", "in place", "skip"])
def test_values_through_features_are_those_of_all_outputs(kind: str) -> None:
    network, data, rows = _wide(kind)
    found = Jacobian().measure(network, data)
    expected = torch.linalg.svdvals(rows)
    assert np.allclose(found.arrays["singular_values"], expected, rtol=0, atol=1e-12)
    assert ("features" in found.notes) == (kind == "last")
    assert found.cost.backward == 6 * (5 if kind == "last" else 12)
    assert found.value("rms_jsv") == pytest.approx(float(expected.square().mean().sqrt()))
    if kind == "last":  # of rank five
        assert found.value("singular_samples") == 6


def test_dead_outputs_are_seen_through_features() -> None:
    network, data, _ = _wide()
    with torch.no_grad():
        network.head.weight[3] = 0
    assert Jacobian().measure(network, data).value("dead_outputs") == 1


@pytest.mark.parametrize("features", [5, 40])
def test_combinations_are_the_same_through_features_and_for_every_network(features: int) -> None:
    network, data, rows = _wide(features=features, classes=20)
    found = Jacobian(most_outputs=10, sketch=8).measure(network, data)
    drawn = torch.randn(20, 8, generator=seeded(0)).double()
    basis = torch.linalg.qr(drawn).Q * (20 / 8) ** 0.5
    expected = torch.linalg.svdvals(basis.T @ rows)
    assert np.allclose(found.arrays["singular_values"], expected, rtol=0, atol=1e-12)
    assert "8 random combinations of the 20 outputs" in found.notes["sketch"]
    assert found.cost.backward == 6 * min(features, 8)
    assert found.scalars["dead_outputs"].value is None


def test_every_output_on_request() -> None:
    network, data, rows = _wide(features=40, classes=20)
    found = Jacobian(most_outputs=10, sketch=8, exact=True).measure(network, data)
    expected = torch.linalg.svdvals(rows)
    assert np.allclose(found.arrays["singular_values"], expected, rtol=0, atol=1e-12)


def test_the_rms_of_combinations_is_that_of_all_outputs_within_its_error() -> None:
    misses, errors, spreads = 0, [], []
    for seed in range(40):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Flatten(), nn.Linear(72, 40), nn.Tanh(), nn.Linear(40, 50)
            ).double()
        inputs = torch.randn(12, 2, 6, 6, generator=seeded(seed), dtype=torch.float64)
        data = ProbeData("drawn", inputs, torch.arange(12))
        part = Jacobian(most_outputs=10, sketch=8).measure(network, data).scalars["rms_jsv"]
        whole = Jacobian(exact=True).measure(network, data).scalars["rms_jsv"]
        assert part.value is not None
        assert part.stderr is not None
        assert whole.value is not None
        # The samples are the same, so that only the combinations' share of the error counts.
        misses += abs(part.value - whole.value) > 2 * part.stderr
        errors.append(part.stderr)
        spreads.append(part.value - whole.value)
    assert misses <= 6
    assert 0.4 < float(np.std(spreads)) / float(np.mean(errors)) < 1.6


class Heavy(nn.Module):
    """More weights than activations; the kind says what vectorising its backward pass meets."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Linear(8, 60), nn.Linear(60, 7)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        if self.kind == "own function":
            hidden = _Tripled.apply(hidden)
        return torch.tanh(self.second(hidden))


class _Tripled(torch.autograd.Function):
    """Three times its input, with a backward pass that looks at a value, as vmap cannot."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return 3 * x

    @staticmethod
    def backward(ctx, slope):  # type: ignore[no-untyped-def]
        return 3 * slope if float(slope.sum()) != 1e300 else slope


@pytest.mark.parametrize("kind", ["plain", "own function"])
def test_rows_made_together_are_those_made_one_by_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = Heavy(kind).double().eval()
    inputs = torch.randn(3, 8, generator=seeded(0), dtype=torch.float64)
    data = ProbeData("drawn", inputs, torch.arange(3))
    expected = torch.stack([torch.autograd.functional.jacobian(network, x) for x in inputs])
    calls: list[int] = []
    several = Jacobians._several

    def watched(self: Jacobians, graph, start: int, stop: int):  # type: ignore[no-untyped-def]
        found = several(self, graph, start, stop)
        calls.append(0 if found is None else stop - start)
        return found

    monkeypatch.setattr(Jacobians, "_several", watched)
    found = Jacobian().measure(network, data)
    assert calls == ([7] if kind == "plain" else [0])
    assert found.cost.backward == 3 * 7
    values = torch.linalg.svdvals(expected)
    assert np.allclose(found.arrays["singular_values"], values, rtol=0, atol=1e-12)
