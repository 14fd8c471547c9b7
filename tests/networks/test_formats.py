"""Files as other tools write them, made by hand with the same keys and classes."""

from __future__ import annotations

import argparse
import io
import json
import os
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import build, open_checkpoint
from trainscope.networks.inspection import inspect_checkpoint
from trainscope.networks.readers import contents_of


@pytest.fixture
def lenet() -> nn.Module:
    torch.manual_seed(0)
    return build("lenet5", 10).eval()


def check_same(module: nn.Module, path: pathlib.Path, **options) -> None:
    """Check that a file opens as a network with the same logits, bit for bit."""
    opened = open_checkpoint(path, **options)
    inputs = torch.randn(2, *opened.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(opened.module(inputs), module.eval()(inputs))


def test_timm_prefers_the_averaged_weights(tmp_path, lenet):
    averaged = build("lenet5", 10)
    content = {
        "epoch": 4,
        "arch": "lenet5",
        "state_dict": lenet.state_dict(),
        "state_dict_ema": averaged.state_dict(),
        "args": argparse.Namespace(model="lenet5", seed=42),
        "version": 2,
        "metric": 76.5,
    }
    torch.save(content, tmp_path / "last.pth.tar")
    check_same(averaged, tmp_path / "last.pth.tar")
    opened = open_checkpoint(tmp_path / "last.pth.tar")
    assert opened.format == "timm training script"
    assert (opened.remembered.epochs, opened.remembered.seed) == (5, 42)
    assert opened.remembered.accuracy == 76.5
    assert "state_dict_ema" in opened.notes[0]


@pytest.mark.parametrize("attribute", ["model", "net", "classifier"])
def test_lightning_keeps_the_network_and_names_what_it_leaves(tmp_path, lenet, attribute):
    state = {f"{attribute}.{name}": value for name, value in lenet.state_dict().items()}
    content = {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 3,
        "state_dict": {**state, "criterion.weight": torch.ones(10)},
        "hyper_parameters": {"root": pathlib.PurePosixPath("/data"), "acc": np.float64(1.5)},
        "callbacks": {},
    }
    torch.save(content, tmp_path / "run.ckpt")
    check_same(lenet, tmp_path / "run.ckpt")
    opened = open_checkpoint(tmp_path / "run.ckpt")
    assert "Lightning 2.6.0" in opened.format
    assert "criterion" in opened.notes[0]


def test_a_lightning_module_that_is_the_network_itself(tmp_path, lenet):
    content = {"pytorch-lightning_version": "2.6.0", "state_dict": lenet.state_dict()}
    torch.save(content, tmp_path / "run.ckpt")
    check_same(lenet, tmp_path / "run.ckpt")


def test_numpy_scalars_arrays_and_paths_are_plain_values(tmp_path, lenet):
    content = {
        "state_dict": lenet.state_dict(),
        "best_acc1": np.float64(88.1),
        "history": np.arange(5.0),
        "path": pathlib.PurePosixPath("/a/b"),
    }
    torch.save(content, tmp_path / "script.pt")
    check_same(lenet, tmp_path / "script.pt")
    assert open_checkpoint(tmp_path / "script.pt").remembered.accuracy == 88.1


def test_a_pruned_network_with_its_cfg(tmp_path, lenet):
    torch.save({"cfg": [6, 16], "state_dict": lenet.state_dict()}, tmp_path / "pruned.pth.tar")
    check_same(lenet, tmp_path / "pruned.pth.tar")
    assert open_checkpoint(tmp_path / "pruned.pth.tar").format == "pruned network with its cfg"


@pytest.mark.parametrize("kind", ["new", "old"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_weight_norm_is_put_together(tmp_path, lenet, kind):
    norm = torch.nn.utils.parametrizations.weight_norm
    for layer in [m for m in lenet.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        (norm if kind == "new" else torch.nn.utils.weight_norm)(layer)
    torch.save(lenet.state_dict(), tmp_path / "normed.pt")
    check_same(lenet, tmp_path / "normed.pt")


@pytest.mark.parametrize("kind", ["new", "old"])
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_weight_norm_over_any_dimension(tmp_path, lenet, kind, dim):
    norm = torch.nn.utils.parametrizations.weight_norm
    layer = next(m for m in lenet.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
    (norm if kind == "new" else torch.nn.utils.weight_norm)(layer, dim=dim)
    torch.save(lenet.state_dict(), tmp_path / "normed.pt")
    check_same(lenet, tmp_path / "normed.pt")


def test_an_unknown_parametrization_is_named(tmp_path, lenet):
    layer = next(m for m in lenet.modules() if isinstance(m, nn.Conv2d))
    torch.nn.utils.parametrizations.orthogonal(layer)
    torch.save(lenet.state_dict(), tmp_path / "orthogonal.pt")
    with pytest.raises(CheckpointError, match="remove_parametrizations"):
        open_checkpoint(tmp_path / "orthogonal.pt")


def test_safetensors(tmp_path, lenet):
    path = tmp_path / "model.safetensors"
    save_file(lenet.state_dict(), path)
    check_same(lenet, path)
    whole = path.read_bytes()
    for share in range(2, 100, 7):
        path.write_bytes(whole[: len(whole) * share // 100])
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            open_checkpoint(path)


@pytest.mark.parametrize("kind", ["safetensors", "bin", "sharded"])
def test_a_folder_from_a_hub(tmp_path, lenet, kind):
    state = lenet.state_dict()
    config = {"architecture": "lenet5", "num_classes": 10}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if kind == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    elif kind == "bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        names = list(state)
        shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
        for shard, held in shards.items():
            save_file({name: state[name] for name in held}, tmp_path / shard)
        placed = {name: shard for shard, held in shards.items() for name in held}
        index = {"metadata": {}, "weight_map": placed}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check_same(lenet, tmp_path)
    assert open_checkpoint(tmp_path).recognised == "named in the file"


def test_folders_that_cannot_be_read_are_told_apart(tmp_path, lenet):
    with pytest.raises(CheckpointError, match="or the checkpoint file"):
        open_checkpoint(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(CheckpointError, match="outside the folder"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "missing.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"shard missing\.safetensors is missing"):
        open_checkpoint(tmp_path)
    index.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path)
    index.unlink()
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match="dcp_to_torch_save"):
        open_checkpoint(tmp_path)


@pytest.fixture
def foreign():
    """A class of a module that exists while a file is written and is gone when it is read."""
    home = types.ModuleType("somebodys_code")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = build("lenet5", 10)

        def forward(self, x):
            return self.body(x)

    Net.__module__, Net.__qualname__ = "somebodys_code", "Net"
    home.Net = Net
    sys.modules["somebodys_code"] = home
    yield Net
    sys.modules.pop("somebodys_code", None)


@pytest.mark.parametrize("container", [True, False])
@pytest.mark.parametrize("wrap", ["alone", "model", "parallel"])
def test_a_whole_network_comes_back_without_its_class(tmp_path, lenet, container, wrap):
    obj = {
        "alone": lenet,
        "model": {"model": lenet, "epoch": 7},
        "parallel": nn.DataParallel(lenet),
    }
    path = tmp_path / "whole.pt"
    torch.save(obj[wrap], path, _use_new_zipfile_serialization=container)
    check_same(lenet, path)
    opened = open_checkpoint(path)
    assert "whole pickled network" in opened.format
    assert opened.remembered.epochs == (7 if wrap == "model" else None)


def test_a_class_that_is_nowhere_to_be_imported(tmp_path, foreign):
    module = foreign()
    torch.save(module, tmp_path / "whole.pt")
    sys.modules.pop("somebodys_code")
    contents = contents_of(tmp_path / "whole.pt")
    assert contents.format == "whole pickled network (somebodys_code.Net)"
    assert {f"body.{name}" for name in module.body.state_dict()} == set(contents.state_dict)
    assert "somebodys_code" not in sys.modules


def test_strides_and_padding_come_from_the_file(tmp_path):
    module = build("resnet20", 10).eval()
    module.conv1.stride, module.conv1.padding = (2, 2), (0, 0)
    torch.save(module, tmp_path / "whole.pt")
    check_same(module, tmp_path / "whole.pt")
    assert "conv1.stride" in open_checkpoint(tmp_path / "whole.pt").notes[-1]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_the_weights_of_torchscript_are_read(tmp_path, lenet):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(lenet), path)
    check_same(lenet, path)
    assert open_checkpoint(path).format == "TorchScript archive"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        open_checkpoint(path)


def test_the_weights_of_an_exported_program_are_read(tmp_path, lenet):
    path = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(lenet, (torch.randn(2, 1, 28, 28),)), path)
    check_same(lenet, path)
    assert open_checkpoint(path).format == "torch.export archive"
    whole = path.read_bytes()
    for share in range(2, 100, 14):
        path.write_bytes(whole[: len(whole) * share // 100])
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            open_checkpoint(path)


class Runs:
    """An object that would make a file if it were restored."""

    def __init__(self, how, *given) -> None:
        self.how, self.given = how, given

    def __reduce__(self):
        return self.how, self.given


@pytest.mark.parametrize("container", [True, False])
@pytest.mark.parametrize("how", ["system", "eval", "nested", "state"])
def test_nothing_runs_and_the_file_is_refused(tmp_path, lenet, how, container):
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    evil = {
        "system": Runs(os.system, command),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "nested": Runs(getattr, Runs(__import__, "os"), "system"),
        "state": Runs(os.system, command),
    }[how]
    if how == "state":  # set as an attribute of the network
        lenet.extra = evil
        obj: object = lenet
    else:
        obj = {"model": lenet, "extra": evil}
    path = tmp_path / "evil.pt"
    torch.save(obj, path, _use_new_zipfile_serialization=container)
    with pytest.raises(CheckpointError, match="only be loaded by running code"):
        open_checkpoint(path)
    assert not mark.exists()


def rewritten(path: pathlib.Path, change) -> None:
    """Write an archive anew with its entries changed: `change` takes and returns them by name."""
    with zipfile.ZipFile(path) as archive:
        entries = {each.filename: archive.read(each) for each in archive.infolist()}
        packed = {each.filename: each.compress_type for each in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content, packed.get(name, zipfile.ZIP_STORED))


def naming_system(pickled: bytes) -> bytes:
    """Return a pickle that first looks up os.system, and is otherwise as it was."""
    return b"\x80\x02cos\nsystem\n0" + pickled[2:]


@pytest.mark.parametrize("place", ["data.pkl", "constants.pkl", "traced_inputs.pkl"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_complete_torchscript_archive_that_names_what_would_run_is_refused(
    tmp_path, lenet, place
):
    path = tmp_path / "traced.pt"
    torch.jit.save(torch.jit.trace(lenet, torch.randn(2, 1, 28, 28)), path)
    check_same(lenet, path)

    def change(entries):
        return {n: naming_system(c) if n.endswith("/" + place) else c for n, c in entries.items()}

    rewritten(path, change)
    with pytest.raises(CheckpointError, match=r"\(os\.system\).*only be loaded by running code"):
        open_checkpoint(path)
    found = inspect_checkpoint(path)
    assert "os.system" in found.classes
    assert "running code" in found.problem


@pytest.mark.parametrize("place", ["inputs", "constant", "damaged constant", "weight"])
def test_a_complete_exported_program_that_names_what_would_run_is_refused(tmp_path, lenet, place):
    path, mark = tmp_path / "exported.pt2", tmp_path / "ran"
    torch.export.save(torch.export.export(lenet, (torch.randn(2, 1, 28, 28),)), path)
    check_same(lenet, path)
    held = io.BytesIO()
    torch.save(Runs(os.system, f"touch {mark}"), held)
    pickled = pickle.dumps(Runs(os.system, f"touch {mark}"))
    name, content = {
        "inputs": ("exported/data/sample_inputs/model.pt", held.getvalue()),
        "constant": ("exported/data/constants/opaque_obj_0", pickled),
        "damaged constant": ("exported/data/constants/opaque_obj_0", pickled[:-1] + b"\xff"),
        "weight": ("exported/data/weights/weight_10", held.getvalue()),
    }[place]
    rewritten(path, lambda entries: entries | {name: content})
    with pytest.raises(CheckpointError, match=r"\(posix\.system\).*only be loaded by running code"):
        open_checkpoint(path)
    assert inspect_checkpoint(path).classes == ("posix.system",)
    assert not mark.exists()


def test_an_exported_program_with_a_pickled_weight_is_told_from_a_damaged_one(tmp_path, lenet):
    path = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(lenet, (torch.randn(2, 1, 28, 28),)), path)

    def change(entries):
        name = next(n for n in entries if n.endswith("model_weights_config.json"))
        flag = entries[name].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        return entries | {name: flag}

    rewritten(path, change)
    with pytest.raises(CheckpointError, match="pickles a weight"):
        open_checkpoint(path)


def test_a_cut_whole_network_is_one_sentence(tmp_path, lenet):
    for container in (True, False):
        path = tmp_path / "whole.pt"
        torch.save(lenet, path, _use_new_zipfile_serialization=container)
        whole = path.read_bytes()
        for share in range(2, 100, 4):
            path.write_bytes(whole[: len(whole) * share // 100])
            with pytest.raises(CheckpointError) as caught:
                open_checkpoint(path)
            assert "\n" not in str(caught.value)


def test_modules_within_themselves_are_refused(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 1, 1))
    module._modules["1"] = module
    with (tmp_path / "loop.pt").open("wb") as file:
        torch.save(module, file)
    with pytest.raises(CheckpointError, match="without end"):
        open_checkpoint(tmp_path / "loop.pt")


def test_tensors_beyond_their_storage_are_refused():
    from trainscope.networks.readers.tensors import Storage

    storage = Storage(torch.float32, bytearray(16))
    assert storage.view(0, (2, 2), (2, 1)).shape == (2, 2)
    for offset, size, stride in (
        (1, (4,), (1,)),
        (0, (5,), (1,)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
    ):
        with pytest.raises(ValueError, match="beyond"):
            storage.view(offset, size, stride)


def test_bytes_that_are_no_pickle_stay_refused(tmp_path):
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Runs(print, "hello")))
    with pytest.raises(CheckpointError, match=r"pickle that torch\.save did not write"):
        open_checkpoint(tmp_path / "plain.pt")
