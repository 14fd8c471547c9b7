"""Text that anybody may have written is read to a bound, and refused in a sentence."""

from __future__ import annotations

import os

import pytest

from trainscope.comparison.cards import read_cards
from trainscope.comparison.reading import read
from trainscope.data.class_index import read_class_index
from trainscope.errors import DataError, RecordError
from trainscope.records import Run
from trainscope.records.reading import text_of


def test_text_is_read_up_to_the_bound(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\r\nü\r".encode())
    assert text_of(path) == "a\nü\n"
    assert text_of(path, 6) == "a\nü\n"
    with pytest.raises(RecordError, match=r"a\.txt cannot be read: it has more than"):
        text_of(path, 5)


@pytest.mark.parametrize(
    ("reader", "kind", "start"),
    [
        (text_of, RecordError, "{} cannot be read: "),
        (Run.load, RecordError, "no Run can be read from {}: "),
        (read_cards, RecordError, "{} cannot be read: "),
        (read_class_index, DataError, "the class index {} cannot be read: "),
        (lambda path: read([path]), RecordError, "{} cannot be read: "),
    ],
)
def test_every_reader_says_why_it_cannot(tmp_path, reader, kind, start):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(kind) as said:
        reader(path)
    assert str(said.value).partition(";")[0] == start.format(path) + "it is not text"


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no such device")
@pytest.mark.parametrize("reader", [lambda path: text_of(path, 1000), read_class_index])
def test_a_device_without_an_end_is_read_to_the_bound(reader, tmp_path):
    endless = tmp_path / "endless.json"
    endless.symlink_to("/dev/zero")
    with pytest.raises((RecordError, DataError), match="more than"):
        reader(endless)
