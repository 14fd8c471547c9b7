"""Options that belong together are records: the fields are what is typed, with its defaults."""

from __future__ import annotations

from dataclasses import MISSING, fields

import click
import pytest

from trainscope.cli.action_options import ActionOptions, action_options
from trainscope.cli.measuring_options import MeasuringOptions
from trainscope.cli.network_options import (
    NetworkOptions,
    NewNetworkOptions,
    network_options,
    part_option,
    unsafe_load_option,
)
from trainscope.cli.pipeline import command as pipeline
from trainscope.cli.probe import ProbeOptions
from trainscope.cli.probe import command as probe
from trainscope.cli.retrain import command as retrain
from trainscope.cli.schedule_options import (
    PlanOptions,
    ScheduleOptions,
    ShapeOptions,
    plan_options,
    schedule_options,
    shape_options,
)
from trainscope.cli.taking import check_all_taken, take
from trainscope.cli.train import command as train
from trainscope.sparsify import Action


def typed(command: click.Command, *words: str) -> dict[str, object]:
    """Return the options that a command gets where nobody types any but these words."""
    return command.make_context(command.name, list(words)).params


@pytest.mark.parametrize(
    ("record", "decorators", "words"),
    [
        (ActionOptions, [action_options], []),
        (ShapeOptions, [shape_options], []),
        (ScheduleOptions, [schedule_options], []),
        (PlanOptions, [plan_options], []),
        (NetworkOptions, [network_options, part_option, unsafe_load_option], ["x.pt"]),
    ],
)
def test_a_record_has_the_options_beside_it_with_their_defaults(record, decorators, words):
    def nothing(**_):
        pass

    for decorate in decorators:
        nothing = decorate(nothing)
    options = typed(click.command()(nothing), *words)
    options.pop("checkpoint", None)
    assert options == vars(record())


@pytest.mark.parametrize(
    ("record", "command", "words"),
    [
        (ProbeOptions, probe, ["x.pt"]),
        (MeasuringOptions, retrain, ["x.pt"]),
        (MeasuringOptions, pipeline, ["--recipe", "P1F1,1e-1"]),
        (NewNetworkOptions, train, ["--data", "digits"]),
        (NewNetworkOptions, pipeline, ["--recipe", "P1F1,1e-1"]),
    ],
)
def test_a_command_has_all_of_a_record(record, command, words):
    options = typed(command, *words)
    assert {each.name for each in fields(record)} <= set(options)
    if command in (probe, train):
        left = {each.name: each.default for each in fields(record) if each.default is not MISSING}
        assert left.items() <= options.items()


def test_an_action_typed_without_a_word_is_the_default_one():
    assert ActionOptions().chosen == ()
    assert not ActionOptions().prunes
    asked = ActionOptions(ratio=0.5, global_ranking=True, criterion_samples=5)
    assert asked.chosen == ("--criterion-samples", "--global", "--ratio")
    assert asked.build(seed=3) == Action(
        ratio=0.5, global_ranking=True, criterion_samples=5, seed=3
    )
    assert ActionOptions(structure="2:4").prunes


def test_what_is_taken_is_gone_and_what_nobody_takes_is_said():
    options = {"plan": "gradual:3", "stage": None, "speed": 2}
    assert take(PlanOptions, options) == PlanOptions("gradual:3")
    assert options == {"speed": 2}
    with pytest.raises(TypeError, match="options that nothing takes: speed"):
        check_all_taken(options)
    check_all_taken({})
