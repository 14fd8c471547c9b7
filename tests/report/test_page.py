from __future__ import annotations

import re
from dataclasses import replace

import pytest
from comparisons import LARGE, SMALL, five_settings, run, seeds
from diagnoses import diagnosis
from pages import Balance, data_of

from trainscope.comparison.comparison import compare
from trainscope.comparison.traps import Severity, Trap
from trainscope.convergence import Interval
from trainscope.errors import RecordError
from trainscope.report.page.build import page_html, write_page
from trainscope.report.page.payload import MOST_EPOCHS, payload


@pytest.fixture(scope="module")
def page():
    return page_html(compare(five_settings(), [diagnosis()], ["left out: a.json"]))


def test_the_page_is_whole_and_balanced(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    for part in ("verdict", "settings", "fairness", "traps", "diagnoses", "runs", "exact"):
        assert part in parser.ids
    assert "left out: a.json" in page


def test_links_lead_to_sections_of_the_page(page):
    parser = Balance()
    parser.feed(page)
    links = set(re.findall(r'href="([^"]*)"', page))
    assert links == {"data:,", *(f"#{name}" for name in ("verdict", "fairness", "traps"))}
    assert {link[1:] for link in links if link.startswith("#")} <= set(parser.ids)


def test_nothing_is_fetched(page):
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|action)=["']|url\((?!#)|@import|fetch\(|XMLHttpRequest""", page)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name space, not an address


def test_the_verdict_comes_before_the_plots_and_these_before_the_tables(page):
    places = [page.index(text) for text in ("After 20 epochs", 'data-plot="0"', 'id="settings"')]
    assert places == sorted(places)


def test_every_final_accuracy_is_on_the_page(page):
    for made in five_settings():
        assert f"{made.final_accuracy:.2f}" in page


def test_the_data_are_the_runs(page):
    data = data_of(page)
    made = five_settings()[0]
    first = data["runs"][0]
    assert first["a"] == pytest.approx([r.test_accuracy for r in made.epochs], rel=1e-4)
    assert first["t"][-1] == pytest.approx(made.lr_time, rel=1e-4)
    assert first["d"] == [10, 15]
    assert sum(len(item["runs"]) for item in data["settings"]) == 15


@pytest.mark.parametrize(
    "evil", ["</script><script>alert(1)</script>", '"><img src=x>', "<b>&amp;"]
)
def test_names_cannot_break_out_of_the_page(evil):
    runs = [replace(run(), architecture=evil, data=evil), run(SMALL, data=evil)]
    html = page_html(compare(runs, notes=[evil]), title=evil)
    assert evil not in html
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    data_of(html)


def test_long_runs_are_thinned_but_keep_their_drops():
    long = run("0:1e-2,1501:1e-3", 3000)
    data = payload(compare([long]))
    epochs = data["runs"][0]["e"]
    assert len(epochs) <= MOST_EPOCHS + 2
    assert {1501, 3000} <= set(epochs)


def test_a_few_settings_take_half_the_place_of_a_plot():
    narrow = 'class="figure narrow"'
    assert page_html(compare(five_settings()[:9])).count(narrow) == 2  # TA, final accuracy
    assert narrow not in page_html(compare(five_settings()))


def test_fifty_runs_are_small():
    made = [
        one
        for k, schedule in enumerate((LARGE, SMALL))
        for one in seeds(
            25, schedule=schedule.replace("10:", "60:").replace("15:", "80:"), total=100
        )
    ]
    assert len(page_html(compare(made)).encode()) < 1_000_000


def test_cards_runs_and_diagnoses_alone_each_make_a_page():
    for runs, diagnoses in (([], [diagnosis()]), ([run()], []), ([replace(run(), epochs=())], [])):
        parser = Balance()
        parser.feed(page_html(compare(runs, diagnoses)))
        assert parser.open == []


def test_diagnoses_alone_bring_their_own_verdict():
    html = page_html(compare([], [diagnosis()]))
    assert html.index("It broke.") < html.index('data-plot="0"')
    assert "<details open>" in html
    assert 'class="bar' not in html


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(RecordError, match="cannot be written: a file is in the place"):
        write_page(compare([run()]), tmp_path / "file" / "report.html")


def test_the_headline_of_traps_counts_their_boxes():
    comparison = compare(five_settings(), [diagnosis()])
    trap = Trap("not converged", comparison.groups[0].label, "It rises.")
    note = replace(trap, weight=Severity.NOTE)
    for traps, told in (
        ((), None),
        ((trap,), "1 trap</a> puts results in doubt."),
        ((trap, trap), "2 traps</a> put results in doubt."),
        ((note,), "1 trap</a>, a note: no result is in doubt."),
        ((trap, note, note), "3 traps</a>: 1 puts results in doubt, 2 are notes."),
    ):
        html = page_html(replace(comparison, traps=traps))
        boxes = re.search(r'<ul class="traps">.*?</ul>', html, re.DOTALL)
        assert (boxes[0].count("<li") if boxes else 0) == len(traps)
        assert re.findall(r'href="#traps">(.*?)</p>', html) == ([told] if told else [])


def test_an_estimate_that_looks_too_far_ahead_is_not_drawn_and_says_so():
    comparison = compare(five_settings())
    assert not [plot for plot in payload(comparison)["plots"] if plot["kind"] == "estimate"]
    assert "No curve is predicted" in comparison.estimates[0].result.withheld


def test_an_estimate_carries_its_passage(monkeypatch):
    monkeypatch.setattr("trainscope.convergence.drawn.FURTHEST", 1000.0)
    monkeypatch.setattr("trainscope.comparison.estimates.LIKELY", 0.3)
    comparison = compare(five_settings())
    shown = [plot for plot in payload(comparison)["plots"] if plot["kind"] == "estimate"]
    assert shown
    for plot in shown:
        held = next(
            h for h in comparison.estimates if plot["title"].startswith(f"When does {h.label} ")
        )
        passage = held.result.first_passage
        assert plot["passage"]["median"] == pytest.approx(passage.median, rel=1e-3)
        assert passage.in_words("epoch") in plot["passage"]["label"]
        assert plot["passage"]["high"] == pytest.approx(passage.high, rel=1e-3)


def test_an_end_at_the_horizon_is_an_arrow_and_no_epoch(monkeypatch):
    monkeypatch.setattr("trainscope.convergence.drawn.FURTHEST", 1000.0)
    monkeypatch.setattr("trainscope.comparison.estimates.LIKELY", 0.3)
    comparison = compare(five_settings())

    def passage_of(median: float):
        late = Interval(median, 210, 1000, horizon=1000, beyond=0.2)
        held = comparison.estimates[0]
        held = replace(held, result=replace(held.result, first_passage=late))
        shown = payload(replace(comparison, estimates=(held,)))["plots"]
        return next(plot for plot in shown if plot["kind"] == "estimate")["passage"]

    shown = passage_of(230)
    assert shown["high"] is None
    assert shown["label"] == (
        "reaches it at epoch 230 (210 or later; not within 1000 epochs with probability 0.20)"
    )
    assert passage_of(1000) is None
