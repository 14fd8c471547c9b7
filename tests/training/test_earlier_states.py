"""A training that an earlier trainscope stopped in is taken up by this one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from small_training import retraining

from trainscope.training import state as states
from trainscope.training.runner import Watch, run_job


def test_a_state_of_accuracies_alone_is_taken_up(tmp_path: Path) -> None:
    def stop(record: object) -> None:
        raise KeyboardInterrupt

    whole = run_job(retraining("F2,1e-2"), tmp_path / "whole")
    run_job(retraining("F2,1e-2"), tmp_path / "run", watch=Watch(on_epoch=stop))
    path = tmp_path / "run" / "state.pt"
    raw = torch.load(path, weights_only=True)
    old = {n: v for n, v in raw.items() if n not in ("metric", "start_metric", "digest")}
    old |= {"format": "trainscope.training/2", "start_accuracy": raw["start_metric"]}
    records = json.loads(raw["records"])
    for record in records:
        record["test_accuracy"] = record.pop("test_metric")
    old["records"] = json.dumps(records)
    torch.save({**old, "digest": states._digest(old)}, path)
    assert states.load_state(path).records[0].test_metric == whole.epochs[0].test_metric
    resumed = run_job(retraining("F2,1e-2"), tmp_path / "run")
    assert resumed.end == whole.end
    assert [r.test_metric for r in resumed.epochs] == [r.test_metric for r in whole.epochs]
    assert resumed.start_metric == whole.start_metric
