"""The best and the worst of several settings are further apart than two of them taken at random."""

from __future__ import annotations

import random
import statistics

import pytest
from scipy.stats import studentized_range

from trainscope.comparison.comparison import compare
from trainscope.comparison.reading import read
from trainscope.comparison.significance import LEVEL, welch

CARD = """
data = "cifar10"
architecture = "resnet56"
structure = "filter"
speedup = 2.31
base = "a"
method = "l1"
epochs = 40
settings = { optimizer = "sgd", momentum = 0.9, weight_decay = 1e-4, batch_size = 256 }
"""
ALIKE = {  # drawn from one distribution, the best and the worst p = 0.03 apart by Welch's test
    "0:1e-1,30:1e-2": [93.1, 93.4, 92.9, 93.3, 93.0],
    "0:1e-2,30:1e-3": [92.9, 93.2, 92.6, 93.1, 92.8],
    "0:1e-3,30:1e-4": [92.7, 93.0, 92.5, 93.0, 92.6],
    "0:1e-4,30:1e-5": [92.8, 93.3, 92.7, 92.7, 93.0],
}


def test_of_two_settings_the_test_is_welchs():
    first, second = [93.1, 93.5, 92.8], [92.1, 92.4, 92.9]
    assert welch(first, second, among=2) == welch(first, second)
    contrast = welch(first, second)
    width = 2**0.5 * abs(contrast.value) / contrast.error
    tail = studentized_range.sf(width, 2, contrast.freedom)
    assert tail == pytest.approx(contrast.p, abs=1e-5)  # which that of three goes on from
    assert welch(first, second, among=3).p > contrast.p


@pytest.mark.parametrize("count", [2, 4, 6])
def test_extremes_of_alike_settings_differ_one_time_in_twenty(count):
    rng = random.Random(3)
    found = 0
    for _ in range(400):
        cells = [[rng.gauss(93, 0.4) for _ in range(5)] for _ in range(count)]
        cells.sort(key=statistics.fmean)
        found += welch(cells[-1], cells[0], among=count).p < LEVEL
    assert 0.02 <= found / 400 <= 0.085


def verdict(tmp_path, finals):
    rows = [
        f'[[run]]\nschedule = "{schedule}"\naccuracies = {values}\n'
        for schedule, values in finals.items()
    ]
    path = tmp_path / "card.toml"
    path.write_text(CARD + "\n".join(rows))
    return " ".join(compare(read([str(path)]).runs, []).verdict())


def test_the_learning_rate_does_not_decide_among_four_that_are_alike(tmp_path):
    best, worst = ALIKE["0:1e-1,30:1e-2"], ALIKE["0:1e-3,30:1e-4"]
    text = verdict(tmp_path, {k: ALIKE[k] for k in ("0:1e-1,30:1e-2", "0:1e-3,30:1e-4")})
    assert welch(best, worst).p < LEVEL
    assert "the learning rate decides" in text
    text = verdict(tmp_path, ALIKE)
    assert "decides" not in text


def test_the_learning_rate_decides_among_four_where_it_does(tmp_path):
    finals = dict(ALIKE)
    finals["0:1e-4,30:1e-5"] = [90.1, 90.4, 89.9, 90.2, 90.0]
    text = verdict(tmp_path, finals)
    assert "the learning rate decides" in text
