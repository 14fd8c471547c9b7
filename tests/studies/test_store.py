"""A store loses no run and gives none to two workers, whoever is killed and when."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from forked import processes
from small_studies import environment, one_thread, plan, retraining
from small_training import without_seconds

from trainscope.errors import StudyError
from trainscope.records import Run
from trainscope.sparsify import Action
from trainscope.studies import Store, Study, tables
from trainscope.studies.engines import finish
from trainscope.studies.orders import Order, obey
from trainscope.studies.plain import KEY
from trainscope.studies.planned import Planned
from trainscope.studies.queues import DEATHS, DIGEST, MOST_DEATHS, ROW, SPEC
from trainscope.studies.results import as_csv, failures, read_csv, results
from trainscope.studies.working import Listeners, work

PLACES = ("{}/study.db", "journal:{}/study.log")


@pytest.fixture(autouse=True)
def _one_thread():
    one_thread()


@pytest.fixture(params=PLACES, ids=["sqlite", "journal"])
def place(request, tmp_path) -> str:
    return request.param.format(tmp_path)


def test_a_plan_is_done_once_and_its_rows_are_read(place, tmp_path):
    store = Store(place)
    store.plan("x", plan(2))
    assert store.counts("x") == {"waiting": 2}
    assert work(store) == 2
    assert store.counts("x") == {"finished": 2}
    assert work(store) == 0
    rows = results(place)
    assert [row["seed"] for row in rows] == [0, 1]
    assert [row["study"] for row in rows] == ["x", "x"]
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(folders) == 3
    for row in rows:
        assert Run.load(tmp_path / "runs" / row["digest"][:KEY]).final_metric == row["final"]


def test_planning_again_adds_nothing_and_drops_what_waits_no_longer(place):
    store = Store(place)
    assert store.plan("x", plan(3)).added == 3
    assert store.plan("x", plan(3)).added == 0
    changed = store.plan("x", plan(4)[1:])
    assert (changed.added, changed.dropped) == (1, 1)
    assert store.counts("x") == {"waiting": 3}
    assert store.plan("x", plan(4)).added == 1  # the one that was dropped comes back
    assert store.counts("x") == {"waiting": 4}


def test_a_failed_run_keeps_its_reason_and_is_done_anew_where_that_is_asked(place):
    store = Store(place)
    bad = plan(1, data="mnist:nowhere", base="sha256:" + "0" * 64)
    store.plan("x", [*plan(1), *bad])
    work(store)
    assert store.counts("x") == {"finished": 1, "failed": 1}
    ((digest, why),) = failures(store, "x")
    assert digest == bad[0].spec.digest
    assert "no run in" in why
    assert store.plan("x", [*plan(1), *bad]).added == 0
    assert store.plan("x", [*plan(1), *bad], again=True).added == 1


def test_studies_on_one_store_share_runs(place):
    store, begun = Store(place), []
    store.plan("x", plan(2))
    store.plan("y", plan(3)[1:])
    work(store, telling=Listeners(epoch=lambda claimed, _: begun.append(claimed.spec.seed)))
    assert sorted(begun) == [0, 1, 2]  # the shared one was trained once
    assert len(results(store)) == 3
    assert [row["seed"] for row in results(store, "y")] == [1, 2]


def test_an_interrupted_run_waits_again(place):
    store = Store(place)
    store.plan("x", plan(1, "F3,1e-1"))

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(store, telling=Listeners(epoch=stop))
    assert store.counts("x") == {"waiting": 1}
    seen = []
    work(store, telling=Listeners(epoch=lambda _, record: seen.append(record.epoch)))
    assert seen == [2, 3]


def claim_all(place: str, barrier, queue) -> None:
    """Claim until nothing waits, as one of several processes."""
    store, got = Store(place), []
    barrier.wait()
    while (claimed := store.claim()) is not None:
        got.append(claimed.trial)
    queue.put(got)


def test_no_two_processes_claim_one_run(place):
    Store(place).plan("x", plan(12))
    barrier, queue = processes.Barrier(3), processes.Queue()
    workers = [processes.Process(target=claim_all, args=(place, barrier, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    got = [trial for _ in workers for trial in queue.get(timeout=120)]
    for worker in workers:
        worker.join()
    assert len(got) == len(set(got)) == 12


def plan_it(place: str, barrier) -> None:
    """Plan, as one of several drivers."""
    barrier.wait()
    Store(place).plan("x", plan(8))


@pytest.mark.parametrize("place", PLACES[:1], ids=["sqlite"], indirect=True)
def test_drivers_that_plan_at_once_on_a_new_store_double_nothing(place):
    barrier = processes.Barrier(3)
    drivers = [processes.Process(target=plan_it, args=(place, barrier)) for _ in range(3)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert [driver.exitcode for driver in drivers] == [0, 0, 0]
    store = Store(place, make=False)
    entries = store.queue.entries(1 if "journal" not in place else 0, ("digest",))
    assert Counter(e.attrs["digest"] for e in entries) == {p.spec.digest: 1 for p in plan(8)}


def claim_and_die(place: str) -> None:
    """Claim a run, and be gone before any heartbeat of the block."""
    store = Store(place)
    store.claim()
    os.kill(os.getpid(), signal.SIGKILL)


def claim_elsewhere_and_die(place: str) -> None:
    """Let a process of its own do so, and wait for its end."""
    worker = processes.Process(target=claim_and_die, args=(place,))
    worker.start()
    worker.join()


@pytest.mark.parametrize("place", PLACES[:1], ids=["sqlite"], indirect=True)
def test_a_run_whose_worker_died_at_once_is_taken_up(place):
    store = Store(place, grace=1)
    store.plan("x", plan(1))
    claim_elsewhere_and_die(place)
    assert store.counts("x") == {"running": 1}
    assert work(store) == 1  # which waits until the grace is over
    assert store.counts("x") == {"finished": 1}
    assert store.entries("x", (DEATHS,))[0].attrs[DEATHS] == 1


def test_of_this_machine_a_worker_that_is_gone_is_not_waited_for(place):
    store = Store(place, grace=3600)
    store.plan("x", plan(2))
    mine = store.claim()
    claim_elsewhere_and_die(place)
    assert store.counts("x") == {"running": 2}
    assert store.revive() == 1
    assert store.counts("x") == {"running": 1, "waiting": 1}
    assert store.revive() == 0
    again = store.claim()
    assert again is not None
    assert again.trial != mine.trial
    assert store.revive() == 0  # it is this process's now
    store.release(again)
    assert store.counts("x") == {"running": 1, "waiting": 1}
    assert store.entries("x", (DEATHS,))[1].attrs == {DIGEST: again.spec.digest, DEATHS: 1}


def test_a_run_between_two_workers_is_nobodys(place):
    store = Store(place, grace=3600)
    store.plan("x", plan(1))
    claim_elsewhere_and_die(place)
    assert store.revive() == 1
    study = store.queue.studies()[0].id
    assert store.queue.claim([study]) is not None  # and has not said who it is
    assert store.revive() == 0


def test_a_run_that_kills_its_workers_is_given_up(place):
    store = Store(place)
    store.plan("x", plan(1))
    for death in range(MOST_DEATHS):
        claimed = store.claim()
        assert claimed is not None, death
        assert (
            store.queue.revive(claimed.study, -1.0) + store.queue.revive(claimed.study, -1.0) == 1
        )
    assert store.claim() is None
    assert failures(store, "x")[0][1] == f"{MOST_DEATHS} workers died while they did it"


def test_a_worker_taken_for_dead_that_ends_after_all_spoils_nothing(place):
    store = Store(place)
    store.plan("x", plan(1))
    slow = store.claim()
    store.queue.revive(slow.study, -1.0)
    store.queue.revive(slow.study, -1.0)
    work(store)
    row = results(store)[0]
    store.finish(slow, {**row, "final": 0.0})
    assert results(store)[0] == row


def obeying(order: Order) -> None:
    """Be a worker."""
    one_thread()
    obey(order)


def test_a_killed_worker_loses_at_most_the_epoch_it_was_in(tmp_path):
    place = str(tmp_path / "study.db")
    spec = retraining("F30,1e-2")
    store = Store(place, grace=1)
    store.plan("x", [Planned(spec, {})])
    worker = processes.Process(target=obeying, args=(Order(place, None, None, grace=1.0),))
    worker.start()
    state = tmp_path / "runs" / spec.key / "state.pt"
    while not state.exists():
        time.sleep(0.01)
        assert worker.is_alive()
    worker.kill()
    worker.join()
    seen = []
    work(store, telling=Listeners(epoch=lambda _, record: seen.append(record.epoch)))
    assert store.counts("x") == {"finished": 1}
    assert seen[0] > 1
    assert seen == list(range(seen[0], 31))
    alone = Store(tmp_path / "alone" / "study.db")
    alone.plan("x", [Planned(spec, {})])
    work(alone)
    left, right = (
        without_seconds(Run.load(each / "runs" / spec.key))
        for each in (tmp_path, tmp_path / "alone")
    )
    assert left == right


def test_two_workers_as_processes_share_a_study(tmp_path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    planned = plan(2, action=Action("unstructured", 0.5))
    study = Study("x", runs=[p.spec for p in planned], store=tmp_path / "study.db")
    rows = study.run("processes", workers=2)
    assert [row["seed"] for row in rows] == [0, 1]
    held = Store(tmp_path / "study.db").entries("x", ("worker",))
    assert not any(entry.attrs["worker"].endswith(f":{os.getpid()}") for entry in held)


def test_workers_that_die_at_once_end_the_engine(tmp_path, monkeypatch):
    store = Store(tmp_path / "study.db")
    store.plan("x", plan(1))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StudyError, match="ended one after the other"):
        finish(store, ["x"], "processes", workers=2)


def test_a_worker_leaves_when_its_driver_is_gone(tmp_path):
    store = Store(tmp_path / "study.db")
    store.plan("x", plan(1))
    assert obey(Order(store.location, None, ("x",), 60.0, parent=-1)) == 0
    assert store.counts("x") == {"waiting": 1}


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StudyError, match="is no store of studies"):
        Store(tmp_path / "study.db", make=False)
    (tmp_path / "text.db").write_text("nothing")
    with pytest.raises(StudyError, match="cannot be opened as a store"):
        Store(tmp_path / "text.db", make=False)
    with pytest.raises(StudyError, match=r"cannot be opened") as raised:
        Store("postgresql://me:secret@nowhere.invalid/x", tmp_path)
    assert "secret" not in str(raised.value)
    store = Store(tmp_path / "new" / "study.db")
    with pytest.raises(StudyError, match="holds no study named 'y'"):
        store.counts("y")


def test_results_as_csv_and_back(tmp_path):
    store = Store(tmp_path / "study.db")
    store.plan("x", [Planned(p.spec, {"action": "half, L1"}) for p in plan(2)])
    work(store)
    rows = results(store)
    path = tmp_path / "rows.csv"
    path.write_text(as_csv(rows), encoding="utf-8")
    assert read_csv(path) == rows
    assert rows[0]["action.name"] == "half, L1"


def test_reading_10_000_runs_takes_few_queries(tmp_path, monkeypatch):
    """The time is measured by benchmarks/studies.py; here, that it does not grow with queries."""
    store = Store(tmp_path / "study.db")
    spec = plan(1)[0].spec.as_dict()
    wanted = {}
    for n in range(1500):
        user = {
            "digest": f"{n:064x}",
            SPEC: spec,
            ROW: {"a": n, "digest": f"{n:064x}"},
            "status": "finished",
        }
        wanted[user["digest"]] = {"params": {}, "system": {}, "user": user}
    store.plan("x", [])
    (held,) = store.queue.studies()
    for start in range(0, 1500, 500):
        part = list(wanted)[start : start + 500]
        store.queue.storage.set_study_user_attr(held.id, f"plan:{start:06d}", part)
    assert store.queue.plan(held.id, wanted).added == 1500
    said, asking = [], tables.asking

    @contextmanager
    def counted(file):
        with asking(file) as ask:
            yield lambda *each: said.append(each[0]) or ask(*each)

    monkeypatch.setattr(tables, "asking", counted)
    assert store.counts("x") == {"waiting": 1500}
    assert [row["a"] for row in results(store, "x")] == list(range(1500))
    assert 0 < len(said) < 30


def test_a_store_is_read_without_what_takes_long_to_import(tmp_path):
    Store(tmp_path / "study.db").plan("x", [])
    reads = (
        "import sys\nfrom trainscope.studies.results import results\n"
        "assert results(sys.argv[1]) == []\n"
        "print(sorted({'optuna', 'sqlalchemy', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", reads, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_a_reader_makes_no_file_and_waits_for_no_writer(tmp_path):
    store = Store(tmp_path / "study.db")
    store.plan("x", plan(1))
    with store.queue.engine.begin():  # holds the lock of all who write
        assert Store(tmp_path, make=False).counts("x") == {"waiting": 1}
    (tmp_path / "study.db").unlink()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        store.counts("x")
    assert not (tmp_path / "study.db").exists()
