"""A text log of losses from the command line to the page: axes, heads and direction in Chromium."""

from __future__ import annotations

import math

import browser
import pytest
from click.testing import CliRunner

from trainscope.cli.main import main

SCRIPT = """
return {
  titles: all(".figure h3, .figure figcaption strong, .figure .title").map((e) => e.textContent),
  labels: all(".figure svg .label").map((e) => e.textContent),
  heads: all("th").map((e) => e.textContent),
  text: document.body.innerText,
};
"""


def log(lr: float) -> str:
    """Return a text log whose losses fall with LR time."""
    lines, time = [], 0.0
    for epoch in range(1, 21):
        rate = lr if epoch <= 10 else lr / 10
        time += rate
        loss = 0.3 + 2 * math.exp(-10 * math.sqrt(time))
        lines.append(f"Epoch {epoch}/20 lr {rate:g} train loss {loss - 0.1:.4f} | val loss {loss}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses")
    runner = CliRunner()
    for lr in (1e-2, 1e-3):
        (folder / f"{lr:g}.txt").write_text(log(lr), encoding="utf-8")
        options = ["--base", "b", "--ratio", "0.9", "--criterion", "l1", "--data", "mnist"]
        options += ["--architecture", "lenet", "--output", str(folder / f"run_{lr:g}")]
        done = runner.invoke(main, ["import", str(folder / f"{lr:g}.txt"), *options])
        assert done.exit_code == 0, done.output
        assert "its test loss, 'val loss', is the metric" in done.output
    runs = [str(folder / f"run_{lr:g}") for lr in (1e-2, 1e-3)]
    output = folder / "page.html"
    done = runner.invoke(main, ["compare", *runs, "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert "final loss" in done.output
    return output.read_text(encoding="utf-8")


@browser.NEEDED
def test_the_page_of_a_log_of_losses_names_the_loss_and_its_direction(page, tmp_path):
    seen = browser.play(page, SCRIPT, tmp_path)
    assert seen["errors"] == seen["refused"] == []
    assert seen["labels"].count("test loss") == 2
    assert {"trainability loss", "final test loss"} <= set(seen["labels"])
    heads = [head.strip("↕ ") for head in seen["heads"]]
    assert {"Final loss", "Best loss", "Trainability loss@10"} <= set(heads)
    assert not any("%" in head or "ccuracy" in head for head in heads)
    assert "above LR 1e-2" in seen["text"]
    assert "The loss was still falling by" in seen["text"]
