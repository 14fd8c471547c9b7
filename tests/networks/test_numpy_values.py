"""Numpy's numbers, read by stand-ins: the same as numpy's own, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainscope.networks.readers.container import load
from trainscope.networks.readers.numpy_values import Array, Dtype, scalar


@pytest.mark.parametrize(
    "kind", ["?", "i1", "u2", "i4", ">i4", "i8", "f2", "f4", ">f4", "f8", "c16"]
)
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_numbers_come_back_as_pythons(tmp_path, kind, options):
    value = np.array([77.25], dtype=kind)[0]
    torch.save({"x": value}, tmp_path / "a.pt", **options)
    loaded = load(tmp_path / "a.pt").objects["x"]
    assert loaded == value.item()
    assert type(loaded) is type(value.item())


def test_strings_arrays_and_random_states_load(tmp_path):
    state = np.random.RandomState(0).get_state()
    held = {
        "name": np.str_("resnet"),
        "history": np.arange(3),
        "rng": state,
        "when": np.datetime64(0, "s"),
    }
    torch.save(held, tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt").objects
    assert loaded["name"] == "resnet"
    assert isinstance(loaded["history"], Array)
    assert loaded["rng"][0] == "MT19937"
    assert loaded["when"] is None


def test_a_number_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="cut short"):
        scalar(Dtype("f8"), b"abc")


@pytest.mark.parametrize("letters", ["O8", "V8", "f8,O", "(2,)f8", "", 8])
def test_what_is_no_plain_dtype_gives_nothing(letters):
    assert scalar(Dtype(letters), b"12345678") is None


def test_a_state_sets_the_byte_order_alone():
    kind = Dtype("f8")
    kind.__setstate__((3, "|", None, ("f",), {"f": ("O", 0)}, 8, 1, 63))
    assert kind.order == "="
    assert scalar(kind, np.float64(1.5).tobytes()) == 1.5
    kind.__setstate__((3, ">", None, None, None, -1, -1, 0))
    assert scalar(kind, np.array([1.5], ">f8").tobytes()) == 1.5
