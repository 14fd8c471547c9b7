"""TensorBoard's folders: a curve a folder, a run a folder, a training that was begun again."""

from __future__ import annotations

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import run_from_log

pytestmark = [pytest.mark.filterwarnings("ignore")]
pytest.importorskip("tensorboard", reason="tensorboard is not installed")


def write(folder, tags, name=""):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), filename_suffix=name)
    for tag, pairs in tags.items():
        for step, value in pairs:
            writer.add_scalar(tag, value, step)
    writer.close()


def accuracies(folder, **options):
    run = run_from_log(folder, **options)
    return [(r.epoch, r.test_accuracy) for r in run.epochs]


def test_add_scalars_writes_a_folder_a_curve(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    for step in (1, 2):
        writer.add_scalars("top/acc", {"train": 90 + step, "val": 50 + step}, step)
        writer.add_scalar("lr", 0.1, step)
    writer.close()
    assert accuracies(tmp_path) == [(1, 51), (2, 52)]


def test_folders_of_training_and_validation_are_one_run(tmp_path):
    write(tmp_path / "train", {"epoch_accuracy": [(0, 0.9)], "epoch_learning_rate": [(0, 0.1)]})
    write(tmp_path / "validation", {"epoch_accuracy": [(0, 0.5)]})
    assert accuracies(tmp_path) == [(1, 50)]


def test_each_folder_is_a_run(tmp_path):
    for seed in (0, 1):
        pairs = [(step, 50.0 + step + 10 * seed) for step in (1, 2)]
        write(tmp_path / f"seed{seed}", {"val/acc": pairs, "lr": [(1, 0.1)]})
    with pytest.raises(RecordError, match="holds 2 runs, seed0, seed1: say which one with --run"):
        run_from_log(tmp_path)
    assert accuracies(tmp_path, run="seed1") == [(1, 61), (2, 62)]


def test_a_training_begun_again_in_the_same_folder_is_cut(tmp_path):
    steps = range(1, 6)
    write(tmp_path, {"val/acc": [(s, 10.0 * s) for s in steps], "lr": [(s, 0.1) for s in steps]})
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.1000000000.a")
    write(tmp_path, {"val/acc": [(3, 33.0), (4, 44.0)], "lr": [(3, 0.01), (4, 0.01)]})
    assert accuracies(tmp_path) == [(1, 10), (2, 20), (3, 33), (4, 44)]
    run = run_from_log(tmp_path)
    assert [r.lr for r in run.epochs] == [0.1, 0.1, 0.01, 0.01]
    assert any("begun again: from step 3" in note for note in run.notes)


def test_steps_of_the_training_loss_are_averaged_over_the_epoch(tmp_path):
    losses = [(step, float(step)) for step in range(1, 9)]
    tags = {"val/acc": [(4, 50.0), (8, 60.0)], "train/loss": losses, "lr": [(1, 0.1)]}
    write(tmp_path, tags)
    run = run_from_log(tmp_path)
    assert [(r.epoch, r.train_loss) for r in run.epochs] == [(1, 2.5), (2, 6.5)]
    assert any("does not say its epochs" in note for note in run.notes)


def test_a_flipped_bit_is_noticed(tmp_path):
    write(tmp_path, {"val/acc": [(1, 50.0)], "lr": [(1, 0.1)]})
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-6] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(RecordError, match="checksum is wrong"):
        run_from_log(tmp_path)


def test_a_test_at_step_0_and_scalars_without_steps(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="no tensorboard")

    def written(name, steps):
        writer = tensorboard.SummaryWriter(str(tmp_path / name))
        for place, step in enumerate(steps):
            writer.add_scalar("val/acc", 40.0 + place, step)
            writer.add_scalar("lr", 0.1, step)
        writer.close()
        return run_from_log(tmp_path / name)

    started = written("steps", (0, 391, 782))
    assert started.start_metric == 40
    assert [(r.epoch, r.test_metric) for r in started.epochs] == [(1, 41), (2, 42)]
    epochs = written("epochs", (0, 5, 10))
    assert [r.test_metric for r in epochs.epochs] == [40, 41, 42]
    without = written("without", (None, None, None))
    assert [(r.epoch, r.test_metric) for r in without.epochs] == [(1, 40), (2, 41), (3, 42)]
