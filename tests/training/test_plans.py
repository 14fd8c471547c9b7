"""Pruning schedules as they are written, and the laws that they follow."""

from __future__ import annotations

import pytest

from trainscope.errors import ActionError, ScheduleError
from trainscope.sparsify import Action
from trainscope.sparsify.criteria import find
from trainscope.training.plans import GradualPruning, GReg1, GReg2, IterativePruning, parse_plan

WRITTEN = {
    "gradual:30": GradualPruning(30),
    "gradual:30,lr=1e-2,shape=cosine,every=2": GradualPruning(30, 1e-2, "cosine", 2),
    "iterative:40,rounds=5": IterativePruning(40, rounds=5),
    "iterative:4,shape=constant": IterativePruning(4, shape="constant"),
    "greg-1:30": GReg1(30),
    "greg-1:30,every=10,ceiling=2e0,delta=1e-4": GReg1(30, every=10, ceiling=2.0, delta=1e-4),
    "greg-2:9,stabilise=1.5e0,pick=5e-2,pick_delta=1e-3": GReg2(
        9, stabilise=1.5, pick=0.05, pick_delta=1e-3
    ),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_is_written_is_read_and_written_back(text):
    plan = parse_plan(text)
    assert plan == WRITTEN[text]
    assert type(plan) is type(WRITTEN[text])
    assert str(plan) == text


def test_blanks_do_not_matter_and_one_shot_is_none():
    assert parse_plan(" gradual: 30, every = 2 ") == GradualPruning(30, every=2)
    assert parse_plan("one-shot") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gradul:30", "no pruning schedule is named 'gradul': choose from one-shot, gradual"),
        ("gradual", "the pruning schedule gradual takes epochs: write them behind it"),
        ("gradual:x", "'gradual:x' does not begin with its epochs"),
        ("gradual:0", "epochs are from 1 to"),
        ("gradual:-3", "does not begin with its epochs"),
        ("gradual:30,evry=2", "'evry=2' is no setting of the schedule gradual: did you mean every"),
        ("gradual:30,every", "'every' is no setting"),
        ("gradual:30,every=2,every=3", "has every twice"),
        ("gradual:30,every=1.5", "every is a whole number, not '1.5'"),
        ("gradual:30,every=7", "every is a number of epochs that divides 30, not 7"),
        ("gradual:30,lr=fast", "lr is a number, not 'fast'"),
        ("gradual:30,lr=0", "lr is in (0, 1000], not 0.0"),
        ("gradual:30,lr=nan", "lr is in (0, 1000], not nan"),
        ("gradual:30,shape=rewind", "shape is one of halving, cosine, cyclic, constant"),
        ("iterative:30,rounds=1", "rounds are 2 or more"),
        ("iterative:30,rounds=5", "a multiple of 4, not 30"),
        ("greg-1:30,every=0", "every is a number of steps, 1 or more"),
        ("greg-1:30,ceiling=0", "ceiling is above 0"),
        ("greg-1:30,ceiling=inf", "ceiling is above 0"),
        ("greg-1:30,delta=2", "delta is above 0, and at most the ceiling 1, not 2.0"),
        ("greg-1:30,stabilise=30", "stabilise is from 0 up to, not with, the 30 epochs"),
        ("greg-1:30,delta=0.1,stabilise=3", "keep one"),
        ("greg-1:30,pick=0.1", "'pick=0.1' is no setting of the schedule greg-1"),
        ("greg-2:30,pick=1", "pick is above 0 and below the ceiling 1"),
        ("greg-2:30,pick_delta=0.1", "pick_delta is above 0, and at most 0.01"),
    ],
)
def test_what_is_none_is_said_in_a_sentence(text, said):
    with pytest.raises(ScheduleError) as caught:
        parse_plan(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["gradual:2", "iterative:2", "greg-1:2", "greg-2:2"])
@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action(heads=0.5), "heads go all at once"),
        (Action(blocks=0.5, criterion="influence"), "blocks go all at once"),
        (Action(ratio=0.5, heads=0.5, blocks=0.5), "heads and blocks go all at once"),
        (Action(kept={"conv": (0,)}), "named filters go all at once"),
    ],
)
def test_parts_go_all_at_once(text, action, said):
    with pytest.raises(ActionError, match=said):
        parse_plan(text).check(action)


def test_a_ratio_that_is_fixed_cannot_rise_but_be_prepared():
    for text in ("gradual:2", "iterative:2"):
        with pytest.raises(ActionError, match="2:4 has one ratio: use greg-1 or greg-2"):
            parse_plan(text).check(Action("2:4"))
    parse_plan("greg-1:2").check(Action("2:4"))
    parse_plan("gradual:2").check(Action("unstructured", 0.5, criterion="obs"))
    with pytest.raises(ActionError, match="obs changes the weights that stay"):
        parse_plan("greg-2:2").check(Action("unstructured", 0.5, criterion=find("obs")))


def test_the_cubic_law():
    events = GradualPruning(10, every=2).events()
    assert [event.epoch for event in events] == [2, 4, 6, 8, 10]
    assert [event.share(0.8) for event in events] == pytest.approx(
        [0.8 - 0.8 * (1 - k / 5) ** 3 for k in (1, 2, 3, 4, 5)]
    )
    assert events[-1].share(0.9) == 0.9
    asked = events[0].of(Action("unstructured", 0.9, ratios={"fc": 0.0, "a*": 0.5}))
    assert asked.ratio == pytest.approx(0.9 * 0.488)
    assert asked.ratios == pytest.approx({"fc": 0.0, "a*": 0.5 * 0.488})


def test_each_round_leaves_the_same_share():
    plan = IterativePruning(6, 1e-1, rounds=3)
    events = plan.events()
    assert [event.epoch for event in events] == [0, 3, 6]
    assert [event.share(0.875) for event in events] == pytest.approx([0.5, 0.75, 0.875])
    assert events[-1].share(0.9) == 0.9
    assert str(plan.lr_schedule(1.0)) == "0:1e-1,2:1e-2,3:1e-1,5:1e-2"
    assert plan.lr_schedule(1.0).total == 6


def test_the_penalty_rises_from_the_first_step_to_its_ceiling_and_stays():
    growth = GReg1(4, every=2, delta=0.3).growth(3)
    assert [growth.at(step) for step in range(12)] == pytest.approx(
        [0.3, 0.3, 0.6, 0.6, 0.9, 0.9, 1, 1, 1, 1, 1, 1]
    )
    derived = GReg1(4, every=2, stabilise=2).growth(3)
    assert [derived.at(step) for step in range(12)] == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]
    )
    third = GReg1(6, every=1).growth(5)
    assert [third.at(step) for step in (0, 18, 19, 29)] == pytest.approx([1 / 20, 19 / 20, 1, 1])


def test_what_goes_is_picked_once_its_penalty_was_in_force():
    growth = GReg2(4, every=2, delta=0.3, pick=0.1, pick_delta=0.05, ceiling=0.5).growth(3)
    assert growth.pick == 4
    assert [growth.at(step) for step in range(8)] == pytest.approx(
        [0.05, 0.05, 0.1, 0.1, 0.4, 0.4, 0.5, 0.5]
    )
    derived = GReg2(10, every=5).growth(20)
    assert derived.pick == 20
    assert derived.at(19) == pytest.approx(0.01)
    assert derived.at(20) == pytest.approx(0.01 + derived.delta)
    assert derived.at(199 - 67) < 1 - 1e-9 or derived.at(199 - 66) == pytest.approx(1)


@pytest.mark.parametrize(
    "plan", [GReg1(2, delta=1e-4), GReg1(2, every=100), GReg2(2, pick_delta=1e-5)]
)
def test_a_penalty_that_does_not_fit_is_refused(plan):
    with pytest.raises(ScheduleError, match="give it more epochs, a smaller every or a larger"):
        plan.growth(10)
