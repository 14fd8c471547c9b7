"""The curves of RetrainBench, and the table that holds them. Numpy only, read when first asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.epoch_loss import loss_at_ends
from trainscope.convergence.passage import Floats
from trainscope.errors import RecordError
from trainscope.records import Metric
from trainscope.records.metric import ACCURACY

METRICS: Mapping[str, Metric] = {
    "accuracy": ACCURACY,
    "test_loss": Metric("test loss", "nats", "lower"),
    "perplexity": Metric("perplexity", "", "lower"),
}
"""What a curve can be told in, by name."""
COLUMNS = ("accuracy", "test_loss", "train_loss", "lr")
"""What is recorded."""
DIGITS = 5
"""Significant digits of a loss and of an LR in the table."""


@dataclass(frozen=True, eq=False)
class BenchCurve:
    """One retraining of a pruned network. Arrays are [N+1]: record 0 is before the first step.

    Attributes:
        problem: The data and what is asked of them, like "fashion-mnist".
        network: Like "lenet".
        optimizer: "sgd", "momentum" (0.9) or "adamw".
        structure: What was pruned: "filter", "unstructured" or "2:4".
        ratio: The share that was pruned.
        seed: Of the order of the batches.
        schedule: "constant", "steps" (two drops after a first stage), "wsd" (a cooldown in a line
            after a first stage) or "cosine".
        peak_lr: The largest LR.
        first: Records of the first stage, at the peak LR; 0 of a cosine.
        planned: Records that were planned: fewer are there where the run diverged.
        steps: Optimizer steps of a record.
        parameters: Of the network before pruning.
        remaining: Weights that were not zero after it.
        dense_accuracy: Percent, before pruning.
        accuracy: Percent, on the test set.
        test_loss: Nats.
        train_loss: Nats, the mean over the steps of the record; NaN for record 0.
        lr: The mean over the steps of the record.
    """

    problem: str
    network: str
    optimizer: str
    structure: str
    ratio: float
    seed: int
    schedule: str
    peak_lr: float
    first: int
    planned: int
    steps: int
    parameters: int
    remaining: int
    dense_accuracy: float
    accuracy: Floats
    test_loss: Floats
    train_loss: Floats
    lr: Floats

    @property
    def action(self) -> str:
        """Return what was done to the network, like "unstructured 0.95"."""
        return f"{self.structure} {self.ratio:g}"

    @property
    def kind(self) -> str:
        """Return the kind of problem: data and network."""
        return f"{self.problem} {self.network}"

    @property
    def family(self) -> tuple[str, str, str, str, int]:
        """Return what curves share that differ in their LRs alone."""
        return self.problem, self.network, self.optimizer, self.action, self.seed

    @property
    def length(self) -> int:
        """Return the number of records after record 0."""
        return len(self.accuracy) - 1

    @property
    def diverged(self) -> bool:
        """Return whether the run ended with a loss that was no number."""
        return not math.isfinite(self.test_loss[-1])

    def values(self, metric: str = "accuracy") -> Floats:
        """Return the test values of one of `METRICS`, [N+1].

        Raises:
            RecordError: No metric has that name.
        """
        if metric not in METRICS:
            raise RecordError(f"RetrainBench has no {metric!r}; it has {', '.join(METRICS)}")
        if metric == "accuracy":
            return self.accuracy
        return self.test_loss if metric == "test_loss" else np.exp(self.test_loss)

    def learning_curve(
        self, metric: str = "accuracy", until: int | None = None, *, loss: bool = True
    ) -> LearningCurve:
        """Return the curve over optimizer steps.

        Args:
            metric: One of `METRICS`.
            until: The last record; all by default.
            loss: Give the training loss too, carried from the middle of a record to its end.

        Raises:
            RecordError: No metric has that name.
        """
        n = self.length if until is None else until
        ends = None
        if loss:
            means = self.train_loss[1 : n + 1].tolist()
            ends = [None, *loss_at_ends(means, self.lr[1 : n + 1].tolist())]
        return LearningCurve(
            np.arange(n + 1.0) * self.steps,
            self.values(metric)[: n + 1],
            self.lr[: n + 1],
            ends,
            0.9 if self.optimizer == "momentum" else None,
            METRICS[metric],
            per="step",
        )


_NAMES = tuple(each.name for each in fields(BenchCurve) if each.name not in COLUMNS)


def load(path: str | Path | None = None) -> list[BenchCurve]:
    """Return the curves of RetrainBench.

    Args:
        path: A table that `save` wrote; by default the one that comes with the package.

    Raises:
        RecordError: There is no such table, or it is none.
    """
    return list(_shipped()) if path is None else _read(Path(path))


def save(curves: Iterable[BenchCurve], path: str | Path) -> None:
    """Write a table of curves, compressed; `load` reads it. Losses and LRs keep five digits."""
    rows = list(curves)
    table: dict[str, NDArray[Any]] = {
        name: np.array([getattr(row, name) for row in rows]) for name in _NAMES
    }
    table["records"] = np.array([row.length + 1 for row in rows])
    for name in COLUMNS:
        whole = np.concatenate([getattr(row, name) for row in rows])
        table[name] = (whole if name == "accuracy" else _rounded(whole)).astype(np.float32)
    np.savez_compressed(path, allow_pickle=False, **table)


@lru_cache(maxsize=1)
def _shipped() -> tuple[BenchCurve, ...]:
    return tuple(_read(Path(str(files(__package__).joinpath("retrainbench.npz")))))


def _read(path: Path) -> list[BenchCurve]:
    try:
        # Opened here: numpy leaves a file open that begins like an archive and is none.
        with path.open("rb") as file, np.load(file) as raw:
            table = {name: raw[name] for name in raw.files}
        ends = np.cumsum(table["records"])
        columns = {name: table[name].astype(np.float64) for name in COLUMNS}
        parts = {name: np.split(columns[name], ends[:-1]) for name in COLUMNS}
        plain = {name: cast(Sequence[Any], table[name].tolist()) for name in _NAMES}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise RecordError(f"{path} is no table of RetrainBench: {error}") from error
    rows = {**plain, **parts}
    return [
        BenchCurve(**{name: column[place] for name, column in rows.items()})
        for place in range(len(ends))
    ]


def _rounded(values: Floats) -> Floats:
    """Return numbers with a few significant digits: what is compressed, and what a run tells."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.floor(np.log10(np.abs(values)))
        unit = 10.0 ** (np.where(np.isfinite(size), size, 0.0) - DIGITS + 1)
        return np.asarray(np.round(values / unit) * unit)
