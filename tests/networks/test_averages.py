"""Averaged weights beside the trained ones: taken where they are a whole network."""

from __future__ import annotations

import pytest
import torch

from trainscope.networks import build, open_checkpoint


def both(key: str, averaged: object, **beside: object) -> dict[str, object]:
    torch.manual_seed(0)
    return {"state_dict": build("resnet20", 10).state_dict(), key: averaged, **beside}


@pytest.mark.parametrize("key", ["ema_state_dict", "model_ema", "ema_model", "ema"])
@pytest.mark.parametrize("beside", [{}, {"arch": "resnet20"}])
def test_a_whole_average_is_taken_and_said(tmp_path, key, beside):
    averaged = torch.optim.swa_utils.AveragedModel(build("resnet20", 10), use_buffers=True)
    torch.save(both(key, averaged.state_dict(), **beside), tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert opened.notes[0] == f"The averaged weights ({key}) were taken."
    assert torch.equal(opened.module.conv1.weight, averaged.module.conv1.weight)


@pytest.mark.parametrize("kind", ["without statistics", "settings"])
def test_an_average_that_is_no_network_is_left_alone(tmp_path, kind):
    weights = {name: torch.zeros_like(p) for name, p in build("resnet20", 10).named_parameters()}
    content = both("ema", weights if kind == "without statistics" else {"decay": 0.999})
    torch.save(content, tmp_path / "run.pt")
    opened = open_checkpoint(tmp_path / "run.pt")
    assert torch.equal(opened.module.conv1.weight, content["state_dict"]["conv1.weight"])
    assert not any("averaged" in note for note in opened.notes)
