"""Architectures by name."""

from __future__ import annotations

import pytest
import torch

from trainscope.errors import CheckpointError
from trainscope.networks import registry

OURS = {
    "digits_resnet": ((1, 8, 8), 10),
    "digits_lenet": ((1, 8, 8), 10),
    "lenet5": ((1, 28, 28), 10),
    "resnet20": ((3, 32, 32), 10),
    "resnet32": ((3, 32, 32), 10),
    "resnet44": ((3, 32, 32), 10),
    "resnet56": ((3, 32, 32), 10),
    "resnet110": ((3, 32, 32), 10),
    "vgg19_cifar": ((3, 32, 32), 10),
}


def test_names_are_ours_and_then_all_of_torchvision_once():
    names = registry.names()
    assert set(names[: len(OURS)]) == set(OURS)
    assert len(set(names)) == len(names)
    assert {"resnet34", "vit_b_16", "swin_v2_b", "inception_v3", "vgg19_bn"} <= set(names)
    assert not {"fcn_resnet50", "fasterrcnn_resnet50_fpn", "raft_small"} & set(names)


@pytest.mark.parametrize("name", [*OURS, "resnet18"])
def test_a_built_network_gives_logits(name):
    torch.manual_seed(0)
    module = registry.build(name, num_classes=3)
    shape = registry.input_shape(name)
    assert name not in OURS or (shape, registry.architecture(name).num_classes) == OURS[name]
    logits = module(torch.randn(2, *shape))
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()


def test_weights_come_from_the_global_generator():
    torch.manual_seed(1)
    first = registry.build("resnet20").state_dict()
    torch.manual_seed(1)
    again = registry.build("resnet20").state_dict()
    other = registry.build("resnet20").state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet43", "resnet44"), ("ResNet50", "resnet50"), ("vitb16", "vit_b_16")]
)
def test_an_unknown_name_is_told_near_ones(name, hint):
    with pytest.raises(CheckpointError, match=f"'{name}'.*did you mean .*{hint}"):
        registry.build(name)


def test_a_name_like_no_other_is_told_what_to_do():
    with pytest.raises(CheckpointError, match=r"--model package.module:factory"):
        registry.input_shape("qqqq")


@pytest.mark.parametrize(
    ("there", "hint"), [(None, "timm is not installed: pip install timm"), ("x", "has none of")]
)
def test_a_missing_timm_is_told_from_a_missing_network(there, hint, monkeypatch):
    monkeypatch.setattr(registry, "find", lambda name: None)
    monkeypatch.setattr(registry, "find_spec", lambda name: there)
    with pytest.raises(CheckpointError, match=hint):
        registry.architecture("timm/resnet_of_nobody")
