"""The Run: exact in JSON, strict in reading, plain in what it works out."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainscope.errors import RecordError
from trainscope.records import (
    ActionRecord,
    EpochRecord,
    Kind,
    LayerChange,
    Measurement,
    Metric,
    Pretraining,
    Pruning,
    Run,
    RunStatus,
    Scalar,
    Taken,
)
from trainscope.records.files import replacing, write_text
from trainscope.records.metric import LOSS
from trainscope.records.notation import write_stages

ACTION = ActionRecord(
    structure="filter",
    scope="inner",
    criterion="l1",
    ratio=0.95,
    parameters=10,
    flops=20,
    speedup=12.06,
    layers=(LayerChange("conv1", 16, 1),),
    meaning="95 % of the filters",
)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
RECORDS = st.lists(
    st.tuples(st.floats(1e-9, 10), NUMBER, NUMBER, st.none() | st.floats(0, 100), NUMBER),
    max_size=6,
)


def run(accuracies=(50.0, 60.0, 70.0, 80.0), lrs=(0.1, 0.1, 0.01, 0.001), **options) -> Run:
    pairs = zip(lrs, accuracies, strict=True)
    epochs = tuple(EpochRecord(e, lr, 1.0, 2.0, a, 0.5) for e, (lr, a) in enumerate(pairs, 1))
    return Run(kind=Kind.RETRAIN, epochs=epochs, **options)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # on a busy machine
@given(RECORDS, st.text(), st.none() | st.integers(0, 2**70))
def test_json_round_trips_exactly(records, text, flops):
    original = Run(
        kind=Kind.SCRATCH_B,
        epochs=tuple(EpochRecord(e, *values) for e, values in enumerate(records, 1)),
        schedule="0:1e-2",
        architecture=text,
        pruning=Pruning.of(ACTION, 60),
        pretraining=Pretraining("0:1e-1", 120, 60, flops, 77.7),
        settings={"optimizer": "sgd", "clip": None},
        flops=flops,
        measurements=(
            Taken(Measurement("gradient", scalars={"norm": Scalar(0.1, "nats", 0.01)}), 7, text),
            Taken(Measurement.skipped("curvature", "why"), 9, "after step", 1.5),
        ),
        status=RunStatus.INTERRUPTED,
        given=("ratio",),
        environment={"torch": "2"},
        notes=(text,),
    )
    assert Run.from_json(original.to_json()) == original
    assert Run.from_json(original.to_json()).to_json() == original.to_json()


def test_a_run_with_nothing_known_round_trips():
    original = Run(kind=Kind.TRAIN, epochs=())
    assert Run.from_json(original.to_json()) == original
    assert original.final_accuracy is original.trainability_accuracy() is None


def test_keys_of_later_versions_do_not_disturb():
    raw = json.loads(run(pruning=Pruning(ratio=0.5)).to_json())
    raw["more"] = raw["epochs"][0]["more"] = raw["pruning"]["more"] = 1
    assert Run.from_json(json.dumps(raw)) == run(pruning=Pruning(ratio=0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("[]", "no Run, which says its schema"),
        ('{"schema": "trainscope.run/3"}', "its schema is 'trainscope.run/3', not"),
        ('{"schema": "trainscope.run/1"}', "incomplete or damaged"),
        ('{"schema": NaN}', "NaN is no JSON number"),
    ],
)
def test_what_is_no_run_is_refused(text, message):
    with pytest.raises(RecordError, match=message):
        Run.from_json(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "finetune"),
        ("status", "fine"),
        ("epochs", [{"epoch": 1}]),
        ("epochs", "x"),
        ("measurements", [3]),
        ("pruning", {"ratio": 1}),
    ],
)
def test_damage_is_one_sentence(key, value):
    raw = run().as_dict()
    raw[key] = value
    with pytest.raises(RecordError, match="incomplete or damaged"):
        Run.from_json(json.dumps(raw))


def test_files(tmp_path):
    original = run()
    original.save(tmp_path / "deep" / "run.json")
    assert Run.load(tmp_path / "deep") == Run.load(tmp_path / "deep" / "run.json") == original
    with pytest.raises(RecordError, match="No such file"):
        Run.load(tmp_path / "none.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match="it is not text"):
        Run.load(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(RecordError, match=r"y\.json: this is no Run"):
        Run.load(tmp_path / "y.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def fail():
        with replacing(path) as part:
            part.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_trainability_accuracy_is_the_mean_over_the_first_stage():
    found = run()
    assert found.first_stage == 2
    assert found.trainability_accuracy() == 55.0
    assert found.trainability_accuracy(3) == 60.0
    assert found.final_accuracy == 80.0
    assert found.lr_time == pytest.approx(0.211)
    assert run(lrs=(0.1,) * 4).first_stage == 4
    assert run(lrs=(0.01, 0.1, 0.1, 0.01)).first_stage == 3


def losses(values=(2.0, 1.0, 0.5, 0.25), lrs=(0.1, 0.1, 0.01, 0.001), metric=LOSS, **options):
    pairs = enumerate(zip(lrs, values, strict=True), 1)
    epochs = tuple(
        EpochRecord(e, lr, 1.0, value, value, 0.5, metric=metric) for e, (lr, value) in pairs
    )
    return Run(kind=Kind.RETRAIN, epochs=epochs, metric=metric, **options)


def test_a_run_holds_any_metric_and_keeps_it_in_json():
    made = losses(start_metric=2.3)
    assert Run.from_json(made.to_json()) == made
    assert (made.final_metric, made.start_metric) == (0.25, 2.3)
    raw = made.as_dict()
    assert raw["metric"] == {"name": "loss", "unit": "", "better": "lower"}
    assert [e["test_metric"] for e in raw["epochs"]] == [2.0, 1.0, 0.5, 0.25]
    assert {e["test_accuracy"] for e in raw["epochs"]} == {None}
    assert "loss 0.2500, finished" in repr(made)


def test_what_is_no_accuracy_is_not_given_as_one():
    made = losses(start_metric=2.3)
    assert made.final_accuracy is made.start_accuracy is None
    assert {record.test_accuracy for record in made.epochs} == {None}
    error = Metric("error", "%", "lower")
    assert losses((50.0, 40.0, 30.0, 20.0), metric=error).final_accuracy is None
    top5 = Metric("top-5 accuracy", "%", "higher")
    assert losses((50.0, 60.0, 70.0, 80.0), metric=top5).final_accuracy == 80.0


def test_trainability_is_the_mean_of_the_metric_and_named_after_it():
    found = losses().trainability()
    assert (found.value, found.epochs, found.metric) == (1.5, 2, LOSS)
    assert found.name == "trainability loss"
    assert str(found) == "1.500, N = 2"
    assert str(losses().trainability(9)).startswith("unknown, N = 9")
    with pytest.raises(RecordError, match="trainability loss is over at least one epoch, not 0"):
        losses().trainability(0)
    assert run().trainability().name == "trainability accuracy"
    assert str(run().trainability()) == "55.00 %, N = 2"


def test_bounds_are_those_of_the_metric():
    assert losses((200.0, 150.0, 120.0, 101.0)).final_metric == 101.0
    with pytest.raises(ValueError, match="error is in percent, 0 to 100, not 101"):
        losses((101.0,) * 4, metric=Metric("error", "%", "lower"))
    with pytest.raises(ValueError, match="accuracy is in percent, 0 to 100, not 101"):
        run(start_metric=101.0)
    with pytest.raises(ValueError, match=r"hold accuracy \(%\), and its metric is loss"):
        replace(run(), metric=LOSS)


def test_runs_of_the_first_schema_are_read_as_accuracies():
    made = run(start_metric=12.0)
    raw = json.loads(made.to_json())
    raw["schema"] = "trainscope.run/1"
    del raw["metric"], raw["start_metric"]
    for record in raw["epochs"]:
        del record["test_metric"]
    assert Run.from_json(json.dumps(raw)) == made
    del raw["epochs"][1]["test_accuracy"]
    with pytest.raises(RecordError, match="incomplete or damaged"):
        Run.from_json(json.dumps(raw))


def test_the_final_accuracy_is_the_last_one_not_the_best():
    assert run((50.0, 90.0, 70.0, None)).final_accuracy == 70.0
    assert run((None,) * 4, start_metric=33.0).final_accuracy == 33.0


def curve(rates, *, accuracies=None, **options) -> Run:
    values = accuracies or [50.0 + e for e in range(len(rates))]
    return run(values, rates, **options)


def test_trainability_accuracy_is_over_exactly_n_epochs_or_unknown_with_the_reason():
    found = run().trainability(3)
    assert (found.value, found.epochs, found.note) == (60.0, 3, "the LR decays within these epochs")
    assert str(found) == "60.00 %, N = 3 (the LR decays within these epochs)"
    short = run().trainability(5)
    assert (short.value, short.epochs) == (None, 5)
    assert short.note == "N is 5 epochs and the run ends with epoch 4: N may be 4 at most"
    gap = run((None, 60.0, 70.0, 80.0))
    assert gap.trainability_accuracy() is None
    assert "known after 1 of the first 2 epochs" in gap.trainability().note
    assert Run(kind=Kind.RETRAIN, epochs=()).trainability(3).note == "no epoch was recorded"
    with pytest.raises(RecordError, match="over at least one epoch"):
        run().trainability_accuracy(0)


def test_gaps_between_recorded_epochs_leave_it_unknown():
    records = [EpochRecord(e, 0.1, None, None, 10.0 * e) for e in (2, 4)]
    found = Run(kind=Kind.RETRAIN, epochs=tuple(records)).trainability()
    assert (found.value, found.epochs) == (None, 4)
    assert "2 of the first 4 epochs" in found.note


@pytest.mark.parametrize("status", [RunStatus.INTERRUPTED, RunStatus.DIVERGED, RunStatus.FINISHED])
def test_a_run_that_ended_within_its_first_stage_has_none(status):
    plan = {"schedule": "0:1e-1,30:1e-2", "total": 45, "status": status}
    found = curve([0.1] * 4, **plan)
    assert found.trainability_accuracy() is None
    assert found.trainability().epochs == 30
    assert "the first LR stage has 30 epochs" in found.trainability().note
    assert found.trainability_accuracy(4) == 51.5


def test_a_warm_up_belongs_to_the_stage_and_is_said():
    found = curve([0.02, 0.06, 0.1, 0.1, 0.01]).trainability()
    assert (found.value, found.epochs) == (51.5, 4)
    assert found.note == "the LR warms up over the first 2 of these epochs"


def test_schedules_without_stages():
    constant = curve([0.1] * 4).trainability()
    assert (constant.value, constant.epochs) == (51.5, 4)
    assert constant.note == "the LR never decays, so N is all epochs"
    cosine = curve([0.1, 0.08, 0.05, 0.02])
    assert cosine.trainability_accuracy() is None
    assert "no first LR stage says N" in cosine.trainability().note
    assert cosine.trainability(4).value == 51.5
    warm = curve([0.05, 0.1, 0.08, 0.05, 0.02])
    assert warm.trainability().epochs is None
    steps = curve([0.1, 0.1, 0.01, 0.001])
    assert steps.trainability().epochs == 2


def test_the_plan_says_where_a_decay_was_between_recorded_epochs():
    pairs = ((1, 0.1), (2, 0.1), (3, 0.1), (5, 0.01))
    epochs = tuple(EpochRecord(e, lr, None, None, 50.0) for e, lr in pairs)
    found = Run(kind=Kind.RETRAIN, epochs=epochs, schedule="0:1e-1,4:1e-2", total=6)
    assert found.trainability().epochs == 4
    assert found.trainability_accuracy() is None
    assert replace(found, schedule=None).trainability_accuracy() == 50.0


def test_lr_time_fills_epochs_that_were_not_logged():
    epochs = (EpochRecord(2, 0.1, None, None, 1.0), EpochRecord(5, 0.01, None, None, 1.0))
    found = Run(kind=Kind.RETRAIN, epochs=epochs)
    assert found.lr_time == pytest.approx(0.23)
    assert write_stages([(r.epoch, r.lr) for r in epochs]) == "0:1e-1,2:1e-2"


def test_impossible_records_cannot_be_made():
    for wrong in (math.nan, math.inf, -1.0, 101.0):
        with pytest.raises(ValueError, match=r"finite|percent"):
            EpochRecord(1, 0.1, None, None, wrong)
    with pytest.raises(ValueError, match="counts from 1"):
        EpochRecord(0, 0.1, None, None, None)
    with pytest.raises(ValueError, match="a learning rate is 0 or more"):
        EpochRecord(1, -0.1, None, None, None)
    record = EpochRecord(1, 0.1, None, None, None)
    with pytest.raises(ValueError, match="ascend"):
        Run(kind=Kind.TRAIN, epochs=(record, record))


def test_a_pruning_knows_its_action():
    pruning = Pruning.of(ACTION, 60)
    assert (pruning.structure, pruning.ratio, pruning.speedup) == ("filter", 0.95, 12.06)
    assert pruning.plan == "one-shot"
    assert (pruning.stage_epochs, pruning.stage_flops) == (0, 0)
    assert Pruning.from_json(pruning.to_json()) == pruning


@pytest.mark.parametrize(("plan", "epochs"), [("one-shot", 0), ("gradual", None), (None, None)])
def test_runs_written_before_the_stage_was_told_are_read(plan, epochs):
    raw = json.loads(run(pruning=Pruning(ratio=0.5, plan=plan)).to_json())
    for name in ("stage_epochs", "stage_schedule", "stage_flops"):
        del raw["pruning"][name]
    read = Run.from_json(json.dumps(raw)).pruning
    assert (read.stage_epochs, read.stage_schedule, read.stage_flops) == (epochs, None, epochs)


@pytest.mark.parametrize(
    "stage", [{"stage_epochs": -1}, {"stage_epochs": 1.5}, {"stage_flops": "9"}]
)
def test_a_stage_of_a_damaged_run_is_refused(stage):
    with pytest.raises(ValueError, match="whole number, 0 or more"):
        Pruning(**stage)
    raw = json.loads(run(pruning=Pruning(ratio=0.5)).to_json())
    raw["pruning"] |= stage
    with pytest.raises(RecordError, match="incomplete or damaged"):
        Run.from_json(json.dumps(raw))


def test_a_run_is_loaded_from_a_path_or_its_name(tmp_path):
    made = run()
    made.save(tmp_path / "run.json")
    assert Run.load(str(tmp_path)) == Run.load(tmp_path / "run.json") == made
    with pytest.raises(RecordError, match=r"no Run can be read from .*none"):
        Run.load(str(tmp_path / "none"))
