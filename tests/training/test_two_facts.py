"""The two facts of Wang et al. (2023), in recorded Runs: digits, P4F4 at 0.95."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainscope.data import Dataset, TensorSplit, load
from trainscope.networks import open_checkpoint
from trainscope.records import Run
from trainscope.sparsify import Action
from trainscope.training.jobs import retraining_job, run_beside, training_job
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import run_job
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings
from trainscope.training.stem import pretrain

RECIPES = ("P4F4,1e-2", "P4F4,1e-3", "P4F4,1e-4", "P4F4,1e-3(+8)")
MNIST = Path(__file__).parents[3] / "shared/data/mnist"


def retrain(base: Path, data: Dataset, text: str, ratio: float, folder: Path, **settings) -> Run:
    network = open_checkpoint(base)
    job, _ = retraining_job(
        network,
        data,
        Action(ratio=ratio),
        parse_recipe(text).schedule(),
        Settings(**settings),
        pretraining=run_beside(base, network),
    )
    run_job(job, folder)
    return Run.load(folder)


def first(split: TensorSplit, count: int) -> TensorSplit:
    return replace(split, inputs=split.inputs[:count], labels=split.labels[:count])


def test_a_small_lr_ends_lower_at_equal_epochs_and_catches_up_with_more(tmp_path):
    data = load("digits", (1, 8, 8))
    pretraining = parse_schedule("0:1e-1,2:1e-2,3:1e-3", 4)
    stem = training_job("digits_resnet", data, pretraining, Settings())
    base = pretrain(stem, tmp_path / "stem", 4) / "checkpoint.pt"
    few = replace(data, train=first(data.train, 800))
    runs = [retrain(base, few, t, 0.95, tmp_path / t.replace("/", "_")) for t in RECIPES]
    assert len({run.base for run in runs}) == 1
    assert runs[0].pretraining.accuracy > 94  # 98.3 or 96.4, by the order in which threads add up
    assert runs[0].pruning.speedup == pytest.approx(18.75, abs=0.01)
    large, middle, small, longer = (run.final_accuracy for run in runs)
    assert large > middle + 1  # fact 1: at equal epochs the larger LR ends higher
    assert middle > small + 3
    assert longer > middle + (large - middle) / 3  # fact 2: more epochs close the gap
    early = [run.trainability_accuracy(2) for run in runs]
    assert early[0] > early[1] > early[2]
    assert early[1] == early[3]  # the same first two epochs, bit for bit
    assert runs[3].first_stage == 10


def test_lenet_on_mnist(tmp_path):
    if not MNIST.is_dir():
        pytest.skip(f"no MNIST at {MNIST}")
    data = load(f"mnist:{MNIST}", (1, 28, 28))
    assert isinstance(data, Dataset)
    data = replace(data, train=first(data.train, 3000), test=first(data.test, 1000))
    job = training_job("lenet5", data, parse_recipe("F3,5e-2").schedule(), Settings())
    run = run_job(job, tmp_path / "train")
    assert run.final_accuracy > 90
    base = tmp_path / "train" / "checkpoint.pt"
    pruned = retrain(base, data, "F2,1e-2", 0.9, tmp_path / "retrain", batch_size=16)
    assert pruned.start_accuracy < pruned.final_accuracy
    assert pruned.final_accuracy > 75
    assert pruned.pruning.speedup == pytest.approx(2.84, abs=0.01)
