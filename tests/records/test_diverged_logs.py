"""Logs of trainings that diverged: what is no number to the end, and what is but an empty cell."""

from __future__ import annotations

import json

import pytest

from trainscope.records.imports import run_from_log
from trainscope.records.run import RunStatus

LOST = [(1, 1.5, 60), (2, 1.2, 65), (3, "nan", 10), (4, "nan", 10)]
TABLE = "epoch,lr,train_loss,val_acc\n" + "".join(f"{e},0.1,{x},{a}\n" for e, x, a in LOST)
LINES = "".join(f"Epoch {e} lr 0.1 train loss {x} val acc {a}\n" for e, x, a in LOST)
RECORDS = "".join(
    json.dumps({"epoch": e, "lr": 0.1, "train_loss": float(x), "val_acc": a}) + "\n"
    for e, x, a in LOST
)
FILES = {"log.csv": TABLE, "log.txt": LINES, "log.jsonl": RECORDS}


def read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return run_from_log(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("word", ["nan", "inf"])
def test_a_loss_that_is_no_number_to_the_end_is_of_a_run_that_diverged(tmp_path, name, word):
    text = FILES[name]
    if word == "inf":
        text = text.replace("NaN", "Infinity").replace("nan", "inf")
    run = read(tmp_path, name, text)
    assert run.status is RunStatus.DIVERGED
    assert [r.test_metric for r in run.epochs] == [60, 65, 10, 10]
    assert any("From epoch 3 of the log on" in note for note in run.notes)


@pytest.mark.parametrize("name", FILES)
def test_a_loss_that_comes_back_is_none(tmp_path, name):
    text = (
        FILES[name]
        .replace("4,0.1,nan", "4,0.1,1.0")
        .replace("4 lr 0.1 train loss nan", "4 lr 0.1 train loss 1")
    )
    if name == "log.jsonl":
        text = text.replace("NaN", "1.0", 2).replace("1.0, ", "NaN, ", 1)
    assert read(tmp_path, name, text).status is RunStatus.FINISHED


def test_cells_of_rows_of_another_kind_are_no_divergence(tmp_path):
    """pandas writes NaN where a row has no such value, also in a test after training."""
    text = "epoch,lr,train_loss,val_acc\n" + "".join(
        f"{e},0.1,{2 / e},nan\n{e},0.1,nan,{50 + e}\n" for e in (1, 2, 3)
    )
    assert read(tmp_path, "log.csv", text + "4,nan,nan,54\n").status is RunStatus.FINISHED


def test_batches_before_the_loss_was_lost(tmp_path):
    text = "".join(
        f"Epoch {e} lr 0.1\n[1/2] loss: {first}\n[2/2] loss: {second}\nval acc {a}\n"
        for e, first, second, a in ((1, 1.5, 1.4, 60), (2, 1.5, "nan", 20), (3, "nan", "nan", 10))
    )
    run = read(tmp_path, "log.txt", text)
    assert run.status is RunStatus.DIVERGED
    assert [r.train_loss for r in run.epochs] == [1.45, 1.5, None]
