"""Killed at any moment, a run goes on and ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time

import small_training
import torch
from forked import processes

from trainscope.records import Run
from trainscope.training.state import load_state

KILLS, PAUSE = 4, 0.02


def kill_often(work, folder, epochs, kills):
    """Kill as many processes that do a work in a folder, each a random while after it went on."""
    epoch = statistics.median(record.seconds for record in epochs) + 3 * PAUSE
    draw = random.Random(0)
    for kill in range(kills):
        started = folder.parent / f"started {kill}"
        process = processes.Process(target=work, args=(folder, PAUSE, started))
        process.start()
        while process.is_alive() and not started.exists():
            time.sleep(0.005)
        while kill == kills - 1 and process.is_alive() and not (folder / "state.pt").exists():
            time.sleep(0.005)  # on a busy machine no earlier one may have got as far as a state
        time.sleep(draw.uniform(0.0, 3 * epoch))
        assert process.is_alive(), "the work is too short to be killed so often"
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL


def test_kill_minus_nine_at_random_moments(tmp_path):
    """Each process is killed a random while after it went on, in a step or in a write."""
    whole = small_training.run(tmp_path / "whole")
    folder = tmp_path / "killed"
    kill_often(small_training.run, folder, whole.epochs, KILLS)
    state = load_state(folder / "state.pt")
    assert state is not None, "no kill left anything to go on from"
    assert 0 < state.epoch < whole.total
    resumed = small_training.run(folder)
    assert small_training.without_seconds(resumed) == small_training.without_seconds(whole)
    assert resumed == Run.load(folder)
    left, right = (
        torch.load(path / "checkpoint.pt", weights_only=True)["state_dict"]
        for path in (tmp_path / "whole", folder)
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint.pt",
        "run.json",
        "settings.json",
    ]


def test_a_pruning_stage_that_was_killed_goes_on_with_its_penalty(tmp_path):
    whole = small_training.prune_over(tmp_path / "whole")
    folder = tmp_path / "killed"
    kill_often(small_training.prune_over, folder, whole.records, 2)
    state = load_state(folder / "state.pt")
    assert state is not None, "no kill left anything to go on from"
    assert 0 < state.epoch < 16
    resumed = small_training.prune_over(folder)
    assert (resumed.done.record, resumed.done.removed) == (whole.done.record, whole.done.removed)
    assert (resumed.events, resumed.flops) == (whole.events, whole.flops)
    left, right = (each.done.module.state_dict() for each in (resumed, whole))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
