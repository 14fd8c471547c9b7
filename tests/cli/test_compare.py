from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from comparisons import five_settings, run

from trainscope.cli.main import main
from trainscope.comparison.cards import published


def invoke(*words):
    return CliRunner().invoke(main, ["compare", *map(str, words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for number, made in enumerate(five_settings(2)):
        made.save(root / str(number) / "run.json")
    return root


def test_the_terminal_has_the_table_the_verdict_and_the_traps(folder):
    done = invoke(folder)
    assert done.exit_code == 0
    for part in ("LR 1e-3 (+60)", "TA@10", "final [%]", "Verdict", "After 20 epochs", "Traps"):
        assert part in done.output


def test_the_page_and_the_figures_are_written(folder, tmp_path):
    page, figures = tmp_path / "out" / "report.html", tmp_path / "figures"
    done = invoke(folder, "--output", page, "--figures", figures, "--title", "My comparison")
    assert done.exit_code == 0
    assert f"wrote {page}" in done.output
    assert "<h1>My comparison</h1>" in page.read_text(encoding="utf-8")
    assert (figures / "accuracy.svg").exists()
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_json_is_alone_on_stdout(folder, tmp_path):
    done = invoke(f"{folder}/*", "--json", "--output", tmp_path / "report.html")
    raw = json.loads(done.stdout)
    assert raw["schema"] == "trainscope.comparison/1"
    assert raw["fairness"]["strictest"] == "S2"


def test_published_cards_are_compared_with_ones_own_run(folder):
    done = invoke(published()[0], folder / "0")
    assert done.exit_code == 0
    assert "Not one comparison: data sets" in " ".join(done.output.split())


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"schema": "trainscope.run/9"}', '{"schema": "trainscope.run/1"}', "[]", "null"],
)
def test_bad_files_are_one_line_and_exit_2(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8")
    done = invoke(path, "--output", tmp_path / "report.html")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("trainscope: ")
    assert not (tmp_path / "report.html").exists()


def test_misuse_is_one_line_and_exit_2(tmp_path):
    for words in ((), (tmp_path / "nothing",), (tmp_path,), ("--nothing",)):
        done = invoke(*words)
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1


def test_an_empty_name_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert invoke(".").exit_code == 0
    for words in (("",), (" ",), (folder / "0", "")):
        done = invoke(*words)
        assert done.exit_code == 2
        assert "an empty name leads to no run" in done.stderr


def test_a_half_written_file_in_a_folder_is_left_out_and_noted(tmp_path):
    run().save(tmp_path / "a" / "run.json")
    (tmp_path / "b").mkdir()
    half = run(seed=1).to_json()[:900]
    (tmp_path / "b" / "run.json").write_text(half, encoding="utf-8")
    done = invoke(tmp_path)
    assert done.exit_code == 0
    assert "left out" in done.output
