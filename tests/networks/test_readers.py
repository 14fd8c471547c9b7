"""One file of each format, made by the tool's own code: recognised, and bit for bit the weights."""

from __future__ import annotations

import argparse
import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from trainscope.errors import CheckpointError
from trainscope.networks import open_checkpoint, registry
from trainscope.networks.network import Remembered
from trainscope.networks.readers import contents_of
from trainscope.networks.readers.numbers import accuracy_of, number_of, whole_of


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(num_classes=7)


def _saved(tmp_path, obj):
    path = tmp_path / "checkpoint.pt"
    torch.save(obj, path)
    return path


def _same(module, state):
    mine = module.state_dict()
    assert mine.keys() == state.keys()
    return all(torch.equal(mine[name], value) for name, value in state.items())


def test_bare_state_dict(tmp_path, resnet):
    network = open_checkpoint(_saved(tmp_path, resnet.state_dict()))
    assert _same(network.module, resnet.state_dict())
    assert network.format == "state dict"
    assert network.recognised == "by names and shapes"
    assert network.remembered == Remembered()
    assert (network.architecture, network.num_classes) == ("resnet18", 7)
    assert network.input_shape == (3, 224, 224)
    assert network.notes == ()


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(tmp_path, resnet, wrap):
    state = wrap(resnet).state_dict()
    assert next(iter(state)) != "conv1.weight"
    network = open_checkpoint(_saved(tmp_path, state))
    assert _same(network.module, resnet.state_dict())


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "module.model.", "model.net."])
def test_prefixes_of_frameworks_are_taken_off(tmp_path, resnet, prefix):
    state = {prefix + name: value for name, value in resnet.state_dict().items()}
    assert _same(open_checkpoint(_saved(tmp_path, state)).module, resnet.state_dict())


def test_imagenet_example(tmp_path, resnet):
    optimizer = torch.optim.SGD(resnet.parameters(), 0.1, momentum=0.9)
    path = _saved(
        tmp_path,
        {
            "epoch": 90,
            "arch": "resnet18",
            "state_dict": nn.DataParallel(resnet).state_dict(),
            "best_acc1": torch.tensor(69.5),
            "optimizer": optimizer.state_dict(),
            "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        },
    )
    network = open_checkpoint(path)
    assert _same(network.module, resnet.state_dict())
    assert network.format == "PyTorch ImageNet example"
    assert network.recognised == "named in the file"
    assert network.remembered == Remembered(epochs=90, accuracy=69.5)


def test_a_wrapper_inside_the_network_is_taken_off(tmp_path, resnet):
    """The ImageNet example wraps the features alone of an AlexNet or VGG."""
    inside = copy.deepcopy(resnet)
    inside.layer1 = nn.DataParallel(inside.layer1)
    state = inside.state_dict()
    assert "layer1.module.0.conv1.weight" in state
    path = _saved(tmp_path, {"arch": "resnet18", "state_dict": state, "epoch": 1})
    assert _same(open_checkpoint(path).module, resnet.state_dict())


@pytest.mark.parametrize("name", ["resnet50", "my_resnet18"])
def test_a_name_that_does_not_fit_gives_way_to_the_tensors(tmp_path, resnet, name):
    path = _saved(tmp_path, {"arch": name, "state_dict": resnet.state_dict()})
    network = open_checkpoint(path)
    assert network.architecture == "resnet18"
    assert any(f"names '{name}'" in note for note in network.notes)


def test_torchvision_reference(tmp_path, resnet):
    averaged = AveragedModel(resnet)
    averaged.update_parameters(resnet)
    with torch.no_grad():
        averaged.module.fc.bias.add_(1)
    checkpoint = {
        "model": resnet.state_dict(),
        "optimizer": torch.optim.SGD(resnet.parameters(), 0.1).state_dict(),
        "epoch": 89,
        "args": argparse.Namespace(model="resnet18", lr=0.1, lr_step_size=30, weights=None),
    }
    network = open_checkpoint(_saved(tmp_path, checkpoint))
    assert _same(network.module, resnet.state_dict())
    assert network.format == "torchvision reference script"
    assert network.remembered == Remembered(epochs=90)
    assert network.notes == ()

    checkpoint["model_ema"] = averaged.state_dict()
    network = open_checkpoint(_saved(tmp_path, checkpoint))
    assert _same(network.module, averaged.module.state_dict())
    assert network.notes[0] == "The averaged weights (model_ema) were taken."


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_a_state_dict_in_a_dictionary(tmp_path, resnet, key):
    path = _saved(tmp_path, {key: resnet.state_dict(), "epoch": 4, "acc": 93.5, "loss": 0.1})
    network = open_checkpoint(path)
    assert _same(network.module, resnet.state_dict())
    assert network.format == f"dictionary with a state dict under '{key}'"
    assert network.remembered == Remembered(epochs=4, accuracy=93.5)


def test_published_densenets_have_their_layers_under_old_names(tmp_path):
    torch.manual_seed(0)
    dense = registry.build("densenet121", 3)
    old = {}
    for name, value in dense.state_dict().items():
        for layer in ("norm", "conv"):
            for number in "12":
                name = name.replace(f".{layer}{number}.", f".{layer}.{number}.")
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert _same(open_checkpoint(_saved(tmp_path, old)).module, dense.state_dict())


def test_auxiliary_heads_are_left_out_and_said(tmp_path):
    torch.manual_seed(0)
    full = models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    network = open_checkpoint(_saved(tmp_path, full.state_dict()))
    kept = {n: v for n, v in full.state_dict().items() if not n.startswith("aux")}
    assert _same(network.module, kept)
    assert "auxiliary heads were left out (aux1.conv.conv.weight and 19 more)" in network.notes[0]
    assert "transform_input" in network.notes[1]


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "an empty dictionary"),
        ([1, 2], "a list"),
        (torch.zeros(3), "a Tensor"),
        ({"epoch": 3, "loss": 0.5}, "a dictionary of 'epoch', 'loss'"),
        ({"state_dict": {"epoch": 3}}, "a dictionary of 'state_dict'"),
        ({1: torch.zeros(2)}, "a dictionary of 1"),
    ],
    ids=str,
)
def test_files_without_weights_are_told_what_they_hold(tmp_path, obj, message):
    with pytest.raises(CheckpointError, match=f"holds no network's weights: it is {message}"):
        contents_of(_saved(tmp_path, obj))


def test_numbers_in_the_forms_that_scripts_save():
    assert number_of(torch.tensor([71.5])) == 71.5
    assert number_of(torch.zeros(2)) is None
    assert number_of(float("nan")) is None
    assert number_of(True) is None
    assert whole_of(torch.tensor(3)) == 3
    assert whole_of(2.5) is None
    assert whole_of(-1) is None
    assert accuracy_of(93.1) == 93.1
    assert accuracy_of(0.93) is None
    assert accuracy_of("93.1") is None


@pytest.mark.parametrize("value", [10**400, -1, 2.5, float("nan"), float("inf"), True, "7", [7]])
def test_numbers_of_any_size_are_numbers_or_nothing(value):
    assert whole_of(value) is None
    assert number_of(10**400) is None
    assert accuracy_of(10**400) is None
    assert whole_of(2**64 - 1) == 2**64 - 1


def test_odd_values_beside_the_weights_are_left_alone(tmp_path, resnet):
    nested: list[object] = []
    for _ in range(300):
        nested = [nested]
    beside = {"epoch": 10**400, "best_acc": nested, "format": nested, "arch": nested, "args": {}}
    torch.save({"state_dict": resnet.state_dict(), **beside}, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert opened.architecture == "resnet18"
    assert opened.remembered.epochs is None
