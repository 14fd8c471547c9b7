"""What the file of an offline W&B run holds: after a kill, less than the run was given."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD, BLOCK, HEADER = b":W&B\xe1\xbe\x00", 32768, 7
"""How a file begins; then blocks of parts: a checksum (4 bytes), a length (2), a kind (1), data."""
WHOLE, LAST, EMPTY = 1, 4, 0
"""Kinds of parts: a record in one, the end of one in several, and the unused end of a block."""


def offline_files(run_id: str) -> list[Path]:
    """Return the files of an offline run, the oldest first: each time it goes on it has another."""
    folder = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
    return sorted(folder.glob(f"offline-run-*-{run_id}/*.wandb"))


def history(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; what is torn at its end is left out."""
    from wandb.proto import wandb_internal_pb2

    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield items(record.history.item)


def items(found: Any) -> dict[str, Any]:
    """Return names and values as one mapping."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found}


def records(data: bytes) -> Iterator[bytes]:
    """Yield the whole records of a file.

    Raises:
        ValueError: It is of another format.
    """
    if not data.startswith(HEAD[: len(data)]):
        raise ValueError("this is no offline run of a W&B that is known here")
    at, begun = len(HEAD), b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + HEADER : at + HEADER + size]
        if kind == EMPTY or len(part) < size:
            return
        begun += part
        at += HEADER + size
        if kind in (WHOLE, LAST):
            yield begun
            begun = b""
