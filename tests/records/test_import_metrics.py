"""Logs of other metrics than the accuracy: which value is taken, its unit and its direction."""

from __future__ import annotations

import pytest

from trainscope.errors import RecordError
from trainscope.records import Metric
from trainscope.records.imports import Given, run_from_log
from trainscope.records.imports.metrics import metric_of
from trainscope.records.metric import LOSS

TEXT = """\
Epoch 1/3 lr 0.01 train loss 1.9 train ppl 6.68 | val loss 2.1 val ppl 8.17
Epoch 2/3 lr 0.01 train loss 1.5 train ppl 4.48 | val loss 1.8 val ppl 6.05
Epoch 3/3 lr 0.001 train loss 1.2 train ppl 3.32 | val loss 1.6 val ppl 4.95
"""
TABLE = "epoch,lr,train_loss,val_loss,train_miou,val_miou,score\n" + "".join(
    f"{e},0.01,{2 / e},{3 / e},0.9,{0.5 + 0.1 * e},{10 * e}\n" for e in (1, 2, 3)
)


def imported(tmp_path, text, metric=None, *, name="log.txt", **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    if metric is None:
        return run_from_log(path)
    given = Given(
        columns={"test_accuracy": metric},
        metric=metric_of(metric, options.get("better"), options.get("unit")),
    )
    return run_from_log(path, given)


def values(run):
    return [record.test_metric for record in run.epochs]


def test_a_text_log_of_losses_is_told_by_its_test_loss_never_by_that_of_training(tmp_path):
    run = imported(tmp_path, TEXT)
    assert (run.metric, values(run)) == (LOSS, [2.1, 1.8, 1.6])
    assert [record.train_loss for record in run.epochs] == [1.9, 1.5, 1.2]
    assert [record.lr for record in run.epochs] == [0.01, 0.01, 0.001]
    assert run.final_accuracy is None
    with pytest.raises(RecordError, match="no test accuracy"):
        imported(tmp_path, "Epoch 1 lr 0.01 train loss 2.0\nEpoch 2 lr 0.01 train loss 1.0\n")


@pytest.mark.parametrize("asked", ["ppl", "val ppl"])
def test_a_metric_of_a_text_log_is_taken_by_its_name_from_the_test(tmp_path, asked):
    run = imported(tmp_path, TEXT, asked)
    assert run.metric == Metric("perplexity", "", "lower")
    assert values(run) == [8.17, 6.05, 4.95]
    assert "the metric, perplexity, from 'val/" in run.notes[0]
    assert "(lower is better)" in run.notes[0]


def test_a_loss_alone_counts_the_epochs_that_a_log_does_not_say(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"train loss {3 / k}\nval loss {4 / k}\n" for k in (1, 2, 4)))
    run = run_from_log(path, Given(rates=(0.1,) * 3))
    assert (values(run), [r.epoch for r in run.epochs]) == ([4.0, 2.0, 1.0], [1, 2, 3])


def test_a_table_gives_the_metric_that_is_named(tmp_path):
    run = imported(tmp_path, TABLE, "val_miou", name="log.csv")
    assert run.metric == Metric("mean IoU", "%", "higher")
    assert values(run) == pytest.approx([60.0, 70.0, 80.0])
    assert any("values of mean IoU are at most 1" in note for note in run.notes)
    other = imported(tmp_path, TABLE, "score", name="log.csv", better="lower", unit="px")
    assert (other.metric, values(other)) == (Metric("score", "px", "lower"), [10, 20, 30])
    assert values(imported(tmp_path, TABLE, name="log.csv")) == [3.0, 1.5, 1.0]


def test_training_values_are_refused_as_a_metric(tmp_path):
    with pytest.raises(RecordError, match=r"'train_miou' is of training data, and a Run's metric"):
        imported(tmp_path, TABLE, "train_miou", name="log.csv")
    only = TEXT.replace("val ppl", "value")
    with pytest.raises(RecordError, match="has 'ppl' of training data alone"):
        imported(tmp_path, only, "ppl")


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("val_acc", Metric("accuracy", "%", "higher")),
        ("eval/top1", Metric("accuracy", "%", "higher")),
        ("mIoU", Metric("mean IoU", "%", "higher")),
        ("test dice", Metric("Dice", "%", "higher")),
        ("metrics/mAP50(B)", Metric("mAP", "%", "higher")),
        ("val_auc", Metric("AUC", "%", "higher")),
        ("eval_f1", Metric("F1", "%", "higher")),
        ("val_loss", LOSS),
        ("Perplexity", Metric("perplexity", "", "lower")),
        ("test error", Metric("error", "%", "lower")),
        ("val_rmse", Metric("RMSE", "", "lower")),
        ("MAE", Metric("MAE", "", "lower")),
        ("wer", Metric("WER", "%", "lower")),
    ],
)
def test_well_known_names_say_their_direction(name, metric):
    assert metric_of(name, None, None) == metric


def test_an_unknown_name_needs_its_direction():
    with pytest.raises(RecordError, match="add --better higher or --better lower"):
        metric_of("val_score", None, None)
    assert metric_of("val_score", "lower", "px") == Metric("score", "px", "lower")


def test_what_is_beyond_percent_is_not_in_percent(tmp_path):
    table = "epoch,lr,wer\n1,0.1,130\n2,0.1,90\n"
    run = imported(tmp_path, table, "wer", name="log.csv")
    assert (run.metric, values(run)) == (Metric("WER", "", "lower"), [130, 90])
