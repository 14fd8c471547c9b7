"""Logs as people's own loops leave them: other shapes, orders, cells and headings."""

from __future__ import annotations

import json

import pytest
from commands import invoke

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log

CONSTANT = Given(rates=(0.1,) * 20, schedule="0:0.1", total=20)
TABLE = "epoch,lr,val_acc\n"


def read(path, text, given=None, **options):
    path.write_text(text)
    return run_from_log(path, given, **options)


def values(run):
    return [record.test_metric for record in run.epochs]


TABLES = {
    "a box of a terminal": (
        "┏━━━━━━━┳━━━━┳━━━━━━━━━┓\n┃ epoch ┃ lr ┃ val_acc ┃\n┡━━━━━━━╇━━━━╇━━━━━━━━━┩\n"
        "│ 1     │ .1 │ 40      │\n│ 2     │ .1 │ 50      │\n└───────┴────┴─────────┘\n"
    ),
    "comments above the header": "# seed 3\n# best run\n" + TABLE + "1,.1,40\n2,.1,50\n",
    "a header that is a comment": "# epoch,lr,val_acc\n1,.1,40\n2,.1,50\n",
    "blanks and a clock": "epoch  lr   val_acc  time \n1  .1  40.0  00:12 \n2  .1  50.0  00:12 \n",
    "epochs of a total": TABLE + "1/90,.1,40\n2/90,.1,50\n",
    "epochs with their name": TABLE + "epoch 1,.1,40\nepoch 2,.1,50\n",
    "fractions of epochs": TABLE + "0.5,.1,30\n1.0,.1,40\n1.5,.1,45\n2.0,.1,50\n",
    "newest first": TABLE + "2,.1,50\n1,.1,40\n",
    "tensors": TABLE + '1,[0.1],tensor(40.)\n2,"[0.1, 0.01]","tensor(50., device=\'cuda:0\')"\n',
    "-1 where nothing was tested": "epoch,lr,loss,acc\n1,.1,3,40\n2,.1,2,50\n3,.1,2,-1\n4,.1,1,-1",
    "YOLOv5's LRs": "epoch,metrics/acc,val/acc,x/lr0,x/lr1\n0,9,40,0.1,0.2\n1,9,50,0.1,0.2\n",
    "a value a row": "run,key,value,step\na,val_acc,40,1\na,lr,.1,1\na,val_acc,50,2\na,lr,.1,2\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_any_make_are_read(tmp_path, name):
    run = read(tmp_path / "log.csv", TABLES[name])
    assert [value for value in values(run) if value is not None] == [40, 50]
    assert [record.epoch for record in run.epochs][:2] == [1, 2]
    assert {record.lr for record in run.epochs} == {0.1}


COLUMNS = {"lr": [0.1, 0.1], "val_acc": [40, 50]}
DOCUMENTS = {
    "columns by the number of the row": {n: dict(enumerate(c)) for n, c in COLUMNS.items()},
    "Keras's History": {"history": COLUMNS, "epoch": [0, 1], "params": {"epochs": 2}},
    "pandas's split": {
        "columns": ["lr", "val_acc"],
        "index": [0, 1],
        "data": [[0.1, 40], [0.1, 50]],
    },
    "rows below a header": [["epoch", "lr", "val_acc"], [1, 0.1, 40], [2, 0.1, 50]],
    "records by epoch": {"1": {"lr": 0.1, "val_acc": 40}, "2": {"lr": 0.1, "val_acc": 50}},
    "records by epochs' names": {f"epoch_{e}": {"lr": 0.1, "val_acc": 30 + 10 * e} for e in (1, 2)},
    "LRs of several groups": [
        {"epoch": e, "lr": [0.1, 0.2], "val_acc": 30 + 10 * e} for e in (1, 2)
    ],
    "below two names": {"config": {"lr": 0.5}, "out": {"log": COLUMNS}},
    "a value a record": [
        {"key": key, "value": column[step], "step": step + 1}
        for key, column in COLUMNS.items()
        for step in (0, 1)
    ],
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_any_shape_are_read(tmp_path, name):
    run = read(tmp_path / "log.json", json.dumps(DOCUMENTS[name]))
    assert [(r.epoch, r.test_metric, r.lr) for r in run.epochs] == [(1, 40, 0.1), (2, 50, 0.1)]


def test_the_last_record_of_a_killed_training_is_left_out(tmp_path):
    lines = '{"epoch": 1, "lr": 0.1, "val_acc": 40}\n{"epoch": 2, "lr": 0.1, "val_acc": 50}\n'
    run = read(tmp_path / "log.jsonl", lines + '{"epoch": 3, "lr')
    assert values(run) == [40, 50]
    assert "no whole record" in run.notes[-1]
    with pytest.raises(RecordError, match="line 3 is no JSON"):
        read(tmp_path / "log.jsonl", lines + '{"epoch": 3, "lr\n' + lines)


STEPS = {
    "log.csv": "step,lr,val_loss\n0,.1,10\n1000,.1,5\n2000,.1,4\n",
    "log.jsonl": "".join(
        json.dumps({"step": s, "lr": 0.1, "val_loss": v}) + "\n"
        for s, v in ((0, 10), (1000, 5), (2000, 4))
    ),
    "log.txt": "step 0: val loss 10.\niter 1: loss 8.0\nstep 25: val loss 5.\nstep 50: val loss 4.",
    "of.txt": "step:0/500 val_loss:10.0\nstep:250/500 val_loss:5.0\nstep:500/500 val_loss:4.0\n",
}


@pytest.mark.parametrize("name", STEPS)
def test_a_test_at_step_0_is_of_the_network_before_training(tmp_path, name):
    run = read(tmp_path / name, STEPS[name], CONSTANT if name.endswith("txt") else None)
    assert run.start_metric == 10
    assert [(r.epoch, r.test_metric) for r in run.epochs] == [(1, 5), (2, 4)]


def test_steps_that_count_from_0_one_by_one_are_epochs(tmp_path):
    run = read(tmp_path / "log.csv", "_step,lr,val_acc\n0,.1,40\n1,.1,50\n")
    assert values(run) == [40, 50]
    assert run.start_metric is None


GRID = "method,seed,epoch,lr,acc\n" + "".join(
    f"{method},{seed},{epoch},.1,{base + seed + epoch}\n"
    for method, base in (("l1", 40), ("fpgm", 60))
    for seed in (0, 1)
    for epoch in (1, 2, 3)
)
RUNS = {
    "method and seed": (GRID, "fpgm, 1", [62, 63, 64]),
    "folds": ("fold,epoch,lr,val_acc\n1,1,.1,30\n1,2,.1,40\n2,1,.1,20\n2,2,.1,45\n", "1", [30, 40]),
    "by epoch": (
        "epoch,net,lr,val_acc\n1,a,.1,30\n1,b,.1,20\n2,a,.1,40\n2,b,.1,45\n",
        "b",
        [20, 45],
    ),
    "phases": (
        "phase,epoch,lr,val_acc\npre,1,.1,30\npre,2,.1,40\nre,1,.01,20\nre,2,.01,45\n",
        "re",
        [20, 45],
    ),
    "a value a row": (
        "run_id,key,value,step\na,val_acc,40,1\na,val_acc,50,2\nb,val_acc,60,1\nb,val_acc,70,2\n",
        "a",
        [40, 50],
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_in_columns_of_any_name_are_told_apart(tmp_path, name):
    text, run, right = RUNS[name]
    path = tmp_path / "log.csv"
    with pytest.raises(RecordError, match=r"holds . runs, .*: say which one with --run NAME"):
        read(path, text, CONSTANT)
    assert values(read(path, text, CONSTANT, run=run)) == right


def test_columns_of_a_training_that_went_on_tell_no_runs_apart(tmp_path):
    dates = "date,epoch,lr,val_acc\nmon,1,.1,30\nmon,2,.1,40\ntue,2,.1,41\ntue,3,.1,50\n"
    assert values(read(tmp_path / "log.csv", dates)) == [30, 41, 50]
    data = "kind,epoch,lr,acc\ntrain,1,.1,70\ntest,1,.1,30\ntrain,2,.1,80\ntest,2,.1,40\n"
    assert values(read(tmp_path / "data.csv", data)) == [30, 40]


def test_a_sign_of_percent_is_believed(tmp_path):
    assert values(read(tmp_path / "a.csv", TABLE + "1,.1,0.3%\n2,.1,0.4%\n")) == [0.3, 0.4]
    assert values(read(tmp_path / "b.csv", "epoch,lr,test acc (%)\n1,.1,.3\n2,.1,.4\n")) == [
        0.3,
        0.4,
    ]
    assert values(read(tmp_path / "c.csv", TABLE + "1,.1,0.3\n2,.1,0.4\n")) == [30, 40]


def test_what_may_be_a_share_or_a_percentage_is_asked(tmp_path):
    text = "epoch,lr,train_acc,val_acc\n1,.1,15,0.5\n2,.1,17,0.9\n"
    with pytest.raises(RecordError, match=r"'train_acc' is above it.*--accuracy share"):
        read(tmp_path / "log.csv", text)
    assert values(read(tmp_path / "log.csv", text, Given(percent=True))) == [0.5, 0.9]


def test_an_accuracy_taken_from_1_is_none(tmp_path):
    with pytest.raises(RecordError, match="no test accuracy"):
        read(tmp_path / "log.csv", "epoch,lr,val_1-acc\n1,.1,.5\n2,.1,.4\n")


def test_other_lrs_are_named(tmp_path):
    run = read(tmp_path / "log.csv", "epoch,lr_body,lr_tail,val_acc\n1,.01,.1,40\n2,.01,.1,50\n")
    assert [record.lr for record in run.epochs] == [0.01, 0.01]
    assert any("'lr_body' was taken: for lr_tail say" in note for note in run.notes)


LINES = {
    "headings above the epoch": "".join(
        f"Training...\nEpoch {e} loss=2.0 acc={t}\nEvaluating...\nEpoch {e} loss=1.9 acc={v}\n"
        for e, t, v in ((1, 60, 40), (2, 70, 50))
    ),
    "the data in brackets": "".join(
        f"Epoch {e}, acc(train)={t}, acc(test)={v}\n" for e, t, v in ((1, 60, 40), (2, 70, 50))
    ),
    "a heading of the epoch before": "".join(
        f"Epoch {e}: loss=2.0 train acc={t}\nValidation\nacc {v}\n"
        for e, t, v in ((1, 60, 40), (2, 70, 50))
    ),
    "a phase that is over": "".join(
        f"Epoch {e} val acc={v}\nValidation finished.\n" for e, v in ((1, 40), (2, 50))
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_say_their_data_in_any_place(tmp_path, name):
    assert values(read(tmp_path / "log.txt", LINES[name], CONSTANT)) == [40, 50]


def test_folders_of_mlflow_are_runs(tmp_path):
    for name, shift in (("base", 0), ("pruned", 10)):
        home = tmp_path / "mlruns" / "0" / name
        metrics = {"val_acc": (40 + shift, 50 + shift), "lr": (0.1, 0.01), "train/loss": (2, 1)}
        for metric, numbers in metrics.items():
            file = home / "metrics" / metric
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"170{k} {v} {k}\n" for k, v in enumerate(numbers)))
        (home / "meta.yaml").write_text(f"run_id: {name}\nrun_name: the {name} one\n")
    with pytest.raises(RecordError, match="holds 2 runs, the base one, the pruned one: say"):
        run_from_log(tmp_path / "mlruns")
    picked = run_from_log(tmp_path / "mlruns", run="the pruned one")
    assert [(r.epoch, r.test_metric, r.lr) for r in picked.epochs] == [(1, 50, 0.1), (2, 60, 0.01)]
    assert [r.train_loss for r in picked.epochs] == [2, 1]
    assert picked.source == "mlflow"
    assert values(run_from_log(tmp_path / "mlruns" / "0" / "base")) == [40, 50]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ratio", "90"), "90.0 is not in the range 0<x<1"),
        (("--speedup", "-2"), "-2.0 is not in the range x>0"),
        (("--structure", "channels"), "'channels' is no structure: choose filter"),
        (("--structure", "4:2"), "with N below M"),
        (("--pretrain-epochs", "-1"), "-1 is not in the range x>=0"),
    ],
)
def test_facts_that_no_run_has_are_refused(tmp_path, options, said):
    path = tmp_path / "log.csv"
    path.write_text(TABLE + "1,.1,40\n2,.1,50\n")
    assert said in invoke("import", path, *options, code=2).output
    invoke("import", path, "--ratio", "0.9", "--structure", "2:4", "--speedup", "2")


def test_estimate_says_how_another_tools_log_becomes_a_run(tmp_path):
    path = tmp_path / "trainer_state.json"
    path.write_text('{"log_history": []}')
    for place in (path, tmp_path):
        said = invoke("estimate", place, "--target", "50", code=2).output
        assert "make one with `trainscope import`" in said


NESTED = {
    "records under a name": {
        "epochs": [
            {"epoch": e, "lr": 0.1, "metrics": {"val": {"acc": a}}} for e, a in ((1, 40), (2, 50))
        ]
    },
    "columns by data": {"train": {"acc": [60, 70]}, "val": {"acc": [40, 50]}, "lr": [0.1, 0.1]},
    "columns by metric": {"acc": {"train": [60, 70], "val": [40, 50]}, "lr": [0.1, 0.1]},
    "below a name of training": {"train_log": {"val_acc": [40, 50], "lr": [0.1, 0.1]}},
}


@pytest.mark.parametrize("name", NESTED)
def test_documents_in_documents_are_read(tmp_path, name):
    run = read(tmp_path / "log.json", json.dumps(NESTED[name]))
    assert [(r.epoch, r.test_metric, r.lr) for r in run.epochs] == [(1, 40, 0.1), (2, 50, 0.1)]


def test_lines_of_a_training_that_was_resumed_are_the_later_ones(tmp_path):
    lines = "".join(f"Ep: {e} | Val Acc: {a} | LR: 0.1\n" for e, a in ((1, 40), (2, 49), (2, 50)))
    run = read(tmp_path / "log.txt", lines + "Ep: 3 | Val Acc: 60 | LR: 0.01\n")
    assert [(r.epoch, r.test_metric, r.lr) for r in run.epochs] == [
        (1, 40, 0.1),
        (2, 50, 0.1),
        (3, 60, 0.01),
    ]


def test_a_log_without_epochs_keeps_its_lrs(tmp_path):
    run = read(tmp_path / "log.txt", "Test Acc: 40 | LR: 0.1\nTest Acc: 50 | LR: 0.01\n")
    assert [(r.test_metric, r.lr) for r in run.epochs] == [(40, 0.1), (50, 0.01)]


def test_many_tests_of_few_epochs_can_be_told_by_their_steps(tmp_path):
    history = [
        {"epoch": k / 10, "step": 100 * k, "learning_rate": 5e-5, key: 4 - k / 5}
        for k in range(1, 11)
        for key in ("loss", "eval_loss")
    ]
    path = tmp_path / "trainer_state.json"
    run = read(path, json.dumps({"log_history": history}))
    assert values(run) == [2]
    assert any("--column epoch=step keeps all, told by steps." in note for note in run.notes)
    run = run_from_log(path, Given(columns={"epoch": "step"}))
    assert [r.epoch for r in run.epochs] == [100 * k for k in range(1, 11)]
    assert values(run) == pytest.approx([4 - k / 5 for k in range(1, 11)])


def test_blanks_of_any_kind_may_stand_about_a_stroke(tmp_path):
    for blank in (" ", "\t", "\u00a0"):
        lines = "".join(
            f"Epoch {e}\nloss: 2.0 [64{blank}/60000]\nTest Acc: {a}{blank}/{blank}100\n"
            for e, a in ((1, 40), (2, 50))
        )
        assert values(read(tmp_path / "log.txt", lines, CONSTANT)) == [40, 50]


def test_counts_within_an_epoch_are_no_runs(tmp_path):
    rows = [(epoch, batch) for epoch in (1, 2, 3) for batch in (0, 100, 200)]
    text = "epoch,batch,lr,loss,val_acc\n" + "".join(
        f"{epoch},{batch},.1,{3 - epoch / 2},{30 + 10 * epoch if batch == 200 else ''}\n"
        for epoch, batch in rows
    )
    for name, form in (("log.csv", text), ("of.csv", text.replace("00,.1", "00/300,.1"))):
        run = read(tmp_path / name, form)
        assert [(r.epoch, r.test_metric) for r in run.epochs] == [(1, 40), (2, 50), (3, 60)]
    folds = "epoch,cv_fold,lr,val_acc\n" + "".join(
        f"{epoch},{fold},.1,{40 + epoch + 10 * fold}\n" for epoch in (1, 2, 3) for fold in (0, 1)
    )
    with pytest.raises(RecordError, match="holds 2 runs, 0, 1: say"):
        read(tmp_path / "folds.csv", folds)


BLOCK = "train loss {l}\nval acc {a}\n"
NAMED_LAST = {
    "with its LR": BLOCK + "=> epoch {e}, lr 0.1\n",
    "with the test": "train loss {l}\nEpoch {e} val acc {a} lr 0.1\n",
}


@pytest.mark.parametrize("name", NAMED_LAST)
@pytest.mark.parametrize("count", [2, 3])
def test_epochs_that_are_named_behind_their_values(tmp_path, name, count):
    text = "".join(NAMED_LAST[name].format(e=e, a=40 + e, l=3 - e / 2) for e in range(1, count + 1))
    run = read(tmp_path / "log.txt", text)
    assert [(r.epoch, r.test_metric, r.train_loss) for r in run.epochs] == [
        (e, 40 + e, 3 - e / 2) for e in range(1, count + 1)
    ]
    assert any("names each epoch in a line behind its values" in note for note in run.notes)


def test_epochs_that_are_said_to_be_over_are_named_behind_their_values(tmp_path):
    text = "".join(f"val acc 4{e}\nepoch {e} finished\n" for e in (1, 2, 3))
    assert values(read(tmp_path / "log.txt", text, CONSTANT)) == [41, 42, 43]


@pytest.mark.parametrize("start", ["val acc 10\n", "train acc 12, val acc 10\n"])
def test_a_test_before_training_is_of_no_epoch(tmp_path, start):
    lines = "".join(f"Epoch {e} train loss {3 - e} val acc 4{e} lr 0.1\n" for e in (1, 2, 3))
    assert values(read(tmp_path / "log.txt", start + lines)) == [41, 42, 43]
    blocks = "".join(f"Epoch {e} lr 0.1\ntrain loss 2\nval acc 4{e}\n" for e in (1, 2, 3))
    assert values(read(tmp_path / "log.txt", start + blocks)) == [41, 42, 43]
    killed = read(tmp_path / "log.txt", "val acc 10\n" + blocks + "Epoch 4 lr 0.1\n")
    assert values(killed)[:3] == [41, 42, 43]


def test_lists_by_their_plurals(tmp_path):
    columns = {"train_losses": [2, 1], "val_accs": [40, 50], "lrs": [0.1, 0.01]}
    for names in (columns, {"train_accuracies": [60, 70], "test_accuracies": [40, 50], **columns}):
        run = read(tmp_path / "log.json", json.dumps(names))
        assert [(r.test_metric, r.lr, r.train_loss) for r in run.epochs] == [
            (40, 0.1, 2),
            (50, 0.01, 1),
        ]
