from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from trainscope.convergence import LearningCurve, final_level, own_schedule
from trainscope.convergence.stage import first_stage
from trainscope.errors import RecordError
from trainscope.records import EpochRecord, Run
from trainscope.records.run import Kind, RunStatus


def test_records_are_ordered_and_ties_averaged():
    curve = LearningCurve([2, 1, 2, 3], [50, 40, 60, 70], 0.1, loss=[1.0, 2.0, 3.0, 0.5])
    assert curve.epochs.tolist() == [1, 2, 3]
    assert curve.accuracy.tolist() == [40, 55, 70]
    assert curve.loss.tolist() == [2, 2, 0.5]


def test_epochs_without_accuracy_still_tell_the_lr():
    curve = LearningCurve([1, 2, 3, 4], [math.nan, 50, None, 60], [0.1, 0.1, 0.01, 0.01])
    assert curve.epochs.tolist() == [2, 4]
    assert curve.lr_epochs.tolist() == [1, 2, 3, 4]
    assert not curve.diverged
    stage = first_stage(curve)
    assert (stage.end, len(stage), stage.decayed) == (2, 1, True)


def test_a_curve_whose_accuracy_stops_being_finite_has_diverged():
    assert LearningCurve([1, 2, 3], [10, 20, math.nan], 0.1).diverged
    assert not LearningCurve([1, 2, 3, 4], [10, math.nan, 20, math.nan], 0.1).diverged


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1, 2], [1.0], 0.1), "accuracy has 1 values for 2 epochs"),
        (([1, -2], [1.0, 2.0], 0.1), "not negative"),
        (([1, math.nan], [1.0, 2.0], 0.1), "must be finite"),
        (([1, 2], [1.0, 2.0], 0.0), "learning rate"),
        (([1, 2], [1.0, 2.0], [0.1, math.nan]), "learning rate"),
        (([1, 2], ["a", "b"], 0.1), "accuracy must be a list of numbers"),
        (([[1], [2]], [1.0, 2.0], 0.1), "one-dimensional"),
    ],
)
def test_bad_columns_are_refused_in_a_sentence(columns, message):
    with pytest.raises(RecordError, match=message):
        LearningCurve(*columns)


def test_csv_and_run_give_the_same_curve(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("epoch, lr ,accuracy,loss,note\n1,0.1,50,2.0,a\n2,0.1,60,1.5,b\n3,0.01,,,c\n")
    epochs = [(1, 0.1, 2.0, 50.0), (2, 0.1, 1.5, 60.0), (3, 0.01, None, None)]
    records = tuple(EpochRecord(e, lr, loss, None, a) for e, lr, loss, a in epochs)
    run = Run(Kind.RETRAIN, records, settings={"momentum": 0.9})
    run.save(tmp_path / "run.json")
    from_csv, from_run = LearningCurve.from_file(path), LearningCurve.from_file(tmp_path)
    for name in ("epochs", "accuracy", "lr", "lr_epochs"):
        assert np.array_equal(getattr(from_csv, name), getattr(from_run, name)), name
    # A CSV says what it says; the loss of a Run is a mean over the epoch, carried to its end.
    assert from_run.loss == pytest.approx(from_csv.loss * np.sqrt(0.75))
    assert from_run.momentum == 0.9


def test_a_runs_start_is_epoch_zero():
    run = Run(Kind.RETRAIN, (EpochRecord(1, 0.1, 2.0, None, 50.0),), start_metric=12.0)
    curve = LearningCurve.from_run(run)
    assert curve.epochs.tolist() == [0, 1]
    assert curve.accuracy.tolist() == [12, 50]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("epoch,lr,accuracy\n", "has no records"),
        ("epoch,accuracy\n1,50\n", "no column 'lr'"),
        ("epoch,lr,accuracy\n1,0.1,x\n", "'x' is not a number .*line 2, column accuracy"),
    ],
)
def test_bad_csv_files_are_refused_in_a_sentence(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        LearningCurve.from_csv(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"\xfd\xfe\x00\x80" * 9)
    with pytest.raises(RecordError, match="is no text log"):
        LearningCurve.from_csv(path)


def test_a_warmup_belongs_to_the_first_stage_and_costs_lr_time():
    lr = [0.05, 0.1, 0.1, 0.1, 0.01, 0.01]
    stage = first_stage(LearningCurve(range(1, 7), range(10, 70, 10), lr))
    assert np.allclose(stage.time, [0.5, 1.5, 2.5, 3.5])
    assert (stage.lr, stage.decayed) == (0.1, True)
    assert math.isclose(stage.lag, 0.5)


def test_a_decayed_run_is_its_own_schedule():
    curve = LearningCurve(range(1, 7), range(10, 70, 10), [0.1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert own_schedule(curve) == ("0:0.1,3:0.01,5:0.001", 6)
    assert own_schedule(LearningCurve([1, 2], [10, 20], 0.1)) is None


def test_the_end_of_a_run_is_the_mean_of_its_last_records():
    assert final_level(LearningCurve(range(1, 6), [10, 20, 70, 80, 90], 0.1)) == 80
    with pytest.raises(RecordError, match="no accuracy"):
        final_level(LearningCurve([], [], []))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_one_missing_loss_is_filled_in(bad):
    losses = [2.0, 1.0, bad, 0.25, 0.125]
    curve = LearningCurve(range(1, 6), [10, 20, 30, 40, 50], 0.1, losses)
    assert curve.loss == pytest.approx([2.0, 1.0, 0.5, 0.25, 0.125])


def test_a_loss_of_which_much_is_missing_or_any_is_negative_is_not_used():
    accuracy = [10, 20, 30, 40, 50]
    assert LearningCurve(range(1, 6), accuracy, 0.1, [2, math.nan, math.nan, 1, 1]).loss is None
    assert LearningCurve(range(1, 6), accuracy, 0.1, [2, 1, -1, 1, 1]).loss is None
    assert LearningCurve(range(1, 6), accuracy, 0.1, [0, 0, 0, 0, 0]).loss is None


def test_losses_that_a_log_rounds_to_nothing_stay_at_the_last_that_it_tells():
    curve = LearningCurve(range(1, 6), [10, 20, 30, 40, 50], 0.1, [1.0, 0.01, 0.001, 0.0, 0.0])
    assert curve.loss == pytest.approx([1.0, 0.01, 0.001, 0.001, 0.001])


def test_a_run_that_says_that_it_diverged_has_diverged():
    records = [EpochRecord(k, 0.5, None, None, 10.0) for k in range(1, 9)]
    made = Run(Kind.RETRAIN, tuple(records), status=RunStatus.DIVERGED)
    assert LearningCurve.from_run(made).diverged
    assert not LearningCurve.from_run(replace(made, status=RunStatus.FINISHED)).diverged
