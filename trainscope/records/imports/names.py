"""What a name in a log means: which number, of which data.

Names are read word by word, so that `val/acc`, `Valid Acc.`, `ValAccuracy`, `accuracy_val` and
`validation/epoch_accuracy` mean the same without a list of them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

TRAIN, VAL, TEST = "train", "val", "test"
EPOCH, STEP, LR, LOSS, ACCURACY, SECONDS = "epoch", "step", "lr", "loss", "accuracy", "seconds"

SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "eval"), VAL),
    **dict.fromkeys(("evaluation", "evaluate", "evaluating", "dev", "heldout", "holdout"), VAL),
    **dict.fromkeys(("test", "testing", "tst", "te"), TEST),
    "va": VAL,
}
"""Words that say of which data a number is."""
PHASES = ("phase", "mode", "split", "subset", "set", "stage")
"""Names of columns or entries that hold such a word."""

_ACCURACY = re.compile(r"(acc|accuracy|accuracies|prec|precision|acctop|top)@?(top)?@?(\d*)")
_OTHER = frozenset(
    (
        *("best", "max", "maximum", "min", "minimum", "final", "std", "stderr", "err", "error"),
        *("momentum", "decay", "scheduler", "factor", "gamma", "warmup", "initial", "eta", "delta"),
        *("balanced", "correct", "count", "num", "change", "hparam", "target"),
    )
)
"""Words that make another quantity of what stands beside them."""
_FILLING = frozenset(
    (
        *("epoch", "epochs", "mean", "avg", "average", "metric", "metrics", "overall", "score"),
        *("set", "the", "on", "of", "for", "in", "is", "at", "trainer", "current", "multiclass"),
        *("binary", "categorical", "classification", "images", "network", "model"),
        *("head", "info", "global", "running", "lm", "value"),
    )
)
"""Words that change nothing."""
_RATES = frozenset(
    ("sgd", "adam", "w", "adamw", "lamb", "lion", "rmsprop", "optimizer", "opt", "group", "param")
)
_STEPS = frozenset(("step", "steps", "iter", "iters", "iteration", "iterations"))
_TIME = frozenset(("time", "seconds", "sec", "secs", "duration", "s"))
_METRICS = ("acc", "accuracy", "loss", "lr", "acc1", "top1")
_PARTS = {
    "".join(pair): pair for split in SPLITS for m in _METRICS for pair in ([split, m], [m, split])
}
_PLURALS = {"accs": "acc", "accuracies": "accuracy", "losses": "loss", "lrs": "lr"} | {
    "rates": "rate",
    "epochs": "epoch",
    "steps": "step",
    "iterations": "iteration",
}
"""Names of lists, as people keep them."""
_CAPITAL = re.compile(r"([a-z0-9])([A-Z])")
_BETWEEN = re.compile(r"[^a-z0-9@]+")
_PROMISING = re.compile(
    r"loss|acc|prec|top|lr|learn|epoch|step|iter|time|sec|dur|(?<![a-z])s(?![a-z])"
)
"""Every name that means anything has one of these in it; most words of a log have none."""
_TURNED = re.compile(r"(?<![\d.])1\s?-\s?(?:acc|top|prec)|one.?minus")
"""An accuracy that is taken from 1 is an error."""
_WORDS = re.compile(r"[a-z]*@?\d+(?![a-z])|[a-z]+@?\d*|@\d+")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name means.

    Attributes:
        field: EPOCH, STEP, LR, LOSS, ACCURACY or SECONDS.
        split: TRAIN, VAL, TEST, or "" where the name does not say.
        strange: Words in it that are not known: the fewer, the surer.
        ema: Whether it is of an average of the weights.
        per_step: Whether it says that it is of a step.
    """

    field: str
    split: str = ""
    strange: int = 0
    ema: bool = False
    per_step: bool = False


@lru_cache(maxsize=20_000)
def meaning(name: str) -> Meaning | None:
    """Return what a name means, None where that is nothing a Run holds."""
    if _PROMISING.search(name[:400].lower()) is None:
        return None
    if _TURNED.search(name[:400].lower()) is not None:
        return None
    words = _words(name)
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS]
    if not words or _OTHER.intersection(rest):
        return None
    ema = "ema" in rest
    rest = [word for word in rest if word != "ema"]
    field, left = _field(rest, splits)
    if field is None:
        return None
    # A name with both words, like eval/train_acc, is not taken for a test value.
    split = TRAIN if TRAIN in splits else splits[-1] if splits else ""
    filling = _FILLING | {"sparse"} if "categorical" in left else _FILLING
    strange = [word for word in left if word not in filling]
    per_step = bool(_STEPS.intersection(strange)) and field in (LOSS, ACCURACY, LR)
    return Meaning(field, split, len(strange), ema, per_step)


def words_of(name: str) -> list[str]:
    """Return the words of a name that do not say of which data it is, in small letters."""
    return [word for word in _words(name) if word not in SPLITS]


@lru_cache(maxsize=20_000)
def split_in(name: str) -> str:
    """Return the data that a name says it is of: TRAIN where that is among several, "" for none."""
    splits = [SPLITS[word] for word in _words(name) if word in SPLITS]
    return TRAIN if TRAIN in splits else splits[-1] if splits else ""


def is_of_guesses(name: str) -> bool:
    """Tell a name of an accuracy of k guesses, like `acc5`, which no Run holds."""
    return meaning(name) is None and any(_is_accuracy(word) is False for word in _words(name))


def is_test_accuracy(name: str, asked: Mapping[str, str]) -> bool:
    """Tell whether a name may be of the test accuracy, or was said to be by the person."""
    if "test_accuracy" in asked:
        given = asked["test_accuracy"]
        trained = split_in(name) == TRAIN and split_in(given) != TRAIN
        return name.endswith(given) and not trained
    found = meaning(name)
    return found is not None and found.field == ACCURACY and found.split != TRAIN


def ending_names(names: Iterable[str], asked: Mapping[str, str]) -> set[str]:
    """Return the names whose values end an epoch, in a log that does not say its epochs.

    Beside a name that says that it is of a test, one that does not say its data ends none.
    """
    tests = {name for name in set(names) if is_test_accuracy(name, asked)}
    return {name for name in tests if split_in(name)} or tests


def split_of(word: str) -> str:
    """Return the data that a word names, "" where it names none."""
    return SPLITS.get(word.strip().lower(), "")


def _field(words: list[str], splits: list[str]) -> tuple[str | None, list[str]]:
    if "loss" in words:
        return LOSS, [word for word in words if word != "loss"]
    accuracies = [word for word in words if _is_accuracy(word) is not None]
    if accuracies:
        if not all(_is_accuracy(word) for word in accuracies) or "weight" in words:
            return None, []  # of the five best, and the like
        if set(accuracies) <= {"prec", "precision", "top"}:  # a metric of its own
            return None, []
        return ACCURACY, [word for word in words if word not in accuracies]
    if "lr" in words or {"learning", "rate"} <= set(words):
        if "weight" in words:
            return None, []
        left = [word for word in words if word not in ("lr", "learning", "rate", *_RATES)]
        return LR, [word for word in left if not re.fullmatch(r"(pg|group)?0?", word)]
    plain = [word for word in words if word not in _FILLING]
    if not plain and words and {"epoch", "epochs"}.intersection(words):
        return (EPOCH, []) if TEST not in splits and VAL not in splits else (None, [])
    if plain and _STEPS.issuperset(plain):
        return (STEP, []) if not {"epoch", "epochs"}.intersection(words) else (None, [])
    if len(plain) == 1 and plain[0] in _TIME and not splits:
        return SECONDS, []
    return None, []


def _is_accuracy(word: str) -> bool | None:
    """Tell an accuracy of the first guess (True) from one of k guesses (False); None: neither."""
    found = _ACCURACY.fullmatch(word)
    return None if found is None else found[3] in ("", "1", "01")


def _words(name: str) -> list[str]:
    name = name[:200]
    spaced = name.lower()
    if spaced != name:
        spaced = _CAPITAL.sub(r"\1 \2", name).lower()
    words: list[str] = []
    for part in _BETWEEN.split(spaced):
        for word in _WORDS.findall(part):
            words += _parted(word)
    merged: list[str] = []
    for word in words:  # top-1, Acc @1, accuracy top 5
        digits = word.lstrip("@")
        if merged and digits.isdigit() and _is_accuracy(merged[-1]) and merged[-1][-1].isalpha():
            merged[-1] += f"@{digits}"
        else:
            merged.append(word)
    return merged


def _parted(word: str) -> list[str]:
    """Part words that are written as one, like testacc, train_loss without its stroke."""
    if word == "lr0":  # the first group's
        return ["lr"]
    if word in _PLURALS:
        return [_PLURALS[word]]
    return _PARTS.get(word) or [word]
