"""What every format of log is read into: rows of named numbers, an epoch each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from trainscope.errors import RecordError
from trainscope.records.imports.names import ACCURACY, LOSS, TEST, TRAIN, meaning

FIELDS = ("epoch", "step", "lr", "train_loss", "test_loss", "test_accuracy", "seconds")
IN_WORDS = {
    "epoch": "epoch",
    "lr": "LR",
    "train_loss": "training loss",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "seconds": "seconds",
}
ENOUGH = 0.9
"""A name is as good as another if it has a number in this share of the other's epochs."""
FEWEST_STEPS = 20
"""Between two tests of a training that tells its steps."""
STEP_ZERO = "The test at step 0 is of the network before the first step, and is no epoch."
COUNTED = "The log does not say its epochs; each test value counts as one."

_HELD = re.compile(r"\s*(?:(?:\w+\.)*\w*[\[(])+\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)", re.I)
"""The first number of what Python writes for a list, a tensor or an array."""
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
"""A number with commas between its thousands."""
_HALF = re.compile(r"[-+]?\d+,\d+(?:e[-+]?\d+)?", re.IGNORECASE)
"""A number with a comma in the place of the decimal point."""
_COUNT = re.compile(r"\s*(\d+(?:,\d{3})*)\s*/\s*(\d+(?:,\d{3})*)\s*")
MINUS = "\u2212"
"""The typographic minus, which some tools print."""
_METRIC = re.compile(r"map|iou|bleu|rouge|f1|auc|perplexity|ppl|wer|dice|psnr|mse|mae", re.I)


@dataclass
class Log:
    """A log as read, before anything is added that a person states.

    Attributes:
        source: The format.
        rows: One an epoch, ascending, by the fields above and as the log numbers its epochs; what
            is missing is absent.
        taken: The name in the log that each field was read from, "" where it has none.
        notes: What a reader should know, each one sentence.
        start_accuracy: Of a test before the first epoch, as the log has it.
        in_percent: Whether the log writes a % behind its test values, or in their name.
        above_one: The name of another accuracy in it that is above 1, "" for none.
        diverged_at: The epoch, as the log counts them, from which on to its end a loss or the test
            is NaN or infinite; None where it is a number.
        tests_first: Whether every epoch begins with its test.
    """

    source: str
    rows: list[dict[str, float]]
    taken: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    start_accuracy: float | None = None
    in_percent: bool = False
    above_one: str = ""
    diverged_at: int | None = None
    tests_first: bool = False

    def take_start(self) -> None:
        """Take epoch 0 out, where epochs done are counted: a test before the first step."""
        if self.rows and self.rows[0]["epoch"] == 0:
            self.start_accuracy = self.rows.pop(0).get("test_accuracy")

    def take_step_zero(self, steps: Sequence[float | None]) -> None:
        """Take a test at step 0 out of epochs that were counted: it is before the first step.

        Where the next one is but a few steps later, steps are epochs that count from 0, or calls of
        a tracker.

        Args:
            steps: Of the first tests, in their order; None where the log does not say it.
        """
        if len(steps) < 2 or len(self.rows) < 2 or steps[0] != 0:
            return
        if steps[1] is None or steps[1] < FEWEST_STEPS:
            return
        self.start_accuracy = self.rows.pop(0).get("test_accuracy")
        for row in self.rows:
            row["epoch"] -= 1
        self.notes.append(STEP_ZERO)


def is_lost(text: object) -> bool:
    """Tell NaN and infinity, which a loss becomes that diverges."""
    return str(text).strip().lower().lstrip("+-") in ("nan", "inf", "infinity")


def number(text: object) -> float | None:
    """Return a cell as a finite number, None where it is none."""
    if text is None or text == "" or isinstance(text, (bool, list, dict)):
        return None
    word = str(text).strip().rstrip("%").rstrip().replace(MINUS, "-")
    try:
        value = float(word)
    except ValueError:
        return _number_in(word)
    return value if math.isfinite(value) else None


def _number_in(word: str) -> float | None:
    """Return the number in a cell that is more than one, None where there is none."""
    if _GROUPED.fullmatch(word):
        return float(word.replace(",", ""))
    if _HALF.fullmatch(word):
        return float(word.replace(",", "."))
    mean, sign, spread = word.replace("+/-", "\u00b1").partition("\u00b1")
    if sign and number(spread) is not None:
        return number(mean)
    held = _HELD.match(word)
    return None if held is None else number(held[1])


def share(text: object) -> float | None:
    """Return a count like 400/1000 in percent, None where a cell is none."""
    found = _COUNT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    part, whole = (float(each.replace(",", "")) for each in found.groups())
    return 100 * part / whole if part <= whole and whole else None


def is_another_metric(name: str) -> bool:
    """Tell a number that is known to be no test accuracy."""
    found = meaning(name)
    if found is None:
        return _METRIC.search(name) is not None
    return found.field != ACCURACY or found.split == TRAIN


def no_column(path: str, name: str, names: Iterable[str]) -> RecordError:
    """Return the error for a column that a person named and the log does not have."""
    return RecordError(f"{path} has no column '{name}': it has {listed(names)}")


class NoAccuracyError(RecordError):
    """A log has no test accuracy.

    Attributes:
        loss: The name of its test loss, where one is the surest; else "".
        names: What it has.
    """

    loss: str = ""
    names: tuple[str, ...] = ()


def no_accuracy(
    path: str, names: Iterable[str], counts: Mapping[str, int] = MappingProxyType({})
) -> NoAccuracyError:
    """Return the error for a log without a test accuracy, with what it has in its place.

    Args:
        path: Of the log.
        names: What it has.
        counts: In how many epochs, where that is known.
    """
    names = list(names)
    error = NoAccuracyError(_no_accuracy(path, names))
    error.loss, error.names = test_loss(names, counts), tuple(names)
    return error


def test_loss(names: Iterable[str], counts: Mapping[str, int]) -> str:
    """Return the name that is surest to be of the test loss; "" for none, or for several.

    Of a box, a mask and the like, each with a loss of its own, none is the loss. One that stands
    once, at the end of a training, is not the one that stands at each epoch.
    """
    names = list(names)
    losses = [
        name
        for name in names
        if (m := meaning(name)) and m.field == LOSS and m.split not in (TRAIN, "")
    ]
    most = max((counts.get(name, 0) for name in losses), default=0)
    names = [n for n in names if n not in losses or counts.get(n, 0) >= ENOUGH * most]
    ranks = {
        name: (m.ema, m.per_step, m.strange, m.split != TEST)
        for name in names
        if (m := meaning(name)) and m.field == LOSS and m.split not in (TRAIN, "")
    }
    plain = {name: rank for name, rank in ranks.items() if not rank[2]}
    others = any(_METRIC.search(name) for name in names)
    ranks = plain or (ranks if len(ranks) == 1 and not others else {})
    best = [name for name, rank in ranks.items() if rank == min(ranks.values())]
    return best[0] if len(best) == 1 else ""


def _no_accuracy(path: str, names: Sequence[str]) -> str:
    meant = [(name, meaning(name)) for name in names]
    trained = [name for name, m in meant if m and m.field == ACCURACY and m.split == TRAIN]
    tests = [name for name, m in meant if m and m.field == ACCURACY and m.split != TRAIN]
    if tests:
        return f"{path} has no epoch with a test accuracy: '{tests[0]}' has no number in it"
    metrics = [name for name in names if _METRIC.search(name)]
    losses = [name for name, m in meant if m and m.field == LOSS and m.split not in (TRAIN, "")]
    if trained:
        why = f", as {listed(trained, 3)} is of training data"
    elif metrics or losses:
        why = f": {listed(metrics or losses, 3)} is another metric, to be named with --metric"
    else:
        why = " that is known by its name"
    return (
        f"{path} has no test accuracy{why}; it has {listed(names)}: let the training log one, or "
        "name the column that has it with --column test_accuracy=NAME, or another metric with "
        "--metric NAME"
    )


def listed(names: Iterable[str], most: int = 12) -> str:
    """Write names with commas between them, the first ones of many."""
    names = [name if len(name) <= 60 else f"{name[:57]}..." for name in names]
    shown = ", ".join(names[:most]) or "no columns at all"
    return shown + (", ..." if len(names) > most else "")


def choose_run(path: str, names: list[str], run: str | None) -> str:
    """Return the run to read of those in a file or folder.

    Raises:
        RecordError: The run that was named is not there, or none was named and there are several.
    """
    if run is not None and run not in names:
        there = listed(names) if names else "one run without a name: leave --run out"
        raise RecordError(f"{path} has no run '{run}': it has {there}")
    if run is None and len(names) > 1:
        raise RecordError(
            f"{path} holds {len(names)} runs, {listed(names)}: say which one with --run NAME"
        )
    return names[0] if run is None else run
