"""One metric a file or an entry, as trackers export them, with the name beside the numbers."""

from __future__ import annotations

import json

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log

GIVEN = Given(rates=(0.1, 0.01, 0.001), schedule="0:0.1", total=3)
ACCURACIES, RATES, LOSSES = (60.0, 65.0, 70.0), (0.1, 0.01, 0.001), (1.5, 1.0, 0.8)
METRICS = {"val_acc": ACCURACIES, "lr": RATES, "train_loss": LOSSES}


def values(run):
    return [(record.epoch, record.test_metric) for record in run.epochs]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def table(numbers, start=0):
    rows = "".join(f"{1.6e9 + k},{start + k},{v}\n" for k, v in enumerate(numbers))
    return f"Wall time,Step,Value\n{rows}"


RIGHT = [(1, 60.0), (2, 65.0), (3, 70.0)]
WALL = [[1.6e9 + k, k, v] for k, v in enumerate(ACCURACIES)]
FILES = {
    "run-a-tag-val_acc.json": WALL,
    "run-a-tag-Accuracy_test.json": WALL,
    "run-a-tag-val_acc.csv": table(ACCURACIES),
    "val_acc.json": [[k, v] for k, v in enumerate(ACCURACIES, 1)],
    "test_acc.json": list(ACCURACIES),
    "val_acc.csv": ",step,value,timestamp\n0,0,60,a\n1,1,65,b\n2,2,70,c\n",  # Neptune's
    "metrics/val_acc": "1600000000000 60.0 0\n1600000000001 65.0 1\n1600000000002 70.0 2\n",
}


@pytest.mark.parametrize("name", FILES)
def test_the_name_of_a_file_is_that_of_its_metric(tmp_path, name):
    assert values(run_from_log(write(tmp_path / name, FILES[name]), GIVEN)) == RIGHT


@pytest.mark.parametrize("name", ["run-a-tag-train_acc.csv", "train_acc.json", "metrics/train_acc"])
def test_a_file_of_training_is_none_of_a_test(tmp_path, name):
    kind = {"csv": table(ACCURACIES), "json": WALL}.get(
        name.rpartition(".")[2], FILES["metrics/val_acc"]
    )
    with pytest.raises(RecordError, match="no test accuracy, as train_acc is of training data"):
        run_from_log(write(tmp_path / name, kind), GIVEN)


def test_a_file_whose_name_says_nothing_is_named_by_option(tmp_path):
    for name, text, column in (("a.csv", table(ACCURACIES), "Value"), ("a.json", WALL, "value")):
        path = write(tmp_path / name, text)
        with pytest.raises(RecordError, match="--column test_accuracy=NAME"):
            run_from_log(path, GIVEN)
        given = Given(rates=RATES, columns={"test_accuracy": column})
        assert values(run_from_log(path, given)) == RIGHT


def test_a_folder_of_files_of_a_metric_each_is_a_run(tmp_path):
    kinds = {
        "tensorboard/run-a-tag-{}.csv": table,
        "json/run-a-tag-{}.json": lambda numbers: [[1.6e9, k, v] for k, v in enumerate(numbers)],
        "metrics/{}": lambda numbers: "".join(
            f"160000000{k}000 {v} {k}\n" for k, v in enumerate(numbers)
        ),
        "dvclive/{}.tsv": lambda numbers: (
            f"step\t{next(name for name in METRICS if METRICS[name] is numbers)}\n"
            + "".join(f"{k}\t{v}\n" for k, v in enumerate(numbers))
        ),
    }
    for form, text in kinds.items():
        for name, numbers in METRICS.items():
            write(tmp_path / form.format(name), text(numbers))
        run = run_from_log(tmp_path / form.partition("/")[0])
        assert values(run) == RIGHT
        assert [record.lr for record in run.epochs] == list(RATES)
        assert [record.train_loss for record in run.epochs] == list(LOSSES)


def test_a_folder_of_downloads_of_two_runs_asks_which(tmp_path):
    for run, shift in (("a", 0), ("b", 5)):
        for name, numbers in METRICS.items():
            own = [v - shift for v in numbers] if name == "val_acc" else numbers
            write(tmp_path / f"run-{run}-tag-{name}.csv", table(own))
    with pytest.raises(RecordError, match="holds 2 runs, a, b: say which one with --run NAME"):
        run_from_log(tmp_path)
    assert values(run_from_log(tmp_path, run="b")) == [(1, 55.0), (2, 60.0), (3, 65.0)]


def test_a_download_of_a_training_that_was_begun_again(tmp_path):
    rows = [
        [1.6e9 + k, s, v] for k, (s, v) in enumerate([(0, 60), (1, 61), (2, 62), (1, 65), (2, 70)])
    ]
    run = run_from_log(write(tmp_path / "val_acc.json", rows), GIVEN)
    assert values(run) == [(1, 60), (2, 65), (3, 70)]


def test_rows_of_numbers_without_names_are_no_series(tmp_path):
    rows = [[e, lr, a] for e, lr, a in zip((1, 2, 3), RATES, ACCURACIES, strict=True)]
    with pytest.raises(RecordError, match="put a list of their names before rows of numbers"):
        run_from_log(write(tmp_path / "val_acc.json", rows))


NAMED = {
    "Sacred's": {
        name: {"steps": [1, 2, 3], "timestamps": ["x"] * 3, "values": list(numbers)}
        for name, numbers in METRICS.items()
    },
    "Plotly's": [{"name": n, "x": [1, 2, 3], "y": list(v)} for n, v in METRICS.items()],
    "a figure of Plotly's": {
        "data": [{"name": n, "x": [1, 2, 3], "y": list(v)} for n, v in METRICS.items()],
        "layout": {},
    },
    "pairs below names": {
        name: [[k, v] for k, v in enumerate(numbers, 1)] for name, numbers in METRICS.items()
    },
    "Comet's": [
        {"metricName": name, "metricValue": str(v), "timestamp": 1, "step": k, "epoch": k + 1}
        for name, numbers in METRICS.items()
        for k, v in enumerate(numbers)
    ],
}


@pytest.mark.parametrize("name", NAMED)
def test_lists_of_steps_and_values_below_names(tmp_path, name):
    run = run_from_log(write(tmp_path / "metrics.json", NAMED[name]))
    assert values(run) == RIGHT
    assert [record.lr for record in run.epochs] == list(RATES)
    assert [record.train_loss for record in run.epochs] == list(LOSSES)


def test_rates_of_two_groups_are_no_steps_and_values(tmp_path):
    document = {"lr": [[0.1, 0.2], [0.2, 0.3], [0.3, 0.4]], "val_acc": list(ACCURACIES)}
    run = run_from_log(write(tmp_path / "log.json", document))
    assert [record.lr for record in run.epochs] == [0.1, 0.2, 0.3]
    assert values(run) == RIGHT


LONG = {
    "Comet's": ("metricName,metricValue,timestamp,runContext,step,epoch", "{name},{v},1,,{k},{e}"),
    "Aim's": (
        "run.name,metric.name,context.subset,step,epoch,time,value",
        "run a,{bare},{data},{k},{e},1,{v}",
    ),
    "tbparse's": (",step,tag,value", "{k},{k},{name},{v}"),
}


@pytest.mark.parametrize("name", LONG)
def test_tables_of_a_value_a_row(tmp_path, name):
    header, row = LONG[name]
    text = f"{header}\n"
    parts = {"val_acc": ("acc", "val"), "train_loss": ("loss", "train"), "lr": ("lr", "train")}
    for metric, numbers in METRICS.items():
        bare, data = parts[metric]
        for k, v in enumerate(numbers):
            text += row.format(name=metric, bare=bare, data=data, k=k, e=k + 1, v=v) + "\n"
    run = run_from_log(write(tmp_path / "log.csv", text))
    assert values(run) == RIGHT
    assert [record.lr for record in run.epochs] == list(RATES)


def test_what_holds_no_history_says_what_to_do(tmp_path):
    path = write(
        tmp_path / "wandb-summary.json", {"_wandb": {}, "epoch": 3, "val_acc": 70, "lr": 1}
    )
    with pytest.raises(RecordError, match="W&B's summary, which has the last values alone"):
        run_from_log(path)
    with pytest.raises(RecordError, match="is a notebook: copy the log"):
        run_from_log(write(tmp_path / "a.ipynb", {"cells": [], "nbformat": 4}))
    for start, said in ((b"PAR1", "Parquet file: write it as CSV"), (b"\x1f\x8b", "unpack it")):
        path = tmp_path / "log.bin"
        path.write_bytes(start + bytes(range(256)))
        with pytest.raises(RecordError, match=said):
            run_from_log(path)


def test_files_of_a_run_each_are_no_metrics_of_one(tmp_path):
    for name, shift in (("l1", 0), ("fpgm", 5)):
        body = "".join(f"{k},{v - shift}\n" for k, v in enumerate(ACCURACIES, 1))
        write(tmp_path / "methods" / f"{name}.csv", f"epoch,acc\n{body}")
        write(tmp_path / "seeds" / name / "val_acc.csv", f"epoch,val_acc\n{body}")
    with pytest.raises(RecordError, match=r"holds 2 runs, fpgm.csv, l1.csv: say which one"):
        run_from_log(tmp_path / "methods", GIVEN)
    assert values(run_from_log(tmp_path / "methods", GIVEN, run="l1.csv")) == RIGHT
    with pytest.raises(RecordError, match="name the file itself"):
        run_from_log(tmp_path / "seeds", GIVEN)


def test_files_of_training_and_test_in_folders_of_their_names(tmp_path):
    for data, numbers in (("train", (1, 2, 3)), ("val", ACCURACIES)):
        rows = "".join(f"{k}\t{v}\n" for k, v in enumerate(numbers))
        write(tmp_path / data / "acc.tsv", f"step\tacc\n{rows}")
    assert values(run_from_log(tmp_path, GIVEN)) == RIGHT


def test_a_learning_rate_may_stand_beside_a_value_that_the_file_names(tmp_path):
    rows = "".join(
        f"{k},{lr},{v}\n" for k, (lr, v) in enumerate(zip(RATES, ACCURACIES, strict=True))
    )
    path = write(tmp_path / "test_accuracy.csv", f"epoch,lr,value\n{rows}")
    assert [(r.lr, r.test_metric) for r in run_from_log(path).epochs] == list(
        zip(RATES, ACCURACIES, strict=True)
    )
