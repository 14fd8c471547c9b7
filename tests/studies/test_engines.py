"""Databases and clusters that are not always here: PostgreSQL, MariaDB and Ray."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_studies import environment, plan

from trainscope.errors import StudyError
from trainscope.studies import Store, Study
from trainscope.studies.engines import finish, run
from trainscope.studies.processes import this_process
from trainscope.studies.results import results

processes = multiprocessing.get_context("spawn")
BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@contextmanager
def postgresql(_: Path) -> Iterator[str]:
    """Start a PostgreSQL of the test's own, and yield its URL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not BIN:
        pytest.skip("PostgreSQL is not installed")
    user = []
    # Beside pytest's folders, which only their owner may enter; a socket's path is short too.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        data = Path(short) / "data"
        data.mkdir()
        if os.geteuid() == 0:  # it refuses to run as root
            if shutil.which("runuser") is None:
                pytest.skip("PostgreSQL does not run as root")
            user = ["runuser", "-u", "postgres", "--"]
            data.parent.chmod(0o755)
            shutil.chown(data, "postgres")
        initdb = [*user, BIN[-1] / "initdb", "-D", data, "-A", "trust", "-U", "me"]
        subprocess.run(initdb, **QUIET, check=True)
        options = f"-c listen_addresses='' -c unix_socket_directories={data} -c fsync=off"
        control = [*user, BIN[-1] / "pg_ctl", "-D", data, "-w", "-o", options]
        subprocess.run([*control, "start"], **QUIET, check=True)
        try:
            yield f"postgresql+psycopg://me@/postgres?host={data}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **QUIET, check=True)


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Start a MariaDB of the test's own, and yield its URL."""
    pytest.importorskip("pymysql", reason="pymysql is not installed")
    make, serve = shutil.which("mariadb-install-db"), shutil.which("mariadbd")
    if make is None or serve is None:
        pytest.skip("MariaDB is not installed")
    user = pwd.getpwuid(os.geteuid()).pw_name
    # A socket's path has a hundred characters at most.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        socket = Path(short) / "s"
        told = ["--no-defaults", f"--datadir={folder / 'data'}", f"--user={user}"]
        allowed = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run([make, *told, *allowed], **QUIET, check=True)
        server = subprocess.Popen(
            [serve, *told, f"--socket={socket}", "--skip-networking"], **QUIET
        )
        try:
            while not socket.exists():
                assert server.poll() is None
                time.sleep(0.05)
            import pymysql

            with pymysql.connect(unix_socket=str(socket), user="root") as connection:
                connection.cursor().execute("create database studies")
            yield f"mysql+pymysql://root@localhost/studies?unix_socket={socket}"
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(params=[postgresql, mariadb], ids=["postgresql", "mariadb"])
def database(request, tmp_path):
    """Return the URL of a database that runs while the test does."""
    with request.param(tmp_path) as url:
        yield url


def drive(url: str, folder: Path, barrier) -> None:
    """Plan and do a study, as one of several drivers."""
    barrier.wait()
    study = Study("x", runs=[each.spec for each in plan(3)], store=url, folder=folder)
    run(study, grace=5).close()


def test_two_drivers_at_once(database, tmp_path):
    barrier = processes.Barrier(2)
    drivers = [
        processes.Process(target=drive, args=(database, tmp_path / "runs", barrier))
        for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert [driver.exitcode for driver in drivers] == [0, 0]
    store = Store(database, make=False)
    (held,) = store.queue.studies()
    entries = store.queue.entries(held.id, ("digest", "worker"))
    assert Counter(e.attrs["digest"] for e in entries) == {p.spec.digest: 1 for p in plan(3)}
    assert {entry.state for entry in entries} == {"COMPLETE"}
    assert [row["seed"] for row in results(store)] == list(range(3))
    store.close()


def test_a_database_elsewhere_needs_a_folder(database):
    store = Store(database)
    with pytest.raises(StudyError, match="needs a folder for the runs"):
        store.plan("x", plan(1))
    store.close()


def test_a_silent_worker_is_found(database, tmp_path):
    store = Store(database, tmp_path / "runs")
    store.plan("x", plan(1))
    claimed = store.claim()
    assert store.queue.revive(claimed.study, 60.0) == 0
    assert store.queue.revive(claimed.study, -1.0) == 1
    assert store.counts("x") == {"waiting": 1}
    store.close()


def claim_and_die(url: str, folder: Path) -> None:
    """Take a run and be killed, before the first heartbeat of a thread."""
    Store(url, folder).claim()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_of_this_machine_that_is_gone_is_found_at_once(database, tmp_path):
    if not this_process():
        pytest.skip("no /proc tells processes apart here")
    store = Store(database, tmp_path / "runs", grace=3600)
    store.plan("x", plan(2))
    assert store.claim() is not None
    worker = processes.Process(target=claim_and_die, args=(database, tmp_path / "runs"))
    worker.start()
    worker.join()
    assert store.counts("x") == {"running": 2}
    assert store.revive() == 1
    assert store.counts("x") == {"running": 1, "waiting": 1}
    store.close()


def test_ray_does_a_study(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    study = Study("x", runs=[each.spec for each in plan(2)], store=tmp_path / "study.db")
    assert [row["seed"] for row in study.run("ray", workers=2)] == [0, 1]


def test_a_node_of_a_ray_cluster_that_is_lost_loses_no_run(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    specs = [each.spec for each in plan(8, "F3,1e-1")]
    alone = Study("x", runs=specs, store=tmp_path / "alone" / "study.db").run()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    second = cluster.add_node(num_cpus=1)
    study = Study("x", runs=specs, store=tmp_path / "ray" / "study.db")
    store, lost = study.open_store(), []
    store.plan("x", study.plan())

    def lose() -> None:
        """Take the second node away when two workers are at work and a run is done."""
        while not lost:
            counts = store.counts("x")
            if counts.get("running") == 2 and counts.get("finished"):
                cluster.remove_node(second, allow_graceful=False)
                lost.append(counts)
            time.sleep(0.1)

    watcher = threading.Thread(target=lose, daemon=True)
    watcher.start()
    try:
        rows = study.run("ray", workers=2, address=cluster.address, grace=5)
    finally:
        cluster.shutdown()
    assert lost[0]["waiting"] > 0  # it was lost half way
    assert [(r["digest"], r["end"], r["final"]) for r in rows] == [
        (r["digest"], r["end"], r["final"]) for r in alone
    ]
    (held,) = store.queue.studies()
    entries = store.queue.entries(held.id, ("digest", "deaths"))
    assert Counter(e.attrs["digest"] for e in entries) == {spec.digest: 1 for spec in specs}
    assert sum(entry.attrs.get("deaths", 0) for entry in entries) == 1
    store.close()


def test_without_ray_its_engine_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    store = Store(tmp_path / "study.db")
    store.plan("x", plan(1))
    with pytest.raises(StudyError, match=r"pip install 'trainscope-pruning\[ray\]'"):
        finish(store, ["x"], "ray")
    with pytest.raises(StudyError, match="no engine is named 'slurm'"):
        run(Study("x", runs=[plan(1)[0].spec], store=tmp_path / "study.db"), "slurm")
