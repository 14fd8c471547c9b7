"""What tensors do not tell of a whole pickled network comes back, or the file is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from trainscope.errors import CheckpointError
from trainscope.networks import Network, open_checkpoint, save_checkpoint
from trainscope.networks.geometry import apply_geometry
from trainscope.networks.readers.contents import KIND
from trainscope.networks.tensor_names import owner_names


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(num_classes=7).eval()


def _set(path: str, value: object):
    owner, _, leaf = path.rpartition(".")
    return lambda network: setattr(network.get_submodule(owner), leaf, value)


CHANGES = {
    "maxpool = Identity": _set("maxpool", nn.Identity()),
    "relu = LeakyReLU": _set("relu", nn.LeakyReLU(0.3)),
    "layer1.0.relu = GELU": _set("layer1.0.relu", nn.GELU()),
    "maxpool = AvgPool2d": _set("maxpool", nn.AvgPool2d(2)),
    "maxpool.kernel_size": _set("maxpool.kernel_size", 2),
    "bn1.eps": _set("bn1.eps", 0.1),
    "conv1.stride": _set("conv1.stride", (1, 1)),
    "conv1.padding": _set("conv1.padding", (1, 1)),
    "layer2.0.conv2.dilation, layer2.0.conv2.padding": lambda network: (
        _set("layer2.0.conv2.dilation", (2, 2))(network),
        _set("layer2.0.conv2.padding", (2, 2))(network),
    ),
}


def _logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("together", "wrapped"),  # a wrapper's names are taken off settings too
    [
        (("maxpool = Identity", "bn1.eps", "conv1.stride", "layer1.0.relu = GELU"), False),
        (("maxpool = AvgPool2d", "relu = LeakyReLU", "conv1.padding"), True),
        (("maxpool.kernel_size", "layer2.0.conv2.dilation, layer2.0.conv2.padding"), True),
    ],
)
def test_a_changed_network_computes_the_same_and_says_what_was_changed(
    tmp_path, resnet, together, wrapped
):
    """Each change alone moves the outputs, so those of all are right where none was lost."""
    changed, expected = copy.deepcopy(resnet), _logits(resnet)
    for told in together:
        CHANGES[told](changed)
        before, expected = expected, _logits(changed)
        assert not torch.equal(expected, before), told
    torch.save(nn.DataParallel(changed) if wrapped else changed, tmp_path / "whole.pt")
    opened = open_checkpoint(tmp_path / "whole.pt")
    assert torch.equal(_logits(opened.module), expected)
    assert set(", ".join(together).split(", ")) <= set(_taken(opened))
    assert not any(part.training for part in opened.module.modules())
    save_checkpoint(tmp_path / "own.pt", opened)
    again = open_checkpoint(tmp_path / "own.pt")
    assert torch.equal(_logits(again.module), expected)
    assert again.geometry == opened.geometry


def _taken(network: Network) -> list[str]:
    note = next(note for note in network.notes if note.startswith("Taken over from the file: "))
    return note.removeprefix("Taken over from the file: ").removesuffix(".").split(", ")


def test_circular_padding(tmp_path, resnet):
    changed = copy.deepcopy(resnet)
    changed.conv1.padding_mode = "circular"
    expected = _logits(changed)
    torch.save(changed, tmp_path / "whole.pt")
    assert torch.equal(_logits(open_checkpoint(tmp_path / "whole.pt").module), expected)


def test_an_unchanged_network_takes_nothing_over(tmp_path, resnet):
    torch.save(resnet, tmp_path / "whole.pt")
    opened = open_checkpoint(tmp_path / "whole.pt")
    assert opened.geometry == {}
    assert not any("Taken over" in note or "The code of" in note for note in opened.notes)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "googlenet", "swin_t"])
def test_torchvisions_own_need_nothing_taken_over(tmp_path, name):
    options = {"init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, weights=None, num_classes=3, **options)
    torch.save(network, tmp_path / "whole.pt")
    assert open_checkpoint(tmp_path / "whole.pt").geometry == {}


def test_a_layer_that_cannot_be_put_in_is_refused_by_name(tmp_path, resnet):
    changed = copy.deepcopy(resnet)
    changed.bn1 = nn.GroupNorm(64, 64)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        changed.bn1.register_buffer(name, getattr(resnet.bn1, name))
    torch.save(changed, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"'bn1' is torch.*GroupNorm in the file and torch"):
        open_checkpoint(tmp_path / "whole.pt")


def test_layers_more_or_fewer_in_a_sequential_are_refused(tmp_path):
    torch.manual_seed(0)
    for change, message in [
        (lambda m: m.classifier.append(nn.ReLU()), "'classifier.4' is torch.*ReLU in the file and"),
        (lambda m: m.classifier.pop(3), "'classifier.3' is absent in the file and torch.*AvgPool"),
    ]:
        network = models.squeezenet1_1(num_classes=3)
        change(network)
        torch.save(network, tmp_path / "whole.pt")
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path / "whole.pt")


def test_a_padding_larger_than_an_input_is_refused(tmp_path, resnet):
    changed = copy.deepcopy(resnet)
    changed.conv1.padding = (30_000, 30_000)
    torch.save(changed, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"'conv1' has a padding of \(30000, 30000\) in the"):
        open_checkpoint(tmp_path / "whole.pt")


class Doubled(models.ResNet):
    """Has torchvision's tensors and computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_class_whose_code_is_not_known_is_said(tmp_path, resnet):
    doubled = Doubled(models.resnet.BasicBlock, [2, 2, 2, 2], num_classes=7)
    doubled.load_state_dict(resnet.state_dict())
    torch.save(doubled, tmp_path / "whole.pt")
    opened = open_checkpoint(tmp_path / "whole.pt")
    assert torch.equal(_logits(opened.module), _logits(resnet))
    assert any("Doubled is not in the file" in note for note in opened.notes)


def test_settings_of_a_file_cannot_replace_methods_or_private_parts(resnet):
    network = Network(copy.deepcopy(resnet), "resnet18", (3, 64, 64), 7)
    layer = {"forward": "x", "_forward_hooks": 1, "__class__": "x", "weight": 3, KIND: ""}
    applied = apply_geometry(network, {"conv1": layer, "": {"_modules": 1, "forward": 2}}, [])
    assert applied.geometry == {}
    assert torch.equal(_logits(network.module), _logits(resnet))


def test_layers_inside_wrappers_are_known_by_the_networks_names():
    layers = ["", "module", "module.model", "module.model.conv", "module.loss"]
    names = owner_names(layers, ["module.model.conv.weight", "module.model.conv.bias"])
    assert names == {"module.model": "", "module.model.conv": "conv"}
    assert owner_names(["", "conv"], ["conv.weight"]) == {"": "", "conv": "conv"}


def test_a_setting_cannot_hide_a_method(tmp_path):
    module = models.resnet18(num_classes=3).eval()
    module.relu = nn.LeakyReLU(0.25)
    vars(module.relu).update({"eval": 5, "forward": 5, "train": "x", "to": None})
    torch.save(module, tmp_path / "whole.pt")
    opened = open_checkpoint(tmp_path / "whole.pt").module
    assert opened.relu.negative_slope == 0.25
    assert torch.equal(opened.relu(torch.tensor([-4.0])), torch.tensor([-1.0]))
    assert opened.relu.eval() is opened.relu
