"""Text from files, made safe to show: a terminal obeys some letters, and others hide the rest."""

from __future__ import annotations

import html
import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls, marks that turn the direction of reading, lone surrogates, ends of lines."""
_LONGEST = 200


def plain(text: object) -> str:
    r"""Return one line in which every letter that is not one to be read is written as an escape.

    >>> plain("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    word = str(text)
    return word if word.isprintable() else "".join(map(_shown, word))


def escape(text: object) -> str:
    """Return text for HTML, between tags or in an attribute."""
    return html.escape(plain(text))


def count_of(count: int | None, word: str) -> str:
    """Write a number with what it counts, in the singular where it is one; "?" for None.

    >>> count_of(1, "epoch"), count_of(20, "epoch")
    ('1 epoch', '20 epochs')
    """
    return f"{'?' if count is None else count} {word}{'' if count == 1 else 's'}"


def shortened(text: object, longest: int = _LONGEST) -> str:
    """Return `plain` text of so many characters; what is cut is said by an ellipsis."""
    word = str(text)
    return plain(word if len(word) <= longest else word[: longest - 1] + "…")


def _shown(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) not in _UNSAFE:
        return letter
    return letter.encode("unicode_escape").decode()
