"""Pickles with opcodes taken out, doubled, moved or replaced, and tensors that do not fit."""

from __future__ import annotations

import pickletools
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

NAMES = (
    "os system",
    "posix system",
    "builtins eval",
    "builtins exec",
    "builtins getattr",
    "builtins __import__",
    "builtins bytearray",
    "builtins set",
    "builtins complex",
    "builtins open",
    "subprocess Popen",
    "_codecs encode",
    "collections OrderedDict",
    "collections defaultdict",
    "collections Counter",
    "argparse Namespace",
    "pathlib PosixPath",
    "numpy dtype",
    "numpy._core.multiarray scalar",
    "numpy._core.multiarray _reconstruct",
    "torch FloatStorage",
    "torch.storage UntypedStorage",
    "torch FloatTensor",
    "torch Size",
    "torch float32",
    "torch.nn.parameter Parameter",
    "torch.nn.modules.container Sequential",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_nested_tensor",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._utils _rebuild_parameter_with_state",
    "torch.tensor _rebuild_from_type_v2",
    "copyreg _reconstructor",
)
WORDS = ("storage", "0", "cpu", "latin1", "punycode", "hex", "state_dict", "conv1.weight", "x")
WORDS += ("_modules", "_parameters", "[/x]", "\x1b[31mred", "a\nb", "\u202e", "w_g", "w_v", "model")


def edited(content: bytes, draw: random.Random, canary: Path) -> bytes:
    """Return a pickle with one to three of its opcodes taken out, doubled, moved or replaced."""
    starts = [start for _, _, start in pickletools.genops(content)]
    pieces = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(1, len(pieces) - 1)
        code, what = pieces[at][:1], draw.random()
        if code == b"X" and what < 0.8:
            pieces[at] = text(draw.choice(WORDS))
        elif code in b"KMJ\x8aG" and what < 0.9:
            pieces[at] = _number(draw, canary)
        elif code == b"c" and what < 0.9:
            pieces[at] = _named(draw, canary)
        elif what < 0.2:
            pieces[at] = b""
        elif what < 0.4:
            pieces[at] *= draw.choice((2, 2000))
        elif what < 0.6:
            pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
        else:
            step = draw.choice(STEPS)
            value = step.make(draw, canary)
            pieces[at] = value + pieces[at] if what < 0.8 else value + b"0" + pieces[at]
    return b"".join(pieces)


class _Step:
    """One opcode: what it takes off the stack and puts on it, and its bytes."""

    def __init__(
        self, takes: int, gives: int, make: Callable[[random.Random, Path], bytes]
    ) -> None:
        self.takes, self.gives, self.make = takes, gives, make


def _fixed(code: bytes, _draw: random.Random, _canary: Path) -> bytes:
    return code


def text(word: str) -> bytes:
    raw = word.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _named(draw: random.Random, _canary: Path) -> bytes:
    module, name = draw.choice(NAMES).split(" ")
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _evil(draw: random.Random, canary: Path) -> bytes:
    code = draw.choice((f"touch {canary}", f"open({str(canary)!r}, 'w').close()"))
    name = b"cposix\nsystem\n" if code.startswith("touch") else b"cbuiltins\neval\n"
    return name + text(code) + b"\x85R"


def _number(draw: random.Random, _canary: Path) -> bytes:
    value = draw.choice((0, 1, 3, -1, 255, 2**31 - 1, 2**62, -(2**63), 2**61 - 1, 2**4000))
    raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    if len(raw) > 255:
        return b"\x8b" + struct.pack("<i", len(raw)) + raw
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor(draw: random.Random) -> bytes:
    """Return a tensor in storage 0 with sizes and strides that need not fit."""

    def numbers(count: int) -> bytes:
        values = [_number(draw, Path()) if draw.random() < 0.2 else b"K\x02" for _ in range(count)]
        return b"(" + b"".join(values) + b"t"

    count = draw.choice((0, 1, 2, 4, 70))
    kind = draw.choice((b"ctorch\nFloatStorage\n", b"ctorch\nLongStorage\n", b"ctorch\nfloat32\n"))
    pid = b"(" + text("storage") + kind + text("0") + text("cpu") + b"K\x10tQ"
    maker = draw.choice(("_rebuild_tensor_v2", "_rebuild_qtensor", "_rebuild_tensor_v3"))
    head = b"ctorch._utils\n" + maker.encode() + b"\n("
    return head + pid + b"K\x00" + numbers(count) + numbers(count) + b"\x89}ctorch\nint8\ntR"


def _memo(code: bytes, draw: random.Random, _canary: Path) -> bytes:
    return code + bytes([draw.randrange(4)])


STEPS = (
    *(_Step(0, 1, partial(_fixed, code)) for code in (b"]", b"}", b")", b"N", b"\x88", b"\x8f")),
    *(_Step(0, 1, lambda draw, _: text(draw.choice(WORDS))) for _ in range(4)),
    *(_Step(0, 1, _named) for _ in range(4)),
    *(_Step(0, 1, _number) for _ in range(3)),
    _Step(0, 1, _evil),
    _Step(0, 1, lambda draw, _: b"G" + struct.pack(">d", draw.choice((0.5, 1e308, float("nan"))))),
    *(_Step(1, 1, partial(_fixed, code)) for code in (b"\x85", b"\x85", b"Q")),
    *(_Step(2, 1, partial(_fixed, code)) for code in (b"\x86", b"R", b"R", b"\x81", b"b", b"a")),
    _Step(3, 1, partial(_fixed, b"\x87")),
    *(_Step(3, 1, partial(_fixed, b"s")) for _ in range(3)),
    _Step(1, 1, partial(_memo, b"q")),
    *(_Step(0, 1, partial(_memo, b"h")) for _ in range(3)),
    _Step(1, 2, partial(_fixed, b"2")),
    _Step(1, 0, partial(_fixed, b"0")),
    *(_Step(1, 0, partial(_fixed, code)) for code in (b"(", b"t", b"\x91", b"o", b"u", b"e")),
    _Step(0, 0, lambda draw, _: bytes([draw.randrange(256)])),
)
