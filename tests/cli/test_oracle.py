"""`trainscope oracle` and `correlate`: from a checkpoint to the figures, and on after a kill."""

from __future__ import annotations

import csv
import json
import time

import pytest
import torch
from click.testing import CliRunner
from forked import processes
from small_studies import network

from trainscope.cli.main import main
from trainscope.networks import Network, Remembered, save_checkpoint
from trainscope.records import Run

MODEL = "small_studies:network"
ASKED = ("--layer", "0", "--keep", "2", "--candidates", "3", "--train-samples", "100")
TRAINED = ("--recipe", "F1,1e-2", "--batch-size", "512", "--no-augment")


def run(*args):
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    made = Network(network().eval(), MODEL, (1, 8, 8), 10, remembered=Remembered("digits"))
    path = tmp_path / "net.pt"
    save_checkpoint(path, made)
    return path


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_candidates_are_tried_retrained_and_correlated(checkpoint, tmp_path):
    out = tmp_path / "out"
    given = ("oracle", checkpoint, "--model", MODEL, *ASKED, *TRAINED, "--retrain", 2)
    given += ("--output", out)
    said = run(*given)
    assert said.exit_code == 0, said.output
    assert "3 of 28 combinations tried (approximate, drawn at random)" in said.output
    assert "oracle: 6 runs: 6 finished" in said.output
    assert "Ceiling" in said.output or "ceiling" in said.output
    rows = table(out / "results.csv")
    assert len(rows) == 6
    assert len({row["candidate"] for row in rows}) == 3
    search = json.loads((out / "oracle.json").read_text())
    losses = {f"0:{','.join(map(str, t['kept']['0']))}": t["loss"] for t in search["trials"]}
    assert {row["candidate"]: float(row["oracle_loss"]) for row in rows} == pytest.approx(losses)
    for name in ("correlation.json", "correlation.png", "candidates.png"):
        assert (out / name).stat().st_size > 500
    found = json.loads((out / "correlation.json").read_text())
    assert (found["candidates"], found["retrainings"]) == (3, 6)
    assert {"oracle_loss", "pruned_loss", "early"} <= {p["column"] for p in found["predictors"]}
    folders = [path.parent for path in (out / "runs").glob("*/run.json")]
    assert len(folders) == 6
    assert all(Run.load(each).pruning.action.criterion == "chosen" for each in folders)
    times = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("run.json")}
    again = run(*given)  # nothing is searched or trained twice
    assert again.exit_code == 0
    assert "the search is in" in again.stderr
    assert all(path.stat().st_mtime_ns == held for path, held in times.items())
    other = run("correlate", out / "results.csv", "--group", "candidate", "--known", "oracle_loss")
    assert other.exit_code == 0, other.output
    assert "oracle_loss" in other.output
    of_store = run("correlate", out / "study.db", "--json")
    assert json.loads(of_store.stdout)["candidates"] == 3


def typed(*words):
    """Run a command, as a process of its own."""
    main([*map(str, words)])


def test_a_killed_oracle_goes_on(checkpoint, tmp_path):
    out = tmp_path / "out"
    command = ("oracle", checkpoint, "--model", MODEL, *ASKED, *TRAINED, "--output", out)
    first = processes.Process(target=typed, args=command)
    first.start()
    while not [*out.rglob("run.json")]:
        assert first.is_alive()
        time.sleep(0.01)
    first.kill()
    first.join()
    done = {path: path.read_bytes() for path in (out / "runs").rglob("run.json")}
    assert done
    said = run(*command)
    assert said.exit_code == 0, said.output
    assert len(table(out / "results.csv")) == 3
    finished = [path for path, held in done.items() if path.read_bytes() == held]
    assert finished


def test_a_search_alone(checkpoint, tmp_path):
    out = tmp_path / "out"
    said = run(
        *("oracle", checkpoint, "--model", MODEL, "--layer", "0", "--keep", "7"),
        *("--retrain", "0", "--output", out),
    )
    assert said.exit_code == 0, said.output
    assert "8 of 8 combinations tried (exact), 1,437 training samples each" in said.output
    assert [path.name for path in out.iterdir()] == ["oracle.json"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--layer", "0"), "Missing option '--keep'"),
        (("--layer", "0", "--keep", "2", "--keep", "3"), "--keep once for each --layer"),
        (("--layer", "0", "--keep", "2", "--layer", "0", "--keep", "3"), "named twice"),
        (("--layer", "0", "--keep", "2"), "give --recipe"),
        (("--layer", "0", "--keep", "2", "--candidates", "some"), "neither all nor a number"),
        (("--layer", "0", "--keep", "9", "--retrain", "0"), "keep from 1 to 7"),
        (("--layer", "9", "--keep", "1", "--retrain", "0"), "no layer is named '9'"),
        (("--layer", "5", "--keep", "1", "--retrain", "0"), "cannot be chosen"),
        (("--layer", "0", "--keep", "1", "--recipe", "F0,1"), "recipe"),
    ],
)
def test_bad_questions_are_one_sentence(checkpoint, tmp_path, given, words):
    out = tmp_path / "out"
    said = run("oracle", checkpoint, "--model", MODEL, *given, "--output", out)
    assert said.exit_code == 2
    assert words in said.output + said.stderr
    assert not out.exists() or {path.name for path in out.iterdir()} <= {"oracle.json"}


def test_a_file_of_others_is_not_written_over(checkpoint, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.csv").write_text("mine\n")
    said = run("oracle", checkpoint, "--model", MODEL, *ASKED, *TRAINED, "--output", out)
    assert said.exit_code == 2
    assert (out / "results.csv").read_text() == "mine\n"
    assert not (out / "runs").exists()


def test_correlate_says_what_it_cannot_read(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("final,x\n1,2\n2,3\n")
    said = run("correlate", path)
    assert said.exit_code == 2
    assert "a correlation needs 3 or more" in said.stderr
    path.write_text("final,x,x\n1,2,3\n2,3,4\n3,4,5\n")
    assert "2 times" in run("correlate", path).stderr
    assert run("correlate", tmp_path / "no.csv").exit_code == 2
    assert run("correlate", tmp_path / "no.db").exit_code == 2
