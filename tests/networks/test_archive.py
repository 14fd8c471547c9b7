"""Records of archives, and the older layout: damage is found, and what is whole is read."""

from __future__ import annotations

import struct
import warnings
import zipfile

import pytest
import torch
from torch.serialization import set_crc32_options

from trainscope.errors import CheckpointError
from trainscope.networks.inspection import inspect_checkpoint
from trainscope.networks.readers import contents_of
from trainscope.networks.readers.container import load


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {"weight": torch.randn(40, 40), "bias": torch.randn(40), "steps": torch.tensor(3)}


@pytest.fixture
def good(tmp_path, state):
    torch.save(state, tmp_path / "good.pt")
    return tmp_path / "good.pt"


def offset_of(path, ending: str) -> int:
    """Return where the bytes of a record begin."""
    with zipfile.ZipFile(path) as archive:
        entry = next(each for each in archive.infolist() if each.filename.endswith(ending))
    head = path.read_bytes()[entry.header_offset :][:30]
    name, extra = struct.unpack("<HH", head[26:30])
    return entry.header_offset + 30 + name + extra


@pytest.mark.parametrize("record", ["data/0", "data/1", "data/2", "data.pkl"])
def test_one_flipped_bit_in_any_record_is_refused(good, record):
    damaged = bytearray(good.read_bytes())
    damaged[offset_of(good, "/" + record) + 3] ^= 0x40
    good.write_bytes(damaged)
    with pytest.raises(
        CheckpointError, match=rf"record 'good/{record}' does not have the checksum"
    ):
        load(good)


def test_files_that_were_saved_without_checksums_are_read(tmp_path, state):
    set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "a.pt")
    finally:
        set_crc32_options(True)
    assert torch.equal(load(tmp_path / "a.pt").objects["weight"], state["weight"])


def test_numbers_of_the_other_byte_order(good, state):
    swapped = {"data/0": 4, "data/1": 4, "data/2": 8}
    with zipfile.ZipFile(good) as archive:
        records = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(good, "w") as archive:
        for name, content in records.items():
            width = swapped.get(name.partition("/")[2])
            if width:
                parts = [content[at : at + width][::-1] for at in range(0, len(content), width)]
                content = b"".join(parts)
            archive.writestr(name, b"big" if name.endswith("byteorder") else content)
    loaded = load(good).objects
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_record_twice_or_under_a_password_is_refused(good):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(good, "a") as archive:
            archive.writestr("good/data/0", b"other")
    with pytest.raises(CheckpointError, match="two records named 'good/data/0'"):
        load(good)


def test_several_checkpoints_in_one_archive_are_refused(good):
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02N.")
    with pytest.raises(CheckpointError, match="holds several checkpoints"):
        load(good)


@pytest.mark.parametrize("extra", [b"\x00", b"more" * 100])
def test_bytes_behind_the_end_of_the_older_layout_are_refused(tmp_path, state, extra):
    path = tmp_path / "row.pt"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole + extra)
    with pytest.raises(CheckpointError, match=f"has {len(extra)} bytes behind its end"):
        load(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(path)


@pytest.mark.parametrize("change", ["longer", "shorter"])
def test_a_safetensors_file_of_another_length_is_refused(tmp_path, state, change):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00" if change == "longer" else whole[:-1])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        contents_of(path)


KINDS = {
    "coo": (lambda x: x.to_sparse(), "float32, sparse_coo", "to_dense"),
    "csr": (lambda x: x.to_sparse_csr(), "float32, sparse_csr", "to_dense"),
    "csc": (lambda x: x.to_sparse_csc(), "float32, sparse_csc", "to_dense"),
    "quantised": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        "qint8",
        "dequantize",
    ),
    "meta": (lambda x: x.to("meta"), "float32", "no values"),
    "nested": (lambda x: torch.nested.nested_tensor([x, x]), "float32", "nested"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # torch calls half of these a prototype
def test_tensors_of_other_kinds_are_described_and_not_built(tmp_path, kind):
    make, dtype, advice = KINDS[kind]
    torch.save({"a": make(torch.eye(4)), "b": torch.ones(2)}, tmp_path / "a.pt")
    held = contents_of(tmp_path / "a.pt").state_dict
    assert held["a"].dtype == dtype
    assert held["a"].shape == ((32,) if kind == "nested" else (4, 4))
    assert advice in held["a"].problem
    assert torch.equal(held["b"], torch.ones(2))


def _by_channel(x):
    points = torch.tensor([3, 0, -2, 5])
    return torch.quantize_per_channel(x, torch.full((4,), 0.1), points, 0, torch.qint8)


ZEROS = {  # of each, the share that is zero when it is made plain
    "coo": lambda x: x.to_sparse(),
    "coo of rows": lambda x: x.to_sparse(1),
    "coo with a stored zero": lambda x: (x + 1).to_sparse() * x.to_sparse(),
    "csr": lambda x: x.to_sparse_csr(),
    "csc": lambda x: x.to_sparse_csc(),
    "bsr": lambda x: x.to_sparse_bsr((2, 2)),
    "qint8": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "quint8 with a zero point": lambda x: torch.quantize_per_tensor(x, 0.1, 7, torch.quint8),
    "qint32, turned": lambda x: torch.quantize_per_tensor(x, 0.1, -3, torch.qint32).t(),
    "by channel": _by_channel,
}


@pytest.mark.parametrize("kind", ZEROS)
@pytest.mark.filterwarnings("ignore")
def test_zeros_of_sparse_and_quantised_tensors_are_counted(tmp_path, kind):
    plain = torch.tensor([[0.0, 1, 0, -2], [0.5, 0, 0, 0], [0, 0, 0.01, 3], [0, 0, 0, 1]])
    made = ZEROS[kind](plain)
    torch.save({"a": made, "b": torch.ones(2)}, tmp_path / "a.pt")
    (found,) = [each for each in inspect_checkpoint(tmp_path / "a.pt").tensors if each.name == "a"]
    dense = made.dequantize() if made.is_quantized else made.to_dense()
    assert found.zeros == pytest.approx((dense == 0).double().mean().item())


@pytest.mark.filterwarnings("ignore")
def test_zeros_that_cannot_be_told_are_not_read(tmp_path):
    twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, -1.0], (2, 2))
    wide = torch.quantize_per_tensor(torch.zeros(1), 0.1, 0, torch.qint8).expand(2**20)
    torch.save({"twice": twice, "wide": wide}, tmp_path / "a.pt")
    found = inspect_checkpoint(tmp_path / "a.pt").tensors
    assert {each.name: each.zeros for each in found} == {"twice": None, "wide": None}


PLAIN = ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float64", "uint16", "int8", "bool"]


@pytest.mark.parametrize("dtype", [*PLAIN, "uint32", "int64", "complex64", "complex128"])
@pytest.mark.parametrize("container", [True, False])
def test_plain_types_come_back_bit_for_bit(tmp_path, dtype, container):
    value = torch.tensor([[0.0, 1, 2], [3, 0.5, 7]]).to(getattr(torch, dtype)).t()
    torch.save({"a": value}, tmp_path / "a.pt", _use_new_zipfile_serialization=container)
    loaded = load(tmp_path / "a.pt").objects["a"]
    assert (loaded.dtype, loaded.shape, loaded.stride()) == (value.dtype, (3, 2), value.stride())
    assert torch.equal(loaded.contiguous().view(torch.uint8), value.contiguous().view(torch.uint8))
