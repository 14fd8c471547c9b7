"""Whose epoch a test is of where it is numbered otherwise than training, or told by other words."""

from __future__ import annotations

import json

import pytest
from text_logs import GIVEN, read

from trainscope.convergence.curve import LearningCurve
from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log


def rows(run):
    return [(r.epoch, r.lr, r.train_loss, r.test_loss, r.test_metric) for r in run.epochs]


def told(run, words):
    return any(words in note for note in run.notes)


RIGHT = [(1, 0.1, 1.5, None, 60.0), (2, 0.01, 1.0, None, 70.0), (3, 0.001, 0.8, None, 75.0)]
OPEN_CLIP = "".join(
    f"2023-01-01,10:00:00 | INFO | Train Epoch: {k} [ 9/ 9 (100%)] LR: {lr} Loss: {loss} ({loss})\n"
    f"2023-01-01,10:00:00 | INFO | Eval Epoch: {k + 1} imagenet-zeroshot-val-top1: {acc / 100}\t"
    "imagenet-zeroshot-val-top5: 0.9900\n"
    for k, (_, lr, loss, _, acc) in enumerate(RIGHT)
)
COMPOSER = "".join(
    f"[epoch={k}][batch=1/2]:\n\t Train loss/train/total: {loss}\n\t Train lr-SGD/group0: {lr}\n"
    f"[epoch={k + 1}][batch=0/2]:\n\t Eval metrics/eval/MulticlassAccuracy: {acc / 100}\n"
    for k, (_, lr, loss, _, acc) in enumerate(RIGHT)
)
TABLE = "epoch,lr,train_loss,val_acc\n" + "".join(
    f"{k},{lr},{loss},\n{k + 1},,,{acc}\n" for k, (_, lr, loss, _, acc) in enumerate(RIGHT)
)
LINES = "".join(
    json.dumps({"epoch": k, "lr": lr, "train_loss": loss})
    + "\n"
    + json.dumps({"epoch": k + 1, "val_acc": acc})
    + "\n"
    for k, (_, lr, loss, _, acc) in enumerate(RIGHT, 1)
)


@pytest.mark.parametrize(
    ("text", "name", "first"),
    [
        (OPEN_CLIP, "out.log", 0),
        (COMPOSER, "log.txt", 0),
        (TABLE, "metrics.csv", 0),
        (LINES, "log.jsonl", 1),
    ],
)
def test_tests_that_count_epochs_done_are_of_the_training_before_them(tmp_path, text, name, first):
    """Each was the next epoch's, the first had none, and the last one was left out."""
    run = read(tmp_path, text, name)
    assert rows(run) == RIGHT
    assert told(run, f"and its training from {first} on: each test was taken to be of the epoch")


@pytest.mark.parametrize("name", ["log.txt", "log.jsonl"])
def test_epochs_that_begin_with_their_tests(tmp_path, name):
    """The first test was the first epoch's, and the last one was left out."""
    lines = [(0, {"val_acc": 10.0}), (3, {"val_acc": 75.0})]
    for k, (_, lr, loss, _, acc) in enumerate(RIGHT):
        lines += [(k, {"train_loss": loss, "lr": lr}), (k + 1, {"val_acc": acc})]
    lines = sorted({(k, json.dumps(v)) for k, v in lines}, key=lambda e: (e[0], "train" in e[1]))
    told_all = [{"epoch": k, **json.loads(values)} for k, values in lines]
    text = "\n".join(map(json.dumps, told_all))
    if name == "log.txt":
        text = "\n".join(", ".join(f"{n}: {v}" for n, v in e.items()) for e in told_all)
    run = read(tmp_path, text, name)
    assert run.start_metric == 10.0
    assert rows(run) == RIGHT
    assert told(run, "Each epoch begins with its test, and one stands behind the last")


def test_tests_that_are_named_before_the_training_of_their_epoch(tmp_path):
    """Without one behind the last, a test above its epoch's training is that epoch's."""
    text = "".join(
        f"Epoch {k}: val acc {acc}\nEpoch {k}: train loss {loss} lr {lr}\n"
        for k, lr, loss, _, acc in RIGHT
    )
    assert rows(read(tmp_path, text)) == RIGHT


def test_tests_every_so_many_epochs_done(tmp_path):
    text = "epoch,lr,train_loss,val_acc\n" + "".join(
        f"{k},0.1,{2 - k / 10:.1f},{40 + k if k in (3, 6, 9) else ''}\n" for k in range(10)
    )
    run = read(tmp_path, text.replace("9,0.1,1.1,49", "9,,,49"), "metrics.csv")
    assert [(r.epoch, r.test_metric) for r in run.epochs if r.test_metric] == [
        (3, 43.0),
        (6, 46.0),
        (9, 49.0),
    ]
    assert len(run.epochs) == 9


def test_a_test_behind_the_last_epoch_alone_is_left_out(tmp_path):
    text = "epoch,lr,train_loss,val_acc\n0,0.1,1.5,60\n1,0.1,1.0,70\n2,0.1,0.8,75\n3,,,76\n"
    run = read(tmp_path, text, "metrics.csv")
    assert [r.test_metric for r in run.epochs] == [60.0, 70.0, 75.0]
    assert told(run, "The test after the last epoch that was trained is no epoch")


CAFFE = "".join(
    f"I0101 10:00:00.0 12 solver.cpp:337] Iteration {at}, Testing net (#0)\n"
    f"I0101 10:00:00.0 12 solver.cpp:404] Test net output #0: accuracy = {acc}\n"
    f"I0101 10:00:00.0 12 solver.cpp:404] Test net output #1: loss = {loss} (* 1 = {loss} loss)\n"
    f"I0101 10:00:00.0 12 solver.cpp:228] Iteration {at}, loss = {trained}\n"
    f"I0101 10:00:00.0 12 sgd_solver.cpp:106] Iteration {at}, lr = {lr}\n"
    for at, acc, loss, trained, lr in (
        (0, 0.1, 2.3, 2.2, 0.01),
        (500, 0.6, 1.1, 0.9, 0.001),
        (1000, 0.7, 1.0, 0.8, 0.0001),
    )
)


def test_caffes_first_test_is_of_the_network_before_training(tmp_path):
    """The steps stand above the tests, and a test's loss below its accuracy."""
    run = read(tmp_path, CAFFE[: CAFFE.index("I0101 10:00:00.0 12 solver.cpp:228] Iteration 1000")])
    assert run.start_metric == 10.0
    assert rows(run) == [(1, 0.01, 2.2, 1.1, 60.0), (2, 0.001, 0.9, 1.0, 70.0)]
    assert not told(run, "before the first epoch alone")


def test_a_test_loss_below_its_accuracy_is_of_the_same_epoch(tmp_path):
    """Of logs without epochs, it was the next one's."""
    text = "".join(
        f"train loss: {a}\ntest acc: {b}\ntest loss: {c}\n"
        for a, b, c in ((1.5, 60, 1.2), (1.0, 70, 1.1))
    )
    assert rows(read(tmp_path, text, given=GIVEN)) == [
        (1, 0.1, 1.5, 1.2, 60.0),
        (2, 0.1, 1.0, 1.1, 70.0),
    ]
    records = [{"train_loss": 1.5}, {"test_acc": 60}, {"test_loss": 1.2}]
    records += [{"train_loss": 1.0}, {"test_acc": 70}, {"test_loss": 1.1}]
    lines = "\n".join(map(json.dumps, records))
    assert rows(read(tmp_path, lines, "log.jsonl", GIVEN)) == [
        (1, 0.1, 1.5, 1.2, 60.0),
        (2, 0.1, 1.0, 1.1, 70.0),
    ]
    turned = "test loss: 1.2\ntest acc: 60\ntest loss: 1.1\ntest acc: 70\n"
    assert [r[3:] for r in rows(read(tmp_path, turned, given=GIVEN))] == [(1.2, 60.0), (1.1, 70.0)]


@pytest.mark.parametrize("seconds", ["10.00", "2.00", "25.32"])
def test_the_time_of_an_epoch_is_no_epoch(tmp_path, seconds):
    """ITOP's and GraNet's: LRs went to epochs that the seconds named, or were lost with them."""
    text = "".join(
        f"Train Epoch: {k} [49920/50000 (100%)]\tLoss: {loss} Accuracy: 25000/50000 (50.000%) \n\n"
        f"Evaluation: Average loss: 1.2000, Accuracy: {100 * acc:.0f}/10000 ({acc}%)\n"
        f"Current learning rate: {lr}. Time taken for epoch: {seconds} seconds.\n\n"
        for k, lr, loss, _, acc in RIGHT
    )
    run = read(tmp_path, text)
    assert rows(run) == [(k, lr, loss, 1.2, acc) for k, lr, loss, _, acc in RIGHT]
    assert not told(run, "begun again")
    named = "".join(
        f"Time for epoch {k}: 9.5 s, val acc {acc}, lr {lr}\n" for k, lr, _, _, acc in RIGHT
    )
    assert [(r[0], r[4]) for r in rows(read(tmp_path, named))] == [(r[0], r[4]) for r in RIGHT]


def test_two_tests_an_epoch_without_a_word_for_their_data_are_said(tmp_path):
    text = "".join(f"==> Epoch {k} lr 0.1\n * Acc@1 5{k}.0\n * Acc@1 6{k}.0\n" for k in range(3))
    assert told(read(tmp_path, text), "3 epochs have a second test on a line of its own, which was")


def test_the_epochs_of_tagged_records_are_read_where_tests_are_rarer(tmp_path):
    text = "".join(
        f'json_stats: {{"_type": "train_epoch", "epoch": "{k}/4", "lr": {0.1 / k}, '
        f'"loss": 1.{k}}}\n'
        + (f'json_stats: {{"_type": "val_epoch", "epoch": "{k}/4", "top1_err": {50 - k}}}\n')
        * (k % 2 == 0)
        for k in range(1, 5)
    )
    run = read(tmp_path, text, "pycls.log")
    assert [(r.epoch, r.lr, r.train_loss, r.test_metric) for r in run.epochs] == [
        (1, 0.1, 1.1, None),
        (2, 0.05, 1.2, 48.0),
        (3, pytest.approx(0.1 / 3), 1.3, None),
        (4, 0.025, 1.4, 46.0),
    ]


ERRORS = {
    "pycls.log": "".join(
        f'[meters.py: 173]: json_stats: {{"_type": "{kind}_epoch", "epoch": "{k}/2", {values}}}\n'
        for k, e in ((1, 40), (2, 30))
        for kind, values in (
            ("train", '"loss": 1.5, "lr": 0.1, "top1_err": 50.0'),
            ("test", f'"top1_err": {e}, "top5_err": 9.0, "min_top1_err": 3.0'),
        )
    ),
    "words.txt": "Epoch 1 | train err 50.0 | test err 40.0\nEpoch 2 | train err 45 | test err 30\n",
    "share.txt": "Epoch 1: Val Error Rate: 0.4\nEpoch 2: Val Error Rate: 0.3\n",
    "gluon.txt": "".join(
        f"INFO:root:[Epoch {k}] training: accuracy=0.5\n"
        f"INFO:root:[Epoch {k}] validation: err-top1={e} err-top5=0.1\n"
        for k, e in enumerate((0.4, 0.3))
    ),
    "table.csv": "epoch,train_err,test_err\n1,50,40\n2,40,30\n",
    "lines.jsonl": '{"epoch": 1, "val_error": 0.4}\n{"epoch": 2, "val_error": 0.3}\n',
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_log_that_tells_its_errors_alone_is_told_by_them(tmp_path, name):
    """It was refused as one that has epochs and LRs and no more."""
    run = read(tmp_path, ERRORS[name], name, GIVEN)
    assert (run.metric.name, run.metric.unit, run.metric.better) == ("error", "%", "lower")
    assert [r.test_metric for r in run.epochs] == [40.0, 30.0]
    assert told(run, "The log has no test accuracy: its test error, ")


@pytest.mark.parametrize(
    "text", ["Epoch 1 train err 50\nEpoch 2 train err 40\n", "Epoch 1\nerror: 404 not found\n"]
)
def test_errors_of_training_or_of_nothing_are_none_of_a_test(tmp_path, text):
    with pytest.raises(RecordError, match="no test accuracy"):
        read(tmp_path, text, given=GIVEN)


@pytest.mark.parametrize(
    ("text", "name", "metric"),
    [
        ("epoch 1 | valid ppl 40.0\nepoch 2 | valid ppl 30.0\n", "log.txt", "perplexity"),
        ("epoch,train_bpc,valid_bpc\n1,9,40\n2,8,30\n", "t.csv", "bits per character"),
        ("Epoch 1 val mIoU: 40.0\nEpoch 2 val mIoU: 30.0\n", "log.txt", "mean IoU"),
    ],
)
def test_the_one_metric_of_a_test_that_is_known_tells_a_log(tmp_path, text, name, metric):
    run = read(tmp_path, text, name, GIVEN)
    assert run.metric.name == metric
    assert [r.test_metric for r in run.epochs] == [40.0, 30.0]
    two = text.replace(" | valid ppl 40.0", " | valid ppl 40.0 valid bleu 3")
    if two != text:
        with pytest.raises(RecordError, match="no test accuracy"):
            read(tmp_path, two, name, GIVEN)


WORD_MODEL = "".join(
    f"| epoch   {k} |   200/ 2983 batches | lr {lr} | ms/batch 9.00 | loss {a} | ppl {10 * a}\n"
    f"| end of epoch   {k} | time: 100.00s | valid loss {b} | valid ppl   {10 * b}\n"
    for k, lr, a, b in ((1, 20.0, 7.6, 6.0), (2, 5.0, 6.1, 5.5), (3, 5.0, 6.0, 5.4))
)


def test_a_test_at_the_end_of_training_is_not_the_loss_of_all_epochs(tmp_path):
    """PyTorch's word language model: the only value of the metric was the last test's."""
    run = read(tmp_path, WORD_MODEL + "| End of training | test loss  5.30 | test ppl   221.00\n")
    assert [r.test_metric for r in run.epochs] == [6.0, 5.5, 5.4]
    assert [r.lr for r in run.epochs] == [20.0, 5.0, 5.0]
    assert "the metric, loss, from 'valid loss'" in run.notes[0]


def test_a_table_as_polars_prints_it(tmp_path):
    text = (
        "shape: (2, 3)\n┌───────┬─────┬─────────┐\n│ epoch ┆ lr  ┆ val_acc │\n"
        "│ ---   ┆ --- ┆ ---     │\n│ i64   ┆ f64 ┆ f64     │\n╞═══════╪═════╪═════════╡\n"
        "│ 1     ┆ 0.1 ┆ 60.0    │\n│ 2     ┆ 0.1 ┆ 70.0    │\n└───────┴─────┴─────────┘\n"
    )
    assert [(r[0], r[4]) for r in rows(read(tmp_path, text))] == [(1, 60.0), (2, 70.0)]


def metrics(epoch):
    return {
        "best_epoch": 0,
        "epoch": epoch,
        "training_accuracy": 0.5,
        "training_loss": 1.5 - epoch / 10,
        "validation_accuracy": 0.6 + epoch / 100,
        "best_validation_accuracy": 0.9,
    }


@pytest.mark.parametrize("known", [True, False])
def test_files_of_an_epoch_each_are_one_run(tmp_path, known):
    """AllenNLP's: they were said to be runs, of which one was to be named."""
    for epoch in range(12):
        said = metrics(epoch)
        said = said if known else {k: v for k, v in said.items() if k != "epoch"}
        (tmp_path / f"metrics_epoch_{epoch}.json").write_text(json.dumps(said))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics(3)))
    run = run_from_log(tmp_path, GIVEN)
    assert [r.test_metric for r in run.epochs] == [60.0 + k for k in range(12)]
    assert run.epochs[2].train_loss == pytest.approx(1.3)
    with pytest.raises(RecordError, match="holds one run, a file an epoch: leave out --run foo"):
        run_from_log(tmp_path, GIVEN, run="foo")


def test_records_of_mlcommons(tmp_path):
    text = "".join(
        ':::MLLOG {"namespace": "", "event_type": "POINT_IN_TIME", "key": "eval_accuracy", '
        f'"value": {acc / 100}, "metadata": {{"lineno": 7, "epoch_num": {k}}}}}\n'
        for k, _, _, _, acc in RIGHT
    )
    assert [(r[0], r[4]) for r in rows(read(tmp_path, text, given=GIVEN))] == [
        (r[0], r[4]) for r in RIGHT
    ]


def test_files_of_a_seed_each_are_runs(tmp_path):
    for seed in range(3):
        (tmp_path / f"seed_{seed}.json").write_text(json.dumps({"val_acc": 60.0 + seed}))
    with pytest.raises(RecordError, match="holds 3 runs"):
        run_from_log(tmp_path, GIVEN)


def test_rows_of_a_name_a_step_and_a_value(tmp_path):
    """OpenLTH's logger, without a header."""
    text = "".join(
        f"test_loss,{at},{loss}\ntest_accuracy,{at},{acc}\n"
        for at, loss, acc in ((0, 2.3, 0.1), (100, 1.2, 0.6), (200, 1.1, 0.7))
    )
    run = read(tmp_path, text, "logger", GIVEN)
    assert run.start_metric == 10.0
    assert [r[3:] for r in rows(run)] == [(1.2, 60.0), (1.1, 70.0)]


def test_numbers_in_bold(tmp_path):
    text = (
        "| **Epoch** | LR | Acc |\n|---|---|---|\n| 1 | 0.1 | 60.0 |\n| **2** | 0.1 | **70.0** |\n"
    )
    assert [(r[0], r[4]) for r in rows(read(tmp_path, text, "t.md"))] == [(1, 60.0), (2, 70.0)]


def test_a_curve_takes_percentages_counts_and_epochs_of_so_many(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text(
        "epoch,lr,accuracy\n1/90,0.1,37.28%\n2/90,1e-1,400/1000\n3/90,0.1,\n4/90,0.1,50\n"
    )
    curve = LearningCurve.from_csv(path)
    assert list(curve.epochs) == [1.0, 2.0, 4.0]
    assert list(curve.accuracy) == [37.28, 40.0, 50.0]
    path.write_text("epoch,lr,accuracy\n1,0.1,good\n2,0.1,40\n")
    with pytest.raises(RecordError, match=r"'good' is not a number .*line 2, column accuracy"):
        LearningCurve.from_csv(path)


def test_a_text_log_is_told_by_its_steps_where_that_is_asked_for(tmp_path):
    """The way that a note names was passed over in silence."""
    text = "".join(
        f"Epoch {epoch} step {step} train loss {loss} lr 0.1\n"
        f"Epoch {epoch} step {step} val_acc {acc}\n"
        for epoch, step, loss, acc in ((1, 100, 2.0, 50), (1, 200, 1.5, 60), (2, 300, 1.2, 65))
    )
    plain = read(tmp_path, text)
    assert [(r[0], r[4]) for r in rows(plain)] == [(1, 60.0), (2, 65.0)]
    assert told(plain, "--column epoch=step keeps all, told by steps")
    run = read(tmp_path, text, given=Given(columns={"epoch": "step"}, first_epoch=1))
    assert [(r[0], r[2], r[4]) for r in rows(run)] == [
        (100, 2.0, 50.0),
        (200, 1.5, 60.0),
        (300, 1.2, 65.0),
    ]
    with pytest.raises(RecordError, match="has no column 'nope': it has epoch, step"):
        read(tmp_path, text, given=Given(columns={"epoch": "nope"}))


def test_a_loss_of_every_batch_makes_the_tests_no_rare_one(tmp_path):
    text = "step 0: train loss 10.9, val loss 10.9\niter 0: loss 10.9\niter 10: loss 8.0\n"
    for k, a, b in ((1000, 4.0, 4.1), (2000, 3.5, 3.6)):
        text += (
            f"step {k}: train loss {a}, val loss {b}\niter {k}: loss {a}\niter {k + 9}: loss 3\n"
        )
    for columns in ({}, {"epoch": "step"}):
        given = Given(rates=(0.1,) * 3000, schedule="0:0.1", total=3000, columns=columns)
        run = read(tmp_path, text, given=given)
        assert (run.metric.name, run.start_metric) == ("loss", 10.9)
        known = [(r.epoch, r.test_metric) for r in run.epochs if r.test_metric is not None]
        assert known == ([(1000, 4.1), (2000, 3.6)] if columns else [(1, 4.1), (2, 3.6)])
