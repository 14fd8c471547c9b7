"""Studies under kills, and how their store grows.

    python benchmarks/studies.py kills FOLDER [--engine ray]
    python benchmarks/studies.py size FOLDER [--runs 10000]

`kills` does a study of 60 runs on the digits with two workers and kills something with -9 twenty
times at random moments while a run is under way: the driver or one of its workers. Each time a
driver is started again. What it ends with is compared with the same study done without kills: the
same 60 runs, each once, the same weights bit for bit. Both parts go on where they stopped.
`size` fills a store with synthetic rows, and times planning, the commands status and results, each
in a process of its own, and claims.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from trainscope.errors import StudyError
from trainscope.studies.planned import Planned
from trainscope.studies.results import results
from trainscope.studies.store import Store

KILLS, PAUSE = 20, (0.0, 2.0)
GRACE = 5
STUDY = """
name = "kills"
data = "digits"
seeds = [0, 1, 2, 3, 4]
recipes = ["P1F2,1e-1", "P2F2,1e-1", "F2,1e-2"]
probes = ["gradient"]

[[base]]
architecture = "digits_resnet"
recipe = "F3,1e-1"

[[action]]
ratio = [0.5, 0.9]
criterion = ["l1", "random"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["kills", "size"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--engine", default="processes", choices=["processes", "ray"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "size":
        size(asked.folder, asked.runs)
    else:
        kills(asked.folder, asked.engine, asked.seed)


def driver(file: Path, engine: str) -> subprocess.Popen[bytes]:
    """Start the command, in a process group of its own."""
    command = [sys.executable, "-m", "trainscope", "study", "run", str(file)]
    command += ["--workers", "2", "--engine", engine, "--grace", str(GRACE)]
    with (file.parent / "log.txt").open("ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def children(parent: int) -> list[int]:
    """Return the processes that a driver started, and those that they started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def at_work(folder: Path) -> bool:
    """Tell whether a worker that lives has begun a run."""
    alive = {int(path.name) for path in Path("/proc").glob("[0-9]*")}
    try:
        store = Store(folder, make=False)
        entries = store.entries("kills", ("worker",))
    except StudyError:  # not planned yet
        return False
    store.close()
    running = [e.attrs.get("worker", ":0") for e in entries if e.state == "RUNNING"]
    return any(int(worker.rpartition(":")[2]) in alive for worker in running)


def kills(folder: Path, engine: str, seed: int) -> None:
    """Do the study with kills and without, and compare."""
    draw = random.Random(seed)
    victim, whole = folder / "killed" / "study.toml", folder / "whole" / "study.toml"
    for file in (victim, whole):
        file.parent.mkdir(exist_ok=True)
        file.write_text(STUDY)
    record = folder / "kills.json"
    done: list[str] = json.loads(record.read_text()) if record.exists() else []
    begun = time.monotonic()
    while len(done) < KILLS:
        process = driver(victim, engine)
        while len(done) < KILLS and process.poll() is None:
            if not at_work(victim.parent):
                time.sleep(0.3)
                continue
            time.sleep(draw.uniform(*PAUSE))
            workers = children(process.pid)
            if not workers:  # a driver that has only begun
                continue
            target = draw.choice(["driver", *["worker"] * len(workers)])
            try:
                os.kill(process.pid if target == "driver" else draw.choice(workers), signal.SIGKILL)
            except (ProcessLookupError, IndexError):
                continue
            done.append(target)
            record.write_text(json.dumps(done))
            print(f"{time.monotonic() - begun:6.0f} s  kill {len(done)}: {target}", flush=True)
        if process.poll() == 0 and len(done) < KILLS:
            print(f"the study was over after {len(done)} kills")
            break
        process.wait() if len(done) < KILLS else None
    for file in (victim, whole):
        code = driver(file, engine).wait()
        print(f"{file.parent.name}: exit code {code}")
    compare(victim.parent, whole.parent, Counter(done))


def compare(left: Path, right: Path, done: Counter[str]) -> None:
    """Say whether two folders hold the same runs, each once."""
    rows = []
    for folder in (left, right):
        store = Store(folder, make=False)
        (held,) = store.queue.studies()
        entries = store.queue.entries(held.id, ("digest", "deaths"))
        each = Counter(entry.attrs["digest"] for entry in entries)
        states = Counter(entry.state for entry in entries)
        deaths = sum(entry.attrs.get("deaths", 0) for entry in entries)
        print(f"{folder.name}: {len(entries)} trials, {len(each)} digests, {dict(states)}, ")
        print(f"  {deaths} times a run was taken up from a dead worker")
        rows.append({row["digest"]: (row["end"], row["final"]) for row in results(store)})
    same = rows[0] == rows[1]
    print(f"kills: {dict(done)}; the {len(rows[0])} results are the same, weights too: {same}")


def size(folder: Path, runs: int) -> None:
    """Time a store of many synthetic runs."""
    from sqlalchemy import text

    from trainscope.sparsify import Action
    from trainscope.studies import RunSpec
    from trainscope.studies.rows import columns_of

    shutil.rmtree(folder / "size", ignore_errors=True)
    base = RunSpec("F20,1e-1", architecture="digits_resnet")
    clock = Clock()
    plan = [
        Planned(RunSpec("F10,1e-2", base=base, action=Action(ratio=0.5), seed=seed), {})
        for seed in range(runs)
    ]
    digests = [each.spec.digest for each in plan]
    clock("specs and digests")
    store = Store(folder / "size" / "study.db")
    clock("making the store")
    store.plan("size", plan)
    clock("planning")
    row = columns_of(plan[0].spec) | {f"pruned.probe.number{n}": n / 7 for n in range(30)}
    row |= {"dense": 99.0, "pruned": 20.5, "ta": 88.0, "final": 90.0}
    row |= {"status": "finished", "metric": "accuracy"}
    (held,) = store.queue.studies()
    attrs = []
    for entry, digest in zip(store.queue.entries(held.id, ()), digests, strict=True):
        own = json.dumps(row | {"digest": digest})
        attrs.append({"t": entry.trial, "k": "row", "v": own})
        attrs.append({"t": entry.trial, "k": "status", "v": '"finished"'})
    insert = "insert into trial_user_attributes(trial_id, key, value_json) values (:t, :k, :v)"
    with store.queue.engine.begin() as connection:
        connection.execute(text(insert), attrs)
        done = {"n": runs - 100}
        connection.execute(text("update trials set state='COMPLETE' where number < :n"), done)
    clock("filling in rows")
    for command in (["status"], ["results"], ["results", "--csv", "-"]):
        commanded(folder / "size", command)
    store, clock = Store(folder / "size", make=False), Clock()
    found = results(store)
    clock(f"results in Python ({len(found)} rows of {len(found[0])} columns)")
    store.claim()
    clock("a claim, with Optuna's import")
    store.claim()
    clock("another claim")
    print(f"{(folder / 'size' / 'study.db').stat().st_size / 2**20:.0f} MiB")


def commanded(place: Path, words: list[str]) -> None:
    """Print what a command on a store takes."""
    command = [sys.executable, "-m", "trainscope", "study", words[0], str(place), *words[1:]]
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"study {' '.join(words)}: {wall:.2f} s ({own:.2f} s of the processor)", flush=True)


class Clock:
    """Prints what each step took: seconds of the wall clock, and of this process."""

    def __init__(self) -> None:
        self.wall, self.own = time.perf_counter(), time.process_time()

    def __call__(self, step: str) -> None:
        wall, own = time.perf_counter(), time.process_time()
        used = f"{own - self.own:.2f} s of the processor"
        print(f"{step}: {wall - self.wall:.2f} s ({used})", flush=True)
        self.wall, self.own = time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
