"""State, settings and records that are not this run's are refused in a sentence, and stay."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from small_training import pretrained, retraining

from trainscope.errors import CheckpointError, RecordError
from trainscope.training.runner import Watch, run_job
from trainscope.training.state import load_state, save_state
from trainscope.training.stem import pretrain


def stop(after):
    """Press Ctrl-C at the end of an epoch."""

    def on_epoch(record):
        if record.epoch == after:
            raise KeyboardInterrupt

    return Watch(on_epoch=on_epoch)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The bytes of a state after the first of three epochs, and its job."""
    job, folder = retraining("F3,1e-2"), tmp_path_factory.mktemp("stopped") / "run"
    run_job(job, folder, watch=stop(1))
    return job, folder


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


CHANGES = [
    ("epoch", -1),
    ("epoch", "x"),
    ("epoch", 99),
    ("epoch", 10**400),
    ("network", {}),
    ("network", nested(150)),
    ("engine", {}),
    ("start_metric", float("nan")),
    ("records", "[]"),
    ("records", "x" * 100),
    ("measurements", json.dumps(nested(400))),
    ("key", "another"),
    ("digest", "0" * 64),
    ("format", "trainscope.training/1"),
    ("format", nested(5)),
]


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=lambda part: str(part)[:20])
def test_a_state_that_was_changed_is_refused_and_stays(tmp_path, stopped, name, value):
    job, folder = stopped
    (tmp_path / "settings.json").write_bytes((folder / "settings.json").read_bytes())
    good = torch.load(folder / "state.pt", weights_only=True)
    state = tmp_path / "state.pt"
    torch.save({**good, name: value}, state)
    before = state.read_bytes()
    with pytest.raises(CheckpointError, match="remove it to begin again") as told:
        run_job(job, tmp_path)
    assert "\n" not in str(told.value)
    assert state.read_bytes() == before


@pytest.mark.parametrize("what", [b"", b"text", b"PK\x03\x04", None, [1, 2], {"state_dict": {}}])
def test_another_programs_file_by_the_name_of_a_state(tmp_path, stopped, what):
    job, folder = stopped
    (tmp_path / "settings.json").write_bytes((folder / "settings.json").read_bytes())
    if isinstance(what, bytes):
        (tmp_path / "state.pt").write_bytes(what)
    else:
        torch.save(what, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="remove it to begin again"):
        run_job(job, tmp_path)


def test_a_state_of_another_run_is_refused(tmp_path, stopped):
    other = retraining("F3,1e-3")
    run_job(other, tmp_path / "other", watch=stop(1))
    (tmp_path / "other" / "state.pt").write_bytes((stopped[1] / "state.pt").read_bytes())
    with pytest.raises(CheckpointError, match="it is another run's"):
        run_job(other, tmp_path / "other")


def test_a_state_is_read_as_it_was_written(tmp_path, stopped):
    state = load_state(stopped[1] / "state.pt")
    changed = replace(state, start_metric=None, network={"a": torch.zeros(2).bfloat16()})
    save_state(tmp_path / "state.pt", changed)
    again = load_state(tmp_path / "state.pt", state.key)
    assert torch.equal(again.network["a"], changed.network["a"])
    assert (again.records, again.engine.keys()) == (state.records, state.engine.keys())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged"),
        ("[1", "is damaged"),
        ("[]", "another program's"),
        ('{"editor.fontSize": 12}', "another program's"),
        ('{"kind": "retrain", "start": NaN}', "is damaged"),
        ('{"kind": "retrain", "start": 1' + "0" * 5000 + "}", "is damaged"),
        ("[" * 5000 + "]" * 5000, "is damaged"),
        ("[" * 500 + "]" * 500, "is damaged"),
        ('{"kind": "\\ud800", "start": 1}', "holds another run"),
        ('{"kind": [1], "start": {}}', "holds another run"),
        ("\xff", "is damaged"),
    ],
)
def test_settings_that_are_no_runs_are_refused_and_stay(tmp_path, stopped, text, words):
    settings = tmp_path / "settings.json"
    settings.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match=words) as told:
        run_job(stopped[0], tmp_path)
    assert "give another folder" in str(told.value)
    str(told.value).encode()
    assert settings.read_bytes() == text.encode("latin-1")


def test_a_stem_does_not_write_into_epochs_that_another_program_kept(tmp_path):
    kept = tmp_path / "epoch-0002" / "checkpoint.pt"
    kept.parent.mkdir()
    kept.write_text("precious")
    with pytest.raises(RecordError, match="already holds a epoch-0002 that no run of this kind"):
        pretrain(pretrained(), tmp_path, 2)
    assert kept.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002"]


def test_a_run_that_fails_before_an_epoch_leaves_nothing_of_its_own(tmp_path):
    def fail(*_):
        raise MemoryError

    job = retraining("F2,1e-2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    for folder in (tmp_path / "new" / "run", tmp_path / "mine"):
        with pytest.raises(MemoryError):
            run_job(job, folder, watch=Watch(on_step=fail))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "notes.txt"]
