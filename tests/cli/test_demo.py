"""The end of the demo, on a network that was never trained; `make demo` runs the whole of it."""

from __future__ import annotations

import re

import pytest
import torch
from diagnoses import diagnosis

from trainscope.cli import demo
from trainscope.networks import Network, Remembered, build, save_checkpoint
from trainscope.records import Kind, Run, RunStatus

pytestmark = pytest.mark.usefixtures("few_digits")


def test_the_demo_ends_with_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "RETRAINING", ("F2,1e-2", "F2,1e-3"))
    monkeypatch.setattr(demo, "SEEDS", 1)
    monkeypatch.setattr(demo, "MOST_WORKERS", 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build(demo.ARCHITECTURE, 10).eval()
    remembered = Remembered("digits", demo.SCHEDULE, demo.EPOCHS, 0, 10.0)
    network = Network(module, demo.ARCHITECTURE, (1, 8, 8), 10, remembered=remembered)
    save_checkpoint(tmp_path / "checkpoint.pt", network)
    comparison, page = demo.retrain(tmp_path / "checkpoint.pt", diagnosis(), tmp_path, seed=0)
    assert [item.label for item in comparison.groups] == ["LR 1e-2", "LR 1e-3"]
    text = page.read_text(encoding="utf-8")
    for item in comparison.groups:
        assert f"{item.mean:.2f}" in text
    assert re.search(r"After 2 epochs the learning rate", comparison.verdict()[0])
    assert len(list((tmp_path / "runs").rglob("run.json"))) == 2


def test_a_demo_that_is_stopped_begins_no_other_run(tmp_path, monkeypatch):
    network = Network(build(demo.ARCHITECTURE, 10).eval(), demo.ARCHITECTURE, (1, 8, 8), 10)
    save_checkpoint(tmp_path / "checkpoint.pt", network)
    begun = []

    def stopped(job, folder, **_):
        begun.append(folder)
        return Run(Kind.RETRAIN, (), status=RunStatus.INTERRUPTED)

    monkeypatch.setattr("trainscope.studies.executing.run_job", stopped)
    monkeypatch.setattr(demo, "MOST_WORKERS", 1)
    with pytest.raises(KeyboardInterrupt):
        demo.retrain(tmp_path / "checkpoint.pt", diagnosis(), tmp_path, seed=0)
    assert len(begun) == 1
