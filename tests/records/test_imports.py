"""Each importer on a file written by the real tool, and on what people get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainscope.errors import RecordError
from trainscope.records import Kind, Run
from trainscope.records.imports import Given, recognise, run_from_log
from trainscope.training.shapes import halving

LOGS = Path(__file__).parent / "logs"


def accuracies(run: Run) -> list[float]:
    return [record.test_accuracy for record in run.epochs]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_with_named_columns(tmp_path):
    path = write(
        tmp_path / "log.csv",
        "epoch,lr,train_loss,val_loss,test_acc\n1,1e-2,2.0,1.9,40\n2,1e-3,1.5,nan,60\n",
    )
    run = run_from_log(path)
    first, second = run.epochs
    assert (first.lr, first.train_loss, first.test_loss, first.test_accuracy) == (0.01, 2, 1.9, 40)
    assert second.test_loss is None
    assert run.schedule == "0:1e-2,1:1e-3"
    assert (run.source, run.kind, run.base) == ("csv", Kind.RETRAIN, "unknown")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheets_separators_and_decimal_commas_are_read(tmp_path, separator):
    rows = ["epoch,lr,train_loss,test_acc", "1,1e-2,2.25,40.5", "2,1e-3,1.5,60.0"]
    plain = run_from_log(write(tmp_path / "plain.csv", "\n".join(rows)))
    for name, decimal in (("point.csv", "."), ("comma.log", ",")):
        text = "\n".join(row.replace(",", separator).replace(".", decimal) for row in rows)
        found = run_from_log(write(tmp_path / name, text))
        assert found.epochs == plain.epochs


def test_columns_of_other_names_are_said(tmp_path):
    path = write(tmp_path / "log.csv", "e;x\n")
    path = write(tmp_path / "log.csv", "ep,rate,score\n1,1e-2,0.4\n2,1e-2,0.6\n")
    columns = {"epoch": "ep", "lr": "rate", "test_accuracy": "score"}
    run = run_from_log(path, Given(columns=columns))
    assert accuracies(run) == [40.0, 60.0]
    assert "shares of 1" in run.notes[1]
    assert accuracies(run_from_log(path, Given(columns=columns, percent=True))) == [0.4, 0.6]
    with pytest.raises(RecordError, match="no column 'rat': it has ep, rate, score"):
        run_from_log(path, Given(columns=columns | {"lr": "rat"}))


def test_what_the_log_does_not_say_is_given_and_marked(tmp_path):
    path = write(tmp_path / "log.csv", "epoch,test_acc\n1,40\n2,60\n3,61\n")
    schedule = halving(1e-2, 3)
    with pytest.raises(RecordError, match="give the LR schedule with --schedule"):
        run_from_log(path)
    given = Given(
        schedule=str(schedule),
        total=3,
        rates=tuple(schedule.rates()),
        ratio=0.95,
        speedup=12.06,
        base="torchvision resnet34",
        pruning_epoch=60,
        settings={"optimizer": "sgd"},
    )
    run = run_from_log(path, given)
    assert [record.lr for record in run.epochs] == schedule.rates()
    assert run.given == (
        *("kind", "base", "schedule", "ratio", "speedup", "pruning_epoch", "settings.optimizer"),
    )
    assert (run.pruning.ratio, run.pruning.epoch, run.pretraining.epochs) == (0.95, 60, 60)
    assert run.base == "torchvision resnet34"
    assert Run.from_json(run.to_json()) == run
    with pytest.raises(RecordError, match="has epoch 3, and the LR schedule given ends after 2"):
        run_from_log(path, Given(rates=(0.1, 0.1)))


def test_a_schedule_that_contradicts_the_log_is_noted(tmp_path):
    path = write(tmp_path / "log.csv", "epoch,lr,test_acc\n1,1e-2,40\n")
    run = run_from_log(path, Given(schedule="0:1e-3", total=1, rates=(1e-3,)))
    assert run.epochs[0].lr == 1e-2
    assert "has 0.001 in epoch 1 and the log 0.01" in run.notes[-1]


def test_smilelogging():
    """Written by smilelogging 0.6's own print, with the accuracy line of GReg's main.py."""
    run = run_from_log(LOGS / "smilelogging.txt")
    assert accuracies(run) == [61.02, 70.5, 71.33, 77.1]
    assert [record.lr for record in run.epochs] == [0.01, 0.01, 0.01, 0.001]
    last = run.epochs[-1]
    assert (last.epoch, last.train_loss, last.test_loss) == (4, 0.7012, 0.8931)
    assert "counts epochs from 0" in run.notes[1]


def test_text_in_the_style_of_the_paper(tmp_path):
    path = write(
        tmp_path / "log.txt",
        "some words\nEpoch 1 Acc1 70.1 ... LR 0.01\nEpoch 2 Acc1 71 (Best_Acc1 71 @ Epoch 2)\n"
        "Set lr = 1e-3\nEpoch 3 Acc1 77.1 LR 1e-3 (best Acc1 99 @ Epoch 1)\n",
    )
    run = run_from_log(path)
    assert [(r.epoch, r.test_accuracy, r.lr) for r in run.epochs] == [
        (1, 70.1, 0.01),
        (2, 71.0, 0.01),
        (3, 77.1, 0.001),
    ]


@pytest.mark.filterwarnings("ignore")
def test_lightning_csv_and_tensorboard_agree(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    seen = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 3)

        def training_step(self, batch, _):
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch, _):
            hits = self.net(batch[0]).argmax(1) == batch[1]
            self.log("val_acc", hits.float().mean())

        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                seen.append(float(self.trainer.callback_metrics["val_acc"]))

        def configure_optimizers(self):
            made = torch.optim.SGD(self.parameters(), lr=0.1)
            return [made], [torch.optim.lr_scheduler.MultiStepLR(made, [2])]

    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randint(0, 3, (32,)))
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=[
            CSVLogger(tmp_path, name="csv", version=0),
            TensorBoardLogger(tmp_path, name="tb", version=0),
        ],
        callbacks=[LearningRateMonitor()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    ).fit(Module(), loader, loader)
    from_csv = run_from_log(tmp_path / "csv" / "version_0")
    from_events = run_from_log(tmp_path / "tb" / "version_0")
    assert (from_csv.source, from_events.source) == ("lightning", "tensorboard")
    assert from_csv.epochs == from_events.epochs
    assert accuracies(from_csv) == pytest.approx([100 * value for value in seen[-3:]])
    assert from_csv.schedule == "0:1e-1,2:1e-2"
    assert all(record.train_loss is not None for record in from_csv.epochs)


@pytest.mark.filterwarnings("ignore")
def test_event_files_of_torch(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    for step, (accuracy, lr) in enumerate([(41.0, 1e-2), (62.0, 1e-2), (66.0, 1e-3)]):
        writer.add_scalar("train/lr", lr, step)
        writer.add_scalar("test/accuracy", accuracy, step, new_style=step == 1)
    writer.add_text("note", "is skipped")
    writer.add_histogram("weights", torch.randn(8), 2)
    writer.close()
    run = run_from_log(tmp_path)
    assert accuracies(run) == [41.0, 62.0, 66.0]
    assert run.schedule == "0:1e-2,2:1e-3"
    (file,) = tmp_path.iterdir()
    cut = tmp_path / "cut.tfevents.1"
    cut.write_bytes(file.read_bytes()[:-5])
    assert len(run_from_log(cut).epochs) == 3
    cut.write_bytes(b"\0" * 100)
    with pytest.raises(RecordError, match="no event file"):
        run_from_log(cut)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 3)

        def forward(self, x, labels):
            logits = self.net(x)
            loss = torch.nn.functional.cross_entropy(logits, labels)
            return SequenceClassifierOutput(loss, logits)

    torch.manual_seed(0)
    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 3)} for i in range(24)]
    trainer = transformers.Trainer(
        model=Model(),
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=3,
            per_device_train_batch_size=8,
            eval_strategy="epoch",
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(-1) == p.label_ids).mean()},
    )
    trainer.train()
    trainer.save_state()
    run = run_from_log(tmp_path)
    history = trainer.state.log_history
    expected = [100 * entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]
    assert accuracies(run) == pytest.approx(expected)
    assert [record.epoch for record in run.epochs] == [1, 2, 3]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert run.epochs[0].train_loss == pytest.approx(sum(losses[:3]) / 3)
    assert run.source == "hugging face"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "epoch,lr,train_loss\n1,1e-2,2\n", "no test accuracy .* --column test_accuracy="),
        ("a.csv", "epoch,lr,test_acc\n", "a row an epoch"),
        ("a.csv", "epoch,lr,test_acc\n1:5,1e-2,40\n", "line 2: '1:5' is no epoch"),
        ("a.csv", "epoch,lr,test_acc\none,1e-2,40\n", "line 2: 'one' is no epoch"),
        ("a.csv", "epoch,lr,test_acc\n1,1e-2,nan\n", "no epoch with a test accuracy"),
        ("a.csv", "epoch,lr,test_acc\n1,1e-2,140\n", "epoch 1: accuracy is in percent"),
        ("a.csv", "epoch,lr,test_acc\n1,1e-2,-1\n2,1e-2,50\n", "epoch 1: accuracy is in percent"),
        ("a.csv", "epoch,lr,acc,acc\n1,1e-2,40,0\n", "has the column 'acc' 2 times"),
        ("a.csv", "", "is empty"),
        ("a.json", '{"best_metric": 1}', "it has no log_history"),
        ("a.json", '{"schema": "trainscope.run/1"}', "record of trainscope's own .* already"),
        ("a.json", '{"log_history": [{"epoch": 1, "loss": 2}]}', "no test accuracy"),
        ("a.txt", "nothing to see\n", "no test accuracy"),
        ("a.txt", "Epoch 3 loss 2.0 lr 0.1\n", "no test accuracy .* it has epoch, loss, lr"),
    ],
)
def test_logs_that_will_not_do_are_one_sentence(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(RecordError, match=message) as caught:
        run_from_log(path)
    assert "\n" not in str(caught.value)


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "x.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(RecordError, match="no text log"):
        run_from_log(tmp_path / "x.txt")
    with pytest.raises(RecordError, match="No such file"):
        run_from_log(tmp_path / "none.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="holds no event file"):
        run_from_log(tmp_path / "folder")


def test_formats_are_recognised(tmp_path):
    assert recognise(write(tmp_path / "a.log", "epoch,lr,acc\n1,2,3\n")) == "csv"
    assert recognise(write(tmp_path / "a.txt", "Epoch 1, Acc1 3\n")) == "text"
    assert recognise(write(tmp_path / "trainer_state.json", json.dumps({}))) == "json"


def test_epoch_zero_may_be_the_network_before_the_first_step(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("epoch,lr,accuracy,loss\n0,0.1,9.8,2.3\n1,0.1,50,1.5\n2,0.1,60,1.2\n")
    plain = run_from_log(log)
    assert [record.epoch for record in plain.epochs] == [1, 2, 3]
    assert plain.start_accuracy is None
    started = run_from_log(log, Given(untrained_first=True))
    assert [record.epoch for record in started.epochs] == [1, 2]
    assert started.start_accuracy == 9.8
    assert not any("from 0" in note for note in started.notes)
    assert "untrained_first" not in started.given
    log.write_text("epoch,lr,accuracy\n1,0.1,50\n2,0.1,60\n")
    with pytest.raises(RecordError, match="has no epoch 0 before others"):
        run_from_log(log, Given(untrained_first=True))
