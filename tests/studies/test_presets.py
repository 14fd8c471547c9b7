"""Every preset can be planned, and its paper's rows have runs that stand for them."""

from __future__ import annotations

import pytest

from trainscope.studies import Study, costs
from trainscope.studies.presets.files import PREFIX, file_of, names, read, title
from trainscope.studies.rows import columns_of
from trainscope.studies.summary import PaperRow, beside_paper, table

PRESETS = [(name, small) for name in names() for small in (False, True)]


def study_of(name: str, small: bool) -> Study:
    return Study.parse(read(name, small=small)[0], file_of(name, small=small))


@pytest.fixture(autouse=True)
def _checkpoints_are_elsewhere(monkeypatch):
    monkeypatch.setattr("trainscope.studies.study.digest_of", lambda *_: "0" * 64)


@pytest.mark.parametrize(("name", "small"), PRESETS)
def test_it_can_be_planned_and_stands_for_its_paper(name, small):
    study = study_of(name, small)
    plan = study.plan()
    assert len(plan) >= 2
    rows = []
    for each in plan:
        named = {f"{part}.name": text for part, text in each.names.items()}
        rows.append(columns_of(each.spec) | named)
    for row in study.paper:
        match = row.get("match", {})
        held = [r for r in rows if all(r.get(n) == v for n, v in match.items())]
        assert held, f"{row} has no run"
        if match:
            assert len({str({**r, "seed": 0}) for r in held}) == 1


@pytest.mark.parametrize("name", names())
def test_a_small_twin_squeezes_no_pretraining_to_nothing(name, monkeypatch):
    plan = study_of(name, True).plan()
    squeezed = [p for p in plan if p.spec.read is not None and p.spec.read.squeezed]
    monkeypatch.setattr(costs, "rate_of", lambda *_: None)
    assert not costs.forecast(squeezed).refused


@pytest.mark.parametrize("name", names())
def test_its_first_line_says_what_it_is(name):
    assert 20 < len(title(name)) < 100
    assert len(read(name)[1].get("paper", ())) >= len(read(name, small=True)[1].get("paper", ()))


def test_table_5_has_the_schedules_that_were_published():
    import tomllib
    from importlib.resources import files

    text = (files("trainscope.comparison.published") / "wang2023_table5.toml").read_text("utf-8")
    wanted = {(r["schedule"], r["epochs"]) for r in tomllib.loads(text)["run"]}
    plan = study_of("wang-table5", False).plan()
    assert {(columns_of(p.spec)["schedule"], p.spec.schedule.total) for p in plan} == wanted


def test_the_prefix_is_no_path():
    assert ":" in PREFIX


def test_numbers_of_a_paper_stand_in_its_rows_and_columns():
    rows = [
        {"action.ratio": ratio, "recipe": "P1F1,1e-1", "seed": seed, "final": 90.0 + seed, "ta": 50}
        for ratio in (0.5, 0.9)
        for seed in (0, 2)
    ]
    paper = [
        PaperRow("P9F9,1e-1", "ratio 0.5", 83.0, 0.1, match={"action.ratio": 0.5}),
        PaperRow("P9F9,1e-1", "ratio 0.9", 81.0, match={"action.ratio": 0.9}),
        PaperRow("other", "ratio 0.9", 70.0),
    ]
    title, *lines = beside_paper(rows, paper)
    pairs = [f"ratio {ratio} {who}" for ratio in ("0.5", "0.9") for who in ("paper", "here")]
    assert title == ["row of the paper", "run here", *pairs]
    assert lines == [
        ["P9F9,1e-1", "P1F1,1e-1", "83.00 (0.10)", "91.00 (1.41)", "81.00", "91.00 (1.41)"],
        ["other", "-", "-", "-", "70.00", "-"],
    ]
    beside = [PaperRow("P1F1,1e-1", value=1.0, match={"recipe": "P1F1,1e-1"})]
    assert beside_paper(rows, beside)[0] == ["row of the paper", "paper", "here"]
    both = [*beside, PaperRow("P1F1,1e-1", "TA", 2.0, column="ta", match={"seed": 0})]
    assert beside_paper(rows, both)[1][-1] == "50.00 (0.00)"
    assert beside_paper(rows, both)[0][1:3] == ["final paper", "final here"]


def test_settings_that_have_names_are_not_told_twice():
    rows = [
        {"recipe": f"F1,{lr}", "recipe.name": name, "shape": shape, "kind": kind, "seed": seed}
        | {"weights": kind, "action.ratio": ratio, "final": 1.0, "digest": ""}
        for lr, name, shape, kind in (("1e-1", "a", "rewind", "x"), ("1e-2", "b", "halving", "y"))
        for ratio in (0.5, 0.9)
        for seed in (0, 1)
    ]
    assert table(rows, ("final",))[:2] == [
        ["recipe", "action.ratio", "runs", "final"],
        ["a", "0.5", "2", "1.00 (0.00)"],
    ]
    bare = [{name: row[name] for name in row if name != "recipe.name"} for row in rows]
    asked = ["recipe", "shape", "weights", "action.ratio"]
    assert table(bare, ("final",))[0] == [*asked, "runs", "final"]
