"""Runs in folders: named by their settings, resumed, never mixed, never half-written."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import small_training
import torch
from small_training import few_digits, pretrained, retraining, without_seconds

from trainscope.errors import CheckpointError, DataError, RecordError
from trainscope.networks import digest, flops, open_checkpoint
from trainscope.records import Run, RunStatus
from trainscope.training.job import difference, key_of
from trainscope.training.runner import Watch, run_job
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings
from trainscope.training.state import load_state, save_state
from trainscope.training.stem import pretrain
from trainscope.training.stepper import Stepper


def interrupting(after: int) -> Watch:
    """Press Ctrl-C after a number of steps."""
    steps = 0

    def on_step(*_):
        nonlocal steps
        steps += 1
        if steps == after:
            raise KeyboardInterrupt

    return Watch((small_training.hook(),), on_step=on_step)


def test_a_run_leaves_a_checkpoint_that_remembers_and_a_record(tmp_path):
    job = retraining("F3,1e-2")
    run = run_job(job, tmp_path / "run")
    assert run == Run.load(tmp_path / "run")
    assert Run.from_json(run.to_json()) == run
    network = open_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert digest(network.module) == run.end
    assert digest(job.network.module) == run.start
    left = network.remembered
    assert (left.data, left.schedule, left.epochs, left.seed) == ("digits", "0:1e-2,2:1e-3", 3, 0)
    assert left.accuracy == run.final_accuracy
    cost = flops(network.module, (1, 8, 8))
    assert (run.flops_per_sample, run.flops) == (cost, 3 * cost * 96 * 3)
    assert run.settings["momentum"] == 0.9
    assert run.pruning.structure == "unstructured"
    assert run.pruning.action.ratio == 0.8
    assert [record.epoch for record in run.epochs] == [1, 2, 3]
    assert not (tmp_path / "run" / "state.pt").exists()


def test_the_network_of_a_job_is_not_touched(tmp_path):
    job = retraining("F1,1e-2")
    before = digest(job.network.module)
    run_job(job, tmp_path / "run")
    assert digest(job.network.module) == before


def test_ctrl_c_keeps_what_was_done_and_the_same_job_goes_on(tmp_path):
    job = retraining("F5,1e-2", clip=1.0)
    whole = run_job(job, tmp_path / "whole", watch=Watch((small_training.hook(),)))
    stopped = run_job(job, tmp_path / "part", watch=interrupting(after=8))  # in epoch 3
    assert stopped.status is RunStatus.INTERRUPTED
    assert [record.epoch for record in stopped.epochs] == [1, 2]
    kept = open_checkpoint(tmp_path / "part" / "checkpoint.pt")
    assert digest(kept.module) == stopped.end
    resumed = run_job(job, tmp_path / "part", watch=Watch((small_training.hook(),)))
    assert without_seconds(resumed) == without_seconds(whole)
    assert resumed.status is RunStatus.FINISHED
    moments = {(t.measurement.probe, t.moment) for t in resumed.measurements}
    assert moments == {
        ("gradient", "after step"),
        ("step_gradient", "before clipping"),
        ("step_gradient", "after clipping"),
    }
    steps = [s for t in resumed.measurements for s in t.measurement.arrays.get("steps", [])]
    assert sorted(steps) == sorted([*range(1, 16)] * 2)


def test_ctrl_c_before_the_first_epoch_is_over(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_job(retraining(), tmp_path / "run", watch=interrupting(after=1))
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_done_is_not_repeated(tmp_path):
    job = retraining("F1,1e-2")
    run = run_job(job, tmp_path / "run")

    def again(*_):
        raise AssertionError("trained again")

    assert run_job(job, tmp_path / "run", watch=Watch(on_step=again)) == run


def test_another_setting_is_another_run(tmp_path):
    job = retraining("F2,1e-2")
    run_job(job, tmp_path / "run")
    others = {
        "the schedule is 0:1e-2,1:1e-3 there and 0:1e-3,1:1e-4 here": retraining("F2,1e-3"),
        "the momentum is 0.9 there and 0.5 here": retraining("F2,1e-2", momentum=0.5),
        "the seed is 0 there and 1 here": retraining("F2,1e-2", seed=1),
        "the measured on the way differ": replace(job, watched={"gradient": "every epoch"}),
        "the weights it starts from differ": replace(job, network=pretrained(seed=5).network),
    }
    keys = {key_of(job.frozen())}
    for words, other in others.items():
        keys.add(key_of(other.frozen()))
        with pytest.raises(RecordError, match=words):
            run_job(other, tmp_path / "run")
    assert len(keys) == 6
    assert difference(job.frozen(), retraining("F2,1e-2").frozen()) is None


def test_folders_that_hold_something_else_are_refused(tmp_path):
    job = retraining("F1,1e-2")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordError, match="is a file"):
        run_job(job, tmp_path / "file")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "checkpoint.pt").write_text("x")
    with pytest.raises(RecordError, match=r"already holds a checkpoint\.pt"):
        run_job(job, tmp_path / "taken")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "settings.json").write_text("[1")
    with pytest.raises(RecordError, match="is damaged"):
        run_job(job, tmp_path / "broken")


def test_a_damaged_state_is_said_to_be_one(tmp_path):
    job = retraining("F3,1e-2")
    run_job(job, tmp_path / "run", watch=interrupting(after=5))
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="remove it to begin again"):
        run_job(job, tmp_path / "run")


def test_a_write_that_was_killed_leaves_nothing_behind_and_other_files_stay(tmp_path, monkeypatch):
    job, folder = retraining("F2,1e-2"), tmp_path / "run"
    others = (".movie.mkv.part", ".state.pt.abc.part", "sub/.state.pt.1234.part", ".x.parts/a")
    for name in others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")

    def kill(*_):
        raise Crash

    with monkeypatch.context() as patch:  # nothing tidies up after a kill
        patch.setattr(os, "replace", kill)
        patch.setattr(os, "unlink", kill)
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(Crash):
            run_job(job, folder)
    assert len(list(folder.iterdir())) == 5
    run_job(job, folder)
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert kept == {*others, "checkpoint.pt", "run.json", "settings.json"}
    assert all((folder / name).read_text() == "precious" for name in others)


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_before_or_after_every_rename(tmp_path, monkeypatch, after):
    """Files change by renaming alone, so these are all the states that a disk can be left in."""
    job = retraining("F2,1e-2")
    whole = run_job(job, tmp_path / "whole")
    replace_file, crashes = os.replace, 0
    for crash_at in range(20):
        calls = 0

        def rename(old, new, crash_at=crash_at):
            nonlocal calls
            calls += 1
            if calls == crash_at + 1 and not after:
                raise Crash
            replace_file(old, new)
            if calls == crash_at + 1:
                raise Crash

        folder = tmp_path / f"crash {crash_at}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", rename)
            try:
                run_job(job, folder)
                break
            except Crash:
                crashes += 1
        resumed = run_job(job, folder)
        assert without_seconds(resumed) == without_seconds(whole)
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["checkpoint.pt", "run.json", "settings.json"]
    assert crashes >= 4  # settings, two states, the record (the checkpoint renames by itself)


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no file locks")
    job = retraining("F1,1e-2")

    def again(*_):
        with pytest.raises(RecordError, match="another process is at work"):
            run_job(job, tmp_path / "run")

    run = run_job(job, tmp_path / "run", watch=Watch(on_step=again))
    assert run_job(job, tmp_path / "run") == run


def test_killed_between_the_last_two_steps(tmp_path):
    """run.json is there and the state still is: the run is done, and the state goes."""
    job = retraining("F2,1e-2")
    run_job(job, tmp_path / "run", watch=interrupting(after=4))
    shutil.copy(tmp_path / "run" / "state.pt", tmp_path / "state.pt")
    run = run_job(job, tmp_path / "run")
    shutil.copy(tmp_path / "state.pt", tmp_path / "run" / "state.pt")
    assert run_job(job, tmp_path / "run") == run
    assert not (tmp_path / "run" / "state.pt").exists()


def test_divergence_is_recorded_without_a_checkpoint(tmp_path):
    job = retraining("F2,1e3", momentum=0.99)
    with torch.no_grad():
        job.network.module.linear.weight.mul_(1e30)
    run = run_job(job, tmp_path / "run")
    assert run.status is RunStatus.DIVERGED
    assert "diverged in epoch 1" in run.notes[-1]
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert run_job(job, tmp_path / "run") == run
    json.loads((tmp_path / "run" / "run.json").read_text())


@pytest.fixture
def third_step_ruins(monkeypatch):
    """Make the weights NaN in the third step, of which the loss is still finite."""
    step, done = Stepper.step, []

    def ruining(stepper, *given):
        loss = step(stepper, *given)
        done.append(loss)
        if len(done) == 3:
            with torch.no_grad():
                stepper.weight.fill_(torch.nan)
        return loss

    monkeypatch.setattr(Stepper, "step", ruining)


@pytest.mark.usefixtures("third_step_ruins")
def test_weights_that_are_no_numbers_after_the_very_last_step_have_diverged(tmp_path):
    run = run_job(retraining("F1,1e-2"), tmp_path / "run")  # three steps
    assert run.epochs[-1].train_loss is not None
    assert run.status is RunStatus.DIVERGED
    assert run.notes[-1] == "Training diverged in epoch 1."
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["run.json", "settings.json"]


def test_no_checkpoint_of_an_earlier_call_outlives_divergence(tmp_path):
    job = retraining("F3,1e-2")
    run_job(job, tmp_path / "run", watch=interrupting(after=4))  # in epoch 2
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    state = load_state(tmp_path / "run" / "state.pt")
    broken = {name: value.clone() for name, value in state.network.items()}
    broken["linear.weight"][0, 0] = torch.nan
    save_state(tmp_path / "run" / "state.pt", replace(state, network=broken))
    stopped = run_job(job, tmp_path / "run", watch=interrupting(after=4))
    assert stopped.status is RunStatus.INTERRUPTED
    assert "diverged" in stopped.notes[-1]
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert run_job(job, tmp_path / "run").status is RunStatus.DIVERGED


@pytest.mark.usefixtures("third_step_ruins")
def test_a_pretraining_that_diverged_is_nothing_to_prune(tmp_path):
    job = pretrained(batch_size=32)
    for _ in range(2):  # as it happens, and as it is found
        with pytest.raises(RecordError, match="diverged, so that there is no network to prune"):
            pretrain(job, tmp_path / "stem", 1)


def test_data_that_does_not_fit(tmp_path):
    job = retraining("F1,1e-2")
    data = few_digits()
    with pytest.raises(DataError, match="12 classes and digits_resnet tells 10 apart"):
        run_job(replace(job, dataset=replace(data, num_classes=12)), tmp_path / "a")
    with pytest.raises(DataError, match="no training half"):
        run_job(replace(job, dataset=replace(data, train=None)), tmp_path / "b")
    large = replace(data, input_shape=(1, 28, 28))
    with pytest.raises(DataError, match="has inputs 1x28x28 and digits_resnet takes 1x8x8"):
        run_job(replace(job, dataset=large), tmp_path / "d")
    wide = replace(data.test, inputs=data.test.inputs.repeat(1, 3, 1, 1))
    with pytest.raises(DataError, match="does not take the inputs 3x8x8 of digits"):
        run_job(replace(job, dataset=replace(data, test=wide)), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_state_holds_plain_types_only(tmp_path):
    job = replace(retraining("F3,1e-2"), settings=Settings(optimizer="adamw", precision="fp16"))
    run_job(job, tmp_path / "run", watch=interrupting(after=5))
    state = load_state(tmp_path / "run" / "state.pt")
    assert state.epoch == 2
    assert parse_schedule(str(job.schedule), 3) == job.schedule
