"""Optuna's tables in a database, where its own calls would be too slow or not safe.

Optuna claims a trial by reading its state and writing it afterwards. On SQLite, as Python's driver
opens transactions, both are not one: four processes popped 60 trials 76 times. `serialised` makes
every transaction begin with the lock, after which Optuna's own calls are sound. Reading 10,000
trials takes Optuna 4.6 s, since it builds each of them from six tables; here it is a query or two.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainscope.records import Json

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")
CHUNK = 500
WAIT = 60.0
"""Seconds that a writer waits for others that write to SQLite."""


@dataclass(frozen=True)
class Entry:
    """One trial of a study.

    Attributes:
        trial: Its id in the storage.
        number: Its number in the study.
        state: As Optuna names it.
        attrs: The user attributes that were asked for.
    """

    trial: int
    number: int
    state: str
    attrs: Json = field(default_factory=dict)


class Ask(Protocol):
    """Asks a database something, with values by name, and returns the rows."""

    def __call__(self, sql: str, values: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """Return all of them."""


@contextmanager
def asking(file: Path) -> Iterator[Ask]:
    """Ask a file of SQLite in one transaction that changes nothing.

    Python's own driver does, where to import SQLAlchemy takes half a second.
    """
    place = f"{file.absolute().as_uri()}?mode=rw"  # makes none, and mends what a kill left
    with closing(sqlite3.connect(place, WAIT, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield lambda sql, values=None: connection.execute(sql, values or {}).fetchall()
        connection.execute("COMMIT")


def asked_of(connection: Connection) -> Ask:
    """Return what asks within a transaction of SQLAlchemy's."""
    from sqlalchemy import text

    return lambda sql, values=None: connection.execute(text(sql), values or {}).all()


def engine_of(url: str) -> Engine:
    """Return an engine on a database, whose transactions are not disturbed by others."""
    from sqlalchemy import create_engine

    engine = create_engine(url, **options_of(url))
    serialised(engine)
    return engine


def options_of(url: str) -> dict[str, Any]:
    """Return how an engine on a database is made."""
    if url.startswith("sqlite"):  # the driver begins no transactions of its own
        return {"connect_args": {"timeout": WAIT, "isolation_level": None}}
    return {"pool_pre_ping": True}


def serialised(engine: Engine) -> None:
    """Let every transaction of an engine on SQLite take the lock when it begins."""
    from sqlalchemy import event

    if engine.name != "sqlite":
        return

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def studies(ask: Ask) -> list[tuple[int, str, Json]]:
    """Return the id, the name and the user attributes of every study."""
    attrs: dict[int, Json] = defaultdict(dict)
    # `key` is a word of MySQL's, but not behind a dot.
    held = ask("select s.study_id, s.key, s.value_json from study_user_attributes s")
    for study, name, value in held:
        attrs[study][name] = json.loads(value)
    found = ask("select study_id, study_name from studies order by study_id")
    return [(study, name, attrs.get(study, {})) for study, name in found]


def locked(connection: Connection, study: int) -> None:
    """Wait for other transactions that change the trials of a study, and keep new ones out."""
    from sqlalchemy import select

    studies = _tables()["studies"]
    connection.execute(
        select(studies.c.study_id).where(studies.c.study_id == study).with_for_update()
    )


def entries(ask: Ask, study: int, names: Sequence[str]) -> list[Entry]:
    """Return the trials of a study by their numbers.

    Args:
        ask: In a transaction.
        study: The study's id.
        names: Of the user attributes to read.
    """
    attrs: dict[int, Json] = defaultdict(dict)
    if names:
        places = {f"name{n}": name for n, name in enumerate(names)}
        rows = ask(
            "select a.trial_id, a.key, a.value_json from trial_user_attributes a "
            "join trials t on t.trial_id = a.trial_id where t.study_id = :study "
            f"and a.key in ({', '.join(f':{place}' for place in places)})",
            {"study": study, **places},
        )
        whole = json.loads(f"[{','.join(row[2] for row in rows)}]")  # once is faster than each
        for row, value in zip(rows, whole, strict=True):
            attrs[row[0]][row[1]] = value
    found = ask(
        "select trial_id, number, state from trials where study_id = :study order by number",
        {"study": study},
    )
    return [Entry(trial, number, state, attrs.get(trial, {})) for trial, number, state in found]


def count(ask: Ask, study: int) -> dict[str, int]:
    """Return how many trials of a study are in each state."""
    counted = "select state, count(*) from trials where study_id = :study group by state"
    return {row[0]: row[1] for row in ask(counted, {"study": study})}


def first_waiting(connection: Connection, studies: Sequence[int]) -> tuple[int, int] | None:
    """Return the study and the id of the waiting trial with the lowest number, None for none."""
    from sqlalchemy import select

    trials = _tables()["trials"]
    found = connection.execute(
        select(trials.c.study_id, trials.c.trial_id)
        .where(trials.c.study_id.in_(studies), trials.c.state == "WAITING")
        .order_by(trials.c.study_id, trials.c.number)
        .limit(1)
    ).first()
    return None if found is None else (found[0], found[1])


def drop(connection: Connection, trials_to_drop: Iterable[int]) -> None:
    """Take waiting trials out of the queue."""
    from sqlalchemy import update

    trials, ids = _tables()["trials"], list(trials_to_drop)
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        connection.execute(
            update(trials)
            .where(trials.c.trial_id.in_(part), trials.c.state == "WAITING")
            .values(state="PRUNED")
        )


def stale(connection: Connection, study: int, grace: float) -> list[int]:
    """Return the running trials whose worker has been silent for more than so many seconds."""
    from sqlalchemy import DateTime, func, select

    tables = _tables()
    trials, beats = tables["trials"], tables["trial_heartbeats"]
    now = connection.execute(select(func.now(type_=DateTime))).scalar_one().replace(tzinfo=None)
    found = connection.execute(
        select(trials.c.trial_id, beats.c.heartbeat)
        .join_from(trials, beats, beats.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study, trials.c.state == "RUNNING")
    )
    return [trial for trial, beat in found if (now - beat).total_seconds() > grace]


def of_running(ask: Ask, study: int, name: str) -> list[tuple[int, Any]]:
    """Return the running trials of a study that have a user attribute, and its value."""
    rows = ask(
        "select a.trial_id, a.value_json from trial_user_attributes a "
        "join trials t on t.trial_id = a.trial_id "
        "where t.study_id = :study and t.state = 'RUNNING' and a.key = :name",
        {"study": study, "name": name},
    )
    return [(trial, json.loads(value)) for trial, value in rows]


def requeue(connection: Connection, trial: int, *, forget: str) -> None:
    """Let a running trial wait again, in a transaction that holds the lock of its study.

    Args:
        connection: In the transaction.
        trial: Its id.
        forget: The user attribute that it loses.
    """
    from sqlalchemy import delete, update

    tables = _tables()
    trials, attrs = tables["trials"], tables["trial_user_attributes"]
    connection.execute(delete(attrs).where(attrs.c.trial_id == trial, attrs.c.key == forget))
    connection.execute(
        update(trials)
        .where(trials.c.trial_id == trial, trials.c.state == "RUNNING")
        .values(state="WAITING")
    )


def add(connection: Connection, study: int, number: int, new: Sequence[Mapping[str, Any]]) -> None:
    """Add waiting trials to a study that is `locked`.

    Args:
        connection: In the transaction that holds the lock.
        study: The study's id.
        number: Of the first one.
        new: Of each trial "params" (values and distributions by name), "user" and "system"
            (attributes by name).
    """
    from sqlalchemy import insert, select

    if not new:
        return
    tables = _tables()
    trials = tables["trials"]
    numbers = range(number, number + len(new))
    rows = [{"study_id": study, "number": n, "state": "WAITING"} for n in numbers]
    connection.execute(insert(trials), rows)
    asked = select(trials.c.number, trials.c.trial_id).where(
        trials.c.study_id == study, trials.c.number >= number
    )
    ids = {row[0]: row[1] for row in connection.execute(asked)}
    held: dict[str, list[Json]] = defaultdict(list)
    for place, each in zip(numbers, new, strict=True):
        trial = ids[place]
        for kind in ("user", "system"):
            held[f"trial_{kind}_attributes"] += [
                {"trial_id": trial, "key": name, "value_json": json.dumps(value)}
                for name, value in each[kind].items()
            ]
        held["trial_params"] += [
            {"trial_id": trial, "param_name": name, "param_value": value, "distribution_json": how}
            for name, (value, how) in each["params"].items()
        ]
    for name, parts in held.items():
        if parts:
            connection.execute(insert(tables[name]), parts)


def _tables() -> dict[str, Any]:
    """Return the columns of Optuna's tables that are used here."""
    from sqlalchemy import DateTime, Enum, Float, Integer, String, column, table

    def whole(name: str) -> Any:
        return column(name, Integer)

    def text(name: str) -> Any:
        return column(name, String)

    def attributes(kind: str) -> Any:
        return table(f"trial_{kind}_attributes", whole("trial_id"), text("key"), text("value_json"))

    state = column("state", Enum(*STATES, name="trialstate"))
    return {
        "studies": table("studies", whole("study_id"), text("study_name")),
        "study_user_attributes": table(
            "study_user_attributes", whole("study_id"), text("key"), text("value_json")
        ),
        "trials": table("trials", whole("trial_id"), whole("number"), whole("study_id"), state),
        "trial_heartbeats": table(
            "trial_heartbeats", whole("trial_id"), column("heartbeat", DateTime)
        ),
        "trial_user_attributes": attributes("user"),
        "trial_system_attributes": attributes("system"),
        "trial_params": table(
            "trial_params",
            whole("trial_id"),
            text("param_name"),
            column("param_value", Float),
            text("distribution_json"),
        ),
    }
