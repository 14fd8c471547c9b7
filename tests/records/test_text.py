"""Text from a file, as it is printed."""

from __future__ import annotations

import pytest

from trainscope.records.text import count_of, plain, shortened


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("résumé 模型 [red]x[/]", "résumé 模型 [red]x[/]"),
        ("a\nb\tc\r\x0bd\x85e\u2028f", r"a\nb\tc\r\x0bd\x85e\u2028f"),
        ("\x1b[31mred\x07\x00\x7f\x9b", r"\x1b[31mred\x07\x00\x7f\x9b"),
        ("\u202eabc\u200f", r"\u202eabc\u200f"),
        ("\ud800x", r"\ud800x"),
        (5, "5"),
    ],
)
def test_a_text_is_one_line_without_controls(given, shown):
    assert plain(given) == shown
    plain(given).encode()


def test_what_is_cut_is_said():
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
    assert shortened("a" * 10**6) == "a" * 199 + "…"


def test_one_is_counted_in_the_singular():
    assert [count_of(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert count_of(None, "run") == "? runs"
