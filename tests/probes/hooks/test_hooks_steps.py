"""Every training step is seen once, with the gradient that makes it, whatever steps inside it."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.when import every
from trainscope.records import Measurement, Status

LR, RHO, STEPS = 0.1, 0.05, 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def batch(index=0):
    generator = torch.Generator().manual_seed(index)
    return torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


def backward(model, index=0):
    x, y = batch(index)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


def norm_of(parameters):
    return float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm())


class Plain(torch.optim.SGD):
    """SGD that keeps the norm of the gradient of each update."""

    def __init__(self, parameters, made):
        super().__init__(parameters, lr=LR)
        self.made = made

    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        if getattr(self, "fails", False):
            raise MemoryError
        self.made.append(norm_of([p for g in self.param_groups for p in g["params"]]))
        super().step()  # of a class whose step torch hooks as well: a step inside a step
        return loss


def perturb(parameters, state, sign=1):
    with torch.no_grad():
        if sign > 0:
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            for p in parameters:
                state[p] = p.grad * RHO / norm
                p.add_(state[p])
        else:
            for p in parameters:
                p.sub_(state[p])


class Whole(Plain):
    """Its copies take everything along, torch's table of hooks too."""

    def __getstate__(self):
        return dict(vars(self))


class Sam(torch.optim.Optimizer):
    """A base optimizer makes the steps, in second_step()."""

    def __init__(self, parameters, made):
        super().__init__(parameters, {"lr": LR})
        self.base_optimizer = Plain(self.param_groups, made)
        self.all = [p for g in self.param_groups for p in g["params"]]
        self.moved = {}

    def first_step(self):
        perturb(self.all, self.moved)
        self.zero_grad()

    def second_step(self):
        perturb(self.all, self.moved, -1)
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure=None):
        if closure is None:
            raise NotImplementedError("two steps")
        self.first_step()
        loss = torch.enable_grad()(closure)()
        self.second_step()
        torch.enable_grad()(closure)()  # as some do, to return the loss of the new weights
        return loss


class OwnSam(torch.optim.Optimizer):
    """No base optimizer: second_step() updates through `.data`, which leaves no version."""

    def __init__(self, parameters, made):
        super().__init__(parameters, {"lr": LR})
        self.all, self.moved = [p for g in self.param_groups for p in g["params"]], {}
        self.made = made

    def first_step(self):
        perturb(self.all, self.moved)
        self.zero_grad()

    def second_step(self):
        perturb(self.all, self.moved, -1)
        self.made.append(norm_of(self.all))
        for p in self.all:
            p.data.add_(p.grad.data, alpha=-LR)
        self.zero_grad()

    def step(self, closure=None):
        raise NotImplementedError


class Minimizer:
    """No optimizer itself, and no `param_groups`."""

    def __init__(self, optimizer):
        self.optimizer, self.moved = optimizer, {}

    def ascent_step(self):
        perturb(self.optimizer.param_groups[0]["params"], self.moved)
        self.optimizer.zero_grad()

    def descent_step(self):
        perturb(self.optimizer.param_groups[0]["params"], self.moved, -1)
        self.optimizer.step()
        self.optimizer.zero_grad()


class SubclassSam(torch.optim.SGD):
    """The gradient at the weights first, then that beside them, then SGD's own step."""

    def __init__(self, parameters, made):
        super().__init__(parameters, lr=LR)
        self.all, self.moved, self.made = self.param_groups[0]["params"], {}, made

    def step(self, closure):
        closure = torch.enable_grad()(closure)
        loss = closure()
        self.made.append(norm_of(self.all))  # a closure's first evaluation is what is kept
        perturb(self.all, self.moved)
        closure()
        perturb(self.all, self.moved, -1)
        super().step()
        return loss


class Lookahead(torch.optim.Optimizer):
    """Does not call torch's constructor, so that its own step has no hooks."""

    def __init__(self, base, k=2):
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self.fast, self.k, self.done = base, k, 0
        self.param_groups, self.defaults, self.state = base.param_groups, base.defaults, base.state
        self.slow = [p.detach().clone() for p in base.param_groups[0]["params"]]

    def state_dict(self):
        return self.fast.state_dict()

    @torch.no_grad()
    def step(self, closure=None):
        self.fast.step()
        self.done += 1
        if self.done % self.k == 0:
            for slow, p in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)


class Late(torch.optim.Optimizer):
    """Asks the closure for the loss when the step is already made."""

    def __init__(self, parameters, made):
        super().__init__(parameters, {"lr": LR})
        self.inner = {"base": Plain(self.param_groups, made)}

    def step(self, closure=None):
        self.inner["base"].step()
        return torch.enable_grad()(closure)()


class OldStyle(torch.optim.Optimizer):
    """Updates through `.data`, which leaves no version."""

    def __init__(self, parameters, made):
        super().__init__(parameters, {"lr": LR})
        self.made = made

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        self.made.append(norm_of(parameters))
        for p in parameters:
            p.data.add_(p.grad.data, alpha=-LR)


class Accumulating(torch.optim.Optimizer):
    """Steps at every other call alone."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.wrapped, self.calls = [inner], 0

    def step(self, closure=None):
        self.calls += 1
        if self.calls % 2 == 0:
            self.wrapped[0].step()

    def zero_grad(self, set_to_none=True):
        if self.calls % 2 == 0:
            self.wrapped[0].zero_grad()


class Both(torch.optim.Optimizer):
    """Two optimizers of disjoint parameters make one step."""

    def __init__(self, model, made):
        super().__init__(model.parameters(), {})
        self.made = made
        self.parts = {
            "sgd": torch.optim.SGD(model[0].parameters(), lr=LR),
            "adam": torch.optim.Adam(model[2].parameters()),
        }

    def step(self, closure=None):
        self.made.append(norm_of([p for g in self.param_groups for p in g["params"]]))
        for part in self.parts.values():
            part.step()


class Unused(torch.optim.Optimizer):
    """Keeps a base optimizer for its settings, and makes the steps itself."""

    def __init__(self, parameters, made):
        super().__init__(parameters, {"lr": LR})
        self.base = torch.optim.SGD(self.param_groups, lr=LR)
        self.made = made

    @torch.no_grad()
    def step(self, closure=None):
        parameters = [p for g in self.param_groups for p in g["params"]]
        self.made.append(norm_of(parameters))
        for p in parameters:
            p.sub_(LR * p.grad)


def by_step(model, optimizer, index):
    optimizer.zero_grad()
    backward(model, index)
    optimizer.step()


def by_two(model, optimizer, index):
    backward(model, index)
    optimizer.first_step()
    backward(model, index)
    optimizer.second_step()


def by_ascent(model, optimizer, index):
    backward(model, index)
    optimizer.ascent_step()
    backward(model, index)
    optimizer.descent_step()


def by_closure(model, optimizer, index):
    def closure():
        optimizer.zero_grad()
        return backward(model, index)

    closure()
    assert isinstance(optimizer.step(closure), torch.Tensor)


def twice(model, optimizer, index):
    for part in range(2):
        backward(model, 2 * index + part)
        optimizer.step()
        optimizer.zero_grad()


KINDS = {
    "subclass": (lambda m, made: Plain(m.parameters(), made), by_step),
    "subclass with a closure": (lambda m, made: Plain(m.parameters(), made), by_closure),
    "sam": (lambda m, made: Sam(m.parameters(), made), by_two),
    "sam with a closure": (lambda m, made: Sam(m.parameters(), made), by_closure),
    "sam's base": (lambda m, made: Sam(m.parameters(), made), by_two),
    "sam of its own": (lambda m, made: OwnSam(m.parameters(), made), by_two),
    "sam that is none": (lambda m, made: Minimizer(Plain(m.parameters(), made)), by_ascent),
    "sam as a subclass": (lambda m, made: SubclassSam(m.parameters(), made), by_closure),
    "lookahead": (lambda m, made: Lookahead(Plain(m.parameters(), made)), by_step),
    "a late closure": (lambda m, made: Late(m.parameters(), made), by_closure),
    "an old one inside": (lambda m, made: Lookahead(OldStyle(m.parameters(), made), 9), by_step),
    "accumulating": (lambda m, made: Accumulating(Plain(m.parameters(), made)), twice),
    "two in one": (lambda m, made: Both(m, made), by_step),
    "unused": (lambda m, made: Unused(m.parameters(), made), by_step),
}


class Weights:
    """A probe that keeps the weights it was shown."""

    name, needs = "weights", frozenset()

    def __init__(self):
        self.seen = []

    def measure(self, subject, data):
        self.seen.append(torch.cat([p.detach().flatten() for p in subject.parameters()]))
        return Measurement(self.name, Status.OK)

    def estimate(self, subject, data):
        raise NotImplementedError


def train(kind, hook):
    """Train by an optimizer; return the weights after each step and the norms of the updates."""
    make, loop = KINDS[kind]
    model, made, ends = network(), [], []
    optimizer = make(model, made)
    if hook is not None:
        hook.attach(model, optimizer.base_optimizer if kind == "sam's base" else optimizer)
    for index in range(STEPS):
        loop(model, optimizer, index)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return ends, made, optimizer


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_taken_once_with_the_gradient_that_makes_it(kind):
    torch.optim.SGD([nn.Parameter(torch.ones(1))])  # from now on torch hooks SGD's own step too
    alone, *_ = train(kind, None)
    probe = Weights()
    hook = ProbeHook([probe], when=every(1), data=ProbeData("random:4", *batch()))
    ends, made, optimizer = train(kind, hook)
    taken = [t for t in hook.taken if t.measurement.probe == "step_gradient"]
    assert [t.step for t in taken] == list(range(1, STEPS + 1))
    assert hook.steps == STEPS
    assert [t.measurement.value("norm") for t in taken] == pytest.approx(made, rel=1e-6)
    assert len(probe.seen) == STEPS + 1
    for shown, after, without in zip(probe.seen[1:], ends, alone, strict=True):
        assert torch.equal(shown, after)
        assert torch.equal(after, without)
    hook.detach()
    assert not any(
        "step" in vars(each)
        for each in (optimizer, *vars(optimizer).values())
        if isinstance(each, torch.optim.Optimizer)
    )


def test_a_call_that_only_accumulated_leaves_no_gradient_behind():
    model = network()
    optimizer, hook = Accumulating(torch.optim.SGD(model.parameters(), lr=LR)), ProbeHook()
    hook.attach(model, optimizer)
    for _ in range(3):
        backward(model)
        optimizer.step()
    assert [t.step for t in hook.taken] == [1]


def test_a_watched_step_of_sam_is_not_that_of_the_first_half():
    """The two gradients differ, so that the test above can tell them apart."""
    model, made = network(), []
    optimizer = Sam(model.parameters(), made)
    backward(model)
    first = norm_of(model.parameters())
    optimizer.first_step()
    backward(model)
    optimizer.second_step()
    assert abs(made[0] / first - 1) > 1e-3


@pytest.mark.parametrize("first", ["hook", "scheduler"])
@pytest.mark.parametrize("kind", ["subclass", "sam of its own", "lookahead"])
def test_a_scheduler_that_wraps_the_step_notices_nothing(kind, first):
    """Warnings are errors here, and a scheduler warns of steps that it does not see."""
    make, loop = KINDS[kind]
    model, made = network(), []
    optimizer, hook = make(model, made), ProbeHook()
    if first == "hook":
        hook.attach(model, optimizer)
    if kind == "sam of its own":
        optimizer.step = optimizer.second_step  # what users of such a SAM do for their scheduler
    scheduler = StepLR(optimizer, 1, gamma=0.5)
    if first == "scheduler":
        hook.attach(model, optimizer)
    for index in range(3):
        if kind == "sam of its own":
            backward(model, index)
            optimizer.first_step()
            backward(model, index)
            optimizer.step()
        else:
            loop(model, optimizer, index)
        scheduler.step()
    assert [t.measurement.value("norm") for t in hook.taken] == pytest.approx(made, rel=1e-6)
    hook.detach()
    loop(model, optimizer, 4)
    scheduler.step()
    assert hook.steps == 3


@pytest.mark.parametrize("kind", ["subclass", "lookahead", "sam with a closure", "sam"])
def test_a_step_that_raises_is_none_and_the_next_one_counts(kind):
    make, loop = KINDS[kind]
    model, made = network(), []
    optimizer = make(model, made)
    hook = ProbeHook().attach(model, optimizer)
    loop(model, optimizer, 0)
    base = next((v for v in vars(optimizer).values() if isinstance(v, Plain)), optimizer)
    base.fails = True
    with pytest.raises(MemoryError):
        loop(model, optimizer, 1)
    base.fails = False
    optimizer.zero_grad()
    loop(model, optimizer, 1)
    loop(model, optimizer, 2)
    assert [t.step for t in hook.taken] == [1, 2, 3]
    assert [t.measurement.value("norm") for t in hook.taken] == pytest.approx(made, rel=1e-6)


def test_steps_that_no_one_can_see_are_told(caplog):
    class Odd(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})

        def go(self):
            for p in self.param_groups[0]["params"]:
                p.data.add_(p.grad, alpha=-LR)

    model = network()
    optimizer = Odd(model.parameters())
    hook = ProbeHook().attach(model, optimizer)
    backward(model)
    optimizer.go()
    hook.detach()
    assert "no step of Odd was seen" in caplog.text
    caplog.clear()
    with ProbeHook().attach(model, optimizer) as hook:
        backward(model)  # and no step
    with ProbeHook().attach(model, torch.optim.SGD(model.parameters())) as hook:
        with torch.no_grad():
            model[0].weight.mul_(0.5)
        hook.after_action()
    assert not caplog.text


def test_what_is_no_optimizer_of_this_network_is_refused_in_a_sentence():
    model, other = network(), network()
    sgd = torch.optim.SGD(model.parameters(), lr=LR)
    hook = ProbeHook().attach(model, sgd)
    with pytest.raises(ProbeError, match="NoneType is no optimizer and holds none"):
        hook.attach(model, None)
    with pytest.raises(ProbeError, match="SGD holds no parameter of the network"):
        hook.attach(other, sgd)

    class Two:
        def __init__(self):
            self.optimizers = [
                torch.optim.SGD(model[0].parameters(), lr=LR),
                torch.optim.Adam(model[2].parameters()),
            ]

    with pytest.raises(
        ProbeError, match=r"several optimizers \(SGD, Adam\): attach a hook to each"
    ):
        hook.attach(model, Two())
    by_step(model, sgd, 0)
    assert hook.steps == 1  # a refusal leaves what was attached before


def test_a_schedule_that_cannot_tell_says_so_at_attach_not_in_training():
    from trainscope.probes.when import at_epochs

    model = network()
    hook = ProbeHook(norms=at_epochs(1))
    with pytest.raises(ProbeError, match="give steps_per_epoch"):
        hook.attach(model, torch.optim.SGD(model.parameters(), lr=LR))


@pytest.mark.parametrize("kind", ["subclass", "sam", "sam of its own", "lookahead"])
def test_checkpoints_saved_while_attached_hold_no_hook(kind, tmp_path):
    make, loop = KINDS[kind]
    model, made = network(), []
    optimizer = make(model, made)
    hook = ProbeHook(sink=tmp_path / "norms.jsonl").attach(model, optimizer)
    loop(model, optimizer, 0)
    hook.flush()
    torch.save(model, tmp_path / "model.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded[0].weight, model[0].weight)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert b"trainscope" not in pickle.dumps(copied)
        assert isinstance(copied, type(optimizer))
    before = hook.steps
    spare = copy.deepcopy(model)
    fresh = make(spare, [])
    loop(spare, fresh, 0)
    assert hook.steps == before


def test_a_copy_of_an_optimizer_that_copies_all_of_itself_is_not_watched():
    model, made = network(), []
    optimizer = Whole(model.parameters(), made)
    hook = ProbeHook(sink=lambda taken: None).attach(model, optimizer)
    by_step(model, optimizer, 0)
    stored = pickle.loads(pickle.dumps(optimizer))
    for copied in (stored, copy.deepcopy(optimizer), copy.copy(optimizer)):
        for p in copied.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        copied.step()
    assert hook.steps == 1


def test_a_copy_of_a_replaced_step_steps_the_copy_alone():
    class WholeLookahead(Lookahead):
        def __getstate__(self):
            return dict(vars(self))

        def __setstate__(self, state):
            vars(self).update(state)

        def step(self, closure=None):  # its own, which torch has given no hooks
            return super().step(closure)

    model = network()
    optimizer = WholeLookahead(torch.optim.SGD(model.parameters(), lr=LR), k=1)
    hook = ProbeHook().attach(model, optimizer)
    by_step(model, optimizer, 0)
    before = model[0].weight.clone()
    copied = copy.deepcopy(optimizer)
    for p in copied.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    inside = copied.param_groups[0]["params"][0].clone()
    copied.step()
    assert hook.steps == 1
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(copied.param_groups[0]["params"][0], inside)


def test_a_hook_that_a_network_keeps_is_saved_and_copied_unattached(tmp_path):
    model = network()
    model.hook = ProbeHook(sink=tmp_path / "norms.jsonl", norms=every(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    model.hook.attach(model, optimizer)
    by_step(model, optimizer, 0)
    model.hook.flush()
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    fresh = torch.optim.SGD(loaded.parameters(), lr=LR)
    by_step(loaded, fresh, 0)
    assert loaded.hook.steps == model.hook.steps == 1
    loaded.hook.attach(loaded, fresh)
    by_step(loaded, fresh, 0)
    assert (loaded.hook.steps, model.hook.steps) == (2, 1)
    loaded.hook.detach()
    model.hook.detach()


def test_two_hooks_on_one_network_and_attaching_twice():
    model, made = network(), []
    optimizer = Sam(model.parameters(), made)
    one, two = ProbeHook(), ProbeHook()
    one.attach(model, optimizer).attach(model, optimizer)
    two.attach(model, optimizer)
    for index in range(3):
        by_two(model, optimizer, index)
    one.detach()
    by_two(model, optimizer, 3)
    two.detach()
    two.detach()
    by_two(model, optimizer, 4)
    found = [[t.measurement.value("norm") for t in hook.taken] for hook in (one, two)]
    assert found == [pytest.approx(made[:3], rel=1e-6), pytest.approx(made[:4], rel=1e-6)]


@pytest.mark.parametrize("moment", ["norm", "probe"])
@pytest.mark.parametrize("kind", ["subclass", "sam", "lookahead"])
def test_a_sink_may_detach_the_hook_in_the_middle_of_a_step(kind, moment):
    make, loop = KINDS[kind]
    model, made, seen = network(), [], []

    def sink(taken):
        seen.append(taken)
        if taken.step == 2:
            hook.detach()

    probes = [Weights()] if moment == "probe" else []
    hook = ProbeHook(probes, when=every(1), data=ProbeData("random:4", *batch()), sink=sink)
    optimizer = make(model, made)
    hook.attach(model, optimizer)
    watched = [
        each
        for each in (optimizer, *vars(optimizer).values())
        if isinstance(each, torch.optim.Optimizer)
    ]
    for each in watched:  # a table of hooks must not lose one while torch goes through it
        each.register_step_pre_hook(lambda *_: None)
        each.register_step_post_hook(lambda *_: None)
    for index in range(STEPS):
        loop(model, optimizer, index)
        hook.flush()
    assert hook.steps == 2
    hook.detach()
    assert [len(each._optimizer_step_pre_hooks) for each in watched] == [1] * len(watched)


def test_an_exception_of_the_training_passes_the_hook_and_what_was_taken_is_written(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    hook = ProbeHook(sink=tmp_path / "norms.jsonl")

    def train_and_fail():
        with hook.attach(model, optimizer):
            for index in range(3):
                by_step(model, optimizer, index)
            raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        train_and_fail()
    assert (tmp_path / "norms.jsonl").read_text().count("\n") == 3
    by_step(model, optimizer, 3)
    assert hook.steps == 3


def test_a_skipped_step_leaves_one_gradient_before_clipping():
    """A GradScaler that skips: the look before clipping is that of the step that was made."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    hook = ProbeHook().attach(model, optimizer)
    for index in range(3):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(batch(index)[0]), batch(index)[1])).backward()
        if index == 0:
            model[0].weight.grad[0, 0] = torch.inf
        scaler.unscale_(optimizer)
        hook.observe("before clipping")
        scaler.step(optimizer)
        scaler.update()
    assert [(t.step, t.moment) for t in hook.taken] == [
        (1, "before clipping"),
        (1, "after clipping"),
        (2, "before clipping"),
        (2, "after clipping"),
    ]
    assert all(t.measurement.status == "ok" for t in hook.taken)
