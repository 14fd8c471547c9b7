"""Pickles carried out opcode by opcode: what they make, and what they cannot make."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from forked import processes
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks.readers import contents_of
from trainscope.networks.readers import pickle_machine as home
from trainscope.networks.readers.container import load
from trainscope.networks.readers.inert import Inert
from trainscope.networks.readers.pickle_machine import Machine

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


ENCODE = named("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R0"


def archive_of(pickled: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/version", "3\n")
    return path


def machine_of(pickled: bytes) -> Machine:
    def storage(_pid):
        raise ValueError("there are no storages")

    return Machine(io.BytesIO(pickled), len(pickled), storage)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_what_python_makes_of_them(protocol):
    shared = [1, 2.5]
    obj = {"a": shared, "b": (shared, {"c": {1, 2}}, frozenset({3})), "d": b"x" * 300, 7: -(2**80)}
    stream = io.BytesIO(pickle.dumps([obj] * 3, protocol) + b"rest")
    loaded = Machine(stream, 1000, lambda _: None).run()
    assert loaded == [obj] * 3
    assert loaded[0] is loaded[2]
    assert stream.read() == b"rest"


def test_a_class_is_named_and_never_imported():
    machine = machine_of(pickle.dumps([nn.ReLU, nn.ReLU(), torch.device("cpu")]))
    kind, made, device = machine.run()
    assert kind.name == made.named == "torch.nn.modules.activation.ReLU"
    assert made.state["inplace"] is False
    assert device.named == "torch.device"
    assert next(iter(machine.names)) == kind.name


def test_attributes_that_hide_methods_are_left_out(tmp_path):
    state = nn.Linear(2, 2).state_dict()
    state.__dict__["values"] = 5
    state["weight"].is_floating_point = 5
    torch.save(state, tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt").objects
    assert len(list(loaded.values())) == 2
    assert loaded["weight"].is_floating_point()
    assert torch.equal(loaded["weight"], state["weight"])


DAG = b")" + b"\x85" + b"q\x00h\x00\x86" * 60  # tuples of the same twice, 60 deep


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"}" + DAG + b"Ns.", "nests its objects too deeply"),
        (b"})" + NEST * 100_000 + b"Ns.", "nests its objects too deeply"),
        (named("builtins", "set") + b"]" + DAG + b"a\x85R.", "nests its objects too deeply"),
        (b"(" + DAG + b"\x91.", "nests its objects too deeply"),
        (b"\x8f(" + DAG + b"\x90.", "nests its objects too deeply"),
        (b"}\x8a\x09" + (2**61 - 1 << 8).to_bytes(9, "little") + b"Ns.", "type int as the key"),
        (
            b"}" + named("builtins", "complex") + b"G" + bytes(8) + b"G" + bytes(8) + b"\x86RNs.",
            "type complex as the key",
        ),
        (b"]" + text("x" * 1000) + b"q\x00" + b"0" + ENCODE * 100_000 + b".", "over and over"),
    ],
    ids=["doubled", "deep", "set", "frozenset", "items", "integer", "complex", "bytes"],
)
def test_work_that_the_file_does_not_pay_for_is_refused(pickled, message):
    """Hashing a tuple takes as long as all that is in it; Python 3.11 can overrun its stack."""
    with pytest.raises(CheckpointError, match=message):
        machine_of(b"\x80\x02" + pickled).run()


@pytest.mark.parametrize(
    "pickled",
    [
        named("_codecs", "encode") + text("A") + text("punycode") + b"\x86R.",
        named("_codecs", "encode") + text("41") + text("hex") + b"\x86R.",
        b"]" + b")R.",  # calls a list
        b"N}b.",  # sets attributes on nothing
        b"]}b.",
        b"\x82\x01.",  # the registry of extensions
        b"\x97.",  # a buffer that is elsewhere
        named("torch", "FloatTensor") + b"}b.",
        named("collections", "OrderedDict") + b"}b.",  # sets attributes on a class
        text("storage") + b"Q.",
        b"(" + text("storage") + b"NNNNtQ.",
        named("torch._utils", "_rebuild_tensor_v2") + b"(NK\x00))tR.",
        named("torch._utils", "_rebuild_sparse_tensor") + b"NN\x86R.",
        named("torch.nn.parameter", "Parameter") + b"N\x85R)}\x86b.",
        b"\x80\x09N.",
    ],
)
def test_what_torch_never_writes_is_damage_or_an_inert_thing(pickled):
    try:
        made = machine_of(b"\x80\x02" + pickled).run()
    except (ValueError, IndexError, TypeError):
        return
    assert isinstance(made, Inert)


def test_the_number_of_opcodes_is_bounded(monkeypatch):
    monkeypatch.setattr(home, "MOST_OPCODES", 1000)
    machine_of(b")" * 1000 + b".").run()
    with pytest.raises(CheckpointError, match="more than 1,000 things"):
        machine_of(b")" * 1001 + b".").run()


def test_a_memo_number_without_objects_takes_no_memory():
    assert machine_of(b"\x80\x02]r\xff\xff\xff\x7f.").run() == []
    assert machine_of(b"\x80\x02]p2147483647\n.").run() == []


def test_a_length_that_the_file_does_not_have_is_refused(tmp_path):
    claimed = b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc."
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(archive_of(claimed, tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "pickled", [b"\x85.", b"\x80\x02t.", b"\x80\x02h\x05.", b"q\x00.", b"\x80", b"N", b"."]
)
def test_an_opcode_that_takes_what_is_not_there_is_damage(tmp_path, pickled):
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(archive_of(pickled, tmp_path / "a.pt"))


def tell(path: Path, queue) -> None:
    """Read a file, as a process of its own."""
    queue.put(sorted(load(path).objects))


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
    queue = processes.SimpleQueue()
    reader = processes.Process(target=tell, args=(path, queue))  # which may die of it
    reader.start()
    reader.join()
    assert reader.exitcode == 0
    assert queue.get() == ["a", "d", "e"]


GIB = b"\x8a\x08" + (2**28).to_bytes(8, "little")  # float32 values in one GiB


@pytest.mark.parametrize(
    "made",
    [
        named("torch", "FloatTensor") + GIB + b"\x85R",
        named("torch", "Tensor") + GIB + b"\x85\x81",
        named("builtins", "bytearray") + GIB + b"\x85R",
    ],
    ids=["called", "made", "bytearray"],
)
def test_what_has_no_bytes_in_the_file_takes_no_memory(tmp_path, made):
    path = archive_of(b"\x80\x02}" + text("conv1.weight") + made + b"s.", tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        contents_of(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
