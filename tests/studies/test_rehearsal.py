"""What a run would find only when it runs is said before any does, with the line."""

from __future__ import annotations

import pytest
from small_studies import NETWORK, one_thread, pretraining, retraining
from torch import nn

from trainscope.errors import StudyError
from trainscope.sparsify import Action
from trainscope.studies import Study
from trainscope.studies.engines import run

TEXT = f'''data = "digits"
recipes = "F1,1e-1"

[settings]
batch_size = 256

[[base]]
architecture = "{NETWORK}"
recipe = "F1,1e-1"

[[action]]
ratio = 0.5
'''
ERRORS = {
    "data that is not here": ('"digits"', '"mnist:{}/none"', "line 1: no MNIST at .* takes$"),
    "data without labels": ('"digits"', '"random:1x8x8"', "line 1: random:1x8x8 has no labels"),
    "a network of other inputs": (f'"{NETWORK}"', '"lenet5"', "line 8: lenet5 does not take"),
    "a factory of no network": (f'"{NETWORK}"', '"os:getcwd"', "line 8: .* returned a str"),
    "a layer that is not there": (
        "ratio = 0.5",
        'ratios = { "layer9*" = 0.5 }',
        "line 12: the pattern 'layer9",
    ),
    "a layer that is not there, beside other fields": (
        "ratio = 0.5",
        'criterion = "l2"\nratios = { "layer9*" = 0.5 }',
        "line 13: the pattern 'layer9",
    ),
    "filters that are not there": ("ratio = 0.5", 'kept = { "0" = [0, 99] }', "line 12: 0 has 8"),
    "a structure that does not fit": ("ratio = 0.5", "heads = 0.5", "line 12: no attention head"),
    "a target that is not there": (
        "batch_size = 256",
        'lora = { rank = 2, targets = ["gone"] }',
        "line 5: the LoRA target 'gone'",
    ),
    "a folder that is a file": (
        'data = "',
        'folder = "{}/grid.toml"\ndata = "',
        "line 1: the runs",
    ),
    "a store that is none": ('data = "', 'store = "nodb://x/y"\ndata = "', "line 1: nodb://"),
}


@pytest.fixture(autouse=True)
def _one_thread():
    one_thread()


@pytest.mark.parametrize("kind", ERRORS)
def test_it_is_one_sentence_and_nothing_is_queued(kind, tmp_path):
    old, new, said = ERRORS[kind]
    path = tmp_path / "grid.toml"
    path.write_text(TEXT.replace(old, new.replace("{}", str(tmp_path)), 1), encoding="utf-8")
    study = Study.read(path)
    with pytest.raises(StudyError, match=said) as raised:
        run(study)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    if "://" not in str(study.store):
        assert study.open_store().studies == []
        assert [file.name for file in tmp_path.iterdir()] == ["grid.toml"]


def thin() -> nn.Module:
    """Return a network of one filter, of which nothing can go."""
    return nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 10))


def test_an_action_that_can_be_done_on_some_base_is_not_wrong(tmp_path):
    thin_one = pretraining(architecture=f"{__name__}:thin")
    both = Study(
        "x",
        base=[pretraining(), thin_one],
        action=Action(ratio=0.5),
        recipes="F1,1e-1",
        data="digits",
        store=tmp_path,
    )
    both.rehearse(both.plan(), both.open_store())
    alone = Study("x", base=thin_one, action=both.action, recipes="F1,1e-1", data="digits")
    with pytest.raises(StudyError):
        alone.rehearse(alone.plan(), both.open_store())


def test_what_is_done_is_not_tried_again(tmp_path, monkeypatch):
    study = Study("x", runs=[retraining("F1,1e-1")], store=tmp_path)
    run(study)
    monkeypatch.setattr("trainscope.studies.rehearsal.training_job", lambda *_: 1 / 0)
    assert len(run(study).done("x")) == 1


def test_a_checkpoint_has_nothing_to_rewind_to_and_maybe_no_budget(tmp_path):
    run(Study("x", runs=[pretraining("F1,1e-1")], store=tmp_path))
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint.pt")
    named = {"base": {"checkpoint": str(checkpoint), "model": NETWORK}, "action": {"ratio": 0.5}}
    given = {**named, "recipes": "F1,1e-1", "data": "digits", "store": tmp_path / "b.db"}
    with pytest.raises(StudyError, match="a winning ticket is rewound"):
        Study("y", weights="winning-ticket", **given).plan()
    gone = given | {"base": {"checkpoint": str(checkpoint), "model": "nopackage:network"}}
    with pytest.raises(StudyError, match="model nopackage:network: there is no module"):
        Study("y", **gone).plan()
    fine = Study("y", weights="scratch-e", **given)
    fine.rehearse(fine.plan(), fine.open_store())
