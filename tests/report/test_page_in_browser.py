"""The page in headless Chromium: an injected script plays the reader and writes what it saw.

No driver is needed: Chromium's own `--dump-dom` hands the page back after the script has run.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from browser import NEEDED, play
from comparisons import five_settings
from diagnoses import diagnosis
from pages import phone_width

from trainscope.comparison.comparison import compare
from trainscope.records import Measurement, Scalar, Taken
from trainscope.report.page.build import page_html

pytestmark = NEEDED

# The reader.
PLAY = """
  const lines = (k) => all("[data-series]", all(".figure")[k]).map((g) => g.dataset.series);
  const out = {};
  out.figures = all(".figure").length;
  out.drawn = all(".figure svg.plot").filter((svg) => $("path, circle", svg)).length;
  out.before = lines(0);
  const chip = all(".chip")[1];
  chip.click(); await frame();
  out.hidden = lines(0); out.pressed = chip.getAttribute("aria-pressed");
  out.unchecked = all("input[data-run]").filter((box) => !box.checked).length;
  chip.focus(); out.focused = document.activeElement === chip;
  chip.click(); await frame();
  out.back = lines(0);
  const box = $("input[data-run]"); box.click(); await frame();
  out.mixed = all(".chip")[0].getAttribute("aria-pressed"); box.click();
  $('[data-show="none"]').click(); await frame();
  out.empty = $(".figure .empty").textContent;
  $('[data-show="all"]').click(); await frame();
  $("#seeds").click(); await frame();
  out.thin = all(".curve.thin", $(".figure")).length;
  $("#seeds").click(); await frame();

  const table = all("table.sortable")[0], column = 8;
  const cells = () => all("tbody tr", table).map((row) => row.children[column].textContent);
  const button = $("button", all("thead th", table)[column]);
  button.click(); out.down = cells(); out.sort = button.closest("th").getAttribute("aria-sort");
  button.click(); out.up = cells();

  const svg = $(".figure svg.plot"), at = svg.getBoundingClientRect();
  const where = {clientX: at.left + at.width * 0.4, clientY: at.top + 50};
  svg.dispatchEvent(new PointerEvent("pointermove", where));
  out.pointer = $(".figure .tip").innerText;
  svg.focus();
  const press = (name) => new KeyboardEvent("keydown", {key: name, cancelable: true});
  const key = (name) => svg.dispatchEvent(press(name));
  key("Home"); key("ArrowRight"); key("ArrowRight");
  out.keys = $(".figure .tip").innerText;
  key("Escape"); out.gone = $(".figure .tip").hidden;

  const paper = () => getComputedStyle(document.body).backgroundColor;
  out.light = paper(); $("#theme").click(); out.dark = paper(); $("#theme").click();
  dispatchEvent(new Event("beforeprint"));
  out.open = all("details").every((item) => item.open);
  dispatchEvent(new Event("afterprint"));
  out.wide = document.documentElement.scrollWidth - innerWidth;
  const named = (item) => item.textContent.trim() || item.getAttribute("aria-label");
  out.unnamed = all("button, input, [tabindex='0']").filter((item) => !named(item) &&
    !item.labels?.length).length;
  out.resources = performance.getEntriesByType("resource").map((entry) => entry.name);
  return out;
"""


def comparison():
    taken = [
        Taken(
            Measurement("jacobian", scalars={"mean_jsv": Scalar.of(0.1 + epoch, "logit/input")}),
            epoch,
            "after step",
            float(epoch),
        )
        for epoch in range(4)
    ]
    runs = [replace(made, measurements=tuple(taken)) for made in five_settings()]
    return compare(runs, [diagnosis()])


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return play(page_html(comparison()), PLAY, tmp_path_factory.mktemp("browser"))


def test_no_error_and_no_request(seen):
    assert seen["errors"] == []
    assert seen["refused"] == []
    assert seen["resources"] == []


def test_every_plot_is_drawn(seen):
    assert seen["figures"] >= 8
    assert seen["drawn"] == seen["figures"]
    assert len(seen["before"]) == 5


def test_a_setting_is_hidden_and_shown_again(seen):
    assert "LR 1e-2" in seen["before"]
    assert seen["hidden"] == [label for label in seen["before"] if label != "LR 1e-2"]
    assert seen["pressed"] == "false"
    assert seen["unchecked"] == 3
    assert seen["back"] == seen["before"]
    assert seen["empty"].startswith("Nothing shown")


def test_a_run_is_hidden_and_single_runs_are_shown(seen):
    assert seen["mixed"] == "mixed"
    assert seen["thin"] == 15


def test_tables_are_sorted_by_number(seen):
    values = [float(text.split()[0]) for text in seen["up"]]
    assert seen["sort"] == "descending"
    assert values == sorted(values)
    assert seen["down"] == seen["up"][::-1]


def test_values_are_read_at_the_pointer_and_by_the_keys(seen):
    assert seen["pointer"].startswith("epoch ")
    assert re.search(r"LR 1e-3 \(\+60\)\s+\d", seen["pointer"])
    assert seen["focused"]
    assert seen["keys"].startswith("epoch 2")
    second = comparison().groups[1]
    mean = sum(made.epochs[1].test_accuracy for made in second.runs) / len(second.runs)
    shown = re.search(r"LR 1e-2\s+([\d.]+)", seen["keys"])[1]
    assert float(shown) == pytest.approx(mean, abs=0.01)
    assert seen["gone"]


def test_dark_light_paper_and_names(seen):
    assert seen["light"] != seen["dark"]
    assert seen["open"]
    assert seen["unnamed"] == 0
    assert seen["wide"] <= 0


def test_it_fits_a_phone(tmp_path):
    scroll, inner = phone_width(page_html(comparison()), tmp_path)
    assert inner == 360
    assert scroll <= inner
