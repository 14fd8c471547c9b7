"""Text logs of smilelogging and of code in its style: names, each with its number behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.log import Log, find_columns, need_accuracy, number

_PAIR = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9_/@-]*)\s*[:=]?\s*\[?"
    r"(?P<value>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|nan|inf)\b"
)
_EPOCH = re.compile(r"\bEpoch\b\s*[:=]?\s*\[?\s*([0-9]+)", re.IGNORECASE)


def read(path: Path, asked: Mapping[str, str]) -> Log:
    """Read a text log: every line that names an epoch and an accuracy ends that epoch.

    A line like `Acc1 77.1000 Acc5 93.2 Loss_test 0.93 | ... Loss_train 0.60 | Epoch 3 (Best_Acc1
    77.1 @ Best_Acc1_Epoch 3) lr 0.01` (GReg's, by smilelogging) or `Epoch 3 Acc1 77.1 LR 0.01`.
    An LR on a line of its own holds from there on. The best accuracy so far is not read: it is not
    the epoch's. Accuracies of the training set (`Acc1_train`) are not read either.

    Args:
        path: The file.
        asked: Names that the person gave, by field.

    Raises:
        RecordError: No line names both.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="strict").splitlines()
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is no text log, nor a log of another known format") from error
    rows: dict[int, dict[str, float]] = {}
    names: dict[str, None] = {}
    rate: float | None = None
    for line in lines:
        pairs: dict[str, str] = {}
        for match in _PAIR.finditer(line):  # the first of a name: later ones tell of the best epoch
            pairs.setdefault(match["name"], match["value"])
        names |= dict.fromkeys(pairs)
        found = find_columns(pairs, {k: v for k, v in asked.items() if v in pairs}, str(path))
        if "lr" in found:
            rate = number(pairs[found["lr"]])
        epoch = _EPOCH.search(line)
        if epoch is None or "test_accuracy" not in found:
            continue
        row = {"epoch": float(epoch[1])} | ({} if rate is None else {"lr": rate})
        for part, name in found.items():
            value = number(pairs[name])
            if part not in ("epoch", "lr") and value is not None:
                row[part] = value
        rows[int(epoch[1])] = row  # a retraining that was begun again repeats its epochs
    if not rows:
        need_accuracy((), names, str(path))
    log = Log("text", [rows[n] for n in sorted(rows)], tuple(names))
    log.count_from_one()
    return log
