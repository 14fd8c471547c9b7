from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from trainscope.comparison.cards import published, read_cards
from trainscope.comparison.comparison import compare
from trainscope.comparison.facts import final_value
from trainscope.comparison.fairness import fairness
from trainscope.errors import RecordError
from trainscope.report.comparison_table import comparison_table

UNKNOWN_BASES = ("S1", "S2 fails: base models are unknown")
VERDICTS = {
    "resnet50_imagenet_1.5x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_1.8x.toml": (None, "speedups 1.72×, 1.78× and 1.82×"),
    "resnet50_imagenet_2.2x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_2.3x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_2.6x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_2.7x_hrank.toml": ("S2", "S3.1 fails: retraining epochs are unknown"),
    "resnet50_imagenet_3.1x.toml": UNKNOWN_BASES,
    "resnet56_cifar10_2.1x.toml": UNKNOWN_BASES,
    "resnet56_cifar10_2.5x.toml": UNKNOWN_BASES,
    "wang2023_table1.toml": (None, "speedups 1.43× to 2.68×"),
    "wang2023_table3.toml": (
        None,
        "it would be S2 at best: S3.1 fails: retraining epochs 20 to 180",
    ),
    "wang2023_table4.toml": (None, "speedups 1.11× to 12.06×"),
    "wang2023_table5.toml": UNKNOWN_BASES,
    "wang2023_table6.toml": (None, "speedups 1.45× to 11.41×"),
    "wang2023_table7.toml": (None, "speedups 1.23× to 8.84×"),
}
DROPS = {
    ("ProvableFP", 1.43): 0.92,
    ("GReg-1", 1.49): -0.14,
    ("AOFP", 1.49): -0.29,
    ("GReg-2 from 75.40 %", 1.49): -0.73,
    ("SFP", 1.72): 1.54,
    ("HRank", 1.78): 1.17,
    ("Taylor-FO", 1.82): 1.68,
    ("CCP-AC", 2.18): 0.83,
    ("DCP", 2.25): 1.06,
    ("C-SGD", 2.26): 0.80,
    ("GReg-1", 2.31): 0.97,
    ("GReg-2", 2.31): 0.77,
    ("AOFP", 2.31): 0.23,
    ("GReg-2 from 75.40 %", 2.31): 0.18,
    ("Factorized", 2.33): 1.60,
    ("LFPC", 2.55): 1.69,
    ("GReg-1", 2.56): 1.28,
    ("GReg-2", 2.56): 1.20,
    ("Taylor-FO", 3.05): 4.49,
    ("GReg-1", 3.06): 2.38,
    ("GReg-2", 3.06): 2.23,
}
"""The column "Top-1 drop" of the GReg paper's Table 3, which the cards do not carry."""


def cards(name):
    (path,) = [path for path in published() if name in path.name]
    return read_cards(path)


def method(card):
    return card.pruning.criterion


def test_every_file_has_its_verdict():
    assert [path.name for path in published()] == sorted(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_published_rows_are_s2_at_best_and_say_why(name):
    held = cards(name)
    assert all(card.source == "card" and card.notes for card in held)
    found = fairness(held)
    strictest, why = VERDICTS[name]
    assert found.strictest == strictest
    assert not found.fair
    assert why in found.sentence()


def test_rows_of_one_base_model_are_s2_at_best():
    found = fairness([card for card in cards("cifar10_2.1x") if card.base != "unknown"])
    assert found.strictest == "S2"
    assert found.sentence().endswith("S3.1 fails: retraining epochs are unknown for every run.")


def test_the_rows_of_the_growing_regularization_table_have_its_drops():
    held = [card for path in published() if "imagenet_" in path.name for card in read_cards(path)]
    table = [card for card in held if "ICLR 2021" in card.notes[0]]
    found = {
        (method(card), card.pruning.speedup): card.pretraining.accuracy - final_value(card)
        for card in table
    }
    assert len(found) == len(table)
    assert found == {key: pytest.approx(drop, abs=1e-9) for key, drop in DROPS.items()}


@pytest.mark.parametrize("speedup", ["2.3x", "2.6x", "3.1x"])
def test_two_methods_with_all_facts_stated_are_fair(speedup):
    own = [card for card in cards(f"imagenet_{speedup}") if method(card) in ("GReg-1", "GReg-2")]
    found = fairness(own)
    assert found.strictest == "S3.2"
    assert found.fair
    reasons = {check.setup: check.reasons for check in found.checks}
    assert reasons["S4.1"] == ("epochs of the pruning stage are unknown for every run",)


def test_the_kind_of_lr_decay_outweighs_the_methods():
    step, cosine = sorted(map(final_value, cards("hrank")))
    rivals = [final_value(card) for card in cards("imagenet_2.6x")]
    assert cosine - step > 3 * (max(rivals) - min(rivals))


def test_one_seed_is_no_test_and_rows_are_called_by_their_methods():
    told = " ".join(compare(cards("imagenet_2.3x")).verdict())
    assert "GReg-2 ends 0.20 points above GReg-1 (one seed: no test)" in told
    assert "p = 1" not in told
    assert "differ: 75.34 to 76.15 % before pruning" in told
    labels = [item.label for item in compare(cards("imagenet_2.2x")).groups]
    assert labels == ["CCP-AC", "ResRep"]


COUNTS = {1: 18, 3: 11, 4: 72, 5: 14, 6: 24, 7: 24}
STATED = {
    (1, "SFP", 1.72): 74.61,
    (1, "GAL-0.5", 1.76): 71.95,
    (1, "GAL-1", 2.59): 69.88,
    (1, "CC", 2.12): 75.59,
    (1, "CC", 2.68): 74.54,
    (1, "GReg-2", 2.56): 74.93,
    (1, "L1-norm, reimplemented", 2.31): 75.24,
    (1, "L1-norm, reimplemented", 2.56): 74.77,
}
"""Some figures of Table 1, typed from the paper once more."""
BLOCKS = {
    0.1: "83.68 83.95 83.88 83.56 84.21 84.24 84.09 85.27 83.72 83.91 85.45 83.40",
    0.5: "82.90 83.87 83.29 83.28 82.90 82.45 79.70 85.48 83.67 83.41 84.85 82.16",
    0.95: "76.67 77.41 77.64 76.17 70.53 64.98 29.89 79.57 77.81 75.20 75.79 70.61",
}
"""Three columns of Table 4, from the top."""


@pytest.mark.parametrize("number", COUNTS)
def test_the_tables_of_the_paper_are_there_whole(number):
    held = cards(f"table{number}")
    assert len(held) == COUNTS[number]
    assert all(f"Table {number}" in card.notes[0] for card in held)
    assert all(card.base == "unknown" for card in held)
    assert all((final_value(card) is None) is (number == 3) for card in held)


def test_figures_are_those_of_the_tables():
    found = {(1, method(c), c.pruning.speedup): final_value(c) for c in cards("table1")}
    assert STATED.items() <= found.items()
    for ratio, column in BLOCKS.items():
        rows = [card for card in cards("table4") if card.pruning.ratio == ratio]
        assert [final_value(card) for card in rows] == [float(text) for text in column.split()]
    assert {card.pruning.ratio: card.pruning.speedup for card in cards("table4")} == {
        0.1: 1.11,
        0.3: 1.41,
        0.5: 1.93,
        0.7: 3.09,
        0.9: 7.68,
        0.95: 12.06,
    }
    for number, finals, speedups in (
        (6, "93.16 92.78 92.11 88.36", {1.45, 1.99, 3.59, 11.41}),
        (7, "72.84 71.88 70.79 66.52", {1.23, 1.97, 3.60, 8.84}),
    ):
        rows = cards(f"table{number}")
        assert {card.pruning.speedup for card in rows} == speedups
        assert [final_value(card) for card in rows[::6]] == list(map(float, finals.split()))
    spreads = [card.settings["spread"] for card in cards("table7")]
    assert spreads[-6:] == [0.37, 0.10, 0.17, 0.04, 0.15, 0.11]


def test_the_pruned_rows_of_table_4_are_those_of_table_5_where_both_have_them():
    one = {
        (card.pruning.epoch, card.schedule): final_value(card)
        for card in cards("table4")
        if card.pruning.ratio == 0.95
    }
    two = {(card.pruning.epoch, card.schedule): final_value(card) for card in cards("table5")}
    both = one.keys() & two.keys()
    assert len(both) == 6
    assert {key: one[key] for key in both} == {key: two[key] for key in both}


def test_table_3_states_retraining_and_nothing_more():
    epochs = {method(card): card.total for card in cards("table3")}
    assert epochs == {
        "SSL": None,
        "L1-norm": 20,
        "DCP": 60,
        "GAL-0.5/1": 30,
        "Taylor-FO": 25,
        "Factorized": 90,
        "CCP-AC": 100,
        "HRank": 30,
        "GReg-1/2": 90,
        "ResRep": 180,
        "L1-norm, reimplemented": 90,
    }
    known = {method(card) for card in cards("table3") if card.schedule is not None}
    assert known == {"L1-norm", "L1-norm, reimplemented"}
    assert [card.data for card in cards("table3")] == ["cifar10", *[None] * 10]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["table1"],
            "One compression at a time, S1 at best (2.25× to 2.33×, 5 settings); S2 fails",
        ),
        (["table3"], "it would be S2 at best: S3.1 fails: retraining epochs 20 to 180"),
        (["table1", "table3"], "S1 at best (imagenet resnet50 2.25× to 2.33×, 5 settings)"),
        (["table4"], "One compression at a time, S1 at best"),
    ],
)
def test_tables_1_and_3_are_s1_or_s2_at_best_and_say_why(names, words):
    found = compare([card for name in names for card in cards(name)])
    assert words in found.fairness_sentence()
    assert not found.fairness.fair


@pytest.mark.parametrize("name", ["imagenet_2.3x", "hrank", "table1", "table3"])
def test_the_documentation_shows_the_verdict(name):
    page = Path(__file__).parents[2] / "docs" / "fairness.md"
    shown = " ".join(page.read_text(encoding="utf-8").split())
    for line in compare(cards(name)).verdict():
        assert line in shown


def test_a_column_of_nothing_goes_before_the_lr_schedules():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison_table(compare(cards("table5"))))
    shown = console.export_text()
    assert "0:1e-1,30:1e-2,60:1e-3,75:1e-4,83:1e-5" in shown
    assert "FLOPs" not in shown.splitlines()[1]


def test_a_number_that_no_float_holds_is_one_sentence(tmp_path):
    card = tmp_path / "huge.toml"
    card.write_text(f"[[run]]\naccuracy = 70.0\nretrain_epochs = 1{'0' * 400}\n")
    with pytest.raises(RecordError, match="run 1: retrain_epochs is larger than any count"):
        read_cards(card)
