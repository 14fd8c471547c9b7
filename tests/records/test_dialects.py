"""Every dialect of log, imported without naming a column, has the right values.

The logs are a few lines each, made in the form that the tools write.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainscope.errors import RecordError
from trainscope.records.imports import Given, run_from_log
from trainscope.records.metric import LOSS

LOGS = Path(__file__).parent / "logs"

# name: accuracies, learning rates, training losses, test losses
DIALECTS = {
    "torchvision.txt": ([21.774, 33.008], [0.1, 0.05], [5.1, 3.4], None),
    "train_and_val.txt": (
        [55.3, 64.0, 67.1],
        [0.1, 0.1, 0.01],
        [1.52, 1.02, 0.42],
        [1.22, 1.01, 1.11],
    ),
    "lightning": ([40.625, 50, 53.125], [0.1, 0.1, 0.01], [1.15, 0.98, 0.83], [1.03, 0.97, 0.91]),
    "timm": ([1.2, 9.2, 21.5], [1e-5, 0.25, 0.2], [6.9, 5.9, 4.2], [6.8, 5.1, 3.9]),
    "timm.txt": ([21.774, 33.008], [0.1, 0.05], [5.31, 3.51], [3.95, 2.95]),
    "ultralytics": ([50, 62.5, 75], [1e-4, 8e-5, 4e-5], [0.69, 0.61, 0.55], [0.7, 0.66, 0.62]),
    "deit.txt": ([1.2, 9.2], [1e-6, 2e-4], [6.9, 5.9], [6.8, 5.1]),
    "mmpretrain.log.json": ([60.2, 80.7], [0.1, 0.01], [0.64, 0.49], None),
    "mmengine": ([60.2, 80.7], [0.1, 0.01], [1.75, 1.0], None),
    "mmengine.txt": ([60.2, 80.7], [0.1, 0.01], [1.501, 0.901], None),
    "hugging_face": ([50, 62.5, 75], [2.5e-5, 2.5e-5, 0], [1.2, 1.0, 0.8], [1.1, 0.9, 0.7]),
    "hugging_face.txt": ([50, 62.5], [4.5e-5, 2e-5], [1.2, 1.0], [1.1, 0.9]),
    "wandb_history.csv": ([30, 40], [0.1, 0.1], [2.0, 1.7], None),
    "log_finetune.txt": ([88.2, 89.4], [1e-3, 1e-3], [0.21, 0.18], [0.41, 0.39]),
    "keras.txt": ([55.3, 64.3], [0.01, 0.001], [1.5012, 1.1012], [1.201, 1.001]),
    "mnist_example.txt": ([98.34, 98.71], [1.0, 0.7], [1.2, 0.05], [0.0494, 0.0394]),
    "smilelogging.txt": ([61.02, 70.5, 71.33, 77.1], [0.01] * 3 + [0.001], None, None),
    "begun_again.csv": ([30, 40, 60, 61], [0.1, 0.1, 0.01, 0.01], None, None),
    "counted_on.csv": ([60, 61, 62], [0.01, 0.01, 0.001], None, None),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_read_right_by_itself(name):
    accuracies, rates, losses, test_losses = DIALECTS[name]
    run = run_from_log(LOGS / name)
    assert [r.epoch for r in run.epochs] == list(range(1, len(accuracies) + 1))
    assert [r.test_accuracy for r in run.epochs] == pytest.approx(accuracies)
    assert [r.lr for r in run.epochs] == pytest.approx(rates)
    if losses is not None:
        assert [r.train_loss for r in run.epochs] == pytest.approx(losses)
    expected = test_losses or [r.test_loss for r in run.epochs]
    assert [r.test_loss for r in run.epochs] == pytest.approx(expected)
    assert run.notes[0].startswith("Read as ")
    assert "test accuracy from " in run.notes[0]


def test_the_example_of_imagenet_has_no_lr_and_says_what_to_do():
    with pytest.raises(RecordError, match="give the LR schedule with --schedule"):
        run_from_log(LOGS / "imagenet.txt")
    run = run_from_log(LOGS / "imagenet.txt", Given(rates=(0.1, 0.01), schedule="0:1e-1,1:1e-2"))
    assert [r.test_accuracy for r in run.epochs] == [30.024, 40.91]
    assert [r.train_loss for r in run.epochs] == [4.8, 3.1]
    assert [r.lr for r in run.epochs] == [0.1, 0.01]


def test_other_metrics_are_not_taken_for_accuracies_nor_the_loss_of_a_part_for_the_loss():
    said = r"metrics/mAP50\(B\), .* is another metric, to be named with --metric"
    with pytest.raises(RecordError, match=said) as caught:
        run_from_log(LOGS / "ultralytics_detection.csv")
    assert "\n" not in str(caught.value)


def test_a_log_of_losses_alone_is_a_run_told_by_its_loss():
    run = run_from_log(LOGS / "hugging_face_lm")
    assert run.metric == LOSS
    assert [r.test_metric for r in run.epochs] == [r.test_loss for r in run.epochs]
    assert "the metric, loss, from 'eval_loss' (lower is better)" in run.notes[0]
    assert "no test accuracy: its test loss, 'eval_loss', is the metric" in " ".join(run.notes)
    with pytest.raises(RecordError, match="give the LR schedule with --schedule"):
        run_from_log(LOGS / "modded_nanogpt.txt")
    speedrun = run_from_log(LOGS / "modded_nanogpt.txt", Given(rates=(0.1,) * 9))
    assert (speedrun.metric, speedrun.final_metric) == (LOSS, 4.6012)


def test_another_metric_is_taken_where_it_was_asked_for_and_said():
    given = Given(columns={"test_accuracy": "metrics/mAP50(B)"})
    run = run_from_log(LOGS / "ultralytics_detection.csv", given)
    assert run.final_accuracy == pytest.approx(45.67)
    assert any("stands in the place of the test accuracy" in note for note in run.notes)


def test_one_of_several_runs_is_picked_by_its_name():
    with pytest.raises(RecordError, match=r"holds 2 runs, lucky-1, calm-2: say which .* --run"):
        run_from_log(LOGS / "wandb_export.csv")
    run = run_from_log(LOGS / "wandb_export.csv", run="calm-2")
    assert [r.test_accuracy for r in run.epochs] == [35, 45, 50]
    assert run.schedule == "0:1e-2"
    with pytest.raises(RecordError, match="has no run 'x'"):
        run_from_log(LOGS / "wandb_export.csv", run="x")
    with pytest.raises(RecordError, match="has no run 'x'"):
        run_from_log(LOGS / "keras.txt", run="x")


def test_a_training_begun_again_and_epochs_counted_on_are_said():
    again = run_from_log(LOGS / "begun_again.csv")
    assert "after epoch 4 the log goes back to epoch 3" in again.notes[1]
    on = run_from_log(LOGS / "counted_on.csv")
    assert "its epoch 151, where its LR rises" in on.notes[1]
    first = run_from_log(LOGS / "counted_on.csv", Given(first_epoch=152))
    assert [r.test_accuracy for r in first.epochs] == [61, 62]
    assert not any("counted on" in note for note in first.notes)
    whole = run_from_log(LOGS / "counted_on.csv", Given(first_epoch=1))
    assert [r.epoch for r in whole.epochs] == [149, 150, 151, 152, 153]
    start = run_from_log(LOGS / "counted_on.csv", Given(first_epoch=150, untrained_first=True))
    assert (start.start_accuracy, len(start.epochs)) == (70.5, 3)
    with pytest.raises(RecordError, match="--first-epoch 200 is beyond it"):
        run_from_log(LOGS / "counted_on.csv", Given(first_epoch=200))
