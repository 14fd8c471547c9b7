"""Averaged weights beside the trained ones: taken where they are a whole network, and else said."""

from __future__ import annotations

import pytest
import torch

from trainscope.errors import CheckpointError
from trainscope.networks import build, open_checkpoint
from trainscope.networks.inspection import inspect_checkpoint


def both(key: str, averaged: object, **beside: object) -> dict[str, object]:
    torch.manual_seed(0)
    return {"state_dict": build("resnet20", 10).state_dict(), key: averaged, **beside}


def average(states: int = 2) -> torch.optim.swa_utils.AveragedModel:
    averaged = torch.optim.swa_utils.AveragedModel(build("resnet20", 10), use_buffers=True)
    for _ in range(states):
        averaged.update_parameters(build("resnet20", 10))
    return averaged


KEYS = ["ema_state_dict", "model_ema", "ema", "swa_model", "swa_state_dict", "modelEMA", "averaged"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("beside", [{}, {"arch": "resnet20"}])
def test_a_whole_average_is_taken_and_said(tmp_path, key, beside):
    averaged = average()
    content = both(key, averaged.state_dict(), **beside)
    torch.save(content, tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert opened.notes == (
        f"The averaged weights ({key}) were taken.",
        "The file has weights of the same names under 'state_dict' too; --part NAME takes those "
        "instead.",
        "These weights are an average of 2 states of training (n_averaged).",
    )
    assert torch.equal(opened.module.conv1.weight, averaged.module.conv1.weight)
    with pytest.raises(CheckpointError, match="no part 'x'; its parts are: state_dict, "):
        open_checkpoint(tmp_path / "run.pt", part="x")
    assert inspect_checkpoint(tmp_path / "run.pt").notes == opened.notes
    trained = open_checkpoint(tmp_path / "run.pt", part="state_dict")
    assert torch.equal(trained.module.conv1.weight, content["state_dict"]["conv1.weight"])


@pytest.mark.parametrize("inner", ["shadow", "module", "state_dict"])
def test_an_average_one_key_further_below(tmp_path, inner):
    weights = average().module.state_dict()
    torch.save(both("ema", {inner: weights, "decay": 0.999}), tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert opened.notes[0] == "The averaged weights (ema) were taken."
    assert torch.equal(opened.module.conv1.weight, weights["conv1.weight"])


def test_of_two_keys_of_a_script_s_own_the_average_is_taken(tmp_path):
    weights = average().module.state_dict()
    content = {"params": both("", {})["state_dict"], "params_ema": weights}
    torch.save(content, tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert opened.notes[0] == "The averaged weights (params_ema) were taken."
    assert torch.equal(opened.module.conv1.weight, weights["conv1.weight"])


def test_an_average_that_had_not_begun_is_left_alone(tmp_path):
    content = both("swa_model", average(0).state_dict())
    torch.save(content, tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert "averaging had not begun (n_averaged is 0)" in opened.notes[0]
    assert torch.equal(opened.module.conv1.weight, content["state_dict"]["conv1.weight"])


@pytest.mark.parametrize("trained", ["model", "ema"])
def test_of_whole_pickled_networks_the_average_is_taken(tmp_path, trained):
    first, second = build("resnet20", 10), build("resnet20", 10)
    torch.save({"model": first if trained == "model" else None, "ema": second}, tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert torch.equal(opened.module.conv1.weight, second.conv1.weight)
    assert ("The averaged weights (ema) were taken." in opened.notes) == (trained == "model")


def test_the_same_network_under_another_key_is_said_and_can_be_taken(tmp_path):
    best = build("resnet20", 10).state_dict()
    torch.save(both("best_model", best), tmp_path / "run.pt")
    assert open_checkpoint(tmp_path / "run.pt").notes == (
        "The file has weights of the same names under 'best_model' too; --part NAME takes those "
        "instead.",
    )
    opened = open_checkpoint(tmp_path / "run.pt", part="best_model")
    assert torch.equal(opened.module.conv1.weight, best["conv1.weight"])
    assert not opened.notes


def test_the_average_of_a_lightning_callback_is_said(tmp_path):
    state = {f"net.{name}": value for name, value in build("resnet20", 10).state_dict().items()}
    content = {"pytorch-lightning_version": "2.5", "state_dict": state, "epoch": 1}
    torch.save({**content, "callbacks": {"EMA": {"ema_state_dict": state}}}, tmp_path / "run.pt")
    notes = open_checkpoint(tmp_path / "run.pt").notes
    assert any("'EMA', 'ema_state_dict' were left out" in note for note in notes)


KINDS = {
    "without statistics": "57 of the network's 116 tensors are not among them; the trained ones",
    "without names": "not stored as a state dict of the whole network; the trained ones",
    "settings": None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_average_that_is_no_network_is_left_alone(tmp_path, kind):
    weights = {name: torch.zeros_like(p) for name, p in build("resnet20", 10).named_parameters()}
    kept = {"without statistics": weights, "without names": {"shadow_params": [*weights.values()]}}
    content = both("ema", kept.get(kind, {"decay": 0.999}))
    torch.save(content, tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert torch.equal(opened.module.conv1.weight, content["state_dict"]["conv1.weight"])
    said = [note for note in opened.notes if "averaged" in note]
    assert len(said) == (KINDS[kind] is not None)
    assert all(KINDS[kind] in note for note in said)
