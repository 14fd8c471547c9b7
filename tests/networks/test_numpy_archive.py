"""`.npz`: arrays by name are weights, whatever their order in memory; nothing pickled is read."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from trainscope.errors import CheckpointError
from trainscope.networks import open_checkpoint, registry


@pytest.fixture(scope="module")
def arrays():
    torch.manual_seed(0)
    return {name: value.numpy() for name, value in registry.build("resnet20").state_dict().items()}


WAYS = {
    "plain": lambda value: value,
    "columns first": lambda value: np.asfortranarray(value) if value.ndim else value,
    "the other byte order": lambda value: value.astype(value.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("way", WAYS)
def test_an_archive_of_arrays_is_a_state_dict(tmp_path, arrays, save, way):
    save(tmp_path / "net.npz", **{name: WAYS[way](value) for name, value in arrays.items()})
    found = open_checkpoint(tmp_path / "net.npz")
    assert (found.architecture, found.format) == ("resnet20", "numpy archive")
    mine = found.module.state_dict()
    assert mine.keys() == arrays.keys()
    assert all(np.array_equal(mine[name].numpy(), value) for name, value in arrays.items())


def test_words_beside_the_weights_are_left_out(tmp_path, arrays):
    np.savez(tmp_path / "net.npz", arch=np.array("resnet20"), **arrays)
    assert "An array of words was left out." in open_checkpoint(tmp_path / "net.npz").notes


def test_pickled_objects_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "net.npz", model=np.array(arrays, dtype=object))
    with pytest.raises(CheckpointError, match="'model' holds pickled objects, which only code"):
        open_checkpoint(tmp_path / "net.npz")


def test_a_header_that_declares_more_than_there_is(tmp_path, arrays):
    np.savez(tmp_path / "net.npz", **{"conv1.weight": arrays["conv1.weight"]})
    with zipfile.ZipFile(tmp_path / "net.npz") as archive:
        raw = archive.read("conv1.weight.npy")
    with zipfile.ZipFile(tmp_path / "long.npz", "w") as archive:
        archive.writestr("conv1.weight.npy", raw.replace(b"(16, 3, 3, 3)", b"(99, 3, 3, 3)"))
    with pytest.raises(CheckpointError, match=r"the array 'conv1\.weight' is cut short"):
        open_checkpoint(tmp_path / "long.npz")


def test_a_damaged_archive_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "net.npz", **arrays)
    raw = bytearray((tmp_path / "net.npz").read_bytes())
    raw[3000] ^= 1
    (tmp_path / "net.npz").write_bytes(raw)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        open_checkpoint(tmp_path / "net.npz")


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch, arrays):
    monkeypatch.setattr("trainscope.networks.readers.numpy_archive.MOST_BYTES", 1000)
    zeros = {name: np.zeros_like(value) for name, value in arrays.items()}
    np.savez_compressed(tmp_path / "net.npz", **zeros)
    with pytest.raises(CheckpointError, match=r"unpacks to 1,\d\d\d,\d\d\d bytes"):
        open_checkpoint(tmp_path / "net.npz")
