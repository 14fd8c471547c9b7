"""Several runs in one file, and lists that a script printed: none is taken for all, or for one."""

from __future__ import annotations

import json

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log

GIVEN = Given(rates=(0.1, 0.01, 0.001), schedule="0:0.1", total=3)
TESTS, RATES, LOSSES = [60.0, 65.0, 70.0], [0.1, 0.01, 0.001], [1.5, 1.0, 0.8]
LISTS = {"train_loss": LOSSES, "val_acc": TESTS, "lr": RATES}
OTHER = {**LISTS, "val_acc": [61.0, 66.0, 71.0]}
RECORDS = [{name: values[k] for name, values in LISTS.items()} for k in range(3)]


def read(tmp_path, text, given=None, name="log.json", **options):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return run_from_log(path, given, **options)


def values(run):
    return [record.test_metric for record in run.epochs]


SEVERAL = {
    "lists below names": {"l1": LISTS, "fpgm": OTHER},
    "lists below seeds": {"l1": LISTS, "2": OTHER},
    "deeper": {"results": {"l1": {"history": LISTS}, "fpgm": {"history": OTHER}}},
    "records below names": {"l1": RECORDS, "fpgm": RECORDS},
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_document_of_several_runs_asks_which(tmp_path, name):
    with pytest.raises(RecordError, match=r"holds 2 runs, l1, \w+: say which one with --run NAME"):
        read(tmp_path, SEVERAL[name])
    assert values(read(tmp_path, SEVERAL[name], run="l1")) == TESTS
    with pytest.raises(RecordError, match="has no run 'x'"):
        read(tmp_path, SEVERAL[name], run="x")


def test_seeds_as_names_are_runs(tmp_path):
    with pytest.raises(RecordError, match="holds 2 runs, 0, 1"):
        read(tmp_path, {"0": LISTS, "1": OTHER})
    assert values(read(tmp_path, {"0": LISTS, "1": OTHER}, run="1")) == OTHER["val_acc"]


def test_a_history_beside_a_last_test_is_the_log(tmp_path):
    document = {"history": LISTS, "test_acc": 69.0, "args": {"lr": 0.1, "milestones": [1, 2]}}
    assert values(read(tmp_path, document)) == TESTS


def test_documents_behind_each_other_are_records(tmp_path):
    text = "\n".join(json.dumps({"epoch": k + 1, **r}, indent=2) for k, r in enumerate(RECORDS))
    assert values(read(tmp_path, text)) == TESTS
    with pytest.raises(RecordError, match="damaged or no JSON"):
        read(tmp_path, text[:-5])


def test_a_value_of_training_does_not_replace_one_of_a_test(tmp_path):
    """Aim's: the data stands in a dictionary beside the name."""
    text = "run.hash,metric.name,metric.context,step,epoch,value\n"
    for data, numbers in (("val", TESTS), ("train", [1.0, 2.0, 3.0])):
        for k, value in enumerate(numbers):
            text += f"a,acc,\"{{'subset': '{data}'}}\",{k},{k + 1},{value}\n"
    assert values(read(tmp_path, text, GIVEN, "log.csv")) == TESTS


def test_rows_of_a_value_of_two_runs_without_a_name_are_refused(tmp_path):
    text = "net,metric,step,value\n" + "".join(
        f"{net},val_acc,{k},{value + shift}\n"
        for net, shift in (("a", 0), ("b", 5))
        for k, value in enumerate(TESTS)
    )
    with pytest.raises(RecordError, match=r"2 values of 'val_acc' at step 0, .* several runs"):
        read(tmp_path, text, GIVEN, "log.csv")
    named = text.replace("net,", "run,", 1)
    assert values(read(tmp_path, named, GIVEN, "log.csv", run="b")) == [65, 70, 75]
    again = text.replace("b,val_acc,0,65.0\nb,val_acc,1,70.0\n", "")
    assert values(read(tmp_path, again, GIVEN, "log.csv")) == [60, 65, 75]


PRINTED = {
    "a dictionary": f"Done\n{LISTS}\n",
    "a dictionary alone": f"{LISTS}\n",
    "by names": "".join(f"{name}: {numbers}\n" for name, numbers in LISTS.items()),
    "as code": "".join(f"{name} = {numbers}\n" for name, numbers in LISTS.items()),
    "NumPy's": "train_loss: [1.5 1.  0.8]\nval_acc: [60. 65.\n 70.]\nlr: [0.1   0.01  0.001]\n",
    "NumPy's numbers": "".join(
        f"{name} = [{', '.join(f'np.float64({v})' for v in numbers)}]\n"
        for name, numbers in LISTS.items()
    ),
    "growing": f"val_acc: {TESTS[:2]}\n" + "".join(f"{n}: {v}\n" for n, v in LISTS.items()),
}


@pytest.mark.parametrize("name", PRINTED)
def test_lists_that_were_printed_are_read_whole(tmp_path, name):
    """The first number of each was taken, as of a single epoch."""
    run = read(tmp_path, PRINTED[name], name="log.txt")
    assert values(run) == TESTS
    assert [record.lr for record in run.epochs] == RATES
    assert [record.train_loss for record in run.epochs] == LOSSES


def test_lists_of_a_line_each_are_no_lists_of_epochs(tmp_path):
    text = "".join(f"test acc: [{a}, 10.0]\n" for a in TESTS)
    assert values(read(tmp_path, text, GIVEN, "log.txt")) == TESTS


def test_a_list_that_numpy_cut_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"'val_acc' with numbers left out .* \.tolist\(\)"):
        read(tmp_path, "val_acc: [60. 61. ... 69. 70.]\n", GIVEN, "log.txt")


@pytest.mark.parametrize("word", ["epoch_{}", "E{}:", "[E{}]", "Ep.{}", "epoch-{}"])
def test_more_words_for_an_epoch(tmp_path, word):
    """The number was a part of the LR's name, and the first LR held for all epochs."""
    text = "".join(
        f"{word.format(k)} lr {lr} train loss {loss} val acc {a}\n"
        for k, (lr, loss, a) in enumerate(zip(RATES, LOSSES, TESTS, strict=True), 1)
    )
    run = read(tmp_path, text, name="log.txt")
    assert [(r.epoch, r.lr, r.test_metric) for r in run.epochs] == [
        (1, 0.1, 60),
        (2, 0.01, 65),
        (3, 0.001, 70),
    ]


def test_a_file_named_for_an_epoch_names_none(tmp_path):
    text = "".join(f"Epoch {k} val acc {a}\nsaved to epoch_9.pth\n" for k, a in enumerate(TESTS, 1))
    assert values(read(tmp_path, text, GIVEN, "log.txt")) == TESTS


def test_sparse_is_a_word_of_keras_alone(tmp_path):
    text = "".join(
        f"Epoch {k} dense test acc 95.0 sparse test acc {a}\n" for k, a in enumerate(TESTS)
    )
    with pytest.raises(RecordError, match="more than one name that may be of the test accuracy"):
        read(tmp_path, text, GIVEN, "log.txt")
    keras = {"val_sparse_categorical_accuracy": [0.6, 0.65, 0.7], "lr": RATES}
    assert values(read(tmp_path, keras)) == TESTS
