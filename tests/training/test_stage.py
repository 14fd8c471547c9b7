"""Pruning over epochs does what its definition says, ends exact, and goes on with the same bits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import pytest
import small_studies
import small_training
import torch
from torch import nn
from torch.nn import functional

from trainscope.errors import ActionError, RecordError, ScheduleError
from trainscope.networks import Network, digest, flops, masks_of
from trainscope.records import Kind
from trainscope.sparsify import Action, sparsify
from trainscope.training.jobs import retraining_job
from trainscope.training.loop import training_batches
from trainscope.training.plans import parse_plan
from trainscope.training.runner import TRAINING_PASSES, Watch, run_job
from trainscope.training.schedule import constant
from trainscope.training.settings import LoRA, Settings
from trainscope.training.stage import pruning_stage
from trainscope.training.staging import run_stage
from trainscope.training.state import load_state

STEPS = 3  # of an epoch: 96 samples in batches of 32
SGD = Settings(batch_size=32, augment=False, momentum=0.9, weight_decay=1e-2)
ADAMW = replace(SGD, optimizer="adamw", weight_decay=0.1)
WEIGHTS = ("1.weight", "3.weight")


few_digits = cache(small_training.few_digits)


def dense(seed: int = 0) -> Network:
    """Return a perceptron in float64 with random weights."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    return Network(module.double().eval(), "perceptron", (1, 8, 8), 10)


def convolutional() -> Network:
    """Return a network with filters to take, in float64."""
    torch.manual_seed(1)
    module = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU()),
        *(nn.Conv2d(7, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 10)),
    )
    return Network(module.double().eval(), "convolutional", (1, 8, 8), 10)


def asked(text, action, settings=SGD, network=None, lr=0.05, **options):
    schedule = constant(lr, 2)
    plan = parse_plan(text)
    given = dense() if network is None else network
    return pruning_stage(given, few_digits(), action, plan, schedule, settings, **options)


class ByHand:
    """A perceptron and an optimizer written out, from the definitions."""

    def __init__(self, network: Network, settings: Settings, lr: float = 0.05) -> None:
        self.values = {n: p.detach().clone() for n, p in network.module.named_parameters()}
        self.settings, self.lr = settings, lr
        self.masks = {name: torch.ones_like(self.values[name]) for name in WEIGHTS}
        self.restart()

    def restart(self) -> None:
        self.first = {n: torch.zeros_like(v) for n, v in self.values.items()}
        self.second = {n: torch.zeros_like(v) for n, v in self.values.items()}
        self.taken = 0

    def step(self, batch, penalty=0.0, on=None) -> None:
        values = {n: v.clone().requires_grad_() for n, v in self.values.items()}
        hidden = batch[0].double().flatten(1) @ values["1.weight"].T + values["1.bias"]
        logits = hidden.clamp(min=0) @ values["3.weight"].T + values["3.bias"]
        loss = functional.cross_entropy(logits, batch[1])
        gradients = torch.autograd.grad(loss, list(values.values()))
        self.taken += 1
        for (name, value), gradient in zip(self.values.items(), gradients, strict=True):
            if on is not None and name in on:
                gradient = gradient + penalty * on[name] * value
            self.values[name] = value - self.move(name, value, gradient)
            if name in self.masks:
                self.values[name] *= self.masks[name]

    def move(self, name, value, gradient):
        decay = self.settings.weight_decay
        if self.settings.optimizer == "sgd":
            self.first[name] = self.settings.momentum * self.first[name] + gradient + decay * value
            return self.lr * self.first[name]
        one, two = self.settings.betas
        self.first[name] = one * self.first[name] + (1 - one) * gradient
        self.second[name] = two * self.second[name] + (1 - two) * gradient**2
        mean = self.first[name] / (1 - one**self.taken)
        spread = (self.second[name] / (1 - two**self.taken)).sqrt() + self.settings.eps
        return self.lr * (mean / spread + decay * value)

    def lowest(self, ratio: float) -> dict[str, torch.Tensor]:
        """Return the lowest magnitudes of each layer, ceil(ratio n) of them."""
        found = {}
        for name in WEIGHTS:
            flat = self.values[name].abs().masked_fill(self.masks[name] == 0, -1).flatten()
            gone = torch.zeros_like(flat)
            gone[flat.argsort()[: math.ceil(round(ratio * len(flat), 9))]] = 1  # 0.7 of 120: 84
            found[name] = gone.view_as(self.values[name])
        return found

    def mask(self, gone) -> None:
        for name, each in gone.items():
            self.masks[name] = 1 - each
            self.values[name] *= self.masks[name]

    def batches(self, epoch):
        for _, batch in training_batches(few_digits().train, self.settings, epoch, STEPS):
            yield batch


def assert_close(staged, hand: ByHand) -> None:
    found = dict(staged.done.module.named_parameters())
    for name, wanted in hand.values.items():
        torch.testing.assert_close(found[name].detach(), wanted, rtol=1e-9, atol=1e-12)
    for name, mask in masks_of(staged.done.module).items():
        assert torch.equal(mask, hand.masks[name].bool())


WHOLE = Action("unstructured", 0.8, scope="all")


@pytest.mark.parametrize("settings", [SGD, replace(SGD, momentum=0.0), ADAMW], ids=str)
def test_gradual_pruning_by_hand(tmp_path, settings):
    """The optimizer's state is carried over the events."""
    staged = run_stage(asked("gradual:4", WHOLE, settings), tmp_path)
    hand = ByHand(dense(), settings)
    for epoch in range(4):
        for batch in hand.batches(epoch):
            hand.step(batch)
        hand.mask(hand.lowest(0.8 - 0.8 * (1 - (epoch + 1) / 4) ** 3))
    assert_close(staged, hand)
    assert [record.epoch for record in staged.records] == [1, 2, 3, 4]
    assert staged.schedule == "0:5e-2"


@pytest.mark.parametrize("rewinds", [False, True])
def test_iterative_pruning_by_hand(tmp_path, rewinds):
    """Each round begins with a new optimizer, and as a winning ticket with the early weights."""
    weights = Kind.WINNING_TICKET if rewinds else Kind.RETRAIN
    early = dense(7)
    stage = asked("iterative:4,rounds=3,lr=0.1", WHOLE, weights=weights, initial=early)
    staged = run_stage(stage, tmp_path)
    hand = ByHand(dense(), SGD)

    def round_over(number):
        hand.mask(hand.lowest(1 - 0.2 ** (number / 3)))
        hand.restart()
        if rewinds:
            start = dict(early.module.named_parameters())
            hand.values = {n: v.detach() * hand.masks.get(n, 1) for n, v in start.items()}

    round_over(1)
    for epoch, lr in enumerate((0.1, 0.01, 0.1, 0.01)):
        hand.lr = lr
        for batch in hand.batches(epoch):
            hand.step(batch)
        if epoch % 2:
            round_over(2 + epoch // 2)
    assert_close(staged, hand)
    assert staged.rewound is rewinds


@pytest.mark.parametrize("settings", [SGD, ADAMW, replace(SGD, momentum=0.0)], ids=str)
def test_greg_1_by_hand(tmp_path, settings):
    """The lowest of the base model get g + f w, and go in the end."""
    staged = run_stage(asked("greg-1:4,every=2,delta=0.2", WHOLE, settings), tmp_path)
    hand = ByHand(dense(), settings)
    chosen = hand.lowest(0.8)
    for step in range(4 * STEPS):
        if step % STEPS == 0:
            batches = hand.batches(step // STEPS)
        hand.step(next(batches), min(0.2 * (step // 2 + 1), 1.0), chosen)
    hand.mask(chosen)
    assert_close(staged, hand)


@pytest.mark.parametrize("settings", [SGD, ADAMW], ids=str)
def test_greg_2_by_hand(tmp_path, settings):
    """All are penalised, the choice falls within an epoch, and the others are released."""
    text = "greg-2:4,every=2,pick=0.1,pick_delta=0.05,delta=0.2,ceiling=0.6"
    staged = run_stage(asked(text, WHOLE, settings, lr=0.2), tmp_path)
    hand = ByHand(dense(), settings, lr=0.2)
    factors = [0.05, 0.05, 0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6]
    on, before = {name: torch.ones_like(hand.values[name]) for name in WEIGHTS}, hand.lowest(0.8)
    for step, factor in enumerate(factors):
        if step == 4:
            on = hand.lowest(0.8)
        if step % STEPS == 0:
            batches = hand.batches(step // STEPS)
        hand.step(next(batches), factor, on)
    assert any(not torch.equal(on[name], before[name]) for name in WEIGHTS)
    hand.mask(on)
    assert_close(staged, hand)


def test_greg_1_shrinks_whole_filters_and_nothing_beside_them(tmp_path):
    """Their weights, not their biases and norms; what is left is the network without them."""
    network, action = convolutional(), Action(ratio=0.5)
    at_once = sparsify(network.module, action, (1, 8, 8))
    stage = asked("greg-1:6,every=1,ceiling=8", action, replace(SGD, momentum=0.0), network)
    staged = run_stage(stage, tmp_path / "whole")

    def stop(epoch, done, steps):
        if (epoch, done) == (5, steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, tmp_path / "part", watch=Watch(on_step=stop))
    left = load_state(tmp_path / "part" / "state.pt").network  # after five epochs
    start, gone = network.module.state_dict(), list(at_once.removed["3"])
    shrunk = {
        name: float(left[name][gone].abs().mean() / start[name][gone].abs().mean())
        for name in ("3.weight", "3.bias", "4.weight")
    }
    assert shrunk["3.weight"] < 0.2
    assert min(shrunk["3.bias"], shrunk["4.weight"]) > 0.5
    kept = [k for k in range(7) if k not in gone]
    assert float(left["3.weight"][kept].abs().mean() / start["3.weight"][kept].abs().mean()) > 0.5
    assert staged.done.removed == at_once.removed
    assert staged.done.record.layers == at_once.record.layers
    assert staged.done.module[3].out_channels == 3
    assert staged.events[0]["separation"] > 10


CASES = {
    "gradual, weights": ("gradual:6,every=2", Action("unstructured", 0.7), None),
    "gradual, filters": ("gradual:6,every=2", Action(ratio=0.7), None),
    "gradual, ranked together": ("gradual:3", Action(ratio=0.6, global_ranking=True), None),
    "gradual, coupled": ("gradual:3", Action(ratio=0.5, scope="all"), None),
    "iterative, filters": ("iterative:4,rounds=3", Action(ratio=0.7), "ticket"),
    "iterative, together": (
        "iterative:4,rounds=3",
        Action("unstructured", 0.8, global_ranking=True),
        None,
    ),
    "iterative, lamp": ("iterative:4,rounds=3", Action("unstructured", 0.8, criterion="lamp"), ""),
    "greg-1, ticket": ("greg-1:4,every=1", Action(ratio=0.7), "ticket"),
    "greg-2, weights": ("greg-2:4,every=1", Action("unstructured", 0.8, scope="all"), None),
    "greg-2, filters": ("greg-2:4,every=1", Action(ratio=0.5, scope="all"), None),
    "greg-2, 3:6": ("greg-2:4,every=1", Action("3:6"), None),
    "greg-2, by data": ("greg-2:4,every=1", Action(ratio=0.5, criterion="taylor"), None),
}


def case(name, network=None):
    text, action, ticket = CASES[name]
    options = {"weights": Kind.WINNING_TICKET, "initial": convolutional()} if ticket else {}
    return asked(text, action, network=network or convolutional(), **options)


def same(one, other) -> None:
    left, right = one.done.module.state_dict(), other.done.module.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert one.done.record == other.done.record
    assert one.done.removed == other.done.removed
    assert (one.flops, one.events) == (other.flops, other.events)
    clocks = [[replace(r, seconds=None) for r in each.records] for each in (one, other)]
    assert clocks[0] == clocks[1]


@pytest.mark.parametrize("name", CASES)
def test_as_much_goes_as_at_once_and_a_stopped_stage_goes_on(tmp_path, name):
    """Stopped within two epochs, it ends with the same bits; the counts are those of one action."""
    stage = case(name)
    whole = run_stage(stage, tmp_path / "whole")
    at_once, record = stage.at_once.record, whole.done.record
    assert record.reached == pytest.approx(at_once.reached)
    assert (record.ratio, record.criterion, record.scope) == (
        *(at_once.ratio, at_once.criterion, at_once.scope),
    )
    if not (stage.action.ranks_together or stage.action.criterion == "lamp"):
        assert {row.name: row for row in record.layers} == {row.name: row for row in at_once.layers}
        assert (record.parameters, record.flops) == (at_once.parameters, at_once.flops)
        assert record.speedup == pytest.approx(at_once.speedup)
    assert record.flops == flops(whole.done.module, (1, 8, 8))
    before = flops(convolutional().module, (1, 8, 8))
    assert record.speedup == pytest.approx(before / record.flops)

    class Stop(Exception):
        pass

    for epoch in (1, len(whole.records) - 1):

        def stop(now, done, _, wanted=epoch):
            if (now, done) == (wanted, 2):
                raise Stop

        with pytest.raises(Stop):
            run_stage(case(name), tmp_path / "again", watch=Watch(on_step=stop))
    same(run_stage(case(name), tmp_path / "again"), whole)
    same(run_stage(case(name), tmp_path / "again"), whole)  # and is not repeated
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        *("settings.json", "stage.json", "state.pt")
    ]


def test_each_event_reaches_the_cubic_law_to_the_weight(tmp_path):
    staged = run_stage(case("gradual, weights"), tmp_path)
    sizes = [7 * 6 * 9, 6 * 7 * 9]
    for k, event in enumerate(staged.events, 1):
        share = 0.7 if k == 3 else 0.7 * (1 - (1 - k / 3) ** 3)
        assert event["epoch"] == 2 * k
        assert event["ratio"] == pytest.approx(share)
        wanted = sum(math.ceil(share * size - 1e-9) for size in sizes) / sum(sizes)
        assert event["reached"] == pytest.approx(wanted, abs=1e-12)
    gone = sum(int((~mask).sum()) for mask in masks_of(staged.done.module).values())
    assert gone == sum(math.ceil(0.7 * size) for size in sizes)


def test_filters_go_by_the_law_of_all_that_there_were(tmp_path):
    """Of seven and six filters, not of those that an earlier event left."""
    staged = run_stage(case("gradual, filters"), tmp_path)
    shares = [0.7 * (1 - (1 - k / 3) ** 3) for k in (1, 2)] + [0.7]
    wanted = [sum(min(math.ceil(s * n), n - 1) for n in (7, 6)) / 13 for s in shares]
    assert [event["reached"] for event in staged.events] == pytest.approx(wanted)


def test_the_flops_of_a_stage_are_counted_epoch_by_epoch(tmp_path):
    stage = case("gradual, filters")
    staged = run_stage(stage, tmp_path)
    cost, module = [], convolutional().module
    for share in (0.0, 0.7 * (1 - (2 / 3) ** 3), 0.7 * (1 - (1 / 3) ** 3)):
        pruned = sparsify(module, Action(ratio=share), (1, 8, 8)).module if share else module
        cost.append(2 * flops(pruned, (1, 8, 8)))
    assert staged.flops == TRAINING_PASSES * 96 * sum(cost)
    told = json.loads((tmp_path / "stage.json").read_text())
    assert told["flops"] == staged.flops
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert [event["epoch"] for event in told["events"]] == [2, 4, 6]


def test_the_run_that_follows_records_the_stage(tmp_path):
    base, action = convolutional(), Action("unstructured", 0.7)
    stage = asked("gradual:4,every=2,lr=1e-1", action, network=base)
    staged = run_stage(stage, tmp_path / "stage")
    args = (base, few_digits(), action, constant(0.01, 2), SGD)
    job, done = retraining_job(*args, staged=staged)
    once, _ = retraining_job(*args)
    run = run_job(job, tmp_path / "run")
    pruning = run.pruning
    assert (pruning.plan, pruning.stage_epochs) == ("gradual:4,lr=1e-1,every=2", 4)
    assert (pruning.stage_schedule, pruning.stage_flops) == ("0:1e-1", staged.flops)
    assert run.base == digest(base.module)
    assert run.start == digest(staged.done.module)
    assert done is staged.done
    assert job.frozen()["plan"] == pruning.plan
    assert "plan" not in once.frozen()
    gone = sum(int((~mask).sum()) for mask in masks_of(job.network.module).values())
    assert gone == 2 * math.ceil(0.7 * 378)


def test_random_weights_follow_a_stage_too(tmp_path):
    base = Network(small_studies.network(), small_studies.NETWORK, (1, 8, 8), 10)
    action = Action("unstructured", 0.7)
    staged = run_stage(asked("gradual:2", action, network=base), tmp_path)
    job, _ = retraining_job(
        *(base, few_digits(), action, constant(0.01, 2), SGD),
        weights=Kind.RANDOM_REINIT,
        staged=staged,
    )
    masks = masks_of(staged.done.module)
    assert all(torch.equal(mask, masks[n]) for n, mask in masks_of(job.network.module).items())


def test_masks_that_were_there_stay_and_count(tmp_path):
    base = convolutional()
    base = replace(base, module=sparsify(base.module, WHOLE, (1, 8, 8)).module)
    before = masks_of(base.module)
    staged = run_stage(
        asked("gradual:2", Action("unstructured", 0.9, scope="all"), network=base), tmp_path
    )
    after = masks_of(staged.done.module)
    assert all(not (mask & ~before[name]).any() for name, mask in after.items())
    for layer in staged.done.record.layers:
        name = f"{layer.name}.weight"
        assert (layer.before, layer.after) == (int(before[name].sum()), int(after[name].sum()))
    assert staged.events[0]["reached"] > 0.8


def test_what_cannot_be_is_refused_before_an_epoch(tmp_path):
    with pytest.raises(ActionError, match="trains all weights, which LoRA freezes"):
        asked("gradual:2", WHOLE, replace(SGD, lora=LoRA(2)))
    with pytest.raises(ActionError, match="a winning ticket needs the weights to rewind to"):
        asked("gradual:2", WHOLE, weights=Kind.WINNING_TICKET)
    with pytest.raises(ScheduleError, match="its 2 epochs have 6 steps"):
        asked("greg-1:2,delta=1e-4", WHOLE)
    run_stage(asked("gradual:2", WHOLE), tmp_path)
    with pytest.raises(RecordError, match="the plan is gradual:2 there and gradual:2,every=2"):
        run_stage(asked("gradual:2,every=2", WHOLE), tmp_path)


def test_a_stage_that_diverges_says_so_each_time(tmp_path):
    network, growing = dense(), replace(SGD, weight_decay=9.0)
    network = replace(network, module=network.module.float())
    for _ in range(2):
        with pytest.raises(RecordError, match=r"gradual:6 diverged in epoch \d, .* a smaller LR"):
            run_stage(asked("gradual:6", WHOLE, growing, network, lr=900.0), tmp_path)
