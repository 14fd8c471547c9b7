"""What fails in a hook, or changes under it, is a reason in words; the training is what it was."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.networks.masks import set_masks
from trainscope.probes.gradient import Gradient
from trainscope.probes.hooks import ProbeHook, careful
from trainscope.probes.probe import Need
from trainscope.probes.processes.ranks import alone
from trainscope.probes.sinks import Memory
from trainscope.probes.when import every
from trainscope.records import Measurement, Status

LR = 0.1


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


def pinned():
    return ProbeData("random:4", *batch())


def step(model, optimizer):
    x, y = batch()
    optimizer.zero_grad()
    F.cross_entropy(model(x.to(model[0].weight.dtype)), y).backward()
    norm = math.sqrt(
        sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    )
    optimizer.step()
    return norm


def attached(model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return ProbeHook(**options).attach(model, optimizer), optimizer


def norms(hook):
    found = [t.measurement for t in hook.taken if t.measurement.probe == "step_gradient"]
    return [each.value("norm") for each in found]


class Broken:
    """A third party's probe that disturbs the network, and then fails."""

    name, needs = "broken", frozenset()

    def __init__(self, error):
        self.error = error

    def measure(self, subject, data):
        with torch.no_grad():
            for p in subject.parameters():
                p.zero_()
        torch.rand(3)
        if isinstance(self.error, BaseException):
            raise self.error
        return self.error

    def estimate(self, subject, data):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no second derivative\nsecond line"), "RuntimeError: no second derivative"),
        (ProbeError("the network has no output"), "the network has no output"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (ZeroDivisionError(), "ZeroDivisionError: no reason given"),
        (None, "it returned a NoneType"),
    ],
)
def test_a_probe_that_raises_is_a_reason_and_the_training_goes_on(error, reason, caplog):
    caplog.set_level(logging.DEBUG)
    ends = []
    for probes in ((), (Broken(error), Gradient())):
        model = network()
        hook, optimizer = attached(model, probes=probes, when=every(1), data=pinned())
        torch.manual_seed(3)
        for _ in range(3):
            step(model, optimizer)
        ends.append(torch.cat([p.flatten() for p in model.parameters()] + [torch.rand(1)]))
    assert torch.equal(*ends)
    found = [t.measurement for t in hook.taken if t.measurement.probe == "broken"]
    assert [(each.status, each.reason) for each in found] == [(Status.SKIPPED, reason)] * 4
    rest = [t.measurement for t in hook.taken if t.measurement.probe == "gradient"]
    assert [each.status for each in rest] == ["ok"] * 4
    said = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == (error is not None)
    if error is not None:
        assert said[0].getMessage().endswith(reason)
        (detail,) = [r for r in caplog.records if r.name == careful.__name__ and r.exc_info]
        assert (detail.levelno, detail.exc_info[1]) == (logging.DEBUG, error)


def test_before_and_after_an_action_a_probe_that_raises_is_a_reason_too():
    hook, _ = attached(network(), probes=[Broken(RuntimeError("x"))], data=pinned(), norms=None)
    assert [each.reason for each in hook.before_action()] == ["RuntimeError: x"]
    assert [each.reason for each in hook.after_action()] == ["RuntimeError: x"]


def test_ctrl_c_in_a_probe_passes():
    hook, _ = attached(network(), probes=[Broken(KeyboardInterrupt())], data=pinned())
    with pytest.raises(KeyboardInterrupt):
        hook.measure("now")


def test_a_schedule_that_raises_later_is_told_once_and_the_training_goes_on(caplog):
    def when(steps):
        return 1 / (3 - steps) > 0

    model = network()
    hook, optimizer = attached(model, probes=[Gradient()], data=pinned(), when=when, norms=when)
    for _ in range(4):
        step(model, optimizer)
    assert hook.steps == 4
    assert "ZeroDivisionError" in caplog.text
    reasons = [t.measurement.reason for t in hook.taken if t.step == 3 and t.moment != "after step"]
    assert reasons == ["ZeroDivisionError: division by zero"]


def test_networks_without_second_derivatives_when_compiled_are_measured_eagerly():
    model = network()
    model.compile(backend="aot_eager")
    model[0] = torch.compile(model[0], backend="aot_eager")
    hook, _ = attached(model, probes=["curvature"], data=pinned())
    (found,) = hook.measure("now")
    assert found.status == "ok", found.reason


# ---- gradients that are no numbers


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "the gradient is not finite: it holds NaN in 2.weight of 4 tensors"),
        (
            math.inf,
            "the gradient is not finite: it is infinite, or too large for a norm, in 2.weight of 4 "
            "tensors",
        ),
    ],
)
def test_a_diverged_gradient_is_a_reason_that_names_where(value, reason):
    model = network()
    hook, optimizer = attached(model, per_layer=True)
    x, y = batch()
    F.cross_entropy(model(x), y).backward()
    model[2].weight.grad[0, 0] = value
    optimizer.step()
    found = hook.taken[0].measurement
    assert (found.status, found.reason) == (Status.NONFINITE, reason)
    assert found.scalars["norm"].value is None
    assert found.scalars["norm"].reason == reason
    kept = dict(zip(found.arrays["layers"], found.arrays["layer_norms"], strict=True))
    assert kept.pop("2.weight") is None
    assert all(isinstance(each, float) for each in kept.values())


def test_a_network_that_has_diverged_wholly():
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    hook, optimizer = attached(model, probes=["gradient"], data=pinned(), when=every(1))
    step(model, optimizer)
    reason = next(t for t in hook.taken if t.moment == "after clipping").measurement.reason
    assert reason == "the gradient is not finite: it holds NaN in 0.weight and 3 more of 4 tensors"
    for found in (t.measurement for t in hook.taken if t.moment == "after step"):
        assert found.status != "ok"
        assert found.reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_narrow_gradients_are_as_wide_as_float32(dtype):
    """80,000 gradients of 1,000 have a norm of 282,843, beyond float16's 65,504."""
    weight = nn.Parameter(torch.zeros(80_000, dtype=dtype))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    hook = ProbeHook().attach(nn.ParameterList([weight]), optimizer)
    weight.grad = torch.full_like(weight, 1000.0)
    optimizer.step()
    assert norms(hook) == pytest.approx([1000 * math.sqrt(80_000)], rel=1e-5)


# ---- what changes while a hook is attached


def test_a_network_that_is_moved_to_another_dtype():
    model = network()
    hook, optimizer = attached(model)
    expected = [step(model, optimizer)]
    model.to(torch.bfloat16)
    expected.append(step(model, optimizer))
    model.to(torch.float64)
    expected.append(step(model, optimizer))
    assert norms(hook) == pytest.approx(expected, rel=1e-5)


def test_parameters_that_are_frozen_and_thawed():
    model = network()
    hook, optimizer = attached(model, per_layer=True)
    expected = []
    for needed in (True, False, True):
        model[0].requires_grad_(needed)
        expected.append(step(model, optimizer))
    assert norms(hook) == pytest.approx(expected, rel=1e-6)
    assert [len(t.measurement.arrays["layers"]) for t in hook.taken] == [4, 2, 4]


def test_a_parameter_that_is_replaced_is_read_by_its_name_and_mask():
    model = network()
    hook, optimizer = attached(model, per_layer=True)
    step(model, optimizer)
    model[0] = nn.Linear(4, 5)
    mask = torch.rand(5, 4) < 0.5
    set_masks(model, {"0.weight": mask})
    optimizer.param_groups[0]["params"] = list(model.parameters())
    x, y = batch()
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    model[0].weight.grad *= 1  # the hook leaves out what the mask does
    parts = {n: p.grad.double() for n, p in model.named_parameters()}
    parts["0.weight"] = parts["0.weight"] * mask
    optimizer.step()
    found = hook.taken[1].measurement
    assert found.arrays["layers"] == [n for n, _ in model.named_parameters()]
    expected = math.sqrt(sum(float(g.square().sum()) for g in parts.values()))
    assert found.value("norm") == pytest.approx(expected, rel=1e-6)


def test_a_group_of_parameters_that_are_not_the_networks():
    model, other = network(), nn.Linear(2, 2)
    hook, optimizer = attached(model, per_layer=True)
    optimizer.add_param_group({"params": other.parameters()})
    other(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert hook.taken[0].measurement.arrays["layers"] == ["?", "?"]


def test_masks_of_torch_made_while_attached_are_seen_after_the_action():
    model = network()
    hook, optimizer = attached(model)
    step(model, optimizer)
    prune.l1_unstructured(model[0], "weight", 0.5)
    hook.after_action()
    step(model, optimizer)
    grad = model[0].weight_orig.grad.double() * model[0].weight_mask
    rest = [p.grad.double() for p in model.parameters() if p is not model[0].weight_orig]
    expected = math.sqrt(sum(float(g.square().sum()) for g in (grad, *rest)))
    assert norms(hook)[1] == pytest.approx(expected, rel=1e-6)


def test_a_gradient_that_cannot_be_read_is_a_reason(monkeypatch, caplog):
    model = network()
    hook, optimizer = attached(model)
    step(model, optimizer)

    def broken(*_):
        raise RuntimeError("no kernel for this gradient")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "_foreach_norm", broken)
        step(model, optimizer)
        step(model, optimizer)
    step(model, optimizer)
    hook.flush()
    found = {t.step: t.measurement for t in hook.taken}
    assert found[2].reason == found[3].reason == "RuntimeError: no kernel for this gradient"
    assert [found[at].status for at in (1, 2, 3, 4)] == ["ok", "skipped", "skipped", "ok"]
    assert len(caplog.records) == 1


def test_a_device_that_cannot_be_read_at_the_end_hides_no_error_of_the_training(monkeypatch):
    model, memory = network(), Memory()
    hook, optimizer = attached(model, sink=memory)
    step(model, optimizer)

    def broken(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.Tensor, "tolist", broken)
    hook.detach()
    assert memory.taken == []


# ---- probes that train


def test_a_probe_that_trains_alone_is_skipped_where_it_would_wait_for_other_ranks(monkeypatch):
    class Trains(Broken):
        name, needs = "trains", frozenset({Need.TRAINING})

    model = network()
    data = ProbeData("random:4", *batch(), train=object(), test=object())
    hook, _ = attached(model, probes=[Trains(Measurement("trains"))], data=data)
    assert hook.measure("now")[0].status == "ok"
    model.append(nn.SyncBatchNorm(3))
    assert hook.measure("now")[0].status == "ok"  # one process waits for nobody
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    with alone():
        (found,) = hook.measure("now")
    assert found.reason == "SyncBatchNorm waits for the other ranks when the network trains"
