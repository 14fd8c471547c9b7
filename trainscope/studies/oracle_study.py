"""The candidates of an oracle search as a study: each retrained with several seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trainscope.errors import RecordError
from trainscope.records import Json, files
from trainscope.records.json_text import parse
from trainscope.records.reading import text_of
from trainscope.sparsify import Action
from trainscope.studies.oracle import OracleSearch, PruningTrial
from trainscope.studies.results import Row
from trainscope.studies.spec import RunSpec
from trainscope.studies.study import Study

FAMILY = "trainscope.oracle/"
SCHEMA = FAMILY + "1"
FILE = "oracle.json"


def study_of(
    found: OracleSearch, retraining: RunSpec, seeds: int = 1, store: str | Path | None = None
) -> Study:
    """Return a study, "oracle", that retrains every candidate of a search.

    Args:
        found: The search.
        retraining: What was searched, retrained without an action.
        seeds: Retrainings of each candidate.
        store: Where the runs are kept.
    """
    runs = [
        replace(retraining, action=Action(kept=trial.kept), seed=seed)
        for seed in range(seeds)  # each once, before one comes again
        for trial in found.trials
    ]
    return Study("oracle", runs=runs, store=store)


def joined(rows: Sequence[Row], found: OracleSearch) -> list[Row]:
    """Return the rows of a search's candidates, with what the search knew of each in front."""
    by_kept = {_cell(trial.kept): trial for trial in found.trials}
    table = []
    for row in rows:
        trial = by_kept.get(str(row.get("action.kept")))
        if trial is not None:
            known = {"candidate": trial.name, "place": trial.place, "oracle_loss": trial.loss}
            table.append({**known, **row})
    return sorted(table, key=lambda row: (row["place"], row["seed"]))


def write_search(path: Path, found: OracleSearch, asked: Json) -> None:
    """Write a search, with what was asked, over an earlier one at most.

    Raises:
        RecordError: It cannot be written, or another file is there.
    """
    document = {"schema": SCHEMA, "asked": asked, **asdict(found)}
    files.write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n", over=FAMILY)


def read_search(path: Path, asked: Json | None = None) -> OracleSearch | None:
    """Return a search that was written, None where there is none of what is asked.

    Args:
        path: The file.
        asked: What was asked; by default anything.

    Raises:
        RecordError: A file is there that cannot be read.
    """
    if not path.exists():
        return None
    try:
        raw: Any = parse(text_of(path))
        if raw["schema"] != SCHEMA:
            raise ValueError(f"its schema is {raw['schema']!r}, not '{SCHEMA}'")
        if asked is not None and raw["asked"] != json.loads(json.dumps(asked)):
            return None
        trials = tuple(
            PruningTrial(
                each["place"],
                {layer: tuple(kept) for layer, kept in each["kept"].items()},
                each["loss"],
                each["metric"],
            )
            for each in raw["trials"]
        )
        fields = {name: raw[name] for name in ("layers", "keep", "combinations", "exact")}
        return OracleSearch(**fields, samples=raw["samples"], trials=trials)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is no search for filters: {error}") from error


def _cell(kept: Mapping[str, tuple[int, ...]]) -> str:
    """Return the filters that stay as a row has them."""
    return json.dumps({layer: list(places) for layer, places in kept.items()}, sort_keys=True)
