"""Timm's networks: built by name, from its training script's files and from pickled ones."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import Network, open_checkpoint, save_checkpoint, timm_zoo
from trainscope.networks.readers import timm as reader
from trainscope.networks.readers.contents import Contents


@pytest.fixture
def library():
    return pytest.importorskip("timm", reason="timm is not installed")


def _made(library, name: str) -> nn.Module:
    torch.manual_seed(0)
    return library.create_model(name, num_classes=7).eval()


def _same(network: Network, module: nn.Module) -> bool:
    x = torch.randn(1, *network.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.equal(network.module(x), module(x))


# Positions outside the state dict; two heads; a name that is torchvision's too, with other tensors.
NAMES = ["resnet26d", "levit_128s", "convnext_atto", "efficientnet_b0"]


@pytest.mark.parametrize("name", NAMES)
def test_the_training_scripts_file(library, tmp_path, name):
    module = _made(library, name)
    held = {"epoch": 3, "arch": name, "state_dict": module.state_dict(), "version": 2}
    torch.save({**held, "args": argparse.Namespace(model=name)}, tmp_path / "last.pth.tar")
    opened = open_checkpoint(tmp_path / "last.pth.tar")
    assert opened.architecture == f"timm/{name}"
    assert opened.recognised == "named in the file"
    assert opened.notes == ()
    assert _same(opened, module)
    save_checkpoint(tmp_path / "own.pt", opened)
    assert _same(open_checkpoint(tmp_path / "own.pt"), module)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_pickled_network_says_which_it_is(library, tmp_path, name):
    module = _made(library, name)
    torch.save(module, tmp_path / "whole.pt")
    opened = open_checkpoint(tmp_path / "whole.pt")
    assert opened.architecture == f"timm/{name}"
    assert opened.geometry == {}
    assert _same(opened, module)


def test_a_bare_state_dict_of_which_the_name_is_said(library, tmp_path):
    module = _made(library, "resnet26d")
    torch.save(module.state_dict(), tmp_path / "a.pt")
    assert _same(open_checkpoint(tmp_path / "a.pt", arch="timm/resnet26d"), module)
    with pytest.raises(CheckpointError, match="no architecture is named 'timm/resnet26x'"):
        open_checkpoint(tmp_path / "a.pt", arch="timm/resnet26x")


def test_a_name_with_its_weights(library):
    assert timm_zoo.architecture("resnet18.a1_in1k").name == "timm/resnet18"


@pytest.mark.parametrize("name", ["hf_hub:someone/something", "local-dir:/tmp", "", "a b"])
def test_nothing_is_fetched(name):
    assert timm_zoo.architecture(name) is None


def test_without_timm_there_is_none_and_a_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(timm_zoo, "find_spec", lambda _: None)
    timm_zoo.architecture.cache_clear()
    assert timm_zoo.architecture("resnet26d") is None
    torch.save({"w.weight": torch.zeros(2, 2)}, Path(tmp_path) / "a.pt")
    with pytest.raises(CheckpointError, match="no architecture is named 'timm/resnet26d'"):
        open_checkpoint(tmp_path / "a.pt", arch="timm/resnet26d")
    timm_zoo.architecture.cache_clear()


def test_the_reader_names_the_architecture_by_the_script():
    content = {"state_dict": {"a": torch.zeros(2)}, "state_dict_ema": {"a": torch.ones(2)}}
    found: Contents = reader.read({**content, "arch": "resnet26d", "epoch": 2})
    assert found.architecture == "resnet26d"
    assert float(found.state_dict["a"][0]) == 1.0
