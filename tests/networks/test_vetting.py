"""Pickles that would break the reader without running code: refused by their opcodes."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks.readers import contents_of
from trainscope.networks.readers.container import load
from trainscope.networks.readers.vetting import DEEPEST, check_pickle, check_pickles

NEST = b"\x85"  # TUPLE1: a tuple of what is on the stack


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def dtype(letters: str) -> bytes:
    return named("numpy", "dtype") + text(letters) + b"\x89\x88\x87R"


def archive_of(pickled: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/version", "3\n")
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordinary_pickles_pass_in_every_protocol(protocol):
    shared = [1, 2.5]
    obj = {"a": shared, "b": (shared, {"c": {1, 2}}, frozenset({3})), "d": b"x" * 300, "e": nn.ReLU}
    stream = io.BytesIO(pickle.dumps([obj] * 3, protocol) + b"rest")
    check_pickle(stream)
    assert stream.read() == b"rest"


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_a_whole_network_and_its_optimizer_pass(tmp_path, options):
    network = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": network, "o": optimizer.state_dict()}, tmp_path / "a.pt", **options)
    check_pickles(tmp_path / "a.pt", archive=not options)


@pytest.mark.parametrize("depth", [DEEPEST, DEEPEST + 1])
def test_the_depth_of_tuples_is_bounded(depth):
    stream = io.BytesIO(b"\x80\x02)" + NEST * depth + b".")
    if depth <= DEEPEST:
        check_pickle(stream)
        return
    with pytest.raises(CheckpointError, match="nests its objects too deeply"):
        check_pickle(stream)


def test_depth_is_counted_through_the_memo():
    step = b"q\x00h\x00\x85"
    with pytest.raises(CheckpointError, match="nests its objects too deeply"):
        check_pickle(io.BytesIO(b"\x80\x02)" + step * (DEEPEST + 1) + b"."))


@pytest.mark.parametrize("opcode", [b"r\xff\xff\xff\x7f", b"p2147483647\n"], ids=["binary", "text"])
def test_a_memo_number_without_objects_is_refused(opcode):
    with pytest.raises(CheckpointError, match="numbers its objects up to 2,147,483,647"):
        check_pickle(io.BytesIO(b"\x80\x02]" + opcode + b"."))


def test_a_length_that_the_file_does_not_have_is_refused(tmp_path):
    claimed = b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc."
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(archive_of(claimed, tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "pickled", [b"\x85.", b"\x80\x02t.", b"\x80\x02h\x05.", b"q\x00.", b"\x80"]
)
def test_an_opcode_that_takes_what_is_not_there_is_damage(tmp_path, pickled):
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        check_pickles(archive_of(pickled, tmp_path / "a.pt"), archive=True)


def test_deep_tuples_are_refused_before_any_is_hashed(tmp_path):
    """Hashing such a key overruns the stack of Python 3.11 and ends the process."""
    deep = b"\x80\x02})" + NEST * 3_000_000 + b"Ns."
    with pytest.raises(CheckpointError, match="nests its objects too deeply"):
        load(archive_of(deep, tmp_path / "deep.pt"))


def test_a_dtype_changed_after_its_array_was_made_changes_nothing(tmp_path):
    """Numpy itself would take the array's bytes for pointers, and follow them."""
    raw = named("_codecs", "encode") + text("AAAAAAAA") + text("latin1") + b"\x86R"
    array = (
        named("numpy._core.multiarray", "_reconstruct")
        + named("numpy", "ndarray")
        + (number(0) + b"\x85" + text("b") + b"\x87R")
        + (b"(" + number(1) + number(1) + b"\x85h\x01\x89" + raw + b"tb")
    )
    fields = b"}" + text("f") + dtype("O8") + number(0) + b"\x86s"
    state = b"(" + number(3) + text("|") + b"N" + text("f") + b"\x85" + fields
    change = b"h\x01" + state + number(8) + number(1) + number(63) + b"tb"
    pickled = b"\x80\x02}"
    pickled += text("d") + dtype("V8") + b"q\x01s" + text("a") + array + b"s"
    path = archive_of(pickled + text("e") + change + b"s.", tmp_path / "flip.pt")
    code = (
        "import sys; from pathlib import Path; "
        "from trainscope.networks.readers.container import load; "
        "print(sorted(load(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['a', 'd', 'e']"


GIB = b"\x8a\x08" + (2**28).to_bytes(8, "little")  # float32 values in one GiB


@pytest.mark.parametrize(
    "made",
    [
        named("torch", "FloatTensor") + GIB + b"\x85R",
        named("torch", "Tensor") + GIB + b"\x85\x81",
        named("torch", "FloatTensor")
        + b")R("
        + (named("torch", "FloatTensor") + b")R" + number(0) + GIB + b"\x85")
        + (number(1) + b"\x85tb"),
    ],
    ids=["called", "made", "grown"],
)
def test_a_tensor_without_bytes_in_the_file_is_refused_before_it_is_copied(tmp_path, made):
    path = archive_of(b"\x80\x02}" + text("conv1.weight") + made + b"s.", tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        CheckpointError, match=r"declare 1,073,741,824 bytes and the file has \d{3};"
    ):
        contents_of(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_bytearray_of_any_length_is_refused(tmp_path):
    pickled = b"\x80\x02" + named("builtins", "bytearray") + GIB + b"\x85R."
    with pytest.raises(CheckpointError, match="names a bytearray"):
        load(archive_of(pickled, tmp_path / "a.pt"))
