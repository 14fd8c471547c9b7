"""Recipes, as they are written in the tables."""

from __future__ import annotations

import pytest

from trainscope.errors import ScheduleError
from trainscope.training.recipe import parse_recipe


def test_a_whole_pipeline():
    recipe = parse_recipe("P60F60,1e-3")
    assert (recipe.pretrain, recipe.retrain, recipe.lr) == (60, 60, 1e-3)
    assert str(recipe.schedule()) == "0:1e-3,30:1e-4,45:1e-5"
    assert recipe.pruning_epoch() == 60


def test_recipes_of_one_length_share_their_pretraining():
    stems = {str(parse_recipe(t).pretraining()) for t in ("P30F90,1e-2", "P60F60,1", "P90F30,1e-4")}
    assert stems == {"0:1e-1,30:1e-2,60:1e-3,90:1e-4,105:1e-5"}


@pytest.mark.parametrize("text", ["F60,1e-3(+60)", "F60, 1e-3 (+60 epochs)", "F60,1e-3( + 60 )"])
def test_extra_epochs(text):
    schedule = parse_recipe(text).schedule()
    assert (str(schedule), schedule.total) == ("0:1e-3,90:1e-4,105:1e-5", 120)


def test_a_squeezed_recipe_needs_the_speedup():
    recipe = parse_recipe("P30/F90,1e-2")
    assert recipe.pruning_epoch(1.11) == 27
    assert str(recipe.schedule()) == "0:1e-2,30:1e-3,60:1e-4,75:1e-5"
    with pytest.raises(ScheduleError, match="--speedup"):
        recipe.pruning_epoch()


def test_retraining_alone_has_no_pretraining():
    recipe = parse_recipe("F60,1e-3")
    assert recipe.pruning_epoch(2.0) is None
    with pytest.raises(ScheduleError, match="write one like P60F60,1e-3"):
        recipe.pretraining()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "60,1e-3",
        "F60",
        "P60,1e-3",
        "F60,",
        "F60,-1e-3",
        "F60,1e-3(60)",
        "G60,1e-3",
        "F60,1e-3x",
    ],
)
def test_what_is_no_recipe_is_said_to_be_none(text):
    with pytest.raises(ScheduleError, match="is no recipe"):
        parse_recipe(text)


def test_numbers_out_of_range():
    with pytest.raises(ScheduleError, match="one epoch or more"):
        parse_recipe("F0,1e-3")
    with pytest.raises(ScheduleError, match="one epoch or more"):
        parse_recipe("P0F3,1e-3")
    with pytest.raises(ScheduleError, match="no learning rate"):
        parse_recipe("F60,1e9")
    with pytest.raises(ScheduleError, match="more than"):
        parse_recipe("F9999999,1e-3")
