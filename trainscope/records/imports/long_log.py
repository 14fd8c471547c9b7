"""Logs with a row a value: tables of a name, a value and a step, and MLflow's folders of metrics.

MLflow keeps a file a metric, of lines `timestamp value step`, under `metrics` in a folder a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainscope.errors import RecordError
from trainscope.records.imports.json_records import read_records
from trainscope.records.imports.log import Log, choose_run, number
from trainscope.records.imports.named import KEYS, VALUES, by_step
from trainscope.records.imports.names import ACCURACY, EPOCH, LOSS, PHASES, STEP, meaning, split_of
from trainscope.records.imports.table import open_table
from trainscope.records.imports.text_file import beginning, check_file, lines

DATA = (*PHASES, "context", "context.subset", "metric.context", "metric.context.subset")
"""Columns that may say of which data it is."""
RUNS = ("run.hash", "run.name", "run id", "run_id", "run", "run_name", "run name", "seed")
"""Columns that say of which run a row is."""
MOST_METRICS = 2_000
"""Files of metrics in one run."""
MOST_BYTES = 16 * 2**20
_WORD = re.compile(r"[A-Za-z]+")
_ROW = re.compile(r"\s*([A-Za-z][\w ./-]*?)\s*([,;\t])\s*(\d+)\s*\2\s*([-+]?[\d.]\S*)\s*")
"""OpenLTH's: test_accuracy,100,0.6"""
FEWEST = 2
METRICS, ABOUT = "metrics", "meta.yaml"


def layout(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the columns of names, of values and of steps; None of a table of another kind."""
    lower = {name.lower(): at for at, name in reversed(list(enumerate(names)))}
    key = next((lower[name] for name in KEYS if name in lower), None)
    value = next((lower[name] for name in VALUES if name in lower), None)
    meant = {at: m.field for at, name in enumerate(names) if (m := meaning(name))}
    step = next((at for at, field in meant.items() if field in (EPOCH, STEP)), None)
    if key is None or value is None or step is None:
        return None
    return key, value, step


def are_rows(start: Sequence[str]) -> bool:
    """Tell lines of nothing but a name, a step and a value, two at least, without a header."""
    found = [_ROW.fullmatch(line) for line in start[:20]]  # the last one may be cut
    if len(found) < FEWEST or None in found:
        return False
    return any(match is not None and _is_told(match[1]) for match in found)


def _read_rows(path: Path, asked: Mapping[str, str], run: str | None) -> Log:
    """Read lines of a name, a step and a value."""
    if run is not None:
        choose_run(str(path), [], run)
    check_file(path, MOST_BYTES)
    parts = (match for line in lines(path) if (match := _ROW.fullmatch(line)))
    found = [(match[1], number(match[3]), number(match[4])) for match in parts]
    _refuse_twice(path, found)
    return read_records(path, by_step(found, "step"), asked, "csv")


def read_table(path: Path, asked: Mapping[str, str], run: str | None) -> Log | None:
    """Read a table of a value a row; None where it is of another kind.

    Raises:
        RecordError: It is one, and holds no accuracy, or several runs of which none is named.
    """
    if are_rows(beginning(path)):
        return _read_rows(path, asked, run)
    names, rows = open_table(path)
    places = layout(names)
    if places is None:
        return None
    key, value, step = places
    lower = {name.lower(): at for at, name in reversed(list(enumerate(names)))}
    runs = next((lower[name] for name in RUNS if name in lower and lower[name] != key), None)
    parts = [lower[name] for name in DATA if name in lower]
    held: dict[str, list[tuple[str, float | None, float | None]]] = {}
    for _, row in rows:
        if len(row) > max(places):
            own = "" if runs is None or len(row) <= runs else row[runs].strip()
            said = [_data_in(row[at]) for at in parts if len(row) > at]
            split = next((word for word in said if word), "")
            name = f"{split}/{row[key].strip()}" if split else row[key].strip()
            held.setdefault(own, []).append((name, number(row[step]), number(row[value])))
    if not any(_is_told(name) for found in held.values() for name, _, _ in found):
        return None
    for own_values in held.values():
        _refuse_twice(path, own_values)
    picked = choose_run(str(path), list(held), run) if run or len(held) > 1 else next(iter(held))
    whole = meaning(names[step])
    axis = "epoch" if whole is not None and whole.field == EPOCH else "step"
    return read_records(path, by_step(held[picked], axis), asked, "csv")


def _refuse_twice(path: Path, found: Sequence[tuple[str, float | None, float | None]]) -> None:
    """Refuse a table of several runs that no column with a known name tells apart."""
    values: dict[tuple[str, float | None], set[float | None]] = {}
    for name, at, value in found:
        values.setdefault((name, at), set()).add(value)
    tested = {key: known for key, known in values.items() if _is_told(key[0])}
    several = [key for key, known in tested.items() if len(known) > 1]
    if 2 * len(several) > len(tested):
        name, at = several[0]
        raise RecordError(
            f"{path} has {len(values[name, at])} values of '{name}' at step {at:g}, and so at most "
            "steps, so it holds several runs: keep the rows of one, or call the column that tells "
            "them apart 'run'"
        )


def _data_in(cell: str) -> str:
    """Return the word in a cell that names data: `val`, or `{'subset': 'val'}`."""
    return next((word for word in _WORD.findall(cell) if split_of(word)), "")


def is_run(folder: Path) -> bool:
    """Tell a folder of one of MLflow's runs."""
    return (folder / METRICS).is_dir() and (folder / ABOUT).is_file()


def name_of(folder: Path) -> str:
    """Return the name of one of MLflow's runs, or its id."""
    for line in lines(folder / ABOUT, cut=True):
        field, _, name = line.partition(":")
        if field == "run_name" and name.strip():
            return name.strip().strip("'\"")
    return folder.name


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read a folder of one of MLflow's runs.

    Args:
        path: The folder, with `metrics` in it.
        asked: Metrics that the person named, by field.
        run: None, as such a folder holds one run.

    Raises:
        RecordError: It is none, or there is no accuracy in it.
    """
    if not is_run(path):
        raise RecordError(
            f"{path} is no folder of one of MLflow's runs, which holds {ABOUT} and {METRICS}: name "
            "that of the run, under mlruns and the experiment"
        )
    if run is not None:
        choose_run(str(path), [], run)
    home = path / METRICS
    files = sorted(file for file in home.rglob("*") if file.is_file())
    if len(files) > MOST_METRICS:
        raise RecordError(
            f"{home} holds more than {MOST_METRICS} metrics: export those of the epochs"
        )
    found = []
    for file in files:
        if not file.stat().st_size:
            continue
        name = file.relative_to(home).as_posix()
        check_file(file, MOST_BYTES)
        for line in lines(file):
            words = line.split()
            if len(words) == 3:
                found.append((name, number(words[2]), number(words[1])))
    return read_records(path, by_step(found, "step"), asked, "mlflow")


def _is_told(name: str) -> bool:
    found = meaning(name)
    return found is not None and found.field in (ACCURACY, LOSS)
