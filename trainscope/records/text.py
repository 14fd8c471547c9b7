"""Text from a file, made fit to print: one line, no control characters, nothing that is no text."""

from __future__ import annotations

import unicodedata

_UNPRINTED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls, formatting (which can turn the direction of a line), lone surrogates, line ends."""

_LONGEST = 200


def plain(text: object) -> str:
    """Return a text as one line that any terminal shows as it is.

    Tabs and ends of lines become spaces; other control characters, marks that turn the direction
    of writing, and lone surrogates become the replacement character.
    """
    return "".join(map(_shown, str(text)))


def shortened(text: object, longest: int = _LONGEST) -> str:
    """Return `plain` text of at most so many characters; what is cut is said by an ellipsis."""
    word = str(text)
    return plain(word if len(word) <= longest else word[: longest - 1] + "…")


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    if letter in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    return "\ufffd" if unicodedata.category(letter) in _UNPRINTED else letter
