"""Every preset can be planned, and its paper's rows have runs that stand for them."""

from __future__ import annotations

import pytest

from trainscope.studies import Study
from trainscope.studies.presets.files import PREFIX, file_of, names, read, title
from trainscope.studies.rows import columns_of

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
        assert row["label"]
        held = [r for r in rows if all(r.get(n) == v for n, v in match.items())]
        assert held, f"{row['label']} has no run"
        if match:
            assert len({str({**r, "seed": 0}) for r in held}) == 1


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
