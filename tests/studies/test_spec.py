"""A RunSpec is plain JSON, and its digest is that of the run it means."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from small_studies import pretraining, retraining

from trainscope.errors import TrainscopeError
from trainscope.sparsify import Action
from trainscope.studies import BaseModel, RunSpec
from trainscope.studies.plain import from_plain, plain
from trainscope.studies.rows import columns_of
from trainscope.training.plans import GradualPruning
from trainscope.training.settings import LoRA, Settings


def specs() -> list[RunSpec]:
    pruned = Action(structure="unstructured", ratios={"layer1*": 0.5, "fc": 0.0}, ratio=0.9)
    return [
        pretraining(),
        retraining(),
        retraining("P1F2,1e-1", action=pruned, probes=["gradient"], probe_epochs=[0, 2]),
        retraining(base=BaseModel("a.pt", digest="0" * 64), seed=3, weights="random"),
        retraining(base=retraining(), settings=Settings(lora=LoRA(2, targets=("a", "b")), clip=1)),
        retraining("0:1e-2,1:1e-3", epochs=4, task="classification", data=None, warmup=1),
        retraining("P1F2,1e-1", plan="greg-2:4,every=1"),
        retraining(plan=GradualPruning(4), weights="winning-ticket"),
    ]


@pytest.mark.parametrize("number", range(8))
def test_json_and_back(number):
    spec = specs()[number]
    back = RunSpec.from_dict(json.loads(json.dumps(spec.as_dict())))
    assert back == spec
    assert back.digest == spec.digest


def test_no_two_of_them_have_one_digest():
    assert len({spec.digest for spec in specs()}) == len(specs())


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"weights": "random"},
        {"recipe": "F2,1e-2"},
        {"recipe": "P1F2,1e-1"},
        {"data": "mnist:x"},
        {"settings": Settings(batch_size=8)},
        {"action": Action(ratio=0.25)},
        {"base": pretraining(seed=1)},
        {"probes": ("gradient",)},
        {"plan": "gradual:2"},
    ],
    ids=str,
)
def test_what_decides_the_outcome_changes_the_digest(options):
    assert replace(retraining(), **options).digest != retraining().digest


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": " F2, 0.1 "},
        {"recipe": "P2F2,1e-1"},  # pruned at the end of the base's two epochs
        {"recipe": "0:1e-1,1:0.01", "epochs": 2},
        {"settings": Settings(batch_size=256, augment=False, seed=9)},
        {"action": Action(ratio=0.5, scope="inner", ratios={})},
        {"plan": "one-shot"},
    ],
    ids=str,
)
def test_another_way_to_say_the_same_run_has_its_digest(options):
    assert replace(retraining(), **options).digest == retraining().digest


def test_a_checkpoint_is_named_by_its_weights_wherever_it_lies():
    one, two = (retraining(base=BaseModel(path, "1" * 64)) for path in ("a.pt", "b/c.pt"))
    assert one.digest == two.digest == retraining(base="sha256:" + "1" * 64).digest
    with pytest.raises(TrainscopeError, match="not read yet"):
        _ = retraining(base="a.pt").digest


def test_a_field_that_is_added_later_changes_no_digest():
    @dataclass(frozen=True)
    class Later(Settings):
        added: int = 7

    assert plain(Later(batch_size=8)) == plain(Settings(batch_size=8)) == {"batch_size": 8}


def test_whole_numbers_and_floats_of_one_value_are_one():
    assert plain(Settings(clip=1)) == plain(Settings(clip=1.0))
    assert json.dumps(plain(Settings(clip=1))) == '{"clip": 1.0}'


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"architecture": "resnet20"}, "a base or from an architecture"),
        ({"weights": "rewound"}, "'rewound' is no kind of weights"),
        ({"action": None, "weights": "random"}, "add an action"),
        ({"recipe": "P3F2,1e-1"}, "prunes after epoch 3, and the base is trained for 2"),
        ({"recipe": "P1F2,1e-1", "base": "a.pt"}, "cuts off a pretraining"),
        ({"recipe": "nonsense"}, "nonsense"),
        ({"recipe": "0:1e-1"}, "needs its total"),
        ({"recipe": "0:1e-1", "epochs": 3, "weights": "scratch-e"}, "follow from a recipe"),
        ({"epochs": 3}, "leave epochs out"),
        ({"shape": "square"}, "no shape"),
        ({"seed": -1}, "seed"),
        ({"probe_epochs": (1,)}, "name the probes"),
        ({"probes": ("gradient",), "probe_epochs": (9,)}, "from 0 to 2"),
        ({"base": "sha256:12"}, "no digest|not read"),
    ],
    ids=str,
)
def test_a_spec_of_no_run_is_refused(options, said):
    with pytest.raises(TrainscopeError, match=said):
        _ = replace(retraining(), **options).digest


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"rato": 0.5}, "'rato' is no key of action: did you mean 'ratio'"),
        ({"ratio": "0.5"}, "action.ratio is a number, not '0.5'"),
        ({"global_ranking": 1}, "action.global_ranking is true or false, not 1"),
        ({"ratio": 1.5}, "share between 0 and 1"),
    ],
)
def test_what_is_wrong_with_an_action_is_said(raw, said):
    with pytest.raises(TrainscopeError, match=said):
        from_plain(Action, raw, "action")


def test_columns_have_dotted_names_and_defaults():
    row = columns_of(retraining("P1F2,1e-1"))
    assert row["action.criterion"] == "l1"
    assert row["base.architecture"] == "small_studies:network"
    assert (row["recipe"], row["schedule"], row["lr"]) == ("P1F2,1e-1", "0:1e-1,1:1e-2", 0.1)
    assert all(v is None or isinstance(v, str | int | float) for v in row.values())


def test_a_stage_is_named_by_what_decides_it():
    """Recipes that follow it share it, and it knows the pruning epoch and the seed."""
    spec = retraining("P1F2,1e-1", plan=" gradual:2, every=1", probes=("gradient",))
    assert spec.plan == "gradual:2"
    same = [
        replace(spec, recipe="P1F7,1e-1", weights="random"),
        replace(spec, recipe="P1F7,1e-1", probes=(), samples=8, shape="cosine"),
    ]
    others = [
        replace(spec, recipe="P2F2,1e-1"),
        replace(spec, recipe="P1F2,1e-2"),  # of whose LR the stage's is
        replace(spec, seed=1),
        replace(spec, plan="gradual:3"),
        replace(spec, weights="winning-ticket"),
        replace(spec, action=Action(ratio=0.25)),
    ]
    assert {each.stage.key for each in same} == {spec.stage.key}
    assert spec.stage.key not in {each.stage.key for each in others}
    free = replace(spec, plan="gradual:2,lr=1e-1")
    assert replace(free, recipe="P1F2,1e-2").stage.key == free.stage.key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"action": None}, "the plan gradual is a schedule of pruning: add an action"),
        ({"weights": "scratch-e", "recipe": "P1F1,1e-1"}, "leave one of them out"),
        ({"action": Action("2:4")}, "2:4 has one ratio"),
        ({"settings": Settings(lora=LoRA(2))}, "which LoRA freezes"),
    ],
)
def test_plans_that_cannot_be(options, said):
    with pytest.raises(TrainscopeError, match=said):
        retraining(plan="gradual:2", **options)
