"""What a log says in other words: test values are never taken from training, in whatever style."""

from __future__ import annotations

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log
from trainscope.records.imports.names import meaning
from trainscope.records.imports.words import NUMBER

CONSTANT = Given(rates=(0.1,) * 9, schedule="0:1e-1", total=9)


def accuracies(path, text, given=CONSTANT, **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [r.test_accuracy for r in run_from_log(path, given, **options).epochs]


@pytest.mark.parametrize(
    ("name", "field", "split"),
    [
        ("val/acc", "accuracy", "val"),
        ("Valid Acc.", "accuracy", "val"),
        ("testacc", "accuracy", "test"),
        ("accuracy/top1", "accuracy", ""),
        ("Prec@1", "accuracy", ""),
        ("eval/train_acc", "accuracy", "train"),
        ("MulticlassAccuracy", "accuracy", ""),
        ("lr-AdamW/pg1", "lr", ""),
        ("Learning Rate", "lr", ""),
        ("train_loss_epoch", "loss", "train"),
        ("epoch_time", "seconds", ""),
    ],
)
def test_names_are_read_by_their_words(name, field, split):
    found = meaning(name)
    assert (found.field, found.split) == (field, split)


@pytest.mark.parametrize(
    "name",
    [
        *("Acc@5", "accuracy/top5", "best_acc", "top1 err", "test error", "lr-SGD-momentum"),
        *(
            "weight_decay",
            "val_precision",
            "eval_runtime",
            "data_time",
            "Best_Acc1_Epoch",
            "latest",
        ),
    ],
)
def test_other_quantities_mean_nothing(name):
    assert meaning(name) is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Epoch 1/2\nTrain: loss 1.5, acc 44\nVal: loss 1.2, acc 55\n", [55]),
        ("[Epoch 1] lr=0.1 loss=1.5 train_acc=0.44 test_acc=0.55\n", [55]),
        ("Epoch 0 - training: accuracy: 0.44\nEpoch 0 - validation: accuracy: 0.55\n", [55]),
        ("epoch: 1\nTraining: accuracy = 60.0, Validation: accuracy = 50.0\n", [50]),
        ("Epoch 5: Accuracy of the network on the 10000 test images: 55.1 %\n", [55.1]),
        ("Test set: Average loss: 0.05, Accuracy: 9834/10000 (98%)\n", [98.34]),
        ("\x1b[32mEpoch 1\x1b[0m Val Acc: \x1b[1m55.5\x1b[0m\n", [55.5]),
        ("2024-01-01 12:00:00,123 INFO Epoch [1/2] val acc: 55.00%, best acc: 56.00%\n", [55]),
        (
            "Epoch 1:  50%|#| 1/2 [00:20, val_acc=0.1]\rEpoch 1: 100%|##| 2/2 [00:40, val_acc=0.5]",
            [50],
        ),
        ("Epoch 1\n * Acc@1 50.5 Acc@5 80\nEpoch 2\n * Acc@1 51.5 Acc@5 81\n", [50.5, 51.5]),
    ],
)
def test_lines_of_text(tmp_path, text, right):
    assert accuracies(tmp_path / "log.txt", text) == pytest.approx(right)


@pytest.mark.parametrize(
    "text",
    [
        "Epoch 1 training accuracy 44\n",
        "Epoch: 0\n 391/391 [==>] Loss: 1.5 | Acc: 44.1% (22050/50000)\n",
        "Epoch: [0]  [1250/1251]  loss: 3.9 (5.1)  acc1: 25.0 (14.2)\n",
        "Epoch 1: acc 60.0/50.0 (train/test)\n",
        "epoch,step,lr,loss,accuracy\n0,1,.1,1,40\n0,2,.1,1,45\n1,3,.1,1,50\n1,4,.1,1,55\n",
        "epoch,lr,train_acc\n1,.1,50\n2,.1,60\n",
        '{"epoch": 1, "lr": 0.1, "loss": 1, "acc": 50}\n{"epoch": 1, "loss": 1, "acc": 60}\n',
    ],
)
def test_values_of_training_are_never_taken(tmp_path, text):
    with pytest.raises(RecordError, match="no test accuracy"):
        accuracies(tmp_path / "log.txt", text)


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("phase.csv", "epoch,lr,phase,acc\n1,.1,train,40\n1,.1,val,35\n2,.1,val,45\n", [35, 45]),
        ("keras.csv", "epoch,accuracy,val_accuracy\n0,0.4,0.45\n1,0.5,0.55\n", [45, 55]),
        ("both.csv", "epoch,test_acc,val_acc\n1,50,51\n2,55,56\n3,,57\n", [51, 56, 57]),
        ("steps.csv", "step,lr,val_acc\n9,.1,50\n19,.1,55\n9,.1,60\n", [60]),
        ("rule.txt", "| epoch | val acc |\n|---|---|\n| 1 | 50 |\n| 2 | 55 |\n", [50, 55]),
        ("blanks.txt", "epoch  lr  test_acc\n1  0.1  40\n2  0.1  50\n", [40, 50]),
        ("keras.json", '{"val_accuracy": [0.4, 0.5], "accuracy": [0.6, 0.7]}', [40, 50]),
        ("nested.json", '[{"epoch": 1, "val": {"acc": 50}, "train": {"acc": 60}}]', [50]),
    ],
)
def test_tables_and_json(tmp_path, name, text, right):
    assert accuracies(tmp_path / name, text) == pytest.approx(right)


def test_a_test_before_and_one_after_training_stand_apart(tmp_path):
    text = (
        "Test: Acc@1 12.5 Acc@5 30\nEpoch: [0] [9/10] lr: 0.1 loss: 1 (1.2)\nTest: Acc@1 52.5\n"
        "Epoch: [1] [9/10] lr: 0.1 loss: 1 (1.1)\nTest: Acc@1 57.5\nBest model:\nTest: Acc@1 57.9\n"
    )
    path = tmp_path / "log.txt"
    assert accuracies(path, text, Given()) == [52.5, 57.5]
    run = run_from_log(path)
    assert run.start_accuracy == 12.5
    assert any("after the last epoch's own" in note for note in run.notes)


def test_columns_that_are_equally_good_are_asked_for(tmp_path):
    path = tmp_path / "log.csv"
    with pytest.raises(RecordError, match=r"more than one name .* val_acc_a, val_acc_b: say which"):
        accuracies(path, "epoch,lr,val_acc_a,val_acc_b\n1,.1,50,40\n")
    asked = Given(columns={"test_accuracy": "val_acc_b"})
    assert accuracies(path, path.read_text(), asked) == [40]


def test_a_table_that_is_no_training_in_order_is_refused(tmp_path):
    rows = "".join(f"{epoch},.1,{epoch}\n" for epoch in (3, 2, 1) * 3)
    with pytest.raises(RecordError, match="go back again and again"):
        accuracies(tmp_path / "log.csv", f"epoch,lr,val_acc\n{rows}")


def test_several_runs_by_rows_and_by_folders(tmp_path):
    table = "run,epoch,lr,val_acc\na,1,.1,40\na,2,.1,50\nb,1,.01,41\nb,2,.01,51\n"
    with pytest.raises(RecordError, match="holds 2 runs, a, b"):
        accuracies(tmp_path / "log.csv", table)
    assert accuracies(tmp_path / "log.csv", table, Given(), run="b") == [41, 51]
    for seed in (0, 1):
        home = tmp_path / "runs" / f"version_{seed}"
        home.mkdir(parents=True)
        (home / "metrics.csv").write_text(f"epoch,lr-SGD,val_acc\n0,.1,{40 + seed}\n")
    with pytest.raises(RecordError, match="holds 2 runs, version_0, version_1"):
        run_from_log(tmp_path / "runs")
    assert run_from_log(tmp_path / "runs", run="version_1").final_accuracy == 41


def test_a_folder_of_w_and_b_says_what_to_export(tmp_path):
    home = tmp_path / "offline-run-1"
    home.mkdir()
    (home / "run-1.wandb").write_bytes(b"\0" * 9)
    (tmp_path / "debug.log").write_text("Epoch 1 Val Acc 50\n")
    with pytest.raises(RecordError, match="export the run as CSV"):
        run_from_log(tmp_path)


def test_a_trainers_last_checkpoint_has_the_whole_history(tmp_path):
    for count in (1, 2, 10):
        home = tmp_path / f"checkpoint-{count}"
        home.mkdir()
        entries = ",".join(
            f'{{"epoch": {e}.0, "learning_rate": 0.1, "eval_accuracy": 0.{e + 10}}}'
            for e in range(1, count + 1)
        )
        (home / "trainer_state.json").write_text(f'{{"log_history": [{entries}]}}')
    assert len(run_from_log(tmp_path).epochs) == 10


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_any_system(tmp_path, encoding, end):
    table = end.join(["epoch,lr,val_acc", "1,0.1,50", "2,0.1,60", ""])
    assert accuracies(tmp_path / "log.csv", table.encode(encoding)) == [50, 60]
    lines = end.join(["Epoch 1 Val Acc 50", "Epoch 2 Val Acc 60"])
    assert accuracies(tmp_path / "log.txt", lines.encode(encoding)) == [50, 60]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"epoch,lr,val_acc\n1,-.1,50\n", "a learning rate is 0 or more"),
        ("a.csv", b"epoch,lr,val_acc\ninf,.1,50\n", "'inf' is no epoch"),
        ("a.csv", b"epoch,lr,val_acc\n" + b"9" * 9000 + b",.1,50\n", "is no epoch"),
        ("a.csv", b'epoch,lr,val_acc\n1,".1,50\n', "no CSV file"),
        ("a.csv", b"epoch,lr,val_acc\n" + b"1,.1,50\n" * 150_001, "more than 150000 rows"),
        ("a.csv", b"x," * 1_100_000, "more than 1048576 characters"),
        ("a.txt", b"\0" * 99, "no text log"),
        ("a.txt", b"Epoch " + b"9" * 9000, "no test accuracy"),
        ("a.txt", (b"1" * 8000 + b"x\n") * 20, "no test accuracy"),
        ("a.txt", b"\n \n", "no test accuracy"),
        ("a.json", b"[" * 100_000, "no test accuracy|damaged"),
        ("a.json", b'{"log_history": [5]}', "in the place of a record"),
        ("a.json", b'{"log_history": [{"ep', "damaged"),
        ("a.jsonl", b'{"epoch": 1, "val_acc": 5}\nhello\n', "line 2 is no JSON"),
        ("run.wandb", b"x", "W&B's own record"),
        ("a.tfevents.1", b"", "is empty"),
    ],
)
def test_what_is_no_log_is_one_sentence(tmp_path, name, content, said):
    with pytest.raises(RecordError, match=said) as caught:
        accuracies(tmp_path / name, content, Given())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("valLoss", "loss"),
        ("testacc", "accuracy"),
        ("trainacc1", "accuracy"),
        ("accuracyval", "accuracy"),
        ("Top-1 accuracy", "accuracy"),
        ("learningRate", "lr"),
        ("lr-SGD", "lr"),
        ("globalStep", "step"),
        ("ITERS", "step"),
        ("Epoch", "epoch"),
        ("duration", "seconds"),
        ("S", "seconds"),
        ("5s", "seconds"),
    ],
)
def test_every_kind_of_name_is_known(name: str, field: str) -> None:
    found = meaning(name)
    assert found is not None
    assert found.field == field


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a -0.5 b +.5 c 5. d 5 e 1e-3", [-0.5, 0.5, 5.0, 5.0, 1e-3]),
        ("loss nan acc 5% loss -inf acc 3s", ["nan", 5.0, "-inf", 3.0]),
        ("0:09:11 loss 1.5 2024-01-02 x1 v1.2.3 1,234", [1.5, 2024.0, 234.0]),
    ],
)
def test_numbers_in_a_line(text: str, numbers: list[float | str]) -> None:
    found = [text[m.start() : m.end("value")] for m in NUMBER.finditer(text) if m["clock"] is None]
    assert [repr(float(n)) for n in found] == [repr(float(n)) for n in numbers]
