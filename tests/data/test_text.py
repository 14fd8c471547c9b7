"""Text as data: sequences, labelled texts, halves that share nothing, and what is refused."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch

from trainscope.data import Reading, load
from trainscope.data.text import LENGTH, TokenSplit
from trainscope.errors import DataError
from trainscope.task import Classification, LanguageModelling, MaskedLanguageModelling

SHORT = Reading(length=4)


def words(folder: pathlib.Path, name: str = "a.txt", count: int = 100) -> pathlib.Path:
    file = folder / name
    file.write_text("".join(f"{i:03}\n" for i in range(count)))
    return file


def read(place: object, reading: Reading = SHORT, **options: object):
    return load(f"text:{place}", (), reading=reading, **options)


def text_of(split) -> str:
    return bytes(split.ids.flatten().tolist()).decode()


def test_the_last_tenth_is_the_test_half(tmp_path):
    data = read(words(tmp_path))
    assert isinstance(data.task, LanguageModelling)
    assert (len(data.train), len(data.test)) == (90, 10)
    assert text_of(data.train)[:8] == "000\n001\n"
    assert text_of(data.test)[:4] == "090\n"
    batch = data.test.batch(torch.tensor([0, 9]))
    assert batch["input_ids"].shape == (2, 4)
    assert torch.equal(batch["labels"], batch["input_ids"])


def test_long_halves_are_tested_on_evenly_spaced_sequences(tmp_path):
    data = read(words(tmp_path, count=60_000))
    assert len(data.test) == 4096
    assert "4096 of the" in data.notes[0]
    assert text_of(data.test).endswith("5999")


def test_the_length_is_that_of_the_network_at_most(tmp_path):
    file = words(tmp_path, count=2000)
    assert read(file, Reading()).input_shape == (LENGTH,)
    assert read(file, Reading(context=16)).input_shape == (16,)
    with pytest.raises(DataError, match="takes 16 at most"):
        read(file, Reading(context=16, length=17))


def test_every_tenth_file_of_a_folder_is_for_the_test(tmp_path):
    for i in range(20):
        (tmp_path / f"{i:02}.py").write_text(f"{i:02}{i:02}" * 4)
    data = read(tmp_path)
    assert set(text_of(data.test)) == set("0919")
    assert text_of(data.train).startswith("0000000000000000" + "0101")
    assert "1919" not in text_of(data.train)


def test_a_folder_may_say_its_halves(tmp_path):
    (tmp_path / "train.txt").write_text("aaaa" * 5)
    (tmp_path / "validation.txt").write_text("bbbb" * 3)
    data = read(tmp_path)
    assert (text_of(data.train), text_of(data.test)) == ("aaaa" * 5, "bbbb" * 3)


def test_json_lines_hold_documents(tmp_path):
    rows = [json.dumps({"text": f"{i:04}"}) for i in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    data = read(tmp_path / "a.jsonl")
    assert (len(data.train), len(data.test)) == (27, 3)
    assert text_of(data.test) == "000900190029"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_labelled_texts_are_classified(tmp_path, name):
    rows = [(f"{i:02}, it seems"[: 5 + i], "good" if i % 3 else "bad") for i in range(20)]
    if name.endswith("jsonl"):
        text = "\n".join(json.dumps({"text": t, "label": y}) for t, y in rows)
    elif name.endswith("csv"):
        text = "label,text\n" + "\n".join(f'{y},"{t}"' for t, y in rows)
    else:
        text = "label\ttext\n" + "\n".join(f"{y}\t{t}" for t, y in rows)
    (tmp_path / name).write_text(text)
    data = read(tmp_path / name, Reading(length=12))
    assert isinstance(data.task, Classification)
    assert (data.num_classes, data.classes) == (2, ("bad", "good"))
    assert (len(data.train), len(data.test)) == (18, 2)
    batch = data.train.batch(torch.arange(18))
    lengths = batch["attention_mask"].sum(1)
    assert batch["input_ids"].shape == (18, 12)
    assert set(lengths.tolist()) <= set(range(5, 13))
    assert bool((batch["input_ids"][batch["attention_mask"] == 0] == 0).all())
    known = {t[:12]: y for t, y in rows}
    for ids, many, label in zip(batch["input_ids"], lengths, batch["labels"], strict=True):
        assert known[bytes(ids[:many].tolist()).decode()] == data.classes[label]


def test_labels_that_are_numbers_are_outputs(tmp_path):
    rows = "\n".join(f"word {i},{3 * (i % 2)}" for i in range(20))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
    data = read(tmp_path / "a.csv", Reading(length=12))
    assert data.num_classes == 4
    assert set(data.train.batch(torch.arange(18))["labels"].tolist()) == {0, 3}


def test_the_same_tokens_are_masked_in_every_pass():
    ids = torch.randint(5, 90, (7, 40))
    ids[:, 0] = 1
    split = TokenSplit(ids, mask=2, kept=frozenset({1}))
    one, two = split.batch(torch.arange(7)), split.batch(torch.tensor([5]))
    assert torch.equal(one["input_ids"][5:6], two["input_ids"])
    hidden = one["labels"] != -100
    assert bool((one["input_ids"][hidden] == 2).all())
    assert torch.equal(one["labels"][hidden], ids[hidden])
    assert torch.equal(one["input_ids"][~hidden], ids[~hidden])
    assert not bool(hidden[:, 0].any())
    assert 0.05 < float(hidden.double().mean()) < 0.3
    assert bool(
        TokenSplit(ids[:, :2], 2, frozenset({1})).batch(torch.arange(7))["labels"].max() > 0
    )


@pytest.mark.parametrize(
    ("name", "content", "reading", "task", "said"),
    [
        ("a.txt", None, SHORT, None, "there is no file"),
        ("a.txt", b"abc\0def" * 20, SHORT, None, "no text"),
        ("a.txt", b"abcdefghij" * 3, Reading(length=8), None, "2 are the least"),
        ("a.txt", b"abcd" * 99, Reading(vocabulary=50257), None, "--tokenizer"),
        ("a.txt", b"abcd" * 99, SHORT, Classification(), "no labels for Classification"),
        ("a.txt", b"abcd" * 99, SHORT, MaskedLanguageModelling(), "no token that masks"),
        ("a.csv", b"words,label\na,1\n", SHORT, None, "no column 'text'"),
        ("a.jsonl", b'{"text": 1}\n', SHORT, None, "line 1"),
        ("a.jsonl", b"{text}\n", SHORT, None, "line 1"),
        ("a.csv", b"text,label\n" + b"a,1\n" * 20, SHORT, None, "one class"),
        ("a.csv", b"text,label\n" + b"a,1\nb,\n" * 20, SHORT, None, "some have none"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, name, content, reading, task, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name, reading, task=task)
