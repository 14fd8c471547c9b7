"""The hook: what it reads, and that training does not notice."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.networks.masks import masks_of, set_masks
from trainscope.probes.gradient import Gradient
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.hooks.step_norms import BULK
from trainscope.probes.when import at_epochs, at_steps, every
from trainscope.records import Measurement, Status
from trainscope.records.epoch import AFTER_ACTION, BEFORE_ACTION, BEFORE_CLIPPING
from trainscope.sparsify.masks import hold_masks

LR = 0.1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def batches(count=6, size=8):
    g = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 1, 6, 6, generator=g), torch.randint(3, (size,), generator=g))
        for _ in range(count)
    ]


def pinned() -> ProbeData:
    (x, y), *_ = batches()
    return ProbeData("random:1x6x6", x, y)


def fit(model, optimizer, data=None, *, after_backward=None):
    """Train; return the gradients' norms by hand, in float64."""
    found = []
    model.train()
    for x, y in data or batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if after_backward:
            after_backward()
        grads = [p.grad.double() for p in model.parameters() if p.grad is not None]
        found.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
        optimizer.step()
    return found


def norms(hook, moment="after clipping"):
    taken = [t for t in hook.taken if t.measurement.probe == "step_gradient"]
    return [t.measurement.value("norm") for t in taken if t.moment == moment]


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_norms_are_those_computed_by_hand_with_any_optimizer(optimizer):
    model = network()
    made = OPTIMIZERS[optimizer](model.parameters())
    hook = ProbeHook(per_layer=True).attach(model, made)
    assert norms(hook) == []
    expected = fit(model, made)
    assert norms(hook) == pytest.approx(expected, rel=1e-6)
    first = hook.taken[0].measurement
    assert first.arrays["layers"] == [name for name, _ in model.named_parameters()]
    assert math.hypot(*first.arrays["layer_norms"]) == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_trajectory_is_bit_identical_with_norms_and_probes_at_every_step(optimizer):
    """Dropout draws random numbers and batch norm keeps statistics, so a trace would show."""
    ends = []
    for probes in ((), (Gradient(),)):
        model = network()
        made = OPTIMIZERS[optimizer](model.parameters())
        torch.manual_seed(7)
        hook = ProbeHook(probes, when=every(1), data=pinned(), norms=every(1) if probes else None)
        with hook.attach(model, made):
            fit(model, made)
        ends.append((model.state_dict(), made.state_dict()["state"], torch.rand(1)))
        probed = [t for t in hook.taken if t.measurement.probe == "gradient"]
        assert len(probed) == (7 if probes else 0)
    (left, left_state, left_draw), (right, right_state, right_draw) = ends
    assert all(torch.equal(left[name], right[name]) for name in left)
    for key, state in left_state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, right_state[key][name])
    assert torch.equal(left_draw, right_draw)


def test_masked_weights_are_left_out_of_the_norm():
    model = network()
    masks = {"0.weight": torch.rand(4, 1, 3, 3) < 0.3, "5.weight": torch.rand(3, 64) < 0.5}
    set_masks(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    hold_masks(model, optimizer)
    hook = ProbeHook().attach(model, optimizer)
    x, y = batches(1)[0]
    F.cross_entropy(model(x), y).backward()
    kept = [p.grad * masks[n] if n in masks else p.grad for n, p in model.named_parameters()]
    whole = float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    optimizer.step()
    expected = float(torch.cat([g.flatten() for g in kept]).norm())
    assert norms(hook) == pytest.approx([expected], rel=1e-6)
    assert expected < 0.95 * whole
    assert all(
        (p[~masks_of(model)[n]] == 0).all() for n, p in model.named_parameters() if n in masks
    )


def test_a_step_waits_for_no_device(monkeypatch):
    """Nothing turns a tensor into a number until the norms are asked for."""

    class Still(torch.optim.SGD):
        def step(self, closure=None):
            """Do nothing, so that what is left is the hook's."""

    model = network()
    optimizer = Still(model.parameters(), lr=LR)
    hook = ProbeHook().attach(model, optimizer)
    x, y = batches(1)[0]
    F.cross_entropy(model(x), y).backward()

    def wait(*_):
        raise AssertionError("a step waited for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__"):
            patch.setattr(torch.Tensor, name, wait)
        optimizer.step()
    assert len(norms(hook)) == 1


def test_norms_are_read_in_bulk_and_none_is_lost():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    seen = []
    hook = ProbeHook(sink=seen.append).attach(nn.ParameterList([weight]), optimizer)
    for step in range(BULK + 3):
        weight.grad = torch.full((2,), float(step))
        optimizer.step()
    assert len(seen) == BULK
    hook.detach()
    assert [t.step for t in seen] == list(range(1, BULK + 4))
    values = [t.measurement.value("norm") for t in seen]
    assert values == pytest.approx([step * 2**0.5 for step in range(BULK + 3)])
    optimizer.step()
    assert len(seen) == BULK + 3  # detached


def test_clipping_has_a_before_and_an_after():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    hook = ProbeHook().attach(model, optimizer)
    before = []

    def clip():
        hook.observe(BEFORE_CLIPPING)
        before.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.05)))

    after = fit(model, optimizer, after_backward=clip)
    assert norms(hook, BEFORE_CLIPPING) == pytest.approx(before, rel=1e-5)
    assert norms(hook) == pytest.approx(after, rel=1e-5)
    assert max(after) < 0.0501 < min(before)


def test_gradient_accumulation_counts_the_optimizers_steps():
    model, data = network(), batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    hook = ProbeHook().attach(model, optimizer, steps_per_epoch=2)
    expected = []
    for index, (x, y) in enumerate(data):
        (F.cross_entropy(model(x), y) / 2).backward()
        if index % 2:
            expected.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))
            optimizer.step()
            optimizer.zero_grad()
    assert norms(hook) == pytest.approx(expected, rel=1e-6)
    assert [t.step for t in hook.taken] == [1, 2, 3, 4]
    assert [t.epoch for t in hook.taken] == [0.5, 1.0, 1.5, 2.0]


def test_grad_scaler_unscales_before_the_norm_and_its_skipped_steps_count_for_nothing():
    model, data = network(), batches(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    hook = ProbeHook().attach(model, optimizer)
    expected = []
    for index, (x, y) in enumerate(data):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if index == 1:
            model[5].weight.grad[0, 0] = math.inf
        else:
            grads = torch.cat([p.grad.flatten() for p in model.parameters()])
            expected.append(float(grads.norm()) / scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
    assert norms(hook) == pytest.approx(expected, rel=1e-5)
    assert hook.steps == 3


def test_the_scale_of_a_fused_optimizer_is_divided_out():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    hook = ProbeHook().attach(model, optimizer)
    x, y = batches(1)[0]
    scaler.scale(F.cross_entropy(model(x), y)).backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    expected = float(grads.norm()) / 2.0**10
    scaler.step(optimizer)
    assert norms(hook) == pytest.approx([expected], rel=1e-5)


def test_groups_frozen_and_unused_parameters():
    model = network()
    model.spare = nn.Linear(2, 2)
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(
        [
            {"params": [model[0].weight, model[0].bias, *model[1].parameters()], "lr": 0.01},
            {"params": [*model[5].parameters(), *model.spare.parameters()]},
        ],
        lr=LR,
    )
    hook = ProbeHook(per_layer=True).attach(model, optimizer)
    model.forward = lambda x: nn.Sequential.forward(nn.Sequential(*list(model.children())[:6]), x)
    expected = fit(model, optimizer)
    assert norms(hook) == pytest.approx(expected, rel=1e-6)
    names = hook.taken[0].measurement.arrays["layers"]
    assert names == ["0.bias", "1.weight", "1.bias", "5.weight", "5.bias"]


def test_a_closure_is_read_when_it_has_run():
    model, (x, y) = network(), batches(1)[0]
    model.eval()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    hook, seen = ProbeHook().attach(model, optimizer), []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        seen.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))
        return loss

    assert isinstance(optimizer.step(closure), torch.Tensor)
    optimizer.step(closure=closure)
    assert norms(hook) == pytest.approx([seen[0], seen[len(seen) // 2]], rel=1e-6)


def test_compiled_and_parallel_wrappers_are_looked_through():
    model = network()
    compiled = torch.compile(model, backend="eager")
    wrapped = nn.DataParallel(model)
    for outside in (compiled, wrapped):
        optimizer = torch.optim.SGD(outside.parameters(), lr=LR)
        hook = ProbeHook([Gradient()], when=at_steps(1), data=pinned(), per_layer=True)
        hook.attach(outside, optimizer)
        expected = fit(outside, optimizer, batches(2))
        assert norms(hook) == pytest.approx(expected, rel=1e-6)
        assert hook.taken[0].measurement.arrays["layers"][0] == "0.weight"
        assert [t.measurement.status for t in hook.taken if t.moment == "after step"] == ["ok"]
        hook.detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    hook = ProbeHook().attach(model, optimizer)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    assert fit(model, optimizer, batches(2)) == pytest.approx(norms(hook), rel=1e-6)


def test_ddp_in_one_process(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("torch has no distributed package here")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        hook = ProbeHook([Gradient()], when=every(2), data=pinned()).attach(model, optimizer)
        expected = fit(model, optimizer)
        assert norms(hook) == pytest.approx(expected, rel=1e-6)
        assert [t.step for t in hook.taken if t.moment == "after step"] == [0, 2, 4, 6]
    finally:
        torch.distributed.destroy_process_group()


def test_probes_run_only_when_due_and_see_the_weights_after_the_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    calls = []

    class Spy:
        name, needs = "spy", frozenset()

        def measure(self, subject, data):
            calls.append(subject[5].weight.detach().clone())
            return Measurement("spy", Status.OK)

        def estimate(self, subject, data):
            raise NotImplementedError

    hook = ProbeHook([Spy()], when=at_epochs(0, 1, 2), data=pinned(), norms=None)
    start = model[5].weight.detach().clone()
    hook.attach(model, optimizer, steps_per_epoch=3)
    fit(model, optimizer)
    assert [t.step for t in hook.taken] == [0, 3, 6]
    assert torch.equal(calls[0], start)
    assert torch.equal(calls[2], model[5].weight)
    assert not torch.equal(calls[1], calls[2])


def test_before_and_after_a_persons_own_action():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    hook = ProbeHook([Gradient()], data=pinned(), norms=None).attach(model, optimizer)
    fit(model, optimizer, batches(2))
    hook.before_action()
    smaller = copy.deepcopy(model)
    with torch.no_grad():
        smaller[5].weight[:, 32:] = 0
    measured = hook.after_action(smaller)
    assert [(t.moment, t.step) for t in hook.taken] == [(BEFORE_ACTION, 2), (AFTER_ACTION, 2)]
    assert measured[0] == hook.taken[1].measurement
    assert hook.taken[0].measurement.value("loss") != hook.taken[1].measurement.value("loss")
    fresh = torch.optim.SGD(smaller.parameters(), lr=LR)
    hook.attach(smaller, fresh)
    fit(smaller, fresh, batches(2))
    assert hook.steps == 4


def test_a_gradient_that_is_not_finite_is_a_reason_not_a_number():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    hook = ProbeHook(per_layer=True).attach(nn.ParameterList([weight]), optimizer)
    weight.grad = torch.tensor([math.nan, 1.0])
    optimizer.step()
    found = hook.taken[0].measurement
    assert found.status is Status.NONFINITE
    assert found.value("norm") is None
    assert found.arrays["layer_norms"] == [None]


def test_a_person_is_told_what_is_missing():
    with pytest.raises(ProbeError, match="give it data"):
        ProbeHook([Gradient()])
    with pytest.raises(ProbeError, match="no probe is named 'curvatur'"):
        ProbeHook(["curvatur"], data=pinned())
    with pytest.raises(ProbeError, match="attach"):
        ProbeHook([Gradient()], data=pinned()).before_action()
    with pytest.raises(ProbeError, match="int is no sink"):
        ProbeHook(sink=3)
