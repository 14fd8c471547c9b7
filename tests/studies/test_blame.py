"""An error says which field it is about, and so the line of a study, whatever its words are."""

from __future__ import annotations

import pickle

import pytest
from small_studies import NETWORK

from trainscope.errors import (
    ActionError,
    NoOpError,
    NotFetchedError,
    StudyError,
    TrainscopeError,
)
from trainscope.sparsify import Action
from trainscope.studies import Study
from trainscope.studies.grid import Base
from trainscope.studies.oracle_axis import OracleActions
from trainscope.studies.plain import from_plain
from trainscope.studies.search import Search
from trainscope.studies.spec import RunSpec
from trainscope.training.settings import LoRA, Settings

WRONG = [
    (Action, {"structure": "rows", "ratio": 0.5}, ("structure",)),
    (Action, {"ratio": 0.5, "scope": "outer"}, ("scope",)),
    (Action, {"ratio": 0.5, "criterion": "l7"}, ("criterion",)),
    (Action, {"ratio": 0.5, "criterion_samples": 0}, ("criterion_samples",)),
    (Action, {"ratio": 1.5}, ("ratio",)),
    (Action, {"ratio": True}, ("ratio",)),
    (Action, {"ratios": {"a.ratio": 1.5}}, ("ratios", "a.ratio")),
    (Action, {"ratio": 0.5, "ratios": {"a": "half"}}, ("ratios", "a")),
    (Action, {"ratios": {"a": 0}}, ("ratios",)),
    (Action, {"structure": "2:4", "ratio": 0.9}, ("ratio",)),
    (Action, {"structure": "2:4", "ratios": {"a": 0.9}}, ("ratios", "a")),
    (Action, {"structure": "2:4", "global_ranking": True}, ("global_ranking",)),
    (Action, {"structure": "unstructured", "ratio": 0.5, "heads": 0.5}, ("heads",)),
    (Action, {"ratio": 0.5, "heads": 1.5}, ("heads",)),
    (Action, {"ratio": 0.5, "blocks": 0}, ("blocks",)),
    (Action, {"kept": {"c": (1, 1)}}, ("kept", "c")),
    (Action, {"kept": {"c": (1,)}, "ratio": 0.5}, ("kept",)),
    (Action, {"criterion": "influence", "ratio": 0.5}, ("criterion",)),
    (Settings, {"batch_size": 0}, ("batch_size",)),
    (Settings, {"betas": (1.0, 0.0)}, ("betas",)),
    (LoRA, {"rank": 0}, ("rank",)),
    (LoRA, {"rank": 1, "alpha": -1.0}, ("alpha",)),
    (LoRA, {"rank": 1, "targets": ("",)}, ("targets",)),
    (Search, {"lr": (1e-1, 1e-4)}, ("lr",)),
    (Search, {"lr": (1e-4, 1e-1), "trials": 0}, ("trials",)),
    (Search, {"lr": (1e-4, 1e-1), "sampler": "x"}, ("sampler",)),
    (Search, {"lr": (1e-4, 1e-1), "pruner": "x"}, ("pruner",)),
    (Search, {"lr": (1e-4, 1e-1), "seed": -1}, ("seed",)),
    (OracleActions, {"ratio": 2.0}, ("ratio",)),
    (OracleActions, {"ratio": 0.5, "candidates": 1}, ("candidates",)),
    (OracleActions, {}, ()),
    (Base, {"checkpoint": "a.pt", "seed": -1}, ("seed",)),
    (Base, {}, ()),
]


@pytest.mark.parametrize(("kind", "given", "field"), WRONG)
def test_a_record_names_its_field(kind, given, field):
    with pytest.raises(TrainscopeError) as raised:
        kind(**given)
    assert raised.value.field == field


SPEC = {"recipe": "F2,1e-1", "architecture": NETWORK}
RUNS = [
    ({"recipe": "F2;1e-1"}, ("recipe",)),
    ({"recipe": "F0,1e-1"}, ("recipe",)),
    ({"recipe": "0:1e-1"}, ("recipe",)),
    ({"recipe": "0:x", "epochs": 2}, ("recipe",)),
    ({"epochs": 3}, ("epochs",)),
    ({"shape": "square"}, ("shape",)),
    ({"min_lr": 1e-3}, ("min_lr",)),
    ({"warmup": -1}, ("warmup",)),
    ({"plan": "gradual"}, ("plan",)),
    ({"weights": "mine"}, ("weights",)),
    ({"weights": "random"}, ("weights",)),
    ({"seed": -1}, ("seed",)),
    ({"samples": 1}, ("samples",)),
    ({"probe_epochs": (1,)}, ("probe_epochs",)),
    ({"probes": ("gradient",), "probe_epochs": (9,)}, ("probe_epochs",)),
]


@pytest.mark.parametrize(("given", "field"), RUNS)
def test_so_does_a_spec(given, field):
    with pytest.raises(TrainscopeError) as raised:
        RunSpec(**{**SPEC, **given})
    assert raised.value.field == field


def test_a_field_of_a_field_is_named_with_the_way_to_it():
    for raw, way in (
        ({"lora": {"rank": 0}}, ("lora", "rank")),
        ({"lora": {"rang": 1}}, ("lora", "rang")),
        ({"lora": {"rank": "one"}}, ("lora", "rank")),
        ({"lora": {}}, ("lora",)),
    ):
        with pytest.raises(TrainscopeError) as raised:
            from_plain(Settings, raw, "settings")
        assert raised.value.field == way


TEXT = f"""data = "digits"
recipes = ["F2,1e-1"]
seeds = 0

[settings]
batch_size = 256
[settings.lora]
targets = ["a"]
rank = 2

[[base]]
architecture = "{NETWORK}"
seed = 1
recipe = "F2,1e-1"
warmup = 0

[[action]]
criterion = "l1"
ratio = 0.5

[[paper]]
label = "x"
value = 3
match = {{ seed = 0 }}
"""
LINES = [
    ("rank = 2", "rank = 0", 9),
    ('targets = ["a"]', 'targets = [""]', 8),
    ('"F2,1e-1"\nwarmup', '"F2;1e-1"\nwarmup', 14),
    ("warmup = 0", "warmup = -1", 15),
    ("seed = 1", "seed = -1", 13),
    ("seeds = 0", "seeds = -1", 3),
    ("ratio = 0.5", "ratio = 1.5", 19),
    ("value = 3", 'value = "criterion"', 23),
]


@pytest.mark.parametrize(("old", "new", "line"), LINES)
@pytest.mark.parametrize("folder", ["plain", "seed", "criterion", "base.recipe"])
def test_the_line_is_that_of_the_field_wherever_the_file_lies(old, new, line, folder, tmp_path):
    path = tmp_path / folder / "grid.toml"
    path.parent.mkdir()
    assert TEXT.count(old) == 1
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(StudyError, match=rf"grid.toml, line {line}: ") as raised:
        Study.read(path).plan()
    assert str(raised.value).count("line ") == 1


@pytest.mark.parametrize(
    "error",
    [
        StudyError("line 3: a", "a", field=("ratios", "conv1")),
        ActionError("a", field=("ratio",)),
        NotFetchedError("it is not here", ", or fetch it"),
        NoOpError("all of it is gone", reached=0.5),
    ],
)
def test_an_error_comes_whole_from_another_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
