from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import (
    LARGE,
    OTHER_BASE,
    SETTINGS,
    SMALL,
    SMALL_LONGER,
    five_settings,
    run,
    seeds,
)

from trainscope.comparison.commands import retrain_line
from trainscope.comparison.facts import schedule_of
from trainscope.comparison.setting_identity import extra_epochs
from trainscope.comparison.settings import group, natural, shared_first_stage
from trainscope.records import Kind, RunStatus
from trainscope.training.schedule import constant, parse_schedule
from trainscope.training.shapes import cosine, warm_up


def labels(runs):
    return [item.label for item in group(runs)]


def test_seeds_form_one_setting_with_the_sample_deviation():
    (found,) = group(seeds(3))
    assert [held.seed for held in found.runs] == [0, 1, 2]
    finals = [held.final_accuracy for held in found.runs]
    mean = sum(finals) / 3
    assert found.mean == pytest.approx(mean)
    assert found.spread == pytest.approx((sum((x - mean) ** 2 for x in finals) / 2) ** 0.5)


def test_labels_say_only_what_tells_settings_apart():
    found = ["LR 1e-1", "LR 1e-2", "LR 1e-3", "LR 1e-3 (+60)", "LR 1e-4"]
    assert labels(five_settings()) == found
    assert labels([run(criterion="l1"), run(criterion="l2")]) == ["l1", "l2"]
    assert labels([run(ratio=0.5), run(ratio=0.9)]) == ["ratio 0.5", "ratio 0.9"]
    other = replace(run(), settings={**run().settings, "weight_decay": 0.1})
    assert labels([run(), other]) == ["weight decay 0.0005", "weight decay 0.1"]


def test_labels_are_never_shared():
    runs = [run("0:1e-2,5:1e-3"), run("0:1e-2,6:1e-3"), run("0:1e-2", 30), run("0:1e-3", 30)]
    assert len(set(labels(runs))) == 4


def test_schedules_that_change_every_epoch_are_named_by_their_ends():
    made = [run(), run(str(cosine(1e-2, 20))), run(str(warm_up(constant(1e-2, 15), 5)))]
    assert labels(made) == [
        *("LR 1e-2 → 1e-4, 20 epochs", "LR 1e-2 → 6.2e-5, 20 epochs"),
        "LR 1.7e-3 → 1e-2, 20 epochs",
    ]
    assert shared_first_stage(group(made)) == 10


def test_a_dense_network_needs_no_pruning_in_its_name():
    dense = run("0:1e-1", 50, kind=Kind.TRAIN, pruning=None, pretraining=None)
    assert labels([dense, run(), run(SMALL)]) == ["dense · LR 1e-1", "LR 1e-2", "LR 1e-3"]


def test_the_same_run_twice_is_counted_once():
    (found,) = group([run(), run()])
    assert len(found.runs) == 1


def test_interrupted_runs_stand_apart():
    cut = replace(run(seed=1), status=RunStatus.INTERRUPTED, epochs=run(seed=1).epochs[:5])
    assert len(group([run(), cut])) == 2


def test_base_models_are_split_only_where_one_seed_has_several():
    assert len(group([run(seed=0), run(seed=1, base=OTHER_BASE)])) == 1
    assert len(group([run(seed=0), run(seed=0, base=OTHER_BASE)])) == 2


@pytest.mark.parametrize(
    ("longer", "total", "expected"),
    [
        (SMALL_LONGER, 80, 60),
        (SMALL, 20, None),
        ("0:1e-3,70:1e-4,85:1e-5", 90, None),
        (LARGE.replace("10", "70").replace("15", "75"), 80, None),
    ],
)
def test_a_lengthened_first_stage_is_recognised(longer, total, expected):
    assert extra_epochs(parse_schedule(longer, total), parse_schedule(SMALL, 20)) == expected


def test_ta_is_the_mean_over_the_epochs_asked_for():
    made = run()
    (found,) = group([made])
    expected = sum(record.test_accuracy for record in made.epochs[:4]) / 4
    mean, spread = found.ta(4)
    assert mean == pytest.approx(expected)
    assert spread is None


def test_rows_are_called_by_their_methods_where_schedules_are_not_known():
    def row(criterion, speedup):
        made = replace(run(criterion=criterion), schedule="?", epochs=())
        pruning = replace(made.pruning, criterion=criterion, ratio=None, speedup=speedup)
        return replace(made, pruning=pruning)

    assert labels([row("A", 2.0), row("B", 2.1)]) == ["A", "B"]
    assert labels([row("A", 2.0), row("A", 2.5), row("B", 2.0)]) == [
        "A · 2.00×",
        "B · 2.00×",
        "A · 2.50×",
    ]
    assert labels([row("A", 2.0), row("A", 2.5)]) == ["2.00×", "2.50×"]


def test_a_rate_of_zero_in_a_log_is_a_known_schedule():
    plain = run("0:1e-2,18:1e-3,19:1e-4", 20)
    rates = [0.0] + [record.lr for record in plain.epochs[1:-1]] + [0.0]
    epochs = tuple(replace(record, lr=lr) for record, lr in zip(plain.epochs, rates, strict=True))
    told = "0:0,1:1e-2,18:1e-3,19:0"
    for schedule in (told, None):
        found = schedule_of(replace(plain, epochs=epochs, schedule=schedule))
        assert found is not None
        assert str(found) == told
        assert found.rates() == rates
        (line,) = retrain_line(plain, found, plain)
        assert "trainscope" not in line  # it would refuse to train so
        assert told in line
    (line,) = retrain_line(plain, schedule_of(plain), plain)
    assert line.startswith("trainscope retrain")


def test_settings_are_in_the_order_of_their_numbers():
    sizes = (16, 2, 128, 1024)
    made = [run(settings=SETTINGS | {"batch_size": size}) for size in sizes]
    assert labels(made) == [f"batch size {size}" for size in sorted(sizes)]
    assert sorted(["x10", "x2", "10", "2", "1e-3", "5e-4", "a"], key=natural) == [
        *("5e-4", "1e-3", "2", "10", "a", "x2", "x10"),
    ]
