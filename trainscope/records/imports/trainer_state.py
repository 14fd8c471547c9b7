"""Hugging Face: `trainer_state.json`, which every checkpoint of a Trainer holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records.imports.log import Log, find_columns, need_accuracy, number


def read(path: Path, asked: Mapping[str, str]) -> Log:
    """Read the log history of a Trainer.

    The training loss and the learning rate of an epoch are means over its entries, weighted by the
    steps that each covers; of several evaluations within an epoch the last counts.

    Args:
        path: The file.
        asked: Entries that the person named, by field.

    Raises:
        RecordError: It has no log history, or no accuracy in it.
    """
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        if str(raw.get("schema")).startswith("trainscope."):
            raise RecordError(f"{path} is a record of trainscope's own ({raw['schema']}) already")
        history = raw["log_history"]
        entries = [dict(entry) for entry in history]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} is no trainer_state.json: it has no log_history") from error
    names = tuple(dict.fromkeys(name for entry in entries for name in entry))
    usual = {"train_loss": "loss", "lr": "learning_rate"}  # train_loss is of the whole training
    usual = {part: name for part, name in usual.items() if name in names}
    found = find_columns(names, usual | dict(asked), str(path))
    need_accuracy(found, names, str(path))
    rows: dict[int, dict[str, float]] = {}
    means = {part: _Mean() for part in usual if part in found}
    step = 0.0
    for entry in entries:
        epoch, at = number(entry.get("epoch", "")), number(entry.get("step", ""))
        if epoch is None:
            continue
        done = max(1, math.ceil(epoch - 1e-6))
        if done not in rows:
            rows[done] = {"epoch": float(done)}
            means = {part: _Mean() for part in means}
        row = rows[done]
        covered = max((at or step) - step, 0.0)
        for part, name in found.items():
            value = number(entry[name]) if name in entry else None
            if part == "epoch" or value is None:
                continue
            row[part] = means[part].add(value, covered) if part in means else value
        step = max(step, at or step)
    return Log("hugging face", [rows[n] for n in sorted(rows)], names)


class _Mean:
    """A mean of values weighted by steps; of equal weights where no steps are known."""

    def __init__(self) -> None:
        self.sum = self.weight = 0.0

    def add(self, value: float, weight: float) -> float:
        """Add a value and return the mean so far."""
        self.sum += value * (weight or 1.0)
        self.weight += weight or 1.0
        return self.sum / self.weight
