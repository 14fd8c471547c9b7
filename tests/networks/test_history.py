"""Histories that torch, pickle and NumPy saved, read without running any code of theirs."""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import invoke

from trainscope.errors import RecordError
from trainscope.networks.history import open_history
from trainscope.records.imports import Given, run_from_log

LISTS = {
    "train_loss": [1.5, 1.0, 0.8],
    "val_acc": [60.0, 65.0, 70.0],
    "lr": [0.1, 0.01, 0.001],
}
ARRAYS = {name: np.array(values) for name, values in LISTS.items()}
RECORDS = [{"epoch": k + 1, **{n: v[k] for n, v in LISTS.items()}} for k in range(3)]


class Logger:
    """Keeps lists, as people's own classes do."""

    def __init__(self):
        self.lists = dict(LISTS)


def checkpoint():
    return {"epoch": 3, "state_dict": torch.nn.Linear(3, 2).state_dict(), "history": LISTS}


SAVED = {
    "lists": lambda path: torch.save(LISTS, path),
    "arrays": lambda path: torch.save(ARRAYS, path),
    "tensors": lambda path: torch.save({n: torch.tensor(v) for n, v in LISTS.items()}, path),
    "numbers of tensors": lambda path: torch.save(
        {n: [torch.tensor(x) for x in v] for n, v in LISTS.items()}, path
    ),
    "numbers of NumPy": lambda path: torch.save(
        {n: [np.float64(x) for x in v] for n, v in LISTS.items()}, path
    ),
    "records": lambda path: torch.save(RECORDS, path),
    "the old container": lambda path: torch.save(LISTS, path, _use_new_zipfile_serialization=False),
    "beside weights": lambda path: torch.save(checkpoint(), path),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(defaultdict(list, LISTS))),
    "a pickle of arrays": lambda path: path.write_bytes(pickle.dumps(ARRAYS, protocol=2)),
    "a pickle of arrays, protocol 5": lambda path: path.write_bytes(pickle.dumps(ARRAYS, 5)),
    "an object": lambda path: path.write_bytes(pickle.dumps(Logger())),
    "a namespace": lambda path: path.write_bytes(pickle.dumps(SimpleNamespace(**LISTS))),
    "npz": lambda path: np.savez(path, **ARRAYS),
    "npy of a dictionary": lambda path: np.save(path, LISTS, allow_pickle=True),
    "npy of a table": lambda path: np.save(
        path, np.rec.fromarrays(list(ARRAYS.values()), names=list(ARRAYS))
    ),
}


@pytest.mark.parametrize("name", SAVED)
def test_what_was_saved_is_read(tmp_path, name):
    path = tmp_path / ("log.npz" if name == "npz" else "log.npy" if "npy" in name else "log.pt")
    SAVED[name](path)
    run = run_from_log(path, opened=open_history)
    assert [r.test_metric for r in run.epochs] == pytest.approx(LISTS["val_acc"])
    assert [r.lr for r in run.epochs] == pytest.approx(LISTS["lr"])
    assert [r.train_loss for r in run.epochs] == pytest.approx(LISTS["train_loss"])


def test_an_array_is_named_by_its_file(tmp_path):
    np.save(tmp_path / "val_acc.npy", ARRAYS["val_acc"])
    given = Given(rates=(0.1,) * 3)
    run = run_from_log(tmp_path / "val_acc.npy", given, opened=open_history)
    assert [r.test_metric for r in run.epochs] == LISTS["val_acc"]


def test_nothing_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    (tmp_path / "log.pkl").write_bytes(pickle.dumps({**LISTS, "x": Trap()}))
    said = invoke("import", tmp_path / "log.pkl", code=2).output
    assert "that only running code could load, which is not done" in " ".join(said.split())
    assert not (tmp_path / "sprung").exists()


def test_what_holds_no_history_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"net": torch.nn.Linear(3, 2).state_dict(), "acc": 70.0, "epoch": 3}, path)
    with pytest.raises(RecordError, match="no lists of epochs, as a checkpoint of"):
        run_from_log(path, opened=open_history)
    with pytest.raises(RecordError, match="is what torch, pickle or NumPy saved: read it with"):
        run_from_log(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match="damaged or cut short"):
        run_from_log(path, opened=open_history)
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.raises(RecordError, match="put a list of their names"):
        run_from_log(tmp_path / "a.npy", opened=open_history)


def test_the_command_reads_them(tmp_path):
    torch.save(LISTS, tmp_path / "log.pt")
    assert '"test_metric": 65.0' in invoke("import", tmp_path / "log.pt").output


@pytest.mark.parametrize(
    "change", [(b"{'descr'", b"{['descr"), (b"(3,)", b"(9,)"), (b"<f8", b"<f2")]
)
def test_an_array_whose_header_is_damaged_is_refused(tmp_path, change):
    path = tmp_path / "val_acc.npy"
    np.save(path, ARRAYS["val_acc"])
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(RecordError, match="damaged or cut short"):
        run_from_log(path, opened=open_history)
