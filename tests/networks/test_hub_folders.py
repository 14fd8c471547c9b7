"""Folders from a hub beyond the usual names, and what in them cannot be taken."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch
from safetensors.torch import save_file

import trainscope
from trainscope.errors import CheckpointError
from trainscope.networks import build, open_checkpoint


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build("lenet5", 10).state_dict()


@pytest.mark.parametrize("name", ["weights.safetensors", "model.fp16.safetensors"])
def test_the_only_safetensors_file_is_taken(tmp_path, name):
    save_file(weights(), tmp_path / name)
    assert open_checkpoint(tmp_path).format == f"Hugging Face folder ({name})"


def test_the_only_torch_file_of_a_variant_is_taken(tmp_path):
    torch.save(weights(), tmp_path / "pytorch_model.fp16.bin")
    assert open_checkpoint(tmp_path).architecture == "lenet5"


def test_the_index_of_a_variant_is_followed(tmp_path):
    state = weights()
    names = list(state)
    halves = {"v-00001-of-00002.safetensors": names[:4], "v-00002-of-00002.safetensors": names[4:]}
    for file, held in halves.items():
        save_file({name: state[name] for name in held}, tmp_path / file)
    placed = {name: file for file, held in halves.items() for name in held}
    (tmp_path / "v.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    opened = open_checkpoint(tmp_path).module.state_dict()
    assert all(torch.equal(opened[name], state[name]) for name in names)


@pytest.mark.parametrize(
    "names", [("a.safetensors", "b.safetensors"), ("model-00001-of-00002.safetensors",)]
)
def test_one_of_several_is_not_chosen(tmp_path, names):
    for name in names:
        save_file(weights(), tmp_path / name)
    with pytest.raises(CheckpointError, match="give the checkpoint file in it"):
        open_checkpoint(tmp_path)


class Empty:
    """A tensor of 64 MiB that a pickle asks torch for, with no bytes in the file."""

    def __reduce__(self):
        return torch.Tensor, (1 << 12, 1 << 12)


@pytest.mark.parametrize("sharded", [False, True])
def test_sizes_are_checked_in_folders_too(tmp_path: pathlib.Path, sharded):
    state = {**weights(), "more.weight": Empty()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    if sharded:
        (tmp_path / "pytorch_model.bin").rename(tmp_path / "shard.bin")
        index = {"weight_map": dict.fromkeys(state, "shard.bin")}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="holds no state dict"):
        open_checkpoint(tmp_path)


def test_a_pointer_of_git_lfs_is_told_whatever_its_name(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "model.safetensors").write_bytes(pointer)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(tmp_path)


def test_a_file_without_tensors_is_one_sentence(tmp_path):
    save_file({}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match="holds no tensors"):
            open_checkpoint(path)


@pytest.mark.parametrize("shard", [["a"], {}, 5, None, "../x.bin", "a\u0000b"])
def test_an_index_that_names_odd_files_is_one_sentence(tmp_path, shard):
    index = {"weight_map": {"conv1.weight": shard}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"download the folder again|outside the folder"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("config", "said"), [(False, "has neither"), (True, "has a config.json")])
def test_a_folder_without_weights_is_told_before_its_text(tmp_path, config, said):
    folder = tmp_path / "hub"
    folder.mkdir()
    if config:
        (folder / "config.json").write_text("{}")
    for data in (None, "text:missing.txt"):
        with pytest.raises(CheckpointError, match=f"{said}.* weights"):
            trainscope.diagnose(f"hf:{folder}", data=data)


def test_names_that_nobody_knows_hint_at_a_missing_configuration(tmp_path):
    save_file({"h.0.attn.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"the folder that has its config\.json"):
        open_checkpoint(tmp_path)


def test_a_folder_with_a_checkpoint_names_it(tmp_path):
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "checkpoint.pt")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"give the checkpoint in it: .*checkpoint\.pt"):
        open_checkpoint(tmp_path)
