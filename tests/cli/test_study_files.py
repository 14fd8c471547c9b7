"""Files of studies and of their results as people have them: what is lost, and what is said."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from small_studies import NETWORK, one_thread

from trainscope.cli.main import main
from trainscope.studies import Store

TEXT = f"""
name = "mine"
data = "digits"
recipes = "F1,1e-1"
settings = {{ batch_size = 256, augment = false }}
base = {{ architecture = "{NETWORK}", recipe = "F1,1e-1" }}
action = {{ ratio = 0.5 }}
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    one_thread()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(TEXT)
    return tmp_path


def said(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["study", *args])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_results_are_written_over_nothing_but_results(place):
    said("run", "a.toml")
    for name in ("a.toml", "study.db"):
        before = (place / name).read_bytes()
        assert "it is not replaced" in said("results", "a.toml", "--csv", name, code=2)
        assert (place / name).read_bytes() == before
    (place / "notes.csv").write_text("day,weather\nmonday,rain\n")
    assert "it is not replaced" in said("results", "a.toml", "--csv", "notes.csv", code=2)
    for _ in range(2):
        said("results", "a.toml", "--csv", "mine.csv")
    assert (place / "mine.csv").read_text().count("\n") == 2


def test_two_files_with_one_name_are_told_apart(place):
    said("run", "a.toml")
    (place / "b.toml").write_text(TEXT.replace("0.5", "0.3"))
    refused = said("run", "b.toml", code=2)
    assert "b.toml, line 2: the store holds the study 'mine' of" in refused
    assert "give one of the two another name, or another store" in refused
    assert len(Store("study.db").digests("mine")) == 1
    (place / "b.toml").write_text(TEXT.replace("0.5", "0.3").replace("mine", "other"))
    assert "1 of them new" in said("run", "b.toml")
    assert Store("study.db").studies == ["mine", "other"]


def test_a_file_that_was_moved_goes_on(place):
    said("run", "a.toml")
    (place / "a.toml").rename(place / "moved.toml")
    assert "0 to do" in said("run", "moved.toml")
    (place / "a.toml").write_text(TEXT.replace("mine", "another"))
    assert "0 to do" in said("run", "moved.toml")


def test_runs_that_a_study_has_no_longer_are_said(place):
    said("run", "a.toml")
    (place / "a.toml").write_text(TEXT.replace("0.5", "[0.3, 0.5]"))
    assert "no longer" not in said("run", "a.toml")
    (place / "a.toml").write_text(TEXT.replace("0.5", "0.3"))
    assert "1 runs that are done are of the study no longer" in said("run", "a.toml")


def test_a_studys_file_is_its_results_too(place):
    (place / "a.toml").write_text(TEXT.replace("0.5", "[0.2, 0.4, 0.6, 0.8]"))
    said("run", "a.toml")
    found = CliRunner().invoke(main, ["correlate", "a.toml", "--known", "pruned_loss", "--json"])
    by_store = CliRunner().invoke(
        main, ["correlate", "study.db", "--known", "pruned_loss", "--json"]
    )
    assert found.exit_code == 0, found.output
    assert found.stdout == by_store.stdout


def test_a_byte_order_mark_is_no_error(place):
    (place / "a.toml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert "1 run, 1 of them to do" in said("run", "a.toml", "--dry-run")
    wrong = TEXT.replace("0.5", "50")
    (place / "a.toml").write_bytes(b"\xef\xbb\xbf" + wrong.encode())
    assert "a.toml, line 7: the ratio is 50" in said("run", "a.toml", "--dry-run", code=2)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"F1,1e-1"\nsettings', '"X1"\nsettings', "'X1' is no recipe: write one like"),
        ('"digits"', '"cifar10:/nowhere"', "cifar10:/nowhere is not here: fetch it"),
        ('"digits"', '"digits"\nstore = "a.toml"', "or move that file away"),
    ],
)
def test_what_is_wrong_says_what_to_do(place, old, new, why):
    assert old in TEXT
    (place / "a.toml").write_text(TEXT.replace(old, new))
    dry = () if "store" in new else ("--dry-run",)
    assert why in said("run", "a.toml", *dry, code=2)
