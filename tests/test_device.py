"""The probes and the hook on the device that TRAINSCOPE_TEST_DEVICE names, beside float64 on a CPU.

Without it this is the CPU, where the same is checked in float32. `benchmarks/gpu.sh` sets it.
"""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.jacobian import Jacobian
from trainscope.records import Measurement
from trainscope.sparsify import set_masks

DEVICE = torch.device(os.environ.get("TRAINSCOPE_TEST_DEVICE", "cpu"))
pytestmark = pytest.mark.usefixtures("one_thread")


def convolutional(masked: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 4),
        ).eval()
    if masked:
        keep = torch.rand(6, 3, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.5
        with torch.no_grad():
            network[0].weight.mul_(keep)
        set_masks(network, {"0.weight": keep})
    return network


class Attending(nn.Module):
    """Attention and GELU, for which there are no layer rules and no exact trace."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(2).transpose(1, 2)[:, :24].reshape(len(x), 9, 8)
        mixed = self.attend(rows, rows, rows, need_weights=False)[0]
        out: torch.Tensor = self.head(nn.functional.gelu(self.norm(rows + mixed)).mean(1))
        return out


def built(name: str) -> nn.Module:
    if name == "attention":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Attending().eval()
    return convolutional(name == "masked")


def samples(device: torch.device, dtype: torch.dtype) -> ProbeData:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(20, 3, 5, 5, generator=generator).to(device, dtype)
    labels = torch.randint(0, 4, (20,), generator=generator).to(device)
    return ProbeData("r", inputs, labels)


def both(probe: Gradient | Jacobian | Curvature, name: str) -> tuple[Measurement, Measurement]:
    """Return what is measured on the device in float32, and on a CPU in float64."""
    network = built(name)
    exact = probe.measure(
        copy.deepcopy(network).double(), samples(torch.device("cpu"), torch.double)
    )
    there = network.to(DEVICE)
    return probe.measure(there, samples(DEVICE, torch.float32)), exact


@pytest.mark.parametrize("name", ["dense", "masked", "attention"])
def test_gradients(name: str) -> None:
    found, exact = both(Gradient(), name)
    for scalar in ("norm", "loss", "snr"):
        assert found.value(scalar) == pytest.approx(exact.value(scalar), rel=1e-4)
    assert found.arrays["sample_norms"] == pytest.approx(exact.arrays["sample_norms"], rel=1e-4)


@pytest.mark.parametrize("name", ["dense", "masked", "attention"])
def test_singular_values(name: str) -> None:
    found, exact = both(Jacobian(), name)
    values, right = (np.array(each.arrays["singular_values"]) for each in (found, exact))
    assert np.abs(values - right).max() <= 1e-5 * right.max()


@pytest.mark.parametrize("name", ["dense", "masked", "attention"])
def test_curvature(name: str) -> None:
    found, exact = both(Curvature(top=1, density_vectors=1, density_steps=4), name)
    assert found.value("top_eigenvalue") == pytest.approx(exact.value("top_eigenvalue"), rel=2e-3)
    errors = [each.scalars["trace"].stderr or 0.0 for each in (found, exact)]
    gap = abs(found.value("trace") - exact.value("trace"))
    assert gap <= 5 * sum(errors) + 1e-4 * abs(exact.value("trace"))


def test_a_hook_reads_the_norms_of_the_steps() -> None:
    network = built("masked").to(DEVICE).train()
    data = samples(DEVICE, torch.float32)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    hook = ProbeHook().attach(network, optimizer)
    expected = []
    keep = network[0].weight.detach() != 0
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(data.inputs), data.labels).backward()
        grads = [p.grad for p in network.parameters()]
        grads[0] = grads[0] * keep
        expected.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        optimizer.step()
    norms = [taken.measurement.value("norm") for taken in hook.taken]
    hook.detach()
    assert norms == pytest.approx(expected, rel=1e-5)
