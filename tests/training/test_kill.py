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

KILLS, PAUSE = 6, 0.02


def test_kill_minus_nine_at_random_moments(tmp_path):
    """Each process is killed a random while after it went on, in a step or in a write."""
    whole = small_training.run(tmp_path / "whole")
    epoch = statistics.median(record.seconds for record in whole.epochs) + 3 * PAUSE
    draw, folder = random.Random(0), tmp_path / "killed"
    for kill in range(KILLS):
        started = tmp_path / f"started {kill}"
        process = processes.Process(target=small_training.run, args=(folder, PAUSE, started))
        process.start()
        while process.is_alive() and not started.exists():
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 3 * epoch))
        assert process.is_alive(), "the run is too short to be killed so often"
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
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
