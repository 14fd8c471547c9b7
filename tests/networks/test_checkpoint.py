"""Opening and saving: our own format, masks, bad weights, what the user says, whole or nothing."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from trainscope.errors import CheckpointError, DataError
from trainscope.networks import (
    Network,
    Remembered,
    check_classes,
    digest,
    masks_of,
    open_checkpoint,
    parameters,
    registry,
    save_checkpoint,
    set_masks,
)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(
        module=registry.build("digits_resnet").eval(),
        architecture="digits_resnet",
        input_shape=(1, 8, 8),
        num_classes=10,
        remembered=Remembered("digits", "0:1e-1,10:1e-2", epochs=20, seed=3, accuracy=98.6),
    )


def _write(tmp_path, obj):
    path = tmp_path / "checkpoint.pt"
    torch.save(obj, path)
    return path


def test_what_is_saved_comes_back_bit_for_bit(tmp_path, network):
    path = tmp_path / "own.pt"
    save_checkpoint(path, network)
    opened = open_checkpoint(path)
    assert digest(opened.module) == digest(network.module)
    assert opened.remembered == network.remembered
    assert opened.architecture == "digits_resnet"
    assert (opened.input_shape, opened.num_classes) == ((1, 8, 8), 10)
    assert opened.format == "trainscope checkpoint"
    assert not any(part.training for part in opened.module.modules())
    assert all(weight.requires_grad for weight in opened.module.parameters())
    save_checkpoint(tmp_path / "again.pt", opened)
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()


def test_plain_types_only_so_that_the_safe_loader_reads_it(tmp_path, network):
    save_checkpoint(tmp_path / "own.pt", network)
    raw = torch.load(tmp_path / "own.pt", weights_only=True)
    assert raw["format"] == "trainscope.checkpoint/1"
    assert raw["input_shape"] == [1, 8, 8]
    assert raw["accuracy"] == 98.6


def test_masks_come_back_and_hold(tmp_path, network):
    mask = torch.rand(16, 1, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    set_masks(network.module, {"conv1.weight": mask})
    save_checkpoint(tmp_path / "own.pt", network)
    opened = open_checkpoint(tmp_path / "own.pt")
    assert torch.equal(masks_of(opened.module)["conv1.weight"], mask)
    assert digest(opened.module) == digest(network.module)
    assert parameters(opened.module) == parameters(network.module)
    assert any("masks hold" in note for note in opened.notes)


def test_masks_of_torch_prune_are_folded_in(tmp_path, network):
    prune.l1_unstructured(network.module.conv1, "weight", amount=0.5)
    expected = network.module.conv1.weight.detach().clone()
    opened = open_checkpoint(_write(tmp_path, network.module.state_dict()))
    assert opened.architecture == "digits_resnet"
    assert torch.equal(opened.module.conv1.weight, expected)
    assert torch.equal(masks_of(opened.module)["conv1.weight"], expected != 0)
    assert opened.notes[0].startswith("It came pruned: masks hold 72 weights at zero")


def test_a_network_cut_small_comes_back(tmp_path, network):
    state = network.module.state_dict()
    block = "layer1.0."
    state[block + "conv1.weight"] = state[block + "conv1.weight"][:3]
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        state[block + "bn1." + leaf] = state[block + "bn1." + leaf][:3]
    state[block + "conv2.weight"] = state[block + "conv2.weight"][:, :3]
    opened = open_checkpoint(_write(tmp_path, state))
    assert opened.module.layer1[0].conv1.out_channels == 3
    save_checkpoint(tmp_path / "own.pt", opened)
    again = open_checkpoint(tmp_path / "own.pt")
    assert digest(again.module) == digest(opened.module)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.module(x), opened.module(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "trainscope.checkpoint/2"}, "of the format trainscope.checkpoint/2.*upgrade"),
        ({"architecture": None}, "its state_dict or architecture is missing or wrong"),
        ({"state_dict": [1]}, "its state_dict or architecture is missing or wrong"),
        ({"num_classes": "ten"}, "its num_classes is missing or wrong"),
        ({"num_classes": True}, "its num_classes is missing or wrong"),
        ({"num_classes": 9}, "says 9 classes, and its network gives 10 logits"),
        ({"input_shape": [1, 8, -8]}, "its input_shape is missing or wrong"),
        ({"epochs": "many"}, "its epochs is missing or wrong"),
        ({"architecture": "resnet20"}, "names 'resnet20'"),
    ],
    ids=str,
)
def test_an_own_checkpoint_that_was_tampered_with(tmp_path, network, change, message):
    save_checkpoint(tmp_path / "own.pt", network)
    raw = torch.load(tmp_path / "own.pt", weights_only=True)
    path = _write(tmp_path, raw | change)
    if "names" in message:  # the tensors tell what it is
        assert any(message in note for note in open_checkpoint(path).notes)
    else:
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(path)


def test_a_file_may_not_choose_the_code_that_is_imported(tmp_path, network, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("open('touched', 'w').close()\n")
    save_checkpoint("own.pt", replace(network, architecture="stranger:net"))
    with pytest.raises(CheckpointError, match=r"made by stranger:net.*say --model stranger:net"):
        open_checkpoint("own.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, network, value):
    state = network.module.state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    what = "NaN" if value != value else "infinite values"
    with pytest.raises(
        CheckpointError, match=rf"'layer2.0.conv1.weight' holds {what} \(1 of 4,608"
    ):
        open_checkpoint(_write(tmp_path, state))


def test_large_finite_weights_are_not_taken_for_infinite(tmp_path, network):
    state = network.module.state_dict()
    state["conv1.weight"].fill_(3e38)
    assert (open_checkpoint(_write(tmp_path, state)).module.conv1.weight == 3e38).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_measured_in_float32_and_said(tmp_path, network, dtype):
    stored = network.module.to(dtype).state_dict()
    opened = open_checkpoint(_write(tmp_path, stored))
    assert {weight.dtype for weight in opened.module.parameters()} == {torch.float32}
    assert torch.equal(opened.module.conv1.weight, stored["conv1.weight"].float())
    name = str(dtype).removeprefix("torch.")
    assert opened.notes == (f"Its weights were stored as {name}; they are measured in float32.",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", torch.zeros(1).expand(16, 1, 3, 3), "declare 576 bytes and 4 are stored"),
        ("conv1.weight", torch.zeros(1).expand(10**9, 10**3, 3, 3), "36,000,000,000,000 bytes"),
        ("conv1.weight", torch.eye(3).to_sparse(), "'conv1.weight' is sparse"),
        ("conv1.weight", torch.zeros(3, device="meta"), "'conv1.weight' has a shape and no values"),
        ("conv1.weight", torch.zeros(3, dtype=torch.complex64), "'conv1.weight' is complex"),
        ("conv1.weight_mask", torch.ones(3), r"mask 'conv1.weight_mask' is \(3,\)"),
    ],
    ids=str,
)
def test_tensors_that_cannot_be_weights(tmp_path, network, name, value, message):
    state = {name: value} | {n: v for n, v in network.module.state_dict().items() if n != name}
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(_write(tmp_path, state))


def test_many_names_for_one_storage_take_no_memory(tmp_path, network):
    shared = torch.zeros(1_000_000)
    state = {f"layer{index}": shared for index in range(2_000)}
    with pytest.raises(CheckpointError, match="no network saves its weights so"):
        open_checkpoint(_write(tmp_path, state))


def test_what_the_user_says_goes_before_what_the_file_says(tmp_path, network):
    path = _write(tmp_path, {"arch": "resnet20", "state_dict": network.module.state_dict()})
    opened = open_checkpoint(path, arch="digits_resnet", input_shape=(1, 16, 16))
    assert (opened.architecture, opened.recognised) == ("digits_resnet", "--arch")
    assert opened.input_shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "resnet20"}, r"checkpoint.pt: .*'layer1.2.conv1.weight', which resnet20 has"),
        ({"arch": "resnet21"}, "^no architecture is named 'resnet21'; did you mean .*resnet20"),
        ({"arch": "lenet5", "model": "a:b"}, "give one of them"),
        ({"input_shape": (3, 8, 8)}, r"digits_resnet does not take an input of 3x8x8"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(tmp_path, network, options, message):
    with pytest.raises(CheckpointError, match=message) as info:
        open_checkpoint(_write(tmp_path, network.module.state_dict()), **options)
    assert "\n" not in str(info.value)


def test_opening_draws_no_random_numbers(tmp_path, network):
    path = _write(tmp_path, network.module.state_dict())
    state = torch.get_rng_state()
    open_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_network_does_not_need_its_file_any_more(tmp_path, network):
    path = _write(tmp_path, network.module.state_dict())
    opened = open_checkpoint(path)
    path.write_bytes(b"")
    assert digest(opened.module) == digest(network.module)


def test_class_counts_are_checked(network):
    check_classes(network, 10, "digits")
    with pytest.raises(DataError, match="cifar100 has 100 classes and the network gives 10 logits"):
        check_classes(network, 100, "cifar100")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, network, monkeypatch):
    path = tmp_path / "own.pt"
    save_checkpoint(path, network)
    before = path.read_bytes()

    def fail(_obj, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_checkpoint(path, network)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["own.pt"]


def test_a_folder_that_is_not_there(tmp_path, network):
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        save_checkpoint(tmp_path / "absent" / "own.pt", network)


def test_saving_through_a_link_replaces_its_target(tmp_path, network):
    (tmp_path / "real.pt").write_bytes(b"old")
    (tmp_path / "link.pt").symlink_to("real.pt")
    save_checkpoint(tmp_path / "link.pt", network)
    assert (tmp_path / "link.pt").is_symlink()
    assert digest(open_checkpoint(tmp_path / "real.pt").module) == digest(network.module)


def test_the_digest_tells_weights_apart(network):
    before = digest(network.module)
    assert before == digest(network.module)
    with torch.no_grad():
        nn.init.constant_(network.module.linear.bias[:1], 0.125)
    assert digest(network.module) != before


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.uint16])
def test_weights_of_whole_numbers_are_refused(tmp_path, network, dtype):
    state = network.module.state_dict() | {"conv1.weight": torch.ones(16, 1, 3, 3).to(dtype)}
    word = str(dtype).removeprefix("torch.")
    with pytest.raises(
        CheckpointError, match=rf"'conv1.weight' is stored as whole numbers \({word}"
    ):
        open_checkpoint(_write(tmp_path, state))


def test_counters_that_were_cast_with_the_network_become_counters_again(tmp_path, network):
    state = {name: value.half() for name, value in network.module.state_dict().items()}
    state["bn1.num_batches_tracked"].fill_(7)
    opened = open_checkpoint(_write(tmp_path, state))
    assert opened.module.bn1.num_batches_tracked.dtype == torch.int64
    assert int(opened.module.bn1.num_batches_tracked) == 7
    state["bn1.num_batches_tracked"].fill_(0.5)
    with pytest.raises(CheckpointError, match="the network counts with it"):
        open_checkpoint(_write(tmp_path, state))


def test_packed_numbers_are_refused(tmp_path, network):
    packed = torch.zeros(16, 1, 3, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    state = network.module.state_dict() | {"conv1.weight": packed}
    with pytest.raises(CheckpointError, match="packs two values in a byte"):
        open_checkpoint(_write(tmp_path, state))


def test_a_name_without_end_is_refused(tmp_path):
    state = {"model." * 100_000 + "weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="a name of 600,006 characters"):
        open_checkpoint(_write(tmp_path, state))


@pytest.mark.parametrize(
    "parts",
    [
        (torch.ones(0), torch.ones(0)),
        (torch.ones(0, 1), torch.ones(0, 3)),
        (torch.ones(3, 1, dtype=torch.int32), torch.ones(3, 2, dtype=torch.int32)),
        (torch.ones(()), torch.ones(3, 0)),
    ],
)
def test_parts_that_no_weight_norm_makes_are_refused(tmp_path, parts):
    """Torch ends the process on empty ones."""
    with pytest.raises(CheckpointError, match="which no weight norm makes"):
        open_checkpoint(_write(tmp_path, {"a_g": parts[0], "a_v": parts[1]}))
