"""What the numerical probes say where a number cannot be had, and what they refuse."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from cases import BUILDERS, Plain, case
from torch import Tensor, nn

from trainscope.data import ProbeData, TensorSplit
from trainscope.errors import ProbeError
from trainscope.probes.activity import Activity
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.probe import Probe, available, find
from trainscope.probes.tangent_kernel import TangentKernel
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.sparsify import has_batch_norm

pytestmark = pytest.mark.usefixtures("one_thread")

PROBES: list[Probe] = [Gradient(), Jacobian(), Curvature(), TangentKernel(), Activity()]
LABELLED: list[Probe] = [Gradient(), Curvature()]


def test_the_entry_points_find_the_probes() -> None:
    assert {"gradient", "jacobian", "curvature", "ntk", "activity"} <= set(available())
    assert find("jacobian") is Jacobian
    assert all(isinstance(probe, Probe) for probe in PROBES)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
@pytest.mark.parametrize("name", BUILDERS)
def test_json_holds_no_nan(probe: Probe, name: str) -> None:
    one = case(name, samples=5)
    if isinstance(probe, Curvature):
        probe = replace(probe, tolerance=0.1, density_steps=4, trace_vectors=4)
    found = probe.measure(one.network, one.data)
    json.dumps(found.to_json(), allow_nan=False)
    assert type(found).from_json(probe.name, found.to_json()) == found
    assert ("running statistics" in found.notes["mode"]) == has_batch_norm(one.network)
    assert "true" in found.notes["labels"]


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_weight_is_named(probe: Probe, bad: float) -> None:
    one = case("plain")
    with torch.no_grad():
        one.network.conv2.weight[0, 0, 0, 0] = bad
    found = probe.measure(one.network, one.data)
    assert found.status == "non-finite values"
    assert "conv2.weight" in found.reason
    assert not found.scalars


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_bad_statistics_inputs_and_logits(probe: Probe) -> None:
    one = case("plain")
    one.network.bn1.running_var[0] = math.nan
    assert "bn1.running_var" in probe.measure(one.network, one.data).reason
    one = case("plain")
    inputs = one.data.inputs.clone()
    inputs[3] = math.inf
    assert "inputs" in probe.measure(one.network, replace(one.data, inputs=inputs)).reason
    one = case("wide")
    with torch.no_grad():
        for layer in (one.network.layers[0], one.network.layers[2]):
            layer.weight.fill_(1e200)
    found = probe.measure(one.network, one.data)
    assert found.status == "non-finite values"
    assert "logits" in found.reason


@pytest.mark.parametrize("probe", LABELLED, ids=lambda p: p.name)
def test_nothing_to_measure_is_skipped(probe: Probe) -> None:
    one = case("plain")
    found = probe.measure(one.network, replace(one.data, labels=None))
    assert (found.status, "labels" in found.reason) == ("skipped", True)
    one.network.requires_grad_(False)
    found = probe.measure(one.network, one.data)
    assert (found.status, "trainable" in found.reason) == ("skipped", True)
    one = case("masked")
    for name, parameter in one.network.named_parameters():
        if not name.endswith("weight") or name == "bn2.weight":
            parameter.requires_grad_(False)
    for name, buffer in one.network.named_buffers():
        if name.endswith("_mask"):
            buffer.fill_(False)
    found = probe.measure(one.network, one.data)
    assert (found.status, "unmasked" in found.reason) == ("skipped", True)


def test_what_is_left_out_is_named() -> None:
    for probe in LABELLED:
        found = probe.measure(case("frozen").network, case("frozen").data)
        assert found.notes["frozen"].endswith("stem.weight, stem.bias, bn1.weight, bn1.bias")
        found = probe.measure(case("unused").network, case("unused").data)
        assert found.notes["unused"].endswith("spare.weight, spare.bias")
        found = probe.measure(case("masked").network, case("masked").data)
        assert "99 survive" in found.notes["masked"]


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_refusals(probe: Probe) -> None:
    one = case("plain")
    empty = replace(one.data, inputs=one.data.inputs[:0], labels=one.data.labels[:0])
    with pytest.raises(ProbeError, match="no samples"):
        probe.measure(one.network, empty)
    with pytest.raises(ProbeError, match="label 5 but the network only 3 outputs"):
        probe.measure(one.network, replace(one.data, labels=torch.full_like(one.data.labels, 5)))

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.raises(ProbeError, match="not logits of shape"):
        probe.measure(Maps(), one.data)


def test_one_sample_has_no_noise() -> None:
    found = Gradient().measure(case("plain").network, case("plain", samples=1).data)
    assert found.status == "ok"
    assert found.value("norm") > 0
    assert found.scalars["norm"].stderr is None
    assert found.value("snr") is None
    assert "one sample" in found.scalars["snr"].reason
    assert Jacobian().measure(case("plain").network, case("plain", samples=1).data).status == "ok"
    assert Curvature().measure(case("plain").network, case("plain", samples=1).data).status == "ok"


def test_equal_samples_have_no_noise() -> None:
    one = case("plain")
    data = replace(
        one.data, inputs=torch.zeros_like(one.data.inputs), labels=torch.zeros_like(one.data.labels)
    )
    found = Gradient().measure(one.network, data)
    snr = found.scalars["snr"]
    assert snr.value is None or snr.value > 1e12


@pytest.mark.parametrize("dead", [[1], [0, 1, 2]])
def test_dead_outputs_are_counted(dead: list[int]) -> None:
    one = case("plain")
    with torch.no_grad():
        one.network.fc.weight[dead] = 0
    found, count = Jacobian().measure(one.network, one.data), len(one.data.inputs)
    assert found.status == "ok"
    assert found.value("dead_outputs") == len(dead)
    assert found.arrays["dead_outputs_per_sample"] == [len(dead)] * count
    assert found.value("condition_number") is None
    assert "dead" in found.scalars["condition_number"].reason
    assert found.arrays["condition_numbers"] == [None] * count
    assert found.value("singular_samples") == count
    assert found.value("min_jsv") == 0
    assert found.value("share_below_1e-3") == pytest.approx(len(dead) / 3)
    if len(dead) == 3:
        assert found.value("mean_jsv") == found.value("max_jsv") == 0
        assert found.value("std_over_mean") is None


def test_logits_that_ignore_the_input() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias.expand(len(x), 3)

    found = Jacobian().measure(Constant(), case("plain").data)
    assert found.value("dead_outputs") == 3
    assert Gradient().measure(Constant(), case("plain").data).status == "ok"
    assert Curvature().measure(Constant(), case("plain").data).status == "ok"


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_chunks_change_nothing(batch_size: int) -> None:
    one = case("residual")
    whole = Jacobian().measure(one.network, one.data)
    parts = Jacobian(memory=1).measure(one.network, replace(one.data, batch_size=batch_size))
    assert parts.value("mean_jsv") == pytest.approx(whole.value("mean_jsv"), rel=1e-12)
    first = Gradient().measure(one.network, one.data)
    second = Gradient().measure(one.network, replace(one.data, batch_size=batch_size))
    for name in ("norm", "snr", "loss"):
        assert second.value(name) == pytest.approx(first.value(name), rel=1e-10)


def test_fewer_samples_for_the_jacobian() -> None:
    one = case("plain")
    found = Jacobian(samples=4).measure(one.network, one.data)
    assert len(found.arrays["singular_values"]) == 4
    assert found.cost.backward == 12 == Jacobian(samples=4).estimate(one.network, one.data).backward
    with pytest.raises(ProbeError, match="samples is 0"):
        Jacobian(samples=0)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_estimate_does_not_run_the_network(probe: Probe) -> None:
    class Guarded(Plain):
        def forward(self, x: Tensor) -> Tensor:
            assert x.device.type == "meta"
            return super().forward(x)

    cost = probe.estimate(Guarded(), case("plain").data)
    assert cost.forward > 0
    assert cost.backward > 0 or probe.name == "activity"
    assert cost.memory > 0


def test_under_no_grad() -> None:
    one = case("plain")
    with torch.no_grad():
        for probe in PROBES:
            assert probe.measure(one.network, one.data).status == "ok"


def test_predicted_labels_are_said() -> None:
    one = case("plain")
    data: ProbeData = replace(one.data, label_source="predicted")
    assert "softmax" in Gradient().measure(one.network, data).notes["labels"]


@pytest.mark.parametrize("probe", [*PROBES, TrainabilityAccuracy()], ids=lambda p: p.name)
def test_inference_mode_is_the_reason_given(probe: Probe) -> None:
    """Autograd is off for good there: the gradient would be none, and the Jacobian zero."""
    one = case("plain")
    assert one.data.labels is not None
    half = TensorSplit(one.data.inputs, one.data.labels, (0.0, 0.0), (1.0, 1.0))
    data = replace(one.data, train=half, test=half)
    with torch.inference_mode(), pytest.raises(ProbeError, match=r"under torch\.inference_mode"):
        probe.measure(one.network, data)
    with torch.inference_mode():
        made = Plain()
    with pytest.raises(ProbeError, match=r"'conv1.weight' was made under torch\.inference_mode"):
        probe.measure(made, data)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_data_made_in_inference_mode_gives_the_same_numbers(probe: Probe) -> None:
    one = case("plain")
    labels = one.data.labels
    assert labels is not None
    with torch.inference_mode():
        data = replace(one.data, inputs=one.data.inputs.clone(), labels=labels.clone())
    expected = probe.measure(one.network, one.data)
    with torch.no_grad():
        assert probe.measure(one.network, data).scalars == expected.scalars
