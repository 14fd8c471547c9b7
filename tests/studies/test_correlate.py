"""Columns against the end of retraining: ratios, ties, what is missing, and what is said of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from trainscope.errors import RecordError
from trainscope.studies.correlate import correlate

FAST = {"draws": 200}


def rows(n: int = 40, seeds: int = 1, *, noise: float = 0.5, seed: int = 0):
    """Return retrainings of candidates whose pruned loss tells where they end, but for noise."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        quality = rng.normal()
        found += [
            {
                "candidate": f"c{k}",
                "pruned_loss": 3 - quality,
                "norm": float(rng.normal()),
                "seed": each,
                "final": 90 + quality + noise * rng.normal(),
            }
            for each in range(seeds)
        ]
    return found


def test_the_coefficients_are_scipys_with_an_interval():
    data = rows()
    found = correlate(data, known=["pruned_loss", "norm"])
    x, y = ([row[name] for row in data] for name in ("pruned_loss", "final"))
    strong = found["pruned_loss"].coefficients
    assert strong["kendall"].value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert strong["spearman"].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert strong["pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic)
    for each in strong.values():
        assert each.low < each.value < each.high < 0
        assert each.interval_method == "BCa"
        assert each.p < 0.001
    weak = found["norm"].coefficients["kendall"]
    assert weak.low < 0 < weak.high
    assert weak.p > 0.05
    assert [each.column for each in found.predictors] == ["pruned_loss", "norm"]
    json.dumps(found.to_json(), allow_nan=False)


def test_anomalies_and_counterexamples():
    ends = [90.0, 95, 91, 89, 92]
    data = [{"pruned_loss": k, "final": end} for k, end in enumerate(ends)]
    found = correlate(data, **FAST)["pruned_loss"]
    assert found.better == "lower"
    assert found.anomaly == 3 / 5  # 95, 91 and 92 end above the one of the lowest loss
    wrong = sum(a < b for i, a in enumerate(ends) for b in ends[i + 1 :])
    assert found.counterexample == pytest.approx(wrong / 10)
    other = correlate(data, better="lower", **FAST)["pruned_loss"]
    assert other.anomaly == 1 / 5
    assert other.counterexample == pytest.approx(1 - wrong / 10)
    plain = [{"number": row["pruned_loss"], "final": row["final"]} for row in data]
    assert correlate(plain, **FAST)["number"].anomaly is None  # nobody says what is better
    told = correlate(plain, directions={"number": "lower"}, **FAST)["number"]
    assert (told.anomaly, told.counterexample) == (found.anomaly, found.counterexample)


def test_the_rows_of_a_study_say_which_direction_of_its_metric_is_better():
    ends = [1.0, 5, 2, 3]
    data = [{"early": k, "final": end, "better": "lower"} for k, end in enumerate(ends)]
    found = correlate(data, known=["early"], **FAST)
    assert (found.better, found["early"].better) == ("lower", "lower")
    assert found["early"].anomaly == 0
    assert correlate(data, known=["early"], better="higher", **FAST)["early"].anomaly == 3 / 4
    assert not any("not known by its name" in note for note in found.notes)


def test_ties_are_no_counterexamples_and_share_the_first_place():
    data = [
        {"pruned_loss": x, "final": y} for x, y in [(1, 90), (1, 80), (2, 90), (2, 85), (3, 70)]
    ]
    found = correlate(data, **FAST)["pruned_loss"]
    assert found.anomaly == pytest.approx((0 + 3) / 2 / 5)
    # Pairs that differ in both: (80,90) and (80,85) are wrong, (90,85) and four with 70 are right.
    assert found.counterexample == pytest.approx(2 / 7)


def test_retrainings_of_a_candidate_are_one_point_and_tell_the_ceiling():
    data = rows(60, 3, noise=1.0, seed=3)
    found = correlate(data, known=["pruned_loss"], group=["candidate"], **FAST)
    assert (found.candidates, found.retrainings) == (60, 180)
    ends = np.array([row["final"] for row in data]).reshape(60, 3)
    x = [row["pruned_loss"] for row in data[::3]]
    tau = found["pruned_loss"].coefficients["kendall"].value
    assert tau == pytest.approx(stats.kendalltau(x, ends.mean(axis=1)).statistic)
    ceiling = found.ceiling
    assert (ceiling.candidates, ceiling.retrainings) == (60, 180)
    pairs = [(0, 1), (1, 2), (2, 0)]
    mean = np.mean([stats.kendalltau(ends[:, a], ends[:, b]).statistic for a, b in pairs])
    again = ceiling.another["kendall"]
    assert again.value == pytest.approx(mean)
    assert again.low < 2 / math.pi * math.asin(0.5) < again.high
    reached = ceiling.attainable["kendall"]
    assert reached.low < 2 / math.pi * math.asin(math.sqrt(0.75)) < reached.high
    # A tenth retrained again is enough for a ceiling.
    some = [row for k, row in enumerate(data) if k % 3 == 0 or k < 30]
    assert correlate(some, group=["candidate"], **FAST).ceiling.candidates == 10


def test_one_retraining_each_has_no_ceiling_and_says_so():
    found = correlate(rows(), known=["pruned_loss"], **FAST)
    assert found.ceiling is None
    assert any("not known" in note and "--group" in note for note in found.notes)


def test_strata_are_compared_within():
    easy, hard = rows(30, seed=1), rows(30, seed=2)
    shifted = [
        {**row, "final": row["final"] - 40, "pruned_loss": row["pruned_loss"] - 9} for row in hard
    ]
    data = [{**row, "data": "a"} for row in easy] + [{**row, "data": "b"} for row in shifted]
    mixed = correlate(data, known=["pruned_loss"], **FAST)["pruned_loss"]
    within = correlate(data, known=["pruned_loss"], within=["data"], **FAST)
    assert mixed.coefficients["kendall"].value > 0
    assert within.strata == ("a", "b")
    assert within["pruned_loss"].coefficients["kendall"].value < -0.4


def test_several_together_beat_each_and_noise_gains_nothing():
    rng = np.random.default_rng(5)
    a, b, e = rng.normal(size=(3, 120))
    noise = rng.normal(size=(3, 120))
    data = [{"a": p, "b": q, "final": p + q + 0.3 * r} for p, q, r in zip(a, b, e, strict=True)]
    found = correlate(data, **FAST)
    both = found.together.coefficients["kendall"]
    assert both.value > 0.7 > max(each.strength for each in found.predictors)
    assert both.low < both.value < both.high
    data = [{"a": p, "b": q, "final": r} for p, q, r in zip(*noise, strict=True)]
    assert correlate(data, **FAST).together.coefficients["kendall"].value < 0.1


def test_what_is_missing_is_left_out_and_said():
    data = rows(20)
    data[3]["norm"], data[4]["norm"], data[5]["norm"] = None, math.nan, ""
    data[7]["final"] = math.inf  # diverged
    found = correlate(data, known=["pruned_loss", "norm"], **FAST)
    assert found.candidates == 19
    assert found["norm"].candidates == 16
    kept = [row for row in data if row["norm"] not in (None, "") and row["norm"] == row["norm"]]
    kept = [row for row in kept if math.isfinite(row["final"])]
    tau = stats.kendalltau([r["norm"] for r in kept], [r["final"] for r in kept]).statistic
    assert found["norm"].coefficients["kendall"].value == pytest.approx(tau)
    said = " | ".join(found.notes)
    assert "1 of 20 retrainings have no number in final" in said
    assert "norm is missing for 3 of 19 candidates" in said


def test_constant_columns_have_a_reason():
    data = [{"flat": 1.0, "x": k, "final": k % 3} for k in range(10)]
    assert [each.column for each in correlate(data, **FAST).predictors] == ["x"]
    found = correlate(data, known=["flat", "x"], **FAST)
    assert found["flat"].reason == "it is the same for all candidates"
    assert not found["flat"].coefficients
    alike = [{"x": k, "final": 5} for k in range(10)]
    assert "end alike" in correlate(alike, **FAST)["x"].reason


def test_the_best_epoch_is_marked():
    data = [{**row, "best_accuracy": row["final"] + 1} for row in rows(20)]
    assert "best_accuracy" not in {p.column for p in correlate(data, **FAST).predictors}
    found = correlate(data, target="best_accuracy", known=["norm"], **FAST)
    assert any("too good" in note for note in found.notes)
    assert not any("too good" in note for note in correlate(data, known=["norm"], **FAST).notes)


def test_numbers_of_the_end_are_not_taken_for_known():
    data = [
        {**row, "final_loss": 1 / row["final"], "last_lr": k, "seconds": k, "name": "x"}
        for k, row in enumerate(rows(12))
    ]
    found = correlate(data, group=["candidate"], **FAST)
    assert {each.column for each in found.predictors} == {"pruned_loss", "norm"}


def test_text_numbers_of_a_csv_are_numbers():
    data = [{"pruned_loss": f"{k}", "final": f" {90 - k}.5 %"} for k in range(9)]
    assert correlate(data, **FAST)["pruned_loss"].coefficients["kendall"].value == -1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "nothing"}, "no column is named 'nothing'"),
        ({"known": ["norm?x*"]}, "no column is named 'norm?x*'"),
        ({"known": ["final"]}, "was not known before retraining"),
        ({"known": ["candidate"]}, "holds 'c0' in row 1, which is no number"),
        ({"group": ["nobody"]}, "no column is named 'nobody'"),
        ({"within": ["seed"], "group": ["candidate"]}, "in the strata"),
        ({"better": "up"}, "higher or lower, not 'up'"),
        ({"level": 1.0}, "between 0 and 1"),
    ],
)
def test_bad_questions_are_one_sentence(change, words):
    with pytest.raises(RecordError) as error:
        correlate(rows(6, 2), **FAST, **change)
    assert words in str(error.value)


def test_too_few_candidates():
    for data in ([], rows(2), [{"x": 1, "final": None}] * 5):
        with pytest.raises(RecordError):
            correlate(data, **FAST)
    few = correlate(rows(5), known=["pruned_loss"], **FAST)["pruned_loss"].coefficients
    assert few["kendall"].low is None
    assert few["kendall"].p is not None
