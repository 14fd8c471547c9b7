"""Text to token ids: a folder's own tokenizer, or the bytes of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from trainscope.errors import DataError
from trainscope.foreign import reason

BYTES = 256
FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model")
"""Files by which a folder shows that it has a tokenizer."""
_PIECE = 2**20  # characters that are tokenised at once


class Tokenizer(Protocol):
    """Makes token ids of text."""

    @property
    def size(self) -> int:
        """Return what all ids are below."""

    @property
    def end(self) -> int | None:
        """Return the id between documents; None where there is none."""

    @property
    def padding(self) -> int:
        """Return the id that fills up short texts."""

    @property
    def mask(self) -> int | None:
        """Return the id that stands for a masked token; None where there is none."""

    @property
    def special(self) -> frozenset[int]:
        """Return the ids that are never masked."""

    def plain(self, text: str) -> Tensor:
        """Return the ids of a long text without special tokens, [tokens]."""

    def framed(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Return the ids of texts with the special tokens that a classifier gets, cut off."""


@dataclass(frozen=True)
class ByteTokenizer:
    """The bytes of the text in UTF-8: for networks of 256 tokens."""

    size: int = BYTES
    end: int | None = None
    padding: int = 0
    mask: int | None = None
    special: frozenset[int] = frozenset()

    def plain(self, text: str) -> Tensor:
        """Return the bytes."""
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()

    def framed(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Return the bytes of each, cut off."""
        return [list(text.encode()[:longest]) for text in texts]


class FolderTokenizer:
    """The tokenizer of a hub's folder, through transformers; nothing is fetched, no code is run.

    Raises:
        DataError: There is none in the folder, or transformers does not take it.
    """

    def __init__(self, folder: Path) -> None:
        if find_spec("transformers") is None:
            raise DataError(
                f"the tokenizer in {folder} needs transformers, which is not installed: "
                'pip install "trainscope-pruning[transformers]"'
            )
        from transformers import AutoTokenizer
        from transformers.utils import logging

        level = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            loaded = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a damaged file, or code that it asks for, raises
            raise DataError(
                f"the tokenizer in {folder} cannot be loaded: {reason(error)}"
            ) from error
        finally:
            logging.set_verbosity(level)
        self.inner: Any = loaded
        self.size = len(loaded)
        self.end: int | None = loaded.eos_token_id
        self.mask: int | None = loaded.mask_token_id
        padding = loaded.pad_token_id
        self.padding: int = next((x for x in (padding, self.end) if x is not None), 0)
        self.special = frozenset(loaded.all_special_ids)

    def plain(self, text: str) -> Tensor:
        """Return the ids; the text is taken in pieces that end with a line."""
        found: list[int] = []
        start = 0
        while start < len(text):
            stop = min(start + _PIECE, len(text))
            if stop < len(text):
                stop = text.rfind("\n", start, stop) + 1 or stop
            found += self.inner(text[start:stop], add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
            start = stop
        return torch.tensor(found, dtype=torch.int64)

    def framed(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Return the ids of each, cut off."""
        made = self.inner(list(texts), truncation=True, max_length=longest, verbose=False)
        ids: list[list[int]] = made["input_ids"]
        return ids


def tokenizer_for(folder: Path | None, vocabulary: int | None) -> Tokenizer:
    """Return the tokenizer of a network.

    Args:
        folder: Where it may lie.
        vocabulary: How many tokens the network knows; None where that is not known.

    Raises:
        DataError: There is none, or it makes tokens that the network does not know.
    """
    there = folder is not None and any((folder / name).is_file() for name in FILES)
    found: Tokenizer
    if folder is not None and there:
        found = FolderTokenizer(folder)
    elif vocabulary in (None, BYTES):
        return ByteTokenizer()
    else:
        where = f"in {folder}" if folder is not None else "beside the network"
        raise DataError(
            f"there is no tokenizer {where}, and the network knows {vocabulary} tokens, not the "
            f"{BYTES} bytes: give the folder of its tokenizer with --tokenizer DIR"
        )
    if vocabulary is not None and found.size - len(found.special) > vocabulary:
        raise DataError(
            f"the tokenizer in {folder} has {found.size} tokens and the network knows "
            f"{vocabulary}: give that of the network with --tokenizer DIR"
        )
    return found
