from __future__ import annotations

from pathlib import Path

import pytest

from trainscope.comparison.cards import published, read_cards
from trainscope.comparison.comparison import compare
from trainscope.comparison.facts import final_accuracy
from trainscope.comparison.fairness import fairness

UNKNOWN_BASES = ("S1", "S2 fails: base models are unknown")
VERDICTS = {
    "resnet50_imagenet_1.5x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_1.8x.toml": (None, "compressions 1.72× speedup, 1.78× speedup and 1.82×"),
    "resnet50_imagenet_2.2x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_2.3x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_2.6x.toml": UNKNOWN_BASES,
    "resnet50_imagenet_2.7x_hrank.toml": ("S2", "S3.1 fails: retraining epochs are unknown"),
    "resnet50_imagenet_3.1x.toml": UNKNOWN_BASES,
    "resnet56_cifar10_2.1x.toml": UNKNOWN_BASES,
    "resnet56_cifar10_2.5x.toml": UNKNOWN_BASES,
    "wang2023_table5.toml": UNKNOWN_BASES,
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
        (method(card), card.pruning.speedup): card.pretraining.accuracy - final_accuracy(card)
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
    assert reasons["S4.1"] == ("pruning schedules are unknown for every run",)


def test_the_kind_of_lr_decay_outweighs_the_methods():
    step, cosine = sorted(map(final_accuracy, cards("hrank")))
    rivals = [final_accuracy(card) for card in cards("imagenet_2.6x")]
    assert cosine - step > 3 * (max(rivals) - min(rivals))


def test_one_seed_is_no_test_and_unknown_epochs_are_a_question_mark():
    told = " ".join(compare(cards("imagenet_2.3x")).verdict())
    assert "GReg-2 ends 0.20 points above GReg-1 (one seed: no test)" in told
    assert "p = 1" not in told
    assert "differ: 75.34 to 76.15 % before pruning" in told
    labels = [item.label for item in compare(cards("imagenet_2.2x")).groups]
    assert labels[0] == "CCP-AC · 2.18× · LR ?, ? epochs"


@pytest.mark.parametrize("name", ["imagenet_2.3x", "hrank"])
def test_the_documentation_shows_the_verdict(name):
    page = Path(__file__).parents[2] / "docs" / "fairness.md"
    shown = " ".join(page.read_text(encoding="utf-8").split())
    for line in compare(cards(name)).verdict():
        assert line in shown
