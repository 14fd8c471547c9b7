from __future__ import annotations

import json
from dataclasses import replace

import pytest
from comparisons import LARGE, SMALL, five_settings, run, seeds
from diagnoses import diagnosis

from trainscope.records import Kind
from trainscope.studies.cards import published, read_cards
from trainscope.studies.comparison import compare
from trainscope.studies.findings import findings
from trainscope.studies.groups import group


@pytest.fixture(scope="module")
def five():
    return compare(five_settings())


def test_the_two_facts_come_first(five):
    first, second = five.verdict()[:2]
    assert first.startswith("After 20 epochs the learning rate decides: LR 1e-1")
    assert second.startswith("60 more first-stage epochs take LR 1e-3 from")
    assert "gap" in second or "level" in second or "past" in second


def test_every_number_in_the_first_finding_is_the_groups(five):
    first = five.findings[0]
    for item in five.groups:
        if item.epochs == 20:
            assert f"{item.mean:.1f} ± {item.spread:.1f} %" in first


def test_table_5_tells_the_papers_story():
    (path,) = [path for path in published() if "table5" in path.name]
    lines = findings(group(read_cards(path)))
    told = " ".join(lines)
    assert "P60: After 60 epochs the learning rate decides: LR 1e-2 77.8 %, LR 1e-3 70.5 %" in told
    assert "30 / 60 more first-stage epochs take LR 1e-2 from 77.6 to 79.1 / 79.6 %" in told


def test_estimates_are_for_the_smaller_lrs_only(five):
    assert {held.label for held in five.estimates} <= {"LR 1e-3", "LR 1e-4", "LR 1e-2"}
    assert "LR 1e-4" in {held.label for held in five.estimates}
    for held in five.estimates:
        extra = held.result.extra_epochs
        assert 0 <= extra.low <= extra.median <= extra.high
        assert held.label in held.sentence()


def test_the_document_is_json_without_nan(five):
    text = json.dumps(five.as_dict(), allow_nan=False)
    raw = json.loads(text)
    assert raw["schema"] == "trainscope.comparison/1"
    assert raw["fairness"]["strictest"] == "S2"
    assert len(raw["settings"]) == 5
    assert len(raw["pairs"]) == 10


def test_ratios_are_told_together():
    made = [
        one
        for ratio, ceiling in ((0.5, 98.0), (0.9, 95.0))
        for schedule in (LARGE, SMALL)
        for one in seeds(2, ratio=ratio, schedule=schedule, ceiling=ceiling)
    ]
    assert any(line.startswith("From ratio 0.5 to 0.9, LR 1e-2") for line in findings(group(made)))


def test_one_run_and_no_run():
    one = compare([run()])
    assert one.fairness is None
    assert one.verdict()[0].startswith("The best setting is")
    assert compare([], [diagnosis()]).groups == ()
    assert json.dumps(compare([], [diagnosis()]).as_dict(), allow_nan=False)


def test_runs_without_accuracy():
    blank = replace(run(), epochs=(), start_accuracy=None)
    assert compare([blank]).findings == ("No run has an accuracy.",)


def test_different_data_sets_give_a_verdict_not_an_error():
    found = compare([run(), replace(run(), data="mnist:data")])
    assert found.verdict()[-1].startswith(("Not one comparison", "1 of", "2 of"))
    assert found.fairness.strictest is None


def test_scratch_training_is_judged_by_its_budget_not_by_its_setup():
    scratch = run("0:1e-1", 180, kind=Kind.SCRATCH_B, base="unknown")
    found = compare([run(), scratch])
    assert found.duels == ()
    assert found.fairness.strictest == "SX-B"
    assert found.fairness.fair
    assert found.verdict()[1].startswith("Fair: SX-B holds")


def test_a_gap_is_called_alike_only_where_it_is_small():
    apart = findings(group(seeds(2, schedule=LARGE, noise=9) + seeds(2, schedule=SMALL, noise=9)))
    alike = [run(schedule, seed=k, speed=1e4) for schedule in (LARGE, SMALL) for k in range(3)]
    assert "cannot tell from chance" in apart[0]
    assert "end alike" in findings(group(alike))[0]
