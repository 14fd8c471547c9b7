"""Masks beside weights, names behind wrappers, and several networks for one of the user's own."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import trainscope
from trainscope.errors import CheckpointError
from trainscope.networks import open_checkpoint
from trainscope.networks.inspection import inspect_checkpoint
from trainscope.networks.masks import masks_of

CODE = """
from torch import nn
def net(num_classes=4, width=8):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 4))
net.input_shape = (1, 8, 8)
"""
SPEC = "people_net:net"


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    (tmp_path / "people_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("people_net", "people_script"):
        sys.modules.pop(name, None)


def made(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 4))


def opened(tmp_path, obj, **options):
    path = tmp_path / "net.pt"
    torch.save(obj, path)
    return open_checkpoint(path, model=SPEC, input_shape=(1, 8, 8), **options)


def below(start, network):
    return {f"{start}{name}": value for name, value in network.state_dict().items()}


def pruned():
    """Return a network, the same pruned by torch, and its masks by the weights' names."""
    network, other = made(), made()
    for layer in (other[0], other[3]):
        prune.l1_unstructured(layer, "weight", 0.5)
    masks = {"0.weight": other[0].weight_mask, "3.weight": other[3].weight_mask}
    return network, other, masks


FORMS = {
    "by weights": lambda masks: masks,
    "by layers": lambda masks: {name.removesuffix(".weight"): m for name, m in masks.items()},
    "as torch names them": lambda masks: {f"{name}_mask": mask for name, mask in masks.items()},
    "of a wrapped network": lambda masks: {f"module.{name}": m.bool() for name, m in masks.items()},
    "in a list": lambda masks: list(masks.values()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["state_dict", "my_net"])
def test_masks_beside_the_weights_are_applied(tmp_path, form, key):
    network, other, masks = pruned()
    found = opened(tmp_path, {key: network.state_dict(), "masks": FORMS[form](masks)})
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(found.module(inputs), other(inputs))
    held = masks_of(found.module)
    assert all(torch.equal(held[name], mask.bool()) for name, mask in masks.items())
    assert "The masks under 'masks' were applied to the weights." in found.notes


def test_masks_of_something_else_are_said(tmp_path):
    network = made()
    found = opened(tmp_path, {"net": network.state_dict(), "masks": {"tokens": torch.ones(7)}})
    assert not masks_of(found.module)
    assert any("do not fit its weights" in note for note in found.notes)
    _, _, masks = pruned()
    sparse = {name: mask.to_sparse() for name, mask in masks.items()}
    found = opened(tmp_path, {"net": network.state_dict(), "masks": sparse})
    assert any("do not fit its weights" in note for note in found.notes)


@pytest.mark.parametrize(
    "start",
    ["student.", "encoder.", "_forward_module.", "_fsdp_wrapped_module.", "module.ema_model."],
)
def test_any_word_may_stand_before_the_names(tmp_path, start):
    network = made()
    found = opened(tmp_path, {"state_dict": below(start, network)})
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(found.module(inputs), network(inputs))


def test_a_state_dict_below_other_keys_is_found(tmp_path):
    network = made()
    found = opened(tmp_path, {"checkpoint": {"model": {"weights": network.state_dict()}}, "at": 3})
    assert torch.equal(found.module[0].weight, network[0].weight)
    two = {name: {"model": made(k).state_dict()} for k, name in enumerate("ab")}
    with pytest.raises(CheckpointError, match="holds no network's weights"):
        opened(tmp_path, {"one": {"two": two}})


def test_what_thop_leaves_is_no_weight(tmp_path):
    state = made().state_dict()
    ends = ("total_ops", "total_params")
    counted = {f"{layer}{end}": torch.zeros(1) for layer in ("", "0.") for end in ends}
    assert opened(tmp_path, {**state, **counted}).num_classes == 4


def test_of_several_networks_none_is_taken_in_silence(tmp_path):
    one, two = made(0), made(1)
    with pytest.raises(CheckpointError, match=r"several networks: a, b; say which .* --part NAME"):
        opened(tmp_path, {**below("a.", one), **below("b.", two)})
    part = opened(tmp_path, {**below("a.", one), **below("b.", two)}, part="b")
    assert torch.equal(part.module[0].weight, two[0].weight)
    same = opened(tmp_path, {**below("a.", one), **below("b.", one)})
    assert torch.equal(same.module[0].weight, one[0].weight)


def test_the_student_or_the_only_one_of_its_shapes_is_taken_and_said(tmp_path):
    dense, narrow, wide = made(0), made(1, width=4), made(2, width=16)
    student = opened(tmp_path, {**below("teacher.", dense), **below("student.", narrow)})
    assert torch.equal(student.module[0].weight, narrow[0].weight)
    fits = opened(tmp_path, {**below("a.", wide), **below("b.", dense)})
    assert torch.equal(fits.module[0].weight, dense[0].weight)
    for found, name in ((student, "student"), (fits, "b")):
        assert any(f"The {name} was taken; --part NAME takes another." in n for n in found.notes)
    with pytest.raises(CheckpointError, match="several networks: a, b"):  # b may be a, pruned
        opened(tmp_path, {**below("a.", dense), **below("b.", narrow)})


def test_arrays_of_weights_are_read(tmp_path):
    """As detectron2's published files hold them."""
    network = made()
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    history = {"loss": np.array([2.0, 1.0]), "lr": np.array(0.1)}
    for content in (arrays, {"model": arrays, "history": history, "__author__": "x"}):
        found = opened(tmp_path, content)
        assert all(
            torch.equal(found.module.state_dict()[n], v) for n, v in network.state_dict().items()
        )
    with pytest.raises(CheckpointError, match="holds no network's weights"):
        opened(tmp_path, {"history": history})
    for content in ({"model": arrays, "__author__": "x"}, arrays):  # without torch
        path = tmp_path / "model_final.pkl"
        path.write_bytes(pickle.dumps(content))
        found = open_checkpoint(path, model=SPEC, input_shape=(1, 8, 8))
        assert torch.equal(found.module[0].weight, network[0].weight)
    for content in ({"history": history}, {"model": arrays, "made": made}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError, match="a pickle that torch"):
            open_checkpoint(path, model=SPEC, input_shape=(1, 8, 8))


def test_arrays_that_their_bytes_do_not_make_are_damage(tmp_path):
    path = tmp_path / "model_final.pkl"
    whole = pickle.dumps({"0.weight": np.zeros((3, 70), np.float32)}, protocol=2)
    side = bytes((*b"K", 70))  # the number 70 in a pickle
    assert whole.count(side) == 1
    path.write_bytes(whole.replace(side, bytes((*b"K", 71))))
    with pytest.raises(CheckpointError, match="the file is damaged or cut short"):
        open_checkpoint(path, model=SPEC, input_shape=(1, 8, 8))


def test_code_that_ends_the_process_is_said(tmp_path):
    (tmp_path / "people_script.py").write_text(
        "import argparse\n"
        "def leaves(): raise SystemExit(3)\n"
        "if True:\n"
        "    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--needed', required=True)\n"
        "def net(): pass\n"
    )
    path = tmp_path / "net.pt"
    torch.save(made().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"SystemExit: 3, which would end trainscope too"):
        open_checkpoint(path, model="people_script:leaves")
    with (tmp_path / "people_script.py").open("a") as file:
        file.write("parser.parse_args()\n")
    sys.modules.pop("people_script")
    with pytest.raises(CheckpointError, match=r"importing 'people_script' failed: SystemExit"):
        open_checkpoint(path, model="people_script:net")


def test_a_network_in_the_place_of_a_factory_is_copied(tmp_path):
    with (tmp_path / "people_net.py").open("a") as file:
        file.write("made = net()\n")
    path = tmp_path / "net.pt"
    torch.save(made(3).state_dict(), path)
    found = open_checkpoint(path, model="people_net:made", input_shape=(1, 8, 8))
    assert torch.equal(found.module[0].weight, made(3)[0].weight)
    assert found.module is not sys.modules["people_net"].made


def test_masks_that_hold_nothing_are_no_pruning(tmp_path):
    network = made()
    prune.identity(network[3], "weight")
    assert opened(tmp_path, network.state_dict()).notes[-1] == (
        "It came with masks that hold no weight at zero."
    )


BESIDE = {
    "mask": lambda layer: f"{layer}.mask",
    "of its own name": lambda layer: f"{layer}.pruning_mask",
    "below the weight": lambda layer: f"{layer}.weight.mask",
    "at the top": lambda layer: f"mask_{layer.replace('.', '_')}",
}


@pytest.mark.parametrize("how", BESIDE)
@pytest.mark.parametrize("known", [True, False])
def test_masks_beside_the_weight_under_other_names(tmp_path, how, known):
    """They hold their weights, whether the network is a known one or a person's own."""
    torch.manual_seed(0)
    network = trainscope.networks.registry.build("resnet20") if known else made()
    layers = ["conv1", "layer1.0.conv2"] if known else ["0", "3"]
    state = network.state_dict()
    masks = {name: torch.rand_like(state[f"{name}.weight"]) > 0.5 for name in layers}
    saved = {**state, **{BESIDE[how](name): mask.float() for name, mask in masks.items()}}
    torch.save(saved, tmp_path / "net.pt")
    if known:
        found = open_checkpoint(tmp_path / "net.pt")
    else:
        found = open_checkpoint(tmp_path / "net.pt", model=SPEC, input_shape=(1, 8, 8))
    held = masks_of(found.module)
    assert held.keys() == {f"{name}.weight" for name in layers}
    for name, mask in masks.items():
        assert torch.equal(held[f"{name}.weight"], mask)
        weight = found.module.get_parameter(f"{name}.weight")
        assert torch.equal(weight, state[f"{name}.weight"] * mask)
    assert any("read as masks of the weights" in note for note in found.notes)


def test_masks_of_whole_filters_beside_the_weight(tmp_path):
    network = made()
    mask = (torch.arange(8) % 3 > 0).view(8, 1, 1, 1)
    found = opened(tmp_path, {**network.state_dict(), "0.mask": mask})
    assert torch.equal(masks_of(found.module)["0.weight"], mask.expand(8, 1, 3, 3))


def test_scores_are_no_masks(tmp_path):
    state = made().state_dict()
    with pytest.raises(CheckpointError, match=r"'0\.mask'"):
        opened(tmp_path, {**state, "0.mask": torch.rand_like(state["0.weight"]) + 2})


@pytest.mark.parametrize("key", ["masks", "pruning_mask"])
def test_masks_in_a_dictionary_for_each_layer(tmp_path, key):
    """As NNI keeps them: of a layer its weight's and its bias's, None where there is none."""
    network, other, masks = pruned()
    nested = {"0": {"weight": masks["0.weight"], "bias": None}, "3": {"weight": masks["3.weight"]}}
    found = opened(tmp_path, {"state_dict": network.state_dict(), key: nested})
    assert masks_of(found.module).keys() == masks.keys()
    assert all(torch.equal(masks_of(found.module)[n], m.bool()) for n, m in masks.items())
    assert torch.equal(found.module[0].weight, other[0].weight)
    assert any(f"The masks under '{key}' were applied" in note for note in found.notes)


def test_a_list_of_the_convolutions_masks_alone(tmp_path):
    network, _, masks = pruned()
    found = opened(tmp_path, {"state_dict": network.state_dict(), "masks": [masks["0.weight"]]})
    assert torch.equal(masks_of(found.module)["0.weight"], masks["0.weight"].bool())


def test_masks_that_are_not_zeros_and_ones_are_left_out_aloud(tmp_path):
    network, _, masks = pruned()
    soft = {name: mask * 0.5 for name, mask in masks.items()}
    found = opened(tmp_path, {"state_dict": network.state_dict(), "masks": soft})
    assert not masks_of(found.module)
    assert any("masks under 'masks' that do not fit" in note for note in found.notes)


def inverted(masks):
    return {name: 1 - mask for name, mask in masks.items()}


KEPT = {
    "under a key": lambda state, masks: {"net": state, "masks": masks},
    "in a list": lambda state, masks: {"net": state, "masks": list(masks.values())},
    "ours": lambda state, masks: {**state, **{f"{n}_mask": m for n, m in masks.items()}},
    "beside": lambda state, masks: {
        **state,
        **{n.replace(".weight", ".mask"): m for n, m in masks.items()},
    },
    "torch's": lambda state, masks: {
        **{f"{n}_orig" if n in masks else n: value for n, value in state.items()},
        **{f"{n}_mask": m for n, m in masks.items()},
    },
    "OpenLTH's": lambda state, masks: {
        **{f"model.{n}": value for n, value in state.items()},
        **{"mask_" + n.replace(".", "___"): m for n, m in masks.items()},
    },
}


@pytest.mark.parametrize("where", KEPT)
def test_masks_whose_one_means_pruned_are_told_by_the_zeros(tmp_path, where):
    """The network is the one whose zeros are stored, whichever way its masks are written."""
    network, other, masks = pruned()
    state = network.state_dict()
    zeroed = {name: value * masks.get(name, 1) for name, value in state.items()}
    found = {
        sense: opened(tmp_path, KEPT[where](zeroed, given))
        for sense, given in (("usual", masks), ("inverted", inverted(masks)))
    }
    inputs = torch.randn(3, 1, 8, 8)
    for sense, each in found.items():
        assert torch.equal(each.module(inputs), other(inputs))
        held = masks_of(each.module)
        assert all(torch.equal(held[name], mask.bool()) for name, mask in masks.items())
        said = [note for note in each.notes if "1 where a weight is pruned" in note]
        assert len(said) == (sense == "inverted")


def test_what_is_said_of_the_pruned_file_is_in_a_diagnosis(tmp_path):
    network, _, masks = pruned()
    zeroed = {n: v * masks.get(n, 1) for n, v in network.state_dict().items()}
    torch.save(network.state_dict(), tmp_path / "dense.pt")
    torch.save({"net": zeroed, "masks": inverted(masks)}, tmp_path / "pruned.pt")
    said = "1 where a weight is pruned"
    notes = inspect_checkpoint(tmp_path / "pruned.pt").notes
    assert "The masks under 'masks' were applied to the weights." in notes
    found = trainscope.diagnose(
        *(tmp_path / "dense.pt",),
        after=tmp_path / "pruned.pt",
        model=SPEC,
        data=(torch.randn(8, 1, 8, 8), torch.randint(4, (8,))),
        probes=["gradient"],
        samples=8,
    )
    assert any(f"Of the pruned network: its masks are {said}" in note for note in found.notes)
    assert any("Of the pruned network: the masks under 'masks'" in note for note in found.notes)


@pytest.mark.parametrize("where", KEPT)
def test_masks_over_dense_weights_keep_where_they_are_one(tmp_path, where):
    network, other, masks = pruned()
    found = opened(tmp_path, KEPT[where](network.state_dict(), masks))
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(found.module(inputs), other(inputs))
    assert not any("1 was read" in note for note in found.notes)
    doubtful = opened(tmp_path, KEPT[where](network.state_dict(), inverted(masks)))
    # Of weights uniform in [0, a], the larger half's mean is three times the smaller's.
    said = [note for note in doubtful.notes if "A 1 was read as a weight that survives" in note]
    assert len(said) == 1
    assert 2.8 < float(said[0].split(" times")[0].rpartition(" ")[2]) < 3.2


def test_masks_that_contradict_each_other_are_refused(tmp_path):
    network, _, masks = pruned()
    state = {name: value * masks.get(name, 1) for name, value in network.state_dict().items()}
    mixed = {**masks, "0.weight": 1 - masks["0.weight"]}
    with pytest.raises(CheckpointError, match=r"'0\.weight' is zero where its mask is 1, and "):
        opened(tmp_path, {"net": state, "masks": mixed})


def test_a_file_of_masks_alone_is_refused(tmp_path):
    _, _, masks = pruned()
    for content in (masks, {"masks": masks}, {n: m.bool() for n, m in masks.items()}):
        with pytest.raises(CheckpointError, match="masks and no weights"):
            opened(tmp_path, content)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", ">f4"])
def test_masks_in_arrays_are_applied(tmp_path, dtype):
    network, other, masks = pruned()
    arrays = {name: mask.numpy().astype(dtype) for name, mask in masks.items()}
    found = opened(tmp_path, {"net": network.state_dict(), "masks": arrays})
    assert torch.equal(found.module[0].weight, other[0].weight)
    assert all(torch.equal(masks_of(found.module)[n], m.bool()) for n, m in masks.items())


DEEPER = {
    "Distiller's": lambda masks: {"compression_sched": {"masks_dict": {**masks, "0.bias": None}}},
    "RigL's": lambda masks: {
        "pruner": {"object": {"S": [0.5], "step": 3, "backward_masks": list(masks.values())}}
    },
    "torch.ao's": lambda masks: {
        "sparsifier": {"state": {n: {"mask": m} for n, m in masks.items()}, "groups": [{"s": 1}]}
    },
    "under another word": lambda masks: {"pruner": {n: m.bool() for n, m in masks.items()}},
    "beside others": lambda masks: {"mask": {"tokens": torch.ones(2)}, "held": {"masks": masks}},
}


@pytest.mark.parametrize("form", DEEPER)
def test_masks_that_stand_deeper_in_the_file_are_applied(tmp_path, form):
    """They were passed over in silence: the dense network was measured."""
    network, other, masks = pruned()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(3, 1, 8, 8)).sum().backward()
    optimizer.step()
    content = {"optimizer": optimizer.state_dict(), **DEEPER[form](masks)}
    found = opened(tmp_path, {"state_dict": pruned()[0].state_dict(), **content})
    assert all(torch.equal(masks_of(found.module)[n], m.bool()) for n, m in masks.items())
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(found.module(inputs), other(inputs))
    assert any("' were applied to the weights." in note for note in found.notes)


@pytest.mark.parametrize("form", ["outputs", "kept axes"])
def test_masks_of_whole_filters_under_a_key(tmp_path, form):
    """One number a filter, in the place of one a weight: they were left out."""
    network = made()
    kept = torch.arange(8) % 2 == 0
    mask = kept if form == "outputs" else kept.view(8, 1, 1, 1)
    found = opened(tmp_path, {"net": network.state_dict(), "masks": {"0.weight": mask.float()}})
    held = masks_of(found.module)["0.weight"]
    assert torch.equal(held, kept.view(8, 1, 1, 1).expand(8, 1, 3, 3))
    wide = {"net": network.state_dict(), "masks": {"3.weight": torch.ones(288)}}
    assert not masks_of(opened(tmp_path, wide).module)  # of its inputs


def test_masks_of_a_norms_statistics_hold_nothing(tmp_path):
    """They ended in an error of trainscope's."""
    (tmp_path / "people_script.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),"
        " nn.Linear(144, 4))\n"
    )
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4)
    ).eval()
    state = network.state_dict()
    masks = {name: torch.ones_like(v) for name, v in state.items() if v.is_floating_point()}
    masks["0.weight"][0] = 0
    torch.save({"net": state, "masks": masks}, tmp_path / "net.pt")
    found = open_checkpoint(tmp_path / "net.pt", model="people_script:net", input_shape=(1, 8, 8))
    assert int((~masks_of(found.module)["0.weight"]).sum()) == 9
    assert torch.equal(found.module[1].running_var, network[1].running_var)


def test_what_stands_deeper_and_is_no_mask_is_let_be(tmp_path):
    network = made()
    whole = {name: torch.ones_like(value) for name, value in network.state_dict().items()}
    found = opened(tmp_path, {"net": network.state_dict(), "at": {"scales": whole, "n": 1}})
    assert not masks_of(found.module)


@pytest.mark.parametrize("start", ["masks.{layer}", "mask_manager.{name}", "pruner.masks.{flat}"])
def test_masks_in_a_container_of_a_module(tmp_path, start):
    network, other, masks = pruned()
    stands = {
        start.format(layer=n.removesuffix(".weight"), name=n, flat=n.replace(".", "_")): mask
        for n, mask in masks.items()
    }
    found = opened(tmp_path, {**network.state_dict(), **stands})
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(found.module(inputs), other(inputs))


def test_an_epoch_among_the_weights_is_none(tmp_path):
    network = made()
    found = opened(tmp_path, {**network.state_dict(), "epoch": 7, "acc": 93.5, "arch": "mine"})
    assert torch.equal(found.module[0].weight, network[0].weight)
    assert (found.remembered.epochs, found.remembered.accuracy) == (7, 93.5)
    assert any("is none was left out: 'epoch', 'acc', 'arch'." in note for note in found.notes)


@pytest.mark.parametrize("wrap", [list, tuple])
def test_the_one_state_dict_of_a_list_is_taken(tmp_path, wrap):
    network = made()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    found = opened(tmp_path, wrap([network.state_dict(), optimizer.state_dict(), 3]))
    assert torch.equal(found.module[0].weight, network[0].weight)
    with pytest.raises(CheckpointError, match="holds no network's weights: it is a"):
        opened(tmp_path, wrap([network.state_dict(), made(1).state_dict()]))


def test_tensors_outside_of_the_network_are_said(tmp_path):
    state = {**below("model.", made()), "scores.0": torch.rand(3), "temperature": torch.rand(1)}
    found = opened(tmp_path, state)
    assert "Tensors beside the network were left out: scores.0, temperature." in found.notes


@pytest.mark.parametrize("leaf", ["weight_packed", "weight.bitmask", "qweight"])
def test_compressed_weights_are_told_apart(tmp_path, leaf):
    state = made().state_dict()
    packed = {name: value for name, value in state.items() if name != "3.weight"}
    with pytest.raises(CheckpointError, match=rf"compressed \('3\.{leaf}'\)"):
        opened(tmp_path, {**packed, f"3.{leaf}": torch.ones(4, 3, dtype=torch.uint8)})


def test_weights_that_were_partitioned_are_refused(tmp_path):
    empty = {name: torch.empty(0) for name in made().state_dict()}
    with pytest.raises(CheckpointError, match="zero_to_fp32"):
        opened(tmp_path, {"module": empty})


def test_the_checkpoint_of_the_latest_step_is_named(tmp_path):
    folder = tmp_path / "run" / "global_step10"
    folder.mkdir(parents=True)
    file = folder / "mp_rank_00_model_states.pt"
    torch.save({"module": made().state_dict()}, file)
    (tmp_path / "run" / "latest").write_text("global_step10\n")
    with pytest.raises(CheckpointError, match=r"give the checkpoint in it: .*mp_rank_00_model"):
        open_checkpoint(tmp_path / "run", model=SPEC)
    assert torch.equal(open_checkpoint(file, model=SPEC).module[0].weight, made()[0].weight)
