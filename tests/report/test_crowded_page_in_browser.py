"""A page of many settings with long names, one of them diverged, as a reader meets it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from browser import NEEDED, play
from comparisons import LARGE, SMALL, run

from trainscope.comparison.comparison import compare
from trainscope.records import Measurement, RunStatus, Scalar, Taken
from trainscope.report.page.build import page_html
from trainscope.report.page.payload import payload

pytestmark = NEEDED

PLAY = """
  const out = {};
  const inside = (one, other, slack = 1) => one.left >= other.left - slack &&
    one.right <= other.right + slack && one.top >= other.top - slack &&
    one.bottom <= other.bottom + slack;
  const box = (node) => node.getBoundingClientRect();
  const spilled = () => all(".figure").flatMap((figure) => {
    const place = box(figure), head = box($("figcaption", figure));
    return all("svg.plot > text, .ticks text", figure).map((text) => [text.textContent, box(text)])
      .filter(([, at]) => at.width && (!inside(at, place) || at.top < head.bottom - 1))
      .map(([text]) => text);
  });
  out.spilled = spilled();
  const touching = () => all("svg.plot").flatMap((svg) => {
    const texts = all("text", svg).map((text) => [text.textContent, box(text)])
      .filter(([, at]) => at.width);
    return texts.flatMap(([one, a], k) => texts.slice(k + 1).filter(([, b]) =>
      Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
      Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1).map(([other]) => [one, other]));
  });
  out.touching = touching();

  const cards = all(".figure").filter((figure) => $("figcaption", figure).textContent
    .startsWith("When does"));
  out.cards = cards.map((card) => ({
    promised: all(".legend span", card).map((item) => item.textContent),
    drawn: all("[data-series]", card).filter((group) => $("path.curve, .point", group) &&
      box($("path.curve, .point", group)).width > 0).map((group) => group.dataset.series),
  }));

  const chips = $(".chips"), unfold = $("#unfold");
  const seen = (chip) => inside(box(chip), box(chips));
  out.folded = {text: unfold.textContent, shown: all(".chip").filter(seen).length,
    expanded: unfold.getAttribute("aria-expanded")};
  unfold.click(); await frame();
  out.unfolded = {text: unfold.textContent, shown: all(".chip").filter(seen).length,
    expanded: unfold.getAttribute("aria-expanded"), low: box(chips).height < innerHeight / 2,
    scrolls: chips.scrollHeight > chips.clientHeight &&
      getComputedStyle(chips).overflowY === "auto"};
  unfold.click(); await frame();
  $("#filter").value = "random"; $("#filter").dispatchEvent(new Event("input"));
  out.found = {shown: all(".chip").filter((chip) => box(chip).width).length, more: !unfold.hidden};
  $("#filter").value = ""; $("#filter").dispatchEvent(new Event("input"));

  $('[data-show="all"]').click(); await frame();
  out.spilledAll = spilled(); out.touchingAll = touching();
  const named = (start) => all(".figure").find((figure) =>
    $("figcaption", figure).textContent.startsWith(start));
  const ticks = (figure) => all(".ticks text", figure).filter((text) => !$("tspan", text))
    .map((text) => +text.textContent).filter((value) => !isNaN(value));
  for (const name of ["Trainability", "Final"]) {
    out[name] = {ticks: ticks(named(name)), below: all(".below", named(name)).map((node) =>
      node.textContent)};
  }
  const time = named("Test accuracy against LR time");
  const right = () => Math.max(...all(".ticks text", time).filter((text) =>
    text.getAttribute("text-anchor") === "middle").map((text) => +text.textContent));
  out.time = right();
  $("#full").click(); await frame();
  out.full = {ticks: ticks(named("Final")), below: all(".below").length, time: right()};
  $("#full").click(); await frame();

  out.names = all("tspan", named("Final")).map((line) => line.textContent).join("");
  out.labels = all(".chip .name").map((chip) => chip.textContent);
  const marks = (figure) => all("[data-series]", figure).map((group) =>
    all("path.mark", group).map((mark) => [box(mark).left, box(mark).top]));
  out.marks = marks(time); out.drops = marks(named("Test accuracy against epoch"));
  $("#first").click(); await frame();
  const epochs = named("Test accuracy against epoch");
  out.first = {x: Math.max(...all(".ticks text", epochs).filter((text) =>
    text.getAttribute("text-anchor") === "middle").map((text) => +text.textContent)),
    y: Math.min(...ticks(epochs))};
  $("#first").click(); await frame();

  const scroll = $('.scroll[aria-label="Settings"]');
  const last = () => box($("thead th:last-child", scroll)).right <= box(scroll).right + 1;
  const head = $("thead th", scroll), hint = scroll.previousElementSibling;
  out.table = {fits: last(), hint: hint.classList.contains("hint") && !hint.hidden};
  scroll.scrollLeft = 1e5; scroll.dispatchEvent(new Event("scroll")); await frame();
  out.moved = {fits: last(), first: box(head).left >= box(scroll).left - 1,
    edge: scroll.classList.contains("wider")};
  return out;
"""


def crowd():
    """Eleven settings: a sweep of the LR, another method, and a run that diverged."""
    taken = tuple(
        Taken(
            Measurement("step_gradient", scalars={"mean_norm": Scalar.of(1 / k, "nats/weight")}),
            k,
            "after step",
            float(k),
        )
        for k in range(1, 5)
    )
    lrs = ("1e-1", "5e-2", "2e-2", "1e-2", "5e-3", "2e-3", "1e-3", "5e-4")
    runs = [run(f"0:{lr},10:1e-5,15:1e-6") for lr in lrs]
    runs += [run(schedule, criterion="random") for schedule in (LARGE, SMALL)]
    lost = run("0:1e3")
    guesses = tuple(replace(record, test_metric=10.0) for record in lost.epochs)
    runs.append(replace(lost, status=RunStatus.DIVERGED, epochs=guesses))
    return compare([replace(made, measurements=taken) for made in runs])


@pytest.fixture(scope="module")
def page():
    return page_html(crowd())


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    return play(page, PLAY, tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def seen_on_a_phone(page, tmp_path_factory):
    # A window of Chromium's is at least 500 pixels wide.
    return play(page, PLAY, tmp_path_factory.mktemp("phone"), "--window-size=500,900")


def test_no_text_of_a_plot_leaves_its_card_or_covers_the_title(seen, seen_on_a_phone):
    for found in (seen, seen_on_a_phone):
        assert found["errors"] == []
        assert found["spilled"] == []
        assert found["spilledAll"] == []


def test_no_text_of_a_plot_lies_on_another(seen, seen_on_a_phone):
    for found in (seen, seen_on_a_phone):
        assert found["touching"] == []
        assert found["touchingAll"] == []


def test_long_names_are_whole_beside_their_rows(seen, seen_on_a_phone):
    for found in (seen, seen_on_a_phone):
        told = re.sub(r"\s", "", found["names"])
        assert len(found["labels"]) == 11
        for label in found["labels"]:
            assert re.sub(r"\s", "", label) in told


def test_marks_of_a_curve_do_not_pile_up(seen):
    for places in seen["marks"] + seen["drops"]:
        assert all(math.dist(a, b) >= 13 for a, b in pairwise(places))
    assert any(len(places) == 2 for places in seen["drops"])
    assert any(len(places) == 1 for places in seen["marks"])


def test_the_first_epochs_are_shown_when_asked_for(seen):
    assert seen["first"]["x"] == crowd().ta_epochs
    assert seen["first"]["y"] <= 20


def test_a_card_of_an_estimate_shows_what_its_legend_promises(seen):
    data = payload(crowd())
    hidden = [p["s"] for p in data["plots"] if p["kind"] == "estimate" and p["s"] not in data["on"]]
    assert hidden  # else this would prove nothing
    assert seen["cards"]
    for card in seen["cards"]:
        assert len(card["promised"]) in (2, 3)  # measured, predicted, and when it gets there
        assert card["drawn"] == card["promised"]


def test_settings_that_are_folded_away_are_counted_and_unfold(seen, seen_on_a_phone):
    for found in (seen, seen_on_a_phone):
        folded, unfolded = found["folded"], found["unfolded"]
        assert folded["expanded"] == "false"
        assert folded["shown"] < 11
        assert unfolded["expanded"] == "true"
        assert unfolded["shown"] == 11 or unfolded["scrolls"]
        assert unfolded["text"] == "▴ fewer"
        assert unfolded["low"]
    assert seen["folded"]["text"] == f"▾ {11 - seen['folded']['shown']} more"
    assert seen["found"] == {"shown": 2, "more": False}


@pytest.mark.parametrize("name", ["Trainability", "Final"])
def test_a_diverged_setting_is_marked_and_sets_no_axis(seen, name):
    assert min(seen[name]["ticks"]) > 50
    assert seen[name]["below"] == ["10.0 %, diverged"]


def test_the_full_range_is_shown_when_asked_for(seen):
    assert min(seen["full"]["ticks"]) <= 50
    assert seen["full"]["below"] == 0
    assert seen["time"] <= 10 < seen["full"]["time"]


def test_every_column_can_be_reached(seen, seen_on_a_phone):
    assert seen["table"]["fits"] or seen["table"]["hint"]
    assert seen_on_a_phone["table"] == {"fits": False, "hint": True}
    assert seen_on_a_phone["moved"] == {"fits": True, "first": True, "edge": False}
