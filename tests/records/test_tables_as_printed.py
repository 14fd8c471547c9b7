"""Tables as terminals, notebooks and READMEs show them, and rows that do not fit their header."""

from __future__ import annotations

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log

GIVEN = Given(rates=(0.1, 0.01, 0.001), schedule="0:0.1", total=3)
EPOCHS = tuple(zip((0, 1, 2), (0.1, 0.01, 0.001), (1.5, 1.0, 0.8), (60, 65, 70), strict=True))
RIGHT = [(1, 60.0, 1.5), (2, 65.0, 1.0), (3, 70.0, 0.8)]


def read(tmp_path, text, name="log.txt"):
    path = tmp_path / name
    path.write_text(text)
    return run_from_log(path, GIVEN)


def rows(run):
    return [(r.epoch, r.test_metric, r.train_loss) for r in run.epochs]


CARD = (
    "---\nlicense: mit\n---\n# A model\n\nIt has 0.93 Accuracy, 3.5 loss on the 2 sets.\n\n"
    "- learning_rate: 5e-05\n- num_epochs: 3\n\n### Training results\n\n"
    "| Training Loss | Epoch | Step | Validation Loss | Accuracy |\n"
    "|:-------------:|:-----:|:----:|:---------------:|:--------:|\n"
    + "".join(f"| {loss} | {e + 1}.0 | {e}00 | 1.2 | {a / 100} |\n" for e, _, loss, a in EPOCHS)
    + "\n### Framework versions\n\n- Transformers 4.9, 3 more\n"
)
SKORCH = "Re-initializing module.\n  epoch    train_loss    valid_acc     dur\n" + "".join(
    ("Saving a checkpoint\n" if e == 1 else "")
    + f"      {e + 1}        {loss}       {a / 100}  0.06\n"
    for e, _, loss, a in EPOCHS
)
PANDAS = (
    "   epoch     lr  train_loss  val_acc\n"
    + "".join(f"{e}      {e + 1}  {lr:.3f}         {loss}     {a}\n" for e, lr, loss, a in EPOCHS)
    + "\n[3 rows x 4 columns]\n"
)
UNITS = "epoch,lr,train_loss,val_acc\n-,-,nats,%\n" + "".join(
    f"{e + 1},{lr},{loss},{a}\n" for e, lr, loss, a in EPOCHS
)
TABLES = {"a model's card": CARD, "skorch": SKORCH, "pandas": PANDAS, "units": UNITS}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_they_are_shown(tmp_path, name):
    assert rows(read(tmp_path, TABLES[name], "a.csv" if name == "units" else "a.txt")) == RIGHT


def test_a_header_that_stands_again_begins_a_training_again(tmp_path):
    """fastai's, of a frozen and an unfrozen network: epoch 0 stands twice."""
    header = "epoch     train_loss  valid_loss  accuracy  time    \n"
    row = "{e}         {loss}    1.2    {a}  00:12     \n"
    body = "".join(row.format(e=e, loss=loss, a=a / 100) for e, _, loss, a in EPOCHS)
    run = read(tmp_path, f"{header}0         9.0    9.0    0.1  00:12     \n{header}{body}")
    assert rows(run) == RIGHT
    assert run.metric.is_accuracy
    assert any("The training was begun again" in note for note in run.notes)
    halves = body.splitlines(keepends=True)
    assert rows(read(tmp_path, header + halves[0] + header + "".join(halves[1:]))) == RIGHT


ELIDED = (
    "   epoch  val_acc\n0      1     40.0\n1      2     41.0\n..   ...      ...\n9     10      70\n"
)
REFUSED = {
    "a row with more cells than names": (
        "epoch,lr,val_acc\n1,.1,1.5,60\n2,.1,1.0,65\n",
        "line 2 has 4 cells for 3 columns",
    ),
    "decimal commas between commas": (
        "epoch,lr,val_acc\n1,0,1,60,5\n2,0,1,65,5\n",
        "must stand in quotes",
    ),
    "a column more, later": (
        "epoch,lr,val_acc\n1,.1,60\nepoch,lr,loss,val_acc\n2,.1,1,65\n",
        "line 3 has 4 cells",
    ),
    "rows that pandas left out": (ELIDED, "line 4 stands for rows that were left out"),
    "no header": ("1,.1,60\n2,.1,65\n3,.1,70\n", "has no header: put a line with the columns"),
}


@pytest.mark.parametrize("ending", [".csv", ".txt"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_its_header_is_refused(tmp_path, name, ending):
    text, said = REFUSED[name]
    with pytest.raises(RecordError, match=said):
        read(tmp_path, text, f"log{ending}")


def test_a_test_in_a_row_without_an_epoch_is_of_the_row_above(tmp_path):
    """It was taken for the next epoch's, and the last one was lost."""
    head = "epoch,lr,train_loss,val_acc\n"
    behind = "".join(f"{e + 1},{lr},{loss},\n,,,{a}\n" for e, lr, loss, a in EPOCHS)
    ahead = "".join(f",,,{a}\n{e + 1},{lr},{loss},\n" for e, lr, loss, a in EPOCHS)
    for body in (behind, ahead):
        assert rows(read(tmp_path, head + body, "log.csv")) == RIGHT


def test_empty_cells_beyond_the_header_are_none(tmp_path):
    text = "epoch,lr,train_loss,val_acc\n" + "".join(
        f"{e + 1},{lr},{loss},{a},,\n" for e, lr, loss, a in EPOCHS
    )
    assert rows(read(tmp_path, text, "log.csv")) == RIGHT


@pytest.mark.parametrize(
    ("epochs", "right"),
    [
        ((4, 9, 14), (5, 10, 15)),
        ((9, 19, 29, 39), (10, 20, 30, 40)),
        ((5, 10, 15), (5, 10, 15)),
        ((1, 3, 5), (1, 3, 5)),
        ((4, 9), (4, 9)),
    ],
)
def test_tests_at_the_end_of_every_so_many_epochs_from_0(tmp_path, epochs, right):
    text = "epoch,val_acc\n" + "".join(f"{e},{50 + e}\n" for e in epochs)
    path = tmp_path / "log.csv"
    path.write_text(text)
    run = run_from_log(path, Given(rates=(0.1,) * 50))
    assert [r.epoch for r in run.epochs] == list(right)
    assert any("the log counts epochs from 0" in note for note in run.notes) == (epochs != right)
