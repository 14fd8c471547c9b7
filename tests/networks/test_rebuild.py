"""Networks rebuilt by the shapes of pruned tensors: the same logits as the network that was cut."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch_pruning
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import flops, open_checkpoint, registry
from trainscope.networks.fit import fit
from trainscope.networks.forward import check_forward
from trainscope.networks.meta import shapes_of
from trainscope.networks.rebuild import is_narrower, mismatch, resize


def _cut_everywhere(module, shape):
    """Halve every coupled group of channels with Torch-Pruning, in place."""
    head = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_pruning.pruner.BasePruner(
            module,
            torch.randn(1, *shape),
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.5,
            ignored_layers=[head],
        ).step()
    return module


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet5", (1, 28, 28)),
        ("resnet20", (3, 32, 32)),
        ("vgg19_cifar", (3, 32, 32)),
        ("mnasnet0_5", (3, 32, 32)),
    ],
)
def test_a_network_cut_in_every_coupled_channel_comes_back(tmp_path, name, shape):
    torch.manual_seed(0)
    module = _cut_everywhere(registry.build(name, 4).eval(), shape)
    path = tmp_path / "pruned.pt"
    torch.save(module.state_dict(), path)
    network = open_checkpoint(path)
    assert network.architecture == name
    assert any(f"It is a pruned {name}" in note for note in network.notes)
    x = torch.randn(3, *shape)
    assert torch.equal(network.module(x), module(x))
    assert flops(network.module, shape) == flops(module, shape)
    assert repr(network.module) == repr(module)  # the layers say their new widths


def test_half_the_hidden_units_of_a_vit():
    vit = registry.architecture("vit_b_32")
    shapes = shapes_of(vit.skeleton(3).state_dict())
    for name, shape in shapes.items():
        if ".mlp.0." in name:
            shapes[name] = (1536, *shape[1:])
        elif ".mlp.3.weight" in name:
            shapes[name] = (shape[0], 1536)
    found = fit(vit, shapes)
    assert found.narrower
    module = vit.skeleton(found.num_classes)
    resize(module, found.found)
    assert check_forward(module, vit.input_shape, "it", regroup=True) == 3
    assert module.encoder.layers[0].mlp[0].out_features == 1536
    hidden_units = 12 * 50 * 768 * 1536 * 2  # of 50 tokens in 12 layers, in and out
    dense = vit.skeleton(3)
    assert flops(dense, vit.input_shape) - flops(module, vit.input_shape) == hidden_units


@pytest.mark.parametrize("kept", [2, 4])
def test_groups_come_from_the_channels_that_arrive(kept):
    """Four groups of two: whole groups taken out, or one filter of each."""
    dense = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(), nn.Linear(8, 2)
    )
    shapes = shapes_of(dense.state_dict()) | {
        "0.weight": (4, 3, 1, 1),
        "0.bias": (4,),
        "1.weight": (4, 4 // kept, 3, 3),
        "1.bias": (4,),
        "3.weight": (2, 4),
    }
    resize(dense, shapes)
    assert check_forward(dense, (3, 3, 3), "it", regroup=True) == 2
    assert dense[1].groups == kept
    assert dense[1].in_channels == 4
    assert dense[1].out_channels == 4


def test_layers_that_do_not_fit_each_other_are_named(tmp_path):
    torch.manual_seed(0)
    state = registry.build("lenet5").state_dict()
    state["conv2.weight"] = state["conv2.weight"][:, :3]
    path = tmp_path / "broken.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"lenet5 does not take .* at layer 'conv2'"):
        open_checkpoint(path)


def test_what_is_no_classifier_is_refused():
    with pytest.raises(CheckpointError, match="gives 2x4x6x6 for two inputs"):
        check_forward(nn.Conv2d(3, 4, 3), (3, 8, 8), "it")


def test_narrower_means_the_same_names_and_no_dimension_larger():
    dense = {"conv.weight": (8, 4, 3, 3), "fc.weight": (10, 8)}
    assert is_narrower(dense, dense)
    assert is_narrower(dense, {"conv.weight": (5, 2, 3, 3), "fc.weight": (10, 5)})
    for wrong in [
        {"conv.weight": (5, 2, 1, 1), "fc.weight": (10, 5)},
        {"conv.weight": (9, 4, 3, 3), "fc.weight": (10, 8)},
        {"conv.weight": (0, 4, 3, 3), "fc.weight": (10, 8)},
        {"conv.weight": (8, 4, 3), "fc.weight": (10, 8)},
        {"conv.weight": (8, 4, 3, 3)},
        {"conv.weight": (8, 4, 3, 3), "fc.weight": (10, 8), "fc.bias": (10,)},
    ]:
        assert not is_narrower(dense, wrong)


def test_the_first_mismatch_is_a_missing_then_an_extra_name_then_a_shape():
    dense = {"a": (1, 2), "b": (3,)}
    assert mismatch(dense, dense, "it") is None
    assert (
        mismatch(dense, {"a": (9,), "c": (1,)}, "it")
        == "'b', which it has, is missing from the file"
    )
    assert (
        mismatch(dense, {"a": (9,), "b": (3,), "c": ()}, "it")
        == "the file has 'c', which it does not have"
    )
    assert mismatch(dense, {"a": (9,), "b": ()}, "it") == "'a' is 9 in the file and 1x2 in it"
    assert (
        mismatch(dense, {"a": (1, 2), "b": ()}, "it")
        == "'b' is a single number in the file and 3 in it"
    )
