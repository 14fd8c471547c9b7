"""`trainscope study` from the command line."""

from __future__ import annotations

import json
import os
import re

import pytest
from click.testing import CliRunner
from small_studies import NETWORK, one_thread

from trainscope.cli.main import main
from trainscope.studies import Store
from trainscope.studies.results import read_csv

TEXT = f"""
name = "small"
data = "digits"
seeds = [0, 1]
recipes = "F1,1e-1"
notes = ["A note of the study."]

[settings]
batch_size = 256
augment = false

[[base]]
architecture = "{NETWORK}"
recipe = "F2,1e-1"

[[action]]
name = "half"
ratio = 0.5

[[paper]]
label = "a row"
value = 12.5
match = {{ "action.name" = "half" }}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    one_thread()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(TEXT)
    return tmp_path


def said(*args: str, code: int = 0, typed: str | None = None) -> str:
    result = CliRunner().invoke(main, ["study", *args], input=typed)
    assert result.exit_code == code, result.output
    return result.output


def test_a_study_from_the_dry_run_to_the_report(study):
    plan = said("run", "grid.toml", "--dry-run")
    assert "small: 2 runs, 2 of them to do; 2 epochs" in plan
    assert "1 pretraining that runs share: 2 epochs" in plan
    assert "Time: about" in plan
    assert not (study / "study.db").exists()
    assert "small: 2 runs: 2 finished" in said("run", "grid.toml")
    assert "0 to do" in said("run", "grid.toml")
    again = said("run", "grid.toml", "--dry-run")
    assert "0 of them to do" in again
    assert "Time" not in again
    assert json.loads(said("status", "grid.toml", "--json")) == {"small": {"finished": 2}}
    assert "small: 2 runs: 2 finished" in said("status", str(study))
    assert said("results", "grid.toml").count("finished") == 2
    said("results", "grid.toml", "--csv", "rows.csv")
    rows = read_csv("rows.csv")
    assert [row["seed"] for row in rows] == [0, 1]
    assert said("results", "grid.toml", "--csv", "-").startswith("study,")
    report = said("report", "grid.toml", "--output", "report.html")
    assert "A note of the study." in report
    assert re.search(r"\| a row +\| +F1,1e-1 +\| +12.50 +\| +\d+\.\d\d \(\d+\.\d\d\) \|", report)
    assert "Made by trainscope" in (study / "report.html").read_text()[:4096]


def test_the_flops_of_a_plan_are_those_of_its_runs(study):
    from trainscope.studies import Study
    from trainscope.studies.costs import forecast
    from trainscope.studies.results import results

    found = forecast(Study.read("grid.toml").plan())
    said("run", "grid.toml")
    rows = results("study.db")
    assert list(found.each) == [row["flops"] for row in rows]
    assert found.stem_flops == rows[0]["pretraining_flops"]


def test_a_run_that_cannot_be_done_does_not_hide_what_the_others_cost(study):
    text = TEXT.replace('"F1,1e-1"', '["F1,1e-1", "P1/F1,1e-1"]').replace("0.5", "0.9")
    (study / "grid.toml").write_text(text)
    plan = said("run", "grid.toml", "--dry-run")
    assert plan.count("it cannot be done: a speedup of 2.55135 leaves nothing of P1/") == 2
    assert "4 runs, 4 of them to do; 2 epochs\n2 of them cannot be done" in plan
    assert "1 pretraining that runs share: 2 epochs" in plan
    (study / "grid.toml").write_text(text.replace('"F1,1e-1", ', ""))
    said("run", "grid.toml", "--dry-run", code=2)


def test_work_does_what_a_driver_only_planned(study):
    from trainscope.studies import Study

    asked = Study.read("grid.toml")
    asked.open_store().plan(asked.name, asked.plan())
    assert "small: 2 runs: 2 waiting" in said("status", "study.db")
    assert "2 runs were done here" in said("work", "study.db")


def test_gc_removes_what_no_study_names_and_nothing_else(study):
    said("run", "grid.toml")
    (study / "grid.toml").write_text(TEXT.replace("[0, 1]", "1"))
    said("run", "grid.toml")
    runs = study / "runs"
    (runs / "mine").mkdir()
    (runs / "mine" / "run.json").write_text("{}")
    before = set(os.listdir(runs))
    assert "1 folders are named by no study" in said("gc", "grid.toml", "--dry-run")
    assert "nothing was removed" in said("gc", "grid.toml", typed="n\n")
    assert set(os.listdir(runs)) == before
    dropped = next(p for p in runs.iterdir() if p.name not in kept(study) and p.name != "mine")
    (dropped / "notes.txt").write_text("mine")
    assert "0 folders" in said("gc", "grid.toml", "--yes")
    (dropped / "notes.txt").unlink()
    assert "removed 1 folders" in said("gc", "grid.toml", "--yes")
    assert set(os.listdir(runs)) == before - {dropped.name}


def kept(study) -> set[str]:
    stems = {path.name for path in (study / "runs").glob("stem-*")}
    return {digest[:16] for digest in Store("study.db").digests("small")} | stems


def test_presets_are_listed_and_printed(study):
    listed = said("presets")
    assert "preset:wang-table5" in listed
    assert said("presets", "wang-table5", "--small").startswith("# Wang et al. (2023), Table 5")
    planned = said("run", "preset:wang-table5", "--small", "--dry-run")
    assert "27 runs, 27 of them to do" in planned


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("status", "nothing.db"), "nothing.db is no store of studies"),
        (("status", "gone.toml"), "gone.toml cannot be read as a study"),
        (("run", "study.db"), "study.db is no study: give a TOML file, or preset:NAME"),
        (("run", "preset:wang-table9"), "'wang-table9' is no preset: did you mean"),
        (("run", "grid.toml", "--small"), "--small is for presets"),
        (("run", "grid.toml", "--device", "tpu"), "tpu"),
        (("gc", "grid.toml", "--study", "x"), "leave --study out"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(study, args, why):
    output = said(*args, code=2)
    assert why in output
    assert output.count("trainscope:") == 1


def test_a_bad_file_has_its_line(study):
    (study / "grid.toml").write_text(TEXT.replace("ratio = 0.5", "ratio = 5"))
    assert "grid.toml, line 18: the ratio is 5" in said("run", "grid.toml", code=2)


def test_one_run_of_one_epoch_is_told_in_the_singular(study):
    one = TEXT.replace("seeds = [0, 1]", "seeds = 0").replace('"F2,1e-1"', '"F1,1e-1"')
    (study / "grid.toml").write_text(one)
    plan = said("run", "grid.toml", "--dry-run")
    assert "small: 1 run, 1 of them to do; 1 epoch\n" in plan
    assert "1 pretraining that runs share: 1 epoch\n" in plan
