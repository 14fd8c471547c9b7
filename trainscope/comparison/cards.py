"""Run cards: published rows, or anybody's results, written by hand in a few lines of TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError, ScheduleError
from trainscope.records import Kind, Pretraining, Pruning, Run
from trainscope.records.reading import text_of
from trainscope.records.run import UNKNOWN
from trainscope.records.typed import LARGEST
from trainscope.training.schedule import MAX_EPOCHS, parse_schedule

MOST_BYTES = 16 * 2**20
TEXTS = (
    *("method", "data", "architecture", "base", "structure", "scope", "plan", "schedule"),
    *("pretraining_schedule", "stage_schedule"),
)
NUMBERS = ("accuracy", "spread", "base_accuracy", "ratio", "speedup")
COUNTS = (
    *("epochs", "pruning_epoch", "seed", "pretraining_epochs", "parameters", "flops"),
    *("stage_epochs", "stage_flops"),
)
OTHERS = ("accuracies", "kind", "settings", "reported", "source", "note")
JUDGED = ("epochs", "schedule", "settings")
"""A row that states one of these can be judged without an accuracy."""
KEYS = (*TEXTS, *NUMBERS, *COUNTS, *OTHERS)
REPORTED = ("last", "best", "unknown")


def read_cards(path: Path, *, strict: bool = True) -> list[Run]:
    """Read the run cards of a TOML file.

    A file has one table `[[run]]` a row; keys before the first one are defaults for all rows. Every
    field is optional but one: `accuracy` (percent), or `accuracies` with one value a seed; a row
    that states its retraining needs neither. What is not written is unknown, which is not "the
    same". docs/comparing.md lists the fields.

    Args:
        path: The file.
        strict: Refuse a TOML file without `[[run]]`; otherwise it has no cards.

    Raises:
        RecordError: The file cannot be read, or a card says something impossible.
    """
    text = text_of(path, MOST_BYTES)
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of any length, tables of any depth
        if not strict:
            return []
        raise RecordError(f"{path} is no run card: it is not TOML ({error})") from error
    rows = raw.pop("run", None)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        if not strict:
            return []
        raise RecordError(f"{path} is no run card: it has no table [[run]]")
    cards = []
    for number, row in enumerate(rows, 1):
        try:
            _check_sizes({**raw, **row})
            cards += _runs({**raw, **row})
        except (ValueError, ScheduleError) as error:
            raise RecordError(f"{path}, run {number}: {error}") from error
    return cards


def _check_sizes(value: object, name: str = "") -> None:
    """Refuse whole numbers that no float holds, wherever they stand.

    Raises:
        ValueError: There is one.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            _check_sizes(part, str(key))
    elif isinstance(value, list):
        for part in value:
            _check_sizes(part, name)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{name} is larger than any count can be")


def published() -> list[Path]:
    """Return the files of published rows that come with trainscope."""
    folder = resources.files("trainscope.comparison.published")
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _runs(card: Mapping[str, Any]) -> list[Run]:
    unknown = [key for key in card if key not in KEYS]
    if unknown:
        raise ValueError(f"there is no field '{unknown[0]}'; the fields are {', '.join(KEYS)}")
    for key in TEXTS:
        _check(card, key, str, "text")
    for key in NUMBERS:
        _check(card, key, (int, float), "a number")
    for key in COUNTS:
        _check(card, key, int, "a whole number")
    for key in ("pretraining_schedule", "stage_schedule"):
        if key in card:
            parse_schedule(card[key], MAX_EPOCHS, recorded=True)
    accuracies = _accuracies(card)
    ratio, speedup, spread = card.get("ratio"), card.get("speedup"), card.get("spread")
    if spread is not None and not (0 <= spread <= 100 and len(accuracies) == 1):
        raise ValueError(
            "`spread` is the standard deviation behind one `accuracy`, in points, 0 or more; with "
            "`accuracies` it follows from them"
        )
    if ratio is not None and not 0 <= ratio < 1:
        raise ValueError(f"the ratio is the share pruned, in [0, 1), not {ratio}")
    if speedup is not None and not speedup > 0:
        raise ValueError(f"the speedup is dense FLOPs / pruned FLOPs, above 0, not {speedup}")
    seeds = [card.get("seed")] if len(accuracies) == 1 else list(range(len(accuracies)))
    return [_run(card, value, seed) for value, seed in zip(accuracies, seeds, strict=True)]


def _accuracies(card: Mapping[str, Any]) -> list[float | None]:
    """Return the accuracies, one a seed; [None] for a row that is there to be judged."""
    found = card.get("accuracies")
    if found is None:
        found = [card.get("accuracy")]
    if found == [None] and any(key in card for key in JUDGED):
        return [None]
    if not isinstance(found, list) or not found or not all(map(_is_percent, found)):
        raise ValueError(
            "a card needs `accuracy = 77.6` or `accuracies = [77.6, 77.4]`, in percent (0 to 100), "
            f"or one of {', '.join(JUDGED)} to be judged by"
        )
    return [float(value) for value in found]


def _run(card: Mapping[str, Any], accuracy: float | None, seed: int | None) -> Run:
    total = card.get("epochs")
    text = card.get("schedule")
    if text is not None and total is None:
        raise ValueError("a schedule needs its total: give `epochs` too")
    if text is not None and total is not None:
        parse_schedule(text, total, recorded=True)
    kind = Kind(card["kind"]) if "kind" in card else Kind.RETRAIN
    settings = card.get("settings", {})
    if not isinstance(settings, dict):
        raise ValueError("`settings` is a table, like { optimizer = 'sgd', momentum = 0.9 }")
    reported = card.get("reported", "unknown")
    if reported not in REPORTED:
        raise ValueError(f"`reported` is the epoch taken: last, best or unknown, not {reported!r}")
    result = {"accuracy": accuracy, "spread": card.get("spread"), "reported": reported}
    pruned = kind is not Kind.TRAIN
    note = [text for text in (card.get("source"), card.get("note")) if text]
    return Run(
        kind=kind,
        epochs=(),
        schedule=text,
        total=total,
        architecture=card.get("architecture"),
        data=card.get("data"),
        base=card.get("base", UNKNOWN),
        pruning=Pruning(
            structure=card.get("structure"),
            ratio=_ratio(card),
            criterion=card.get("method"),
            scope=card.get("scope"),
            speedup=card.get("speedup"),
            epoch=card.get("pruning_epoch"),
            plan=card.get("plan"),
            stage_epochs=card.get("stage_epochs"),
            stage_schedule=card.get("stage_schedule"),
            stage_flops=card.get("stage_flops"),
        )
        if pruned
        else None,
        pretraining=Pretraining(
            schedule=card.get("pretraining_schedule"),
            epochs=card.get("pretraining_epochs"),
            accuracy=card.get("base_accuracy"),
        ),
        settings={**settings, **result},
        seed=seed,
        parameters=card.get("parameters"),
        flops_per_sample=card.get("flops"),
        given=tuple(card),
        source="card",
        notes=tuple(note),
    )


def _ratio(card: Mapping[str, Any]) -> float | None:
    ratio = card.get("ratio")
    return None if ratio is None else float(ratio)


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _check(card: Mapping[str, Any], key: str, kind: Any, words: str) -> None:
    value = card.get(key)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise ValueError(f"`{key}` is {words}, not {value!r}")
