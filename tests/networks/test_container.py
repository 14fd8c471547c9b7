"""Files that are no checkpoint, are damaged, or would run code: one sentence each, nothing run."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks.readers.container import load
from trainscope.networks.readers.inert import arguments_in


@pytest.fixture
def good(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "good.pt"
    torch.save({"weight": torch.randn(40, 40), "bias": torch.randn(40)}, path)
    return path


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "legacy.pt"
    state = {"weight": torch.randn(40, 40), "bias": torch.randn(40)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("kind", ["good", "legacy"])
def test_both_containers_of_torch_save_load_bit_for_bit(kind, request):
    loaded = load(request.getfixturevalue(kind)).objects
    torch.manual_seed(0)
    assert torch.equal(loaded["weight"], torch.randn(40, 40))
    assert torch.equal(loaded["bias"], torch.randn(40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"Epoch 1: 71.3 %\nEpoch 2: 74.0 %\n", "a text file"),
        ("Größe: naïve café ☕".encode(), "a text file"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\x1f\x8b\x08\x00" + b"\x00" * 90, "a gzip archive"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 90, "an HDF5 file"),
        (random.Random(0).randbytes(4000), "not a checkpoint"),
        (b"PK\x03\x04" + random.Random(0).randbytes(4000), "damaged or cut short"),
        (b"PK\x05\x06" + b"\x00" * 18, "an empty zip archive"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    ],
)
def test_what_is_no_checkpoint_is_told_what_it_is(tmp_path, content, message):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "link.pt").symlink_to(tmp_path / "nowhere.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    for path, message in [
        (tmp_path / "absent.pt", "there is no such file; check the path"),
        (tmp_path / "link.pt", "there is a link to a file that does not exist"),
        (tmp_path / "pipe.pt", "not a regular file"),
        (tmp_path, "this is a folder; give the checkpoint file in it"),
        (Path("/dev/null"), "not a regular file"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            load(path)


def test_a_file_that_may_not_be_read(good, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read all files, so modes do not tell
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        load(good)


def test_a_link_to_a_file_is_followed_and_the_file_is_not_written(good):
    link = good.with_name("link.pt")
    link.symlink_to(good)
    content, modified = good.read_bytes(), good.stat().st_mtime_ns
    good.chmod(0o400)
    loaded = load(link).objects
    loaded["weight"].zero_()  # the memory map is private
    assert good.read_bytes() == content
    assert good.stat().st_mtime_ns == modified


@pytest.mark.parametrize("kind", ["good", "legacy"])
@pytest.mark.parametrize("percent", range(0, 100, 2))
def test_a_truncated_file_is_one_sentence(kind, percent, request):
    path = request.getfixturevalue(kind)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(
        CheckpointError, match=r"empty|damaged or cut short|not a checkpoint"
    ) as info:
        load(path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("kind", ["good", "legacy"])
def test_flipped_bytes_load_or_are_one_sentence(kind, request):
    path = request.getfixturevalue(kind)
    content, draw = path.read_bytes(), random.Random(1)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[draw.randrange(min(len(content), 900))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


class _Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def _evil(marker: Path) -> dict[str, object]:
    command = f"touch {marker}"
    return {
        "posix.system": _Touch(os.system, command),
        "builtins.eval": _Touch(eval, f"open({str(marker)!r}, 'w').close()"),
        "builtins.exec": _Touch(exec, f"open({str(marker)!r}, 'w').close()"),
        "nested": _Touch(_Touch, os.system, _Touch(os.system, command)),
    }


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.exec", "nested"])
@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str
)
def test_pickles_that_would_run_code_do_not(tmp_path, name, options):
    marker, path = tmp_path / "touched", tmp_path / "evil.pt"
    torch.save({"state_dict": {"w": torch.zeros(2)}, "x": _evil(marker)[name]}, path, **options)
    with pytest.raises(CheckpointError, match="only be loaded by running code") as info:
        load(path)
    assert not marker.exists()
    if name != "nested":
        assert name.removeprefix("builtins.") in str(info.value)


def test_a_bare_pickle_that_would_run_code_does_not(tmp_path):
    marker, path = tmp_path / "touched", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(_Touch(os.system, f"touch {marker}")))
    with pytest.raises(CheckpointError, match="only running code could load it"):
        load(path)
    assert not marker.exists()


class _Sneaky(argparse.Namespace):
    """A Namespace by inheritance only."""

    def __setstate__(self, state):
        Path(state["path"]).touch()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_only_the_namespace_itself_is_allowed(tmp_path, options):
    path = tmp_path / "args.pt"
    torch.save({"args": argparse.Namespace(lr=0.1, model="resnet18")}, path, **options)
    assert arguments_in(load(path).objects["args"]) == {"lr": 0.1, "model": "resnet18"}
    marker = tmp_path / "touched"
    sneaky = _Sneaky(path=str(marker))
    torch.save({"args": sneaky}, path, **options)
    loaded = load(path)
    assert not marker.exists()
    assert arguments_in(loaded.objects["args"]) is None
    assert loaded.classes == (f"{__name__}._Sneaky",)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_the_classes_of_a_whole_module_are_named(tmp_path, options):
    path = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 2), path, **options)
    loaded = load(path)
    assert loaded.classes == ("torch.nn.modules.linear.Linear",)
    assert loaded.objects.named == loaded.classes[0]


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", [True, False])
def test_every_protocol_is_read(tmp_path, protocol, container):
    """Torch's own safe loader reads none but the second."""
    path, shared = tmp_path / "new.pt", [1, -2.5, 2**70, "é", b"\x00\xff" * 300]
    obj = {"weight": torch.arange(2.0), "a": shared, "b": (shared, {3, 4}, frozenset({5}), None)}
    obj |= {"c": defaultdict(list, {"x": [1]}), "d": Counter("aab"), "e": True, "f": (1, 2, 3, 4)}
    torch.save(obj, path, pickle_protocol=protocol, _use_new_zipfile_serialization=container)
    loaded = load(path)
    assert torch.equal(loaded.objects.pop("weight"), obj.pop("weight"))
    assert loaded.objects == obj
    assert loaded.objects["a"] is loaded.objects["b"][0]
    assert loaded.classes == ()


def test_archives_of_other_kinds(tmp_path):
    path = tmp_path / "file.zip"
    for name, message in [
        ("x/readme.txt", "a zip archive and not a checkpoint"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
        with pytest.raises(CheckpointError, match=message):
            load(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(50_000_000))
    with pytest.raises(CheckpointError, match=r"declares 50,000,000 bytes and has \d\d,\d\d\d"):
        load(path)
