"""TensorBoard's event files, read without TensorBoard.

An event file is a sequence of records (length, checksum, message, checksum; all little-endian), the
messages protocol buffers of tensorflow/core/util/event.proto. Only scalars are read: field 5
(summary), in it field 1 (value) with tag (1), simple_value (2) or tensor (8), beside the event's
step (2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from trainscope.errors import RecordError

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
MOST_BYTES = 2 * 2**30
MOST_SCALARS = 1_000_000
LARGEST = 16 * 1024
"""Bytes of a record that is read: larger ones are pictures, weights and texts."""


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs of every scalar of an event file, by tag.

    A last record that was cut off, as by a training that was killed, is left out.

    Raises:
        RecordError: The file is no event file, is damaged, or is too large.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    count = 0
    try:
        for message in _records(path):
            step, values = _event(message)
            for tag, value in values:
                found.setdefault(tag, []).append((step, value))
            count += len(values)
            if count > MOST_SCALARS:
                raise RecordError(f"{path} has more than {MOST_SCALARS} scalars: log fewer steps")
    except OSError as error:
        raise RecordError(f"no log can be read from {path}: {error.strerror}") from error
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is a damaged event file") from error
    return found


def _records(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise RecordError(f"{path} has more than {MOST_BYTES / 2**30:.0f} GiB, and is not read")
    with path.open("rb") as file:
        at = 0
        while at + 12 <= size:
            head = file.read(12)
            (length,) = struct.unpack_from("<Q", head)
            if struct.unpack_from("<I", head, 8)[0] != _masked_crc(head[:8]):
                raise RecordError(f"{path} is no event file of TensorBoard's, or it is damaged")
            at += 16 + length
            if at > size:
                return
            if length > LARGEST:
                file.seek(at)
                continue
            data = file.read(length)
            if struct.unpack("<I", file.read(4))[0] != _masked_crc(data):
                raise RecordError(f"{path} is damaged: a record's checksum is wrong")
            yield data


def _event(message: bytes) -> tuple[int, list[tuple[str, float]]]:
    step, values = 0, []
    for number, content in _fields(message):
        if number == 2 and isinstance(content, int):
            step = content
        elif number == 5 and isinstance(content, bytes):
            for inner, value in _fields(content):
                if inner == 1 and isinstance(value, bytes):
                    values += _value(value)
    return step, values


def _value(message: bytes) -> list[tuple[str, float]]:
    tag, found = "", None
    for number, content in _fields(message):
        if number == 1 and isinstance(content, bytes):
            tag = content.decode()
        elif number == 2 and isinstance(content, float):
            found = content
        elif number == 8 and isinstance(content, bytes):
            found = _tensor(content)
    return [] if found is None else [(tag, found)]


def _tensor(message: bytes) -> float | None:
    """Return a tensor of one float (dtype 1) or double (dtype 2), None for any other."""
    dtype = next((c for n, c in _fields(message) if n == 1), None)
    for number, content in _fields(message):
        if number in (5, 6) and isinstance(content, float):
            return content
        if number in (4, 5, 6) and isinstance(content, bytes):
            if dtype == 1 and len(content) == 4:
                return float(struct.unpack("<f", content)[0])
            if dtype == 2 and len(content) == 8:
                return float(struct.unpack("<d", content)[0])
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise IndexError
            yield number, message[at : at + length]
            at += length
        elif kind == _FLOAT:
            yield number, float(struct.unpack_from("<f", message, at)[0])
            at += 4
        elif kind == _DOUBLE:
            yield number, float(struct.unpack_from("<d", message, at)[0])
            at += 8
        else:
            raise IndexError


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _masked_crc(data: bytes) -> int:
    """Return the masked CRC-32C of a record or its length, as TFRecord files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _reduced(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = tuple(_reduced(byte) for byte in range(256))
