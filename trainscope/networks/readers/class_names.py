"""Which classes a pickled network may name before its file is not taken for one."""

from __future__ import annotations

import sys

_PLAIN = frozenset(
    {
        "_codecs.encode",
        "argparse.Namespace",
        "collections.Counter",
        "collections.defaultdict",
        "functools.partial",
        "types.SimpleNamespace",
    }
    | {f"builtins.{name}" for name in ("object", "dict", "list", "tuple", "frozenset", "slice")}
)


def is_harmless_class(name: str) -> bool:
    """Say whether a name is what a pickled network holds: a library's class, or a plain value's.

    No class of a file is ever imported or called; this decides only whether a file that names, say,
    `os.system` is still called a network. Python's own modules offer nothing else that a network
    needs.
    """
    root = name.partition(".")[0]
    standard = root in sys.stdlib_module_names or root == "__builtin__"
    return not standard or name in _PLAIN or root in ("pathlib", "__main__")
