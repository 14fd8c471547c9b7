from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import SMALL, run
from diagnoses import diagnosis

from trainscope.comparison.cards import read_cards
from trainscope.comparison.facts import final_value
from trainscope.comparison.fairness import fairness
from trainscope.comparison.reading import read
from trainscope.comparison.settings import group
from trainscope.errors import RecordError
from trainscope.records import Kind


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_files_folders_and_globs_are_read_once(tmp_path):
    run(seed=0).save(tmp_path / "a" / "run.json")
    run(seed=1).save(tmp_path / "b" / "run.json")
    (tmp_path / "diagnosis.json").write_text(diagnosis().to_json(), encoding="utf-8")
    (tmp_path / "other.json").write_text('{"a": 1}', encoding="utf-8")
    found = read([tmp_path, tmp_path / "a", f"{tmp_path}/*"])
    assert sorted(held.seed for held in found.runs) == [0, 1]
    assert found.diagnoses == (diagnosis(),)
    assert found.notes == ()
    assert read([f"{tmp_path}/?/run.json"]).runs == found.runs


def test_records_that_cannot_be_read_in_a_folder_are_noted(tmp_path):
    run().save(tmp_path / "good" / "run.json")
    text = run().to_json()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "part.json").write_text(text[: len(text) // 2], encoding="utf-8")
    (tmp_path / "future.json").write_text(text.replace("run/2", "run/9"), encoding="utf-8")
    found = read([tmp_path])
    assert len(found.runs) == 1
    assert len(found.notes) == 2
    assert any("cut short" in note for note in found.notes)
    assert any("run/9" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("run.json", "", "not JSON"),
        ("run.json", '{"schema": "trainscope.run/1", "kind"', "not JSON"),
        ("run.json", '{"schema": "trainscope.run/7"}', "trainscope.run/7"),
        ("run.json", '{"schema": "trainscope.run/1"}', "incomplete or damaged"),
        ("run.json", "[1, 2]", "no Run"),
        ("d.json", '{"schema": "trainscope.diagnosis/9"}', "trainscope.diagnosis/9"),
        ("x.json", '{"schema": "somebody/1"}', "somebody/1"),
        ("log.csv", "epoch,accuracy\n1,50\n", "trainscope import"),
        ("card.toml", "accuracy = ", "not TOML"),
        ("card.toml", "accuracy = 1.0", "no table [[run]]"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError) as error:
        read([path])
    assert words in one_sentence(error)
    assert name in one_sentence(error)


def test_nothing_there_is_one_sentence(tmp_path):
    for name in (tmp_path / "nothing.json", f"{tmp_path}/*.json", tmp_path):
        with pytest.raises(RecordError) as error:
            read([name])
        assert str(tmp_path) in one_sentence(error)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecordError, match="not text"):
        read([path])


CARD = """
data = "imagenet"
architecture = "resnet50"
structure = "filter"
speedup = 2.31
[[run]]
method = "A"
accuracies = [75.1, 75.3]
schedule = "0:1e-2,30:1e-3"
epochs = 90
[[run]]
method = "B"
accuracy = 75.9
base = "torchvision"
"""


def test_cards_are_runs(tmp_path):
    path = tmp_path / "card.toml"
    path.write_text(CARD, encoding="utf-8")
    a, other, b = read_cards(path)
    assert [final_value(made) for made in (a, other, b)] == [75.1, 75.3, 75.9]
    assert (a.total, a.pruning.criterion, a.source, a.seed) == (90, "A", "card", 0)
    assert b.schedule is None
    assert "method" in a.given
    assert fairness([a, other, b]).strictest == "S1"


def test_rows_that_read_alike_are_all_counted(tmp_path):
    rows = tmp_path / "rows.toml"
    text = "".join(f'[[run]]\nmethod = "A"\naccuracy = {a}\n' for a in (93.1, 93.1, 93.4))
    rows.write_text(text, encoding="utf-8")
    seeds = tmp_path / "seeds.toml"
    seeds.write_text('[[run]]\nmethod = "A"\naccuracies = [93.1, 93.1, 93.4]\n', encoding="utf-8")
    (one,), (other,) = group(read_cards(rows)), group(read_cards(seeds))
    assert one.finals == other.finals == [93.1, 93.1, 93.4]


def test_a_copied_card_is_read_once_and_noted(tmp_path):
    (tmp_path / "copy").mkdir()
    for folder in (tmp_path, tmp_path / "copy"):
        (folder / "card.toml").write_text(CARD, encoding="utf-8")
    found = read([tmp_path])
    assert len(found.runs) == 3
    assert len(found.notes) == 1
    assert "is a copy of" in found.notes[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("accuracy = 175.0", "percent"),
        ("accuracy = 75.0\nbase_acuracy = 3", "no field 'base_acuracy'"),
        ("accuracy = 75.0\nschedule = '0:1e-2'", "give `epochs` too"),
        ("accuracy = 75.0\nschedule = '3:1e-2'\nepochs = 5", "must start at epoch 0"),
        ("accuracy = 75.0\nratio = 90", "in [0, 1)"),
        ("accuracy = 75.0\nspeedup = 0", "above 0"),
        ("accuracy = 75.0\nepochs = 'ten'", "whole number"),
        ("accuracy = 75.0\nreported = 'max'", "last, best or unknown"),
        ("method = 'A'", "accuracy = 77.6"),
        ("accuracy = 75.0\nkind = 'x'", "x"),
    ],
)
def test_bad_cards_name_the_row(tmp_path, line, words):
    path = tmp_path / "card.toml"
    path.write_text(f"[[run]]\naccuracy = 70.0\n[[run]]\n{line}\n", encoding="utf-8")
    with pytest.raises(RecordError) as error:
        read_cards(path)
    assert "run 2" in one_sentence(error)
    assert words in one_sentence(error)


def test_a_pretraining_is_left_out_of_a_folder_and_read_where_it_is_named(tmp_path):
    """`trainscope pipeline` keeps the untrained network and the pretraining beside its runs."""
    dense = replace(run(), kind=Kind.TRAIN, pruning=None, base="unknown", end="ba5e")
    untrained = replace(dense, epochs=(), end="0" * 64)
    for name, one in {
        "stem/epoch-0000": untrained,
        "stem/epoch-0003": dense,
        "large": replace(run(), base="ba5e"),
        "small": replace(run(SMALL), base="ba5e"),
    }.items():
        (tmp_path / name).mkdir(parents=True)
        one.save(tmp_path / name / "run.json")
    found = read([tmp_path])
    assert {one.kind for one in found.runs} == {Kind.RETRAIN}
    assert len(found.runs) == 2
    assert found.notes == (
        "left out: a pretraining of other runs here; name its folder to compare it too",
    )
    assert len(read([tmp_path, tmp_path / "stem/epoch-0003"]).runs) == 3
    assert len(read([tmp_path / "stem/epoch-0003", tmp_path]).runs) == 3
    assert len(read([tmp_path / "stem"]).runs) == 1  # nothing was made from it here


STAGED = """
data = "digits"
architecture = "net"
speedup = 2.0
epochs = 90
stage_epochs = 10
stage_schedule = "0:1e-3,5:1e-4"
stage_flops = 123
pretraining_schedule = "0:1e-1"
pretraining_epochs = 30
[[run]]
method = "A"
accuracy = 75.0
spread = 0.2
[[run]]
method = "B"
"""


def test_cards_state_the_pruning_stage_and_may_lack_an_accuracy(tmp_path):
    path = tmp_path / "card.toml"
    path.write_text(STAGED, encoding="utf-8")
    one, two = read_cards(path)
    stage = one.pruning.stage_epochs, one.pruning.stage_schedule, one.pruning.stage_flops
    assert stage == (10, "0:1e-3,5:1e-4", 123)
    assert (one.pretraining.schedule, one.pretraining.epochs) == ("0:1e-1", 30)
    assert (final_value(one), final_value(two)) == (75.0, None)
    first, second = group([one, two])
    assert (first.spread, second.mean, second.spread) == (0.2, None, None)
    assert fairness([one, two]).strictest == "S1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stage_epochs = -1", "0 or more"),
        ("stage_epochs = 1.5", "whole number"),
        ("stage_schedule = '5:1e-3'", "must start at epoch 0"),
        ("pretraining_schedule = 'x'", "an epoch"),
        ("spread = -0.1", "standard deviation"),
        ("accuracies = [75.0, 75.1]\nspread = 0.1", "follows from them"),
    ],
)
def test_bad_stages_and_spreads_name_the_row(tmp_path, line, words):
    path = tmp_path / "card.toml"
    path.write_text(
        f"[[run]]\naccuracy = 70.0\n[[run]]\naccuracy = 70.0\n{line}\n", encoding="utf-8"
    )
    with pytest.raises(RecordError) as error:
        read_cards(path)
    assert "run 2" in one_sentence(error)
    assert words in one_sentence(error)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000])
def test_values_of_any_size_are_one_sentence(tmp_path, value):
    path = tmp_path / "card.toml"
    path.write_text(f"[[run]]\naccuracy = {value}\n", encoding="utf-8")
    with pytest.raises(RecordError, match="is no run card: it is not TOML"):
        read_cards(path)
