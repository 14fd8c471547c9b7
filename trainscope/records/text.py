"""Text from files, made safe to show: a terminal obeys some letters, and others hide the rest."""

from __future__ import annotations

import html
import re

# Control characters (a terminal's commands begin with one), line and paragraph separators, halves
# of surrogate pairs, and marks that turn the direction in which text is read.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]"
)


def plain(text: object) -> str:
    r"""Return text in which every letter that is not one to be read is written as an escape.

    >>> plain("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def escape(text: object) -> str:
    """Return text for HTML, between tags or in an attribute."""
    return html.escape(plain(text))
