"""The page of one Diagnosis: what it says, and that no text in a record is markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from browser import NEEDED, play
from diagnoses import diagnosis, measurement
from pages import Balance, data_of, phone_width

from trainscope.records import Columns, LayerChange, LayerLeft, Measurement
from trainscope.records.measurement import Status
from trainscope.report.page.diagnosis_page import diagnosis_page
from trainscope.report.page.markup import escape
from trainscope.report.rows import notes, rows


def whole():
    """A Diagnosis whose layers are of both kinds, some left alone."""
    made = diagnosis()
    names, kinds = ["conv1", "bn1", "fc"], ["weights", "norms", "weights"]

    def gradient(*norms):
        arrays = {"layers": names, "layer_kinds": kinds, "layer_norms": list(norms)}
        return measurement("gradient", {"norm": sum(norms)}, **arrays)

    columns = Columns(gradient(0.1, 0.2, 0.3), gradient(1.0, 2.0, 0.0), gradient(3.0, 0.5, 4.0))
    left = (LayerLeft("fc", 0.25, "its outputs are the network's"),)
    return replace(
        made,
        action=replace(made.action, left_alone=left),
        probes={**made.probes, "gradient": columns},
    )


@pytest.fixture(scope="module")
def page():
    return diagnosis_page(whole())


def text_of(html):
    return re.sub(r"<[^>]+>", "", html)


def test_it_is_whole_and_balanced_with_the_verdict_first(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    shown = [name for name in parser.ids if name in ("verdict", "numbers", "plots", "layers")]
    assert shown == ["verdict", "numbers", "plots", "layers"]
    for sentence in (*whole().verdict, *notes(whole())):
        assert escape(sentence) in page or sentence in text_of(page)


def test_every_number_of_the_terminal_is_in_the_table(page):
    table = page[page.index('class="numbers"') : page.index('id="plots"')]
    for row in rows(whole()):
        cells = "".join(f'<td class="n">{escape(text)}</td>' for text in row.cells)
        hint = f' title="{row.better} is better"' if row.better else ""
        assert f'<th scope="row"{hint}>{escape(row.label)}</th>{cells}' in table


def test_what_was_done_to_which_layer(page):
    layers = page[page.index('id="layers"') : page.index('id="notes"')]
    assert "90 % of the filters of 6 inner convolutions (filter, inner, l1)." in text_of(layers)
    assert '<td class="s">layer1.0.conv1</td><td class="n" data-v="16">16</td>' in layers
    assert 'data-v="0.9375"' in layers
    assert "25 %" in layers
    assert escape("its outputs are the network's") in layers


def test_the_four_figures_have_the_measured_values(page):
    plots = {plot["title"]: plot for plot in data_of(page)["plots"]}
    assert list(plots) == [
        "First epochs of retraining",
        "Jacobian singular values",
        "Loss curvature",
        "Gradient norm by layer",
    ]
    retraining = {s["label"]: s for s in plots["First epochs of retraining"]["series"]}
    assert len(retraining) == 6
    assert retraining["after, LR 0.01"]["points"] == [[0, 12.0], [1, 70.0], [2, 85.0], [3, 92.0]]
    assert {s["dash"] for label, s in retraining.items() if "LR 0.001" in label} == {1}
    gradient = plots["Gradient norm by layer"]
    assert gradient["names"] == ["", "conv1", "fc", "", "bn1"]
    assert [head["row"] for head in gradient["heads"]] == [0, 3]
    after = gradient["series"][1]
    assert after["points"] == [[1, 1.0], [4, 2.0]]  # a norm of 0 has no place on the axis
    curvature = plots["Loss curvature"]
    assert [rule["x"] for rule in curvature["rules"]] == [4.0, 20.0, 400.0]
    assert curvature["spec"]["xlinear"] == 0.1


def test_one_network_has_one_column_and_no_layers():
    made = whole()
    alone = replace(
        made,
        action=None,
        probes={name: Columns(columns.before) for name, columns in made.probes.items()},
    )
    page = diagnosis_page(alone)
    assert "as it stands, without a sparsifying action" in page
    assert 'id="layers"' not in page
    assert re.findall(r'<th scope="col" class="n">(.*?)</th>', page) == ["value"]
    labels = {s["label"] for plot in data_of(page)["plots"] for s in plot["series"]}
    assert labels == {"the network", "the network, LR 0.01", "the network, LR 0.001"}


def test_probes_that_were_skipped_have_their_reason_and_no_figure():
    made = whole()
    skipped = Measurement("x", status=Status.SKIPPED, reason="there are no labels")
    some = replace(made, probes={**made.probes, "jacobian": Columns(skipped, skipped)})
    assert len(data_of(diagnosis_page(some))["plots"]) == 3
    assert "there are no labels" in diagnosis_page(some)
    none = diagnosis_page(replace(made, probes={"jacobian": Columns(skipped, skipped)}))
    assert data_of(none)["plots"] == []
    assert 'id="plots"' not in none
    zero = measurement("gradient", {"norm": 0.0}, layers=["conv1"], layer_norms=[0.0])
    still = diagnosis_page(replace(made, probes={"gradient": Columns(zero)}))
    assert data_of(still)["plots"] == []


HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)>" & \u202e'


def hostile():
    made = whole()
    layers = [HOSTILE, "fc"]
    gradient = measurement("gradient", {"norm": 1.0}, layers=layers, layer_norms=[1.0, 2.0])
    skipped = Measurement("jacobian", status=Status.SKIPPED, reason=HOSTILE)
    return replace(
        made,
        network=replace(made.network, architecture=HOSTILE, recognised=HOSTILE, digest=HOSTILE),
        action=replace(
            made.action,
            meaning=HOSTILE,
            criterion=HOSTILE,
            layers=(LayerChange(HOSTILE, 4, 2),),
            left_alone=(LayerLeft(HOSTILE, 0.5, HOSTILE),),
        ),
        data=replace(made.data, name=HOSTILE, labels=HOSTILE),
        verdict=(HOSTILE,) * 6,
        notes=(HOSTILE,),
        environment={HOSTILE: HOSTILE},
        probes={"gradient": Columns(gradient, gradient), "jacobian": Columns(skipped, skipped)},
    )


def test_text_from_files_is_never_markup():
    page = diagnosis_page(hostile())
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert "\u202e" not in page[: page.index('id="data"')]
    assert data_of(page)["plots"][0]["names"] == [HOSTILE, "fc"]


READ = """
  const out = {};
  const figures = all(".figure");
  out.figures = figures.length;
  out.drawn = all(".figure svg.plot").filter((svg) => $("path", svg)).length;
  out.legends = figures.map((one) => all(".legend span", one).length);
  const press = (svg, name) => svg.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
  const read = (k, ...keys) => {
    const svg = $("svg.plot", figures[k]);
    svg.focus(); keys.forEach((name) => press(svg, name));
    return $(".tip", figures[k]).innerText.replaceAll("\\n", " ");
  };
  out.epoch = read(0, "Home", "ArrowRight");
  out.layer = read(3, "Home", "ArrowDown");
  out.ticks = all(".ticks text", figures[2]).map((one) => one.textContent);
  dispatchEvent(new Event("beforeprint"));
  out.open = all("details").every((item) => item.open);
  out.paper = all(".figure svg.plot").length;
  dispatchEvent(new Event("afterprint"));
  out.wide = document.documentElement.scrollWidth - innerWidth;
  out.resources = performance.getEntriesByType("resource").length;
  return out;
"""


@NEEDED
def test_a_reader_sees_four_figures_and_reads_their_values(page, tmp_path):
    seen = play(page, READ, tmp_path)
    assert seen["errors"] == seen["refused"] == []
    assert seen["resources"] == 0
    assert seen["figures"] == seen["drawn"] == seen["paper"] == 4
    assert seen["legends"] == [6, 3, 3, 3]
    assert seen["epoch"].startswith("epoch 1")
    assert "after, LR 0.01 70" in seen["epoch"]
    assert seen["layer"].split()[0] == "fc"
    assert "after 0" in seen["layer"]
    assert {"-1", "0", "1"} <= set(seen["ticks"])
    assert seen["open"]
    assert seen["wide"] <= 0


@NEEDED
def test_hostile_names_run_nothing(tmp_path):
    seen = play(
        diagnosis_page(hostile()), "return {layers: all('.figure title')[0].textContent}", tmp_path
    )
    assert seen["errors"] == seen["refused"] == []
    assert seen["layers"] == HOSTILE


@NEEDED
def test_it_fits_a_phone(page, tmp_path):
    scroll, inner = phone_width(page, tmp_path)
    assert inner == 360
    assert scroll <= inner
