"""What examine refuses and what its options may not change, as a user of Python meets them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from trainscope.data import ProbeData, RandomInputs
from trainscope.diagnosis import examine, inputs
from trainscope.diagnosis.inputs import equal_batches
from trainscope.errors import ProbeError
from trainscope.networks import Network, Remembered, build, flops
from trainscope.probes.curvature import Curvature
from trainscope.task import Detection

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module = build("digits_resnet", 10).eval()
    return Network(module, "digits_resnet", (1, 8, 8), 10, remembered=Remembered("digits"))


def jacobian(network: Network, **options) -> float:
    found = examine(network, ratio=0.5, probes=["jacobian"], samples=8, **options)
    return found.diagnosis.probes["jacobian"].recalibrated.value("mean_jsv")


def test_the_batch_size_of_probes_does_not_change_recalibration(network):
    values = [jacobian(network, batch_size=size) for size in (1, 3, 128)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_recalibration_batches_are_equal():
    base = Network(torch.nn.Identity(), "identity", (1,), 1)
    for samples, sizes in ((150, [64, 64]), (20, [20])):
        parts = equal_batches(base, ProbeData("zeros", torch.zeros(samples, 1)))
        assert [part.size for part in parts] == sizes


def test_recalibration_batches_hold_so_many_bytes_at_most(monkeypatch):
    monkeypatch.setattr(inputs, "RECALIBRATION_BYTES", 3000)
    base = Network(torch.nn.Identity(), "identity", (1,), 1)
    parts = equal_batches(base, ProbeData("zeros", torch.zeros(10, 250)))  # 1000 bytes each
    assert [part.size for part in parts] == [3, 3, 3]
    images = tuple(torch.zeros(1, side, 25) for side in (10, 5, 5, 5, 5))
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}
    listed = ProbeData("", batch=(images, (target,) * 5), task=Detection())
    assert len(equal_batches(base, listed)) == 1  # the largest has 1000
    monkeypatch.setattr(inputs, "RECALIBRATION_BYTES", 10)
    assert len(equal_batches(base, listed)) == 2


def test_what_moves_many_numbers_is_recalibrated_on_fewer_samples(monkeypatch):
    """Depthwise layers have few multiply-adds, and take long all the same."""
    monkeypatch.setattr(inputs, "RECALIBRATION_WORK", 40e9)
    layers = torch.nn.Conv2d(3, 64, 1), torch.nn.BatchNorm2d(64), torch.nn.ReLU()
    layers += torch.nn.Conv2d(64, 64, 3, padding=1, groups=64), torch.nn.Flatten()
    module = torch.nn.Sequential(*layers).eval()
    base = Network(module, "own", (3, 64, 64), 64**3)
    multiply_adds = 64**3 * (3 + 9)
    assert flops(module, base.inputs) == multiply_adds
    source = RandomInputs((3, 64, 64))
    _, extra = inputs.pin_inputs(source, base, 2, 2, 0, multiply_adds)
    # Kept are the input and what the first convolution and the ReLU return, in float32.
    work = multiply_adds + inputs.WORK_OF_A_BYTE * 4 * (3 * 64**2 + 2 * 64**3)
    assert sum(each.size for each in extra) == int(40e9 // work) // 64 * 64
    assert int(40e9 // work) < 40e9 / multiply_adds / 10


def test_a_frozen_network_keeps_the_rest_of_its_diagnosis(network):
    frozen = replace(network, module=copy.deepcopy(network.module).requires_grad_(False))
    found = examine(frozen, ratio=0.5, probes=["trainability_accuracy", "jacobian"], samples=4)
    probes = found.diagnosis.probes
    assert "frozen" in probes["trainability_accuracy"].before.reason
    assert probes["jacobian"].before.value("mean_jsv") > 0


def test_a_float64_network_is_recalibrated(network):
    double = replace(network, module=copy.deepcopy(network.module).double())
    assert jacobian(double) == pytest.approx(jacobian(network), rel=1e-4)


def test_gaussian_inputs_leave_recalibration_out_of_the_verdict(network):
    options = {"ratio": 0.9, "probes": ["jacobian"], "samples": 8}
    found = examine(network, data="random:1x8x8", **options).diagnosis
    assert found.probes["jacobian"].recalibrated is not None
    assert not any("recalibrated" in line for line in found.verdict)
    assert any("leaves that column aside" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size of 0"),
        ({"samples": 16.5}, "samples is a whole number, not 16.5"),
        ({"probes": [3]}, "int is no probe: it lacks name, needs, measure or estimate"),
        ({"probes": [Curvature]}, r"Curvature is a class: give one of it, as Curvature\(\)"),
        ({"samples": 0}, "0 samples are too few"),
        ({"samples": -1}, "-1 samples are too few"),
        ({"seed": -1}, "the seed -1"),
        ({"seed": 2**63}, "the seed"),
        ({"probes": [Curvature(), Curvature(ggn=True)]}, "'curvature' is asked for twice"),
    ],
)
def test_options_are_checked_before_any_work(network, options, message):
    with pytest.raises(ProbeError, match=message):
        examine(network, ratio=0.5, **options)


def test_retraining_does_not_mind_a_caller_without_gradients(network):
    from trainscope.probes.trainability_accuracy import TrainabilityAccuracy

    with torch.no_grad():
        found = examine(
            network, ratio=0.5, probes=[TrainabilityAccuracy(epochs=1)], samples=4
        ).diagnosis
    assert found.probes["trainability_accuracy"].before.value("ta") is not None
