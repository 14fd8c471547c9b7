"""The comparison on terminals of every width."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from comparisons import SETTINGS, run, seeds
from rich.console import Console

from trainscope.comparison.comparison import compare
from trainscope.report.comparison_table import comparison_table

NUMBERS = ("runs", "ratio", "epochs", "final [%]")


@pytest.fixture(scope="module")
def crowd():
    """Eleven settings with long names and long schedules."""
    lrs = ("1e-1", "5e-2", "2e-2", "1e-2", "5e-3", "2e-3", "1e-3", "5e-4", "2e-4")
    runs = [made for lr in lrs for made in seeds(2, schedule=f"0:{lr},10:1e-4,15:1e-5,18:1e-6")]
    adam = {**SETTINGS, "optimizer": "adamw"}
    runs += [replace(run(), settings=adam), run(criterion="random")]
    return compare(runs)


def printed(comparison, width):
    file = io.StringIO()
    Console(file=file, width=width).print(comparison_table(comparison))
    return file.getvalue().split("Verdict")[0]


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
def test_no_number_is_cut(crowd, width):
    text = printed(crowd, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert all(name in text.splitlines()[0] for name in NUMBERS)
    assert len(re.findall(r" 0\.9 ", text)) == 11
    for item in crowd.groups:
        mean = f"{item.mean:.2f}" + ("" if item.spread is None else f" ± {item.spread:.2f}")
        assert mean in text
    for name, kept in (("LR schedule", "15:1e-5"), ("speedup", "8.00×"), ("FLOPs", " k")):
        left_out = re.search(rf"left out where it is narrow: .*{name}", text)
        assert (kept in text) != bool(left_out)


def test_a_wide_terminal_shows_all(crowd):
    text = printed(crowd, 200)
    assert "left out" not in text
    assert all(item.label in text for item in crowd.groups)
