"""Training, testing and resuming with every task."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.data import Dataset, ProbeData, given_data
from trainscope.data.halves import MemorySplit
from trainscope.diagnosis.inputs import tried
from trainscope.errors import DataError
from trainscope.networks import Network
from trainscope.probes import TrainabilityAccuracy
from trainscope.records import Run, RunStatus
from trainscope.records.run import Kind
from trainscope.task import (
    Classification,
    FromLoss,
    LanguageModelling,
    Regression,
    Segmentation,
    Task,
)
from trainscope.training.job import Job, check_fit, key_of
from trainscope.training.loop import Settings, evaluate, train
from trainscope.training.runner import Watch, run_job
from trainscope.training.schedule import constant, parse_schedule
from trainscope.training.state import load_state


def contrastive(out: Tensor, _: Tensor) -> Tensor:
    unit = F.normalize(out, dim=1)
    return F.cross_entropy(4 * unit @ unit.T, torch.arange(len(out)))


def absolute(out: Tensor, wanted: Tensor) -> Tensor:
    return (out - wanted).abs().mean()


class Tagger(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(8, 6), nn.GRU(6, 8, batch_first=True)
        self.out = nn.Linear(8, width)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(input_ids))[0])


def prepared(name: str) -> tuple[nn.Module, Any, Task]:
    """Return a network, all samples as one batch, and their task; 66 of them."""
    torch.manual_seed(2)
    x = torch.randn(66, 4)
    ids = (torch.arange(6)[None] * torch.randint(1, 3, (66, 1)) + torch.randint(0, 8, (66, 1))) % 8
    tags = torch.where(ids > 6, -100, ids % 3)
    image = torch.randn(66, 1, 5, 5)
    pixels = torch.where(torch.rand(66, 5, 5) > 0.9, 255, (image[:, 0] > 0).long())
    mlp = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return {
        "regression": (mlp, (x, x[:, :1] * x[:, 1:2]), Regression()),
        "segmentation": (conv, (image, pixels), Segmentation()),
        "tagging": (Tagger(3), (ids, tags), Classification()),
        "language": (Tagger(8), {"input_ids": ids}, LanguageModelling()),
        "own loss": (mlp, (x, x[:, :1]), FromLoss(absolute)),
        "own metric": (mlp, (x, x[:, :1]), FromLoss(F.mse_loss, absolute)),
        "mixing": (nn.Linear(4, 3), (x, x), FromLoss(contrastive)),
    }[name]


NAMES = (
    "regression",
    "segmentation",
    "tagging",
    "language",
    "own loss",
    "own metric",
    "mixing",
)


def halves(batch: Any, task: Task) -> tuple[MemorySplit, MemorySplit]:
    """Return 40 samples to train on and 26 to test on, which no batch size here divides."""
    train_half, test_half = (
        task.select(batch, torch.arange(*places)) for places in ((0, 40), (40, 66))
    )
    return MemorySplit(train_half, task), MemorySplit(test_half, task)


def job_of(name: str, epochs: int = 3) -> Job:
    module, batch, task = prepared(name)
    first, second = halves(batch, task)
    shape = tuple(batch["input_ids"].shape[1:] if isinstance(batch, dict) else batch[0].shape[1:])
    dataset = Dataset("made up", first, second, None, shape, task=task)
    named = Network(module, type(module).__name__, (), None, "the module that was given")
    network, _ = tried(named, dataset)
    schedule = parse_schedule("0:1e-1", epochs)
    return Job(Kind.TRAIN, network, dataset, schedule, Settings(batch_size=16))


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss_and_its_test_is_that_of_evaluate(name: str) -> None:
    module, batch, task = prepared(name)
    first, second = halves(batch, task)
    start = evaluate(module, second, task)
    records = train(
        module, first, second, constant(0.2, 6), Settings(batch_size=16, weight_decay=0), task=task
    )
    assert records[-1].train_loss < records[0].train_loss
    assert records[-1].test_loss < start.loss
    assert task.metric.sign * records[-1].test_metric > task.metric.sign * start.metric
    assert records[-1].metric == task.metric
    found = evaluate(module, second, task)
    assert records[-1].test_metric == found.metric
    if name != "mixing":
        other = evaluate(module, second, task, batch_size=5)
        assert other.metric == pytest.approx(found.metric, rel=1e-6)
        assert other.loss == pytest.approx(found.loss, rel=1e-6)


def test_a_loss_that_mixes_samples_is_tested_in_batches_of_one_size() -> None:
    module, batch, task = prepared("mixing")
    found = evaluate(module, MemorySplit(batch, task), task)
    out = module(batch[0]).detach()
    parts = [float(contrastive(out[:64], out)), float(contrastive(out[64:], out))]
    assert found.loss == pytest.approx((64 * parts[0] + 2 * parts[1]) / 66, rel=1e-5)
    three = MemorySplit(task.select(batch, torch.arange(65)), task)
    assert len(evaluate(module, three, task).parts) == 1


@pytest.mark.parametrize("name", NAMES)
def test_losses_in_bf16_are_near_those_in_full_precision(name: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        module, batch, task = prepared(name)
        first, second = halves(batch, task)
        settings = Settings(batch_size=16, precision=precision)
        record = train(module, first, second, constant(0.05, 1), settings, task=task)[0]
        losses.append(record.train_loss)
        assert all(p.dtype == torch.float32 for p in module.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("name", ["regression", "segmentation", "language", "own metric"])
@pytest.mark.parametrize("asked", [{"epochs": 2}, {"steps": 10}])
def test_trainability_of_any_metric(name: str, asked: dict[str, int]) -> None:
    """Ten steps of 16 samples are more than one pass over 40."""
    module, batch, task = prepared(name)
    first, second = halves(batch, task)
    data = ProbeData("", batch=first.samples, task=task, train=first, test=second)
    settings = Settings(batch_size=16)
    found = TrainabilityAccuracy(lrs=(0.05,), settings=settings, **asked).measure(module, data)
    assert found.status == "ok"
    each = None if "epochs" in asked else 2
    records = train(
        module,
        first,
        second,
        constant(0.05, 2 if each is None else 5),
        settings,
        task=task,
        steps_per_epoch=each,
    )
    expected = [record.test_metric for record in records]
    assert found.arrays["epoch_metrics"] == [expected]
    assert found.value("ta") == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    assert found.scalars["ta"].unit == task.metric.unit
    assert found.arrays["metric"] == [task.metric.name, task.metric.unit, task.metric.better]
    assert found.scalars["ta"].stderr > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_job_that_was_stopped_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = run_job(job_of(name), tmp_path / "whole")
    assert whole.metric == prepared(name)[2].metric
    assert Run.load(tmp_path / "whole") == whole

    def stop(record: Any) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    stopped = run_job(job_of(name), tmp_path / "stopped", watch=Watch(on_epoch=stop))
    assert stopped.status is RunStatus.INTERRUPTED
    state = load_state(tmp_path / "stopped" / "state.pt")
    assert state is not None
    assert state.metric == whole.metric
    resumed = run_job(job_of(name), tmp_path / "stopped")
    assert resumed.status is RunStatus.FINISHED
    assert resumed.end == whole.end
    values = [[(r.train_loss, r.test_metric) for r in run.epochs] for run in (whole, resumed)]
    assert values[0] == values[1]
    assert not any(math.isnan(value) for row in values[0] for value in row)


def test_a_task_is_named_alike_in_another_process() -> None:
    frozen = job_of("own loss").frozen()
    assert "0x" not in json.dumps(frozen)
    job = job_of("own loss")
    other = replace(job.dataset, task=FromLoss(contrastive))
    assert key_of(replace(job, dataset=other).frozen()) != key_of(job.frozen())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Segmentation(), "for labels of shape|the labels are of"),
        (LanguageModelling(), "logits of shape"),
        (FromLoss(lambda out, wanted: out["no"]), "fails: "),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_the_work(task: Task, message: str) -> None:
    job = job_of("regression")
    with pytest.raises(DataError, match=message):
        check_fit(job.network, replace(job.dataset, task=task))


def test_a_pair_of_token_batches_is_no_batch_with_its_labels() -> None:
    ids = torch.arange(24).view(4, 6) % 5
    data = given_data([ids[:2], ids[2:]], task=LanguageModelling())
    assert len(data.test) == 4
    assert torch.equal(data.test.batch(torch.arange(4)), ids)
    pair = given_data((ids[:, :-1], ids[:, 1:]), task=LanguageModelling())
    assert len(pair.test) == 4
    assert isinstance(pair.test.batch(torch.arange(2)), tuple)
