"""Files that trainscope did not write are never written over, whatever names them."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from click.testing import CliRunner
from comparisons import five_settings
from diagnoses import diagnosis
from matplotlib.figure import Figure

from trainscope.cli.main import main
from trainscope.comparison.comparison import compare
from trainscope.errors import ProbeError, RecordError
from trainscope.probes.sinks import JsonLines
from trainscope.records.files import refuse_others
from trainscope.report.comparison_figures import displays, write_comparison_figures
from trainscope.report.files import output_folder
from trainscope.report.page.build import write_page
from trainscope.report.pictures import KINDS, save


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_picture_of_ours_is_replaced(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    figure = Figure()
    figure.subplots().plot([1, 2])
    save(figure, path)
    first = path.read_bytes()
    figure.subplots().plot([2, 1])
    save(figure, path)
    assert path.read_bytes() != first
    with mpl.rc_context({"svg.hashsalt": "x"}):
        figure.savefig(path)  # somebody's own, of the same kind and from the same library
    theirs = path.read_bytes()
    with pytest.raises(RecordError, match="trainscope did not write it"):
        save(figure, path)
    assert path.read_bytes() == theirs


def test_an_empty_file_and_a_device_are_written_to(tmp_path):
    empty = tmp_path / "a.png"
    empty.touch()
    refuse_others(empty)
    refuse_others(tmp_path / "none.png")
    refuse_others(tmp_path)
    empty.write_bytes(b"\x89PNG")
    with pytest.raises(RecordError):
        refuse_others(empty)


def test_figures_are_written_all_or_none(tmp_path, monkeypatch):
    comparison = compare(five_settings(1))
    first, *_, end = displays(comparison)
    monkeypatch.setattr("trainscope.report.comparison_figures.displays", lambda _: [first, end])
    last = end.name
    theirs = tmp_path / f"{last}.svg"
    theirs.write_text("<svg>mine</svg>")
    with pytest.raises(RecordError, match="did not write it"):
        write_comparison_figures(comparison, tmp_path, ["svg"])
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]
    theirs.unlink()
    paths = write_comparison_figures(comparison, tmp_path, ["svg"])
    assert write_comparison_figures(comparison, tmp_path, ["svg"]) == paths


def test_a_page_is_written_over_a_page_of_ours_alone(tmp_path):
    comparison, path = compare(five_settings(1)), tmp_path / "a.html"
    write_page(comparison, path)
    write_page(comparison, path)
    path.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(RecordError, match="did not write it"):
        write_page(comparison, path)
    assert "mine" in path.read_text()


@pytest.mark.parametrize("name", ["retraining.png", "pruned.pt"])
def test_a_folder_of_ours_may_hold_files_of_others(tmp_path, name):
    (tmp_path / "diagnosis.json").write_text(diagnosis().to_json())
    with output_folder(tmp_path):
        pass
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(RecordError, match=f"{name} is there already"), output_folder(tmp_path):
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["schedule", "F9,1e-2", "--plot", "a.png"],
        ["estimate", "some.csv", "--target", "90", "--plot", "a.png"],
        ["compare", "missing", "--output", "a.html"],
    ],
)
def test_a_command_says_so_before_its_work(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / words[-1]).write_bytes(b"\x89PNG mine")
    (tmp_path / "some.csv").touch()
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 2
    assert f"{words[-1]} is there already and trainscope did not write it" in ended.output
    assert (tmp_path / words[-1]).read_bytes() == b"\x89PNG mine"


def test_measurements_are_appended_to_measurements_alone(tmp_path):
    path = tmp_path / "notes.txt"
    for theirs in ("mine", '{"a": 1}\n'):
        path.write_text(theirs)
        with pytest.raises(ProbeError, match="holds no measurements"):
            JsonLines(path)
        assert path.read_text() == theirs
    for ours in ("", '{"pro', '{"probe": "gradient", "step": 1}\n'):
        path.write_text(ours)
        JsonLines(path)
