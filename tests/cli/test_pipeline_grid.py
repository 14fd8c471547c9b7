"""Several recipes or seeds of `trainscope pipeline`, which are the runs of a study."""

from __future__ import annotations

import json

import pytest
from commands import invoke

from trainscope.records import Run
from trainscope.studies.results import results, runs_of
from trainscope.studies.store import Store

pytestmark = pytest.mark.usefixtures("few_digits")
GRID = ("pipeline", "--recipe", "P2F2,1e-2", "--recipe", "P1F3,1e-2", "--ratio", 0.9)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Two recipes with two seeds, in a store."""
    store = tmp_path_factory.mktemp("grid") / "grid.db"
    return store, invoke(*GRID, "--seeds", 2, "--store", store)


def test_its_runs_are_those_of_single_pipelines(grid, tmp_path):
    """The weights that each ends with are the same; the pretraining has the first seed."""
    store, printed = grid
    found = {(run.pruning.epoch, run.seed): run for run in runs_of(store)}
    assert sorted(found) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for recipe, epoch in (("P2F2,1e-2", 2), ("P1F3,1e-2", 1)):
        one = ("pipeline", "--recipe", recipe, "--ratio", 0.9, "--stem", tmp_path / "stem")
        invoke(*one, "--output", tmp_path / recipe)
        single = Run.load(tmp_path / recipe)
        assert found[epoch, 0].end == single.end
        assert found[epoch, 0].base == found[epoch, 1].base == single.base
        assert f"{single.final_metric:.2f}" in invoke(*GRID, "--store", store).stdout
    assert "4 runs, 4 of them new, 4 to do" in printed.stderr
    assert "| P2F2,1e-2 | 2 " in printed.stdout


def test_the_same_command_does_nothing_again_and_more_seeds_go_on(grid):
    store, _ = grid
    again = invoke(*GRID, "--seeds", 2, "--store", store)
    assert "4 runs, 0 of them new, 0 to do" in again.stderr
    more = invoke(*GRID, "--seeds", 3, "--store", store)
    assert "6 runs, 2 of them new, 2 to do" in more.stderr
    (name,) = Store(store, make=False).studies
    assert len(results(Store(store, make=False), name)) == 6


def test_its_options_are_those_of_a_study(tmp_path):
    store = tmp_path / "one.db"
    invoke(
        *("pipeline", "--recipe", "P2F2,1e-2", "--ratio", 0.5, "--structure", "unstructured"),
        *("--store", store, "--extra-epochs", 1, "--pretrain-schedule", "0:2e-2"),
        *("--pretrain-epochs", 3, "--plan", "gradual:2", "--shape", "constant", "--seed", 4),
        *("--probes", "gradient", "--probe-epochs", "0,2", "--samples", 16, "--no-norms"),
        *("--optimizer", "adamw", "--weights", "inherited"),
    )
    (run,) = runs_of(store)
    assert (run.schedule, run.total, run.seed) == ("0:1e-2", 3, 4)
    assert (run.pretraining.schedule, run.pretraining.total) == ("0:2e-2", 3)
    assert run.pruning.plan.startswith("gradual:2")
    assert [t.epoch for t in run.measurements] == [0.0, 2.0]
    assert run.settings["optimizer"] == "adamw"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--output", "x"), "--output is of a single pipeline"),
        (("--stem", "x", "--json"), "--stem, --json is of a single pipeline"),
        (("--probe-epochs", "1,x"), "--probe-epochs '1,x' is no list of epochs"),
        (("--recipe", "F2,1e-2"), "write one like P60F2,1e-2"),
        (("--recipe", "P2F2,1e-2(+1)", "--extra-epochs", 1), "leave --extra-epochs out"),
        (("--data", "nope"), "no data is named 'nope'"),
        (("--device", "nope"), "cannot be used here"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_leaves_nothing(given, said, tmp_path):
    store = tmp_path / "grid.db"
    result = invoke(*GRID, "--store", store, *given, code=2)
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_compare_takes_a_store(grid, tmp_path):
    store, _ = grid
    found = json.loads(invoke("compare", store, "--json").stdout)
    finals = sorted(run.final_metric for run in runs_of(store))
    told = sorted(value for each in found["settings"] for value in each["final"]["values"])
    assert told == pytest.approx(finals)
    (tmp_path / "empty.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    refused = invoke("compare", f"journal:{tmp_path / 'none.log'}", code=2)
    assert "none.log is no store of studies" in refused.stderr
    refused = invoke("compare", tmp_path / "empty.db", code=2)
    assert "cannot be opened as a store" in refused.stderr
