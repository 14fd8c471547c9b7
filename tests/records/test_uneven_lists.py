"""Lists by name that are longer or shorter than each other."""

from __future__ import annotations

import json

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import run_from_log

TESTS, RATES = [60.0, 65.0, 70.0], [0.1, 0.01, 0.001]


def read(tmp_path, **lists):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(lists))
    return run_from_log(path)


def rows(run):
    return [(r.epoch, r.test_metric, r.lr, r.train_loss) for r in run.epochs]


UNEVEN = {
    "a test before training": {"lr": RATES, "val_acc": [10.0, *TESTS]},
    "and epochs": {"epoch": [1, 2, 3], "lr": RATES, "val_acc": [10.0, *TESTS]},
    "and losses": {"train_loss": [3, 2, 1], "lr": RATES, "val_acc": [10.0, *TESTS]},
    "a test too few": {"lr": RATES, "val_acc": TESTS[1:]},
    "tests of two lengths": {"lr": RATES, "val_acc": TESTS, "test_acc": TESTS[1:]},
    "an LR too many": {"train_loss": [3, 2, 1], "lr": [0.1, *RATES], "val_acc": TESTS},
}


@pytest.mark.parametrize("name", UNEVEN)
def test_lists_that_do_not_go_together_are_refused(tmp_path, name):
    said = r"has \d values of '\w+' and \d of '\w+', which does not say which are of the same epoch"
    with pytest.raises(RecordError, match=said):
        read(tmp_path, **UNEVEN[name])


def test_a_test_every_second_epoch_asks_for_the_epochs(tmp_path):
    lists = {"lr": [0.1] * 6, "train_loss": [6, 5, 4, 3, 2, 1], "val_acc": TESTS}
    with pytest.raises(RecordError, match="add a list 'epoch' that says the epoch of each test"):
        read(tmp_path, **lists)


def test_values_of_batches_are_shared_out(tmp_path):
    run = read(tmp_path, lr=RATES, val_acc=TESTS, train_losses=[2.0, 1.0, 1.2, 0.8, 0.9, 0.7])
    assert rows(run) == [
        (1, 60, 0.1, 1.5),
        (2, 65, 0.01, 1.0),
        (3, 70, 0.001, pytest.approx(0.8)),
    ]
    assert any("'train_losses' has 6 values for 3 epochs" in note for note in run.notes)
    many = read(tmp_path, lrs=[lr for lr in RATES for _ in range(20)], val_acc=TESTS)
    assert [r.lr for r in many.epochs] == RATES


def test_losses_that_cannot_be_shared_out_are_left_out_and_that_is_said(tmp_path):
    run = read(tmp_path, lr=RATES, val_acc=TESTS, train_losses=[1.0] * 50)
    assert rows(run) == [(1, 60, 0.1, None), (2, 65, 0.01, None), (3, 70, 0.001, None)]
    assert any("cannot be shared out, and was left out" in note for note in run.notes)


def test_a_single_value_of_the_end_is_of_no_epoch(tmp_path):
    run = read(tmp_path, lr=RATES, val_acc=TESTS, test_acc=[69.0])
    assert [r.test_metric for r in run.epochs] == TESTS


def test_an_epoch_without_a_test_counts(tmp_path):
    run = read(tmp_path, lr=[0.1, 0.1, 0.01, 0.01], val_acc=[None, 60, None, 70])
    assert [(e, a, lr) for e, a, lr, _ in rows(run) if a] == [(2, 60, 0.1), (4, 70, 0.01)]


def test_lists_of_settings_are_none_of_epochs(tmp_path):
    run = read(tmp_path, betas=[0.9, 0.999], log={"lr": RATES, "val_acc": TESTS})
    assert [r.test_metric for r in run.epochs] == TESTS
