"""The one loop: against a loop by hand, resumed, masked, clipped, in mixed precision."""

from __future__ import annotations

import copy

import pytest
import torch
from small_training import few_digits
from torch import nn
from torch.nn import functional as F

from trainscope.data import TensorSplit
from trainscope.data.augment import PadCrop
from trainscope.errors import ActionError, ScheduleError
from trainscope.networks.masks import masks_of, set_masks
from trainscope.training.evaluation import evaluate
from trainscope.training.loop import Settings, Stepper, train
from trainscope.training.schedule import constant, parse_schedule

SCHEDULE = parse_schedule("0:1e-1,2:1e-2", 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten())
    return nn.Sequential(*parts, nn.Linear(216, 10))


def fit(model, settings=None, **options):
    data = few_digits()
    return train(model, data.train, data.test, SCHEDULE, settings or Settings(), **options)


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_does_what_a_loop_by_hand_does():
    settings = Settings(batch_size=40, weight_decay=1e-3, label_smoothing=0.1, clip=0.5, seed=4)
    model, data = network(), few_digits()
    by_hand = copy.deepcopy(model)
    records = fit(model, settings)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=9.0, momentum=0.9, weight_decay=1e-3)
    losses = []
    with torch.random.fork_rng(devices=[]):
        for epoch in range(4):
            optimizer.param_groups[0]["lr"] = [0.1, 0.1, 0.01, 0.01][epoch]
            torch.manual_seed(4 * 1_000_003 + epoch)
            order = torch.randperm(96, generator=torch.Generator().manual_seed(4_000_012 + epoch))
            by_hand.train()
            total = 0.0
            for start in (0, 40, 80):
                x, y = data.train.batch(order[start : start + 40])
                optimizer.zero_grad()
                loss = F.cross_entropy(by_hand(x), y, label_smoothing=0.1)
                loss.backward()
                nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
                optimizer.step()
                total += len(x) * loss.item()
            losses.append(total / 96)
    assert same(model, by_hand)
    assert [record.train_loss for record in records] == pytest.approx(losses, rel=1e-6)
    assert [record.lr for record in records] == [0.1, 0.1, 0.01, 0.01]
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    x, y = data.test.batch(torch.arange(60))
    logits = model.eval()(x)
    accuracy = 100 * float((logits.argmax(1) == y).double().mean())
    assert records[-1].test_accuracy == pytest.approx(accuracy)
    assert records[-1].test_loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_taken_up_at_any_epoch_it_ends_with_the_same_bits(optimizer):
    settings = Settings(optimizer=optimizer, seed=2)
    whole, part = network(), network()
    expected = fit(whole, settings)
    torch.manual_seed(99)  # what else the process drew does not matter
    stepper = Stepper(part, settings, 0.1)
    found = fit(part, settings, stepper=stepper, stop=2)
    state = copy.deepcopy((part.state_dict(), stepper.state_dict()))
    again = network()
    fit(again)
    fresh = Stepper(again, settings, 0.1)
    again.load_state_dict(state[0])
    fresh.load_state_dict(state[1])
    found += fit(again, settings, stepper=fresh, start=2)
    assert same(again, whole)
    assert [r.train_loss for r in found] == [r.train_loss for r in expected]
    assert [r.test_loss for r in found] == [r.test_loss for r in expected]


def test_random_states_are_left_alone_and_seeds_matter():
    before = torch.random.get_rng_state()
    first, second, other = network(), network(), network()
    torch.random.set_rng_state(before)
    fit(first)
    assert torch.equal(torch.random.get_rng_state(), before)
    fit(second)
    fit(other, Settings(seed=1))
    assert same(first, second)
    assert not same(first, other)


def test_masks_hold_at_every_step():
    model = network()
    masks = {"0.weight": torch.rand(6, 1, 3, 3) < 0.4, "5.weight": torch.rand(10, 216) < 0.2}
    set_masks(model, masks)
    revived = []

    def look(*_):
        revived.append(any(model.get_parameter(n)[~m].any() for n, m in masks.items()))

    fit(model, Settings(weight_decay=1e-2), on_step=look)
    assert len(revived) == 8
    assert not any(revived)
    assert masks_of(model).keys() == masks.keys()


def test_a_rest_of_one_sample_is_left_out_and_steps_are_counted_right():
    seen = []
    fit(network(), Settings(batch_size=95), on_step=lambda e, s, n: seen.append((e, s, n)))
    assert seen == [(epoch, 1, 1) for epoch in range(4)]
    seen.clear()
    fit(network(), Settings(batch_size=94), on_step=lambda e, s, n: seen.append((s, n)))
    assert seen == [(1, 2), (2, 2)] * 4


def test_augmentation_is_drawn_from_the_seed_and_can_be_left_out():
    data = few_digits()
    split = TensorSplit(data.train.inputs, data.train.labels, (0.3,), (0.4,), PadCrop(1))
    runs = []
    for augment in (True, True, False):
        model = network()
        train(model, split, data.test, constant(0.1, 1), Settings(augment=augment))
        runs.append(model)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_observers_are_told_and_let_go_when_training_fails():
    events = []

    class Spy:
        def attach(self, network, optimizer, *, step, steps_per_epoch):
            events.append(("attach", step, steps_per_epoch))

        def observe(self, moment):
            events.append(moment)

        def detach(self):
            events.append("detach")

    fit(network(), Settings(clip=1.0), observers=[Spy()], start=3)
    assert events == [("attach", 6, 2), "before clipping", "before clipping", "detach"]
    events.clear()

    def fail(*_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(network(), observers=[Spy()], on_step=fail)
    assert events[-1] == "detach"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes(precision):
    settings = Settings(precision=precision)
    model, whole = network(), network()
    stepper = Stepper(model, settings, 0.1)
    assert stepper.scaler.is_enabled() == (precision == "fp16")
    fit(model, settings, stepper=stepper, stop=2)
    state = copy.deepcopy(stepper.state_dict())
    fresh = Stepper(model, settings, 0.1)
    fresh.load_state_dict(state)
    records = fit(model, settings, stepper=fresh, start=2)
    expected = fit(whole, settings)
    assert same(model, whole)
    assert records[-1].train_loss == expected[-1].train_loss
    assert records[-1].test_accuracy > 50
    assert next(model.parameters()).dtype == torch.float32


def test_divergence_is_none_not_nan():
    records = fit(network(), Settings(momentum=0.0))
    model = network()
    with torch.no_grad():
        model[5].weight.mul_(float("inf"))
    records = fit(model)
    assert all(record.train_loss is None and record.test_loss is None for record in records)


def test_evaluation_puts_modes_back():
    model = network().train()
    model[1].eval()
    evaluate(model, few_digits().test)
    assert [m.training for m in model] == [True, False, True, True, True, True]


def test_nothing_to_train():
    with pytest.raises(ActionError, match="frozen"):
        Stepper(network().requires_grad_(False), Settings(), 0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch size is 1 or more, not 0"),
        ({"momentum": 1.0}, "momentum is in"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"label_smoothing": 1.5}, "label smoothing"),
        ({"clip": 0.0}, "clip is above 0"),
        ({"clip": float("nan")}, "clip is above 0"),
        ({"optimizer": "sdg"}, "sgd, adam or adamw, not sdg"),
        ({"betas": (0.9, 1.0)}, "betas are two numbers in"),
        ({"betas": (0.9,)}, "betas are two numbers in"),
        ({"eps": 0.0}, "eps is in"),
        ({"precision": "fp8"}, "not fp8"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(ScheduleError, match=message):
        Settings(**wrong)
