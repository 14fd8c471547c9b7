"""Twenty thousand bad files: no code of theirs runs, nothing breaks, hangs or fills the memory.

    python benchmarks/hostile_files.py [--files 20000] [--first 0] [--workers 2] [--into FOLDER]
    python benchmarks/hostile_files.py --one 4711 --into FOLDER    # that file alone

Every file is made from its number, and read by the command a person would type, inside one of a few
worker processes. Results are kept in FOLDER as they come, so that the same command goes on where it
was stopped. Each file must end in exit code 0, or 2 with one sentence, within 10 seconds of the
processor and 2 GB; whatever it holds, no code of it may run and no control character be printed.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 10
PATIENCE = 120  # of the wall clock; beyond it a worker that does not answer is ended
MOST_MEMORY = 2 * 2**30
BROKEN = (
    "code ran",
    "traceback",
    "more than a line",
    "control characters",
    "hang",
    "memory",
    "died",
)


class Hang(BaseException):
    """The time is over; no `except Exception` may catch it."""


def worker(folder: Path) -> None:
    """Read numbers on stdin, and write what became of each file on stdout."""
    from hostile_inputs import Maker, good_files

    warnings.simplefilter("ignore")

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGVTALRM, over)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        canary = Path(home) / "canary"
        good = Path(home) / "good"
        good.mkdir()
        maker = Maker(good_files(good), canary)
        place = Path(home) / "case"
        print("ready", flush=True)
        for line in sys.stdin:
            place.mkdir()
            answer = one(maker, int(line), place, canary)
            for each in place.iterdir():
                each.unlink()
            place.rmdir()
            canary.unlink(missing_ok=True)
            print(json.dumps(answer), flush=True)


def one(maker: Any, index: int, place: Path, canary: Path) -> dict[str, Any]:
    """Make one file, read it, and return what became of it."""
    from click.testing import CliRunner

    from trainscope.cli.main import main

    kind, command = maker.make(index, place)
    before = memory()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    started = time.process_time()
    try:
        result = CliRunner().invoke(main, command)
        how = verdict(result)
    except Hang:
        result, how = None, "hang"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    peak = memory(peak=True) - before
    if canary.exists():
        how = "code ran"
    elif peak > MOST_MEMORY:
        how = "memory"
    said = "" if result is None else (result.stderr or repr(result.exception or ""))[-300:]
    return {
        "index": index,
        "kind": kind,
        "command": command[0],
        "how": how,
        "seconds": round(time.process_time() - started, 3),
        "megabytes": max(peak, 0) >> 20,
        "said": said.encode("ascii", "backslashreplace").decode(),
    }


def verdict(result: Any) -> str:
    """Say how one call of the command ended."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "traceback"
    if result.exit_code not in (0, 2):
        return "traceback"
    lines = result.stderr.splitlines()
    if result.exit_code == 2 and len(lines) != 1:
        return "more than a line"
    if any(not letter.isprintable() and letter not in "\n\ufffd" for letter in result.output):
        return "control characters"
    return "read" if result.exit_code == 0 else "refused"


def memory(*, peak: bool = False) -> int:
    """Return the memory of this process, and begin its peak anew where that is not asked for."""
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    name = "VmHWM:" if peak else "VmRSS:"
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) * 1024


class Worker:
    """One worker process and the number that it has."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", "--into", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "workers.log").open("a"),
            text=True,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        assert self.stdout.readline() == "ready\n", "a worker does not start; see workers.log"
        self.index: int | None = None
        self.since = time.monotonic()

    def give(self, index: int) -> None:
        """Hand it a number."""
        self.index, self.since = index, time.monotonic()
        self.stdin.write(f"{index}\n")
        self.stdin.flush()

    def take(self) -> dict[str, Any]:
        """Return its answer; a worker that died or does not answer is told so."""
        line = self.stdout.readline()
        return json.loads(line) if line else self.lost("died")

    def lost(self, how: str) -> dict[str, Any]:
        """End the process and say what the number that it had did to it."""
        self.process.kill()
        code = self.process.wait()
        said = f"worker ended with {code}"
        return {"index": self.index, "kind": "?", "command": "?", "how": how, "said": said} | {
            "seconds": round(time.monotonic() - self.since, 3),
            "megabytes": 0,
        }


def drive(numbers: list[int], folder: Path, count: int, results: Path) -> None:
    """Give the numbers to workers and write down every answer."""
    waiting = numbers[::-1]
    workers = [Worker(folder) for _ in range(count)]
    with results.open("a", encoding="utf-8") as file:
        for each in workers:
            if waiting:
                each.give(waiting.pop())
        while any(each.index is not None for each in workers):
            busy = [each for each in workers if each.index is not None]
            ready, _, _ = select.select([each.stdout for each in busy], [], [], 1)
            for each in busy:
                late = time.monotonic() - each.since > PATIENCE
                if each.stdout not in ready and not late:
                    continue
                answer = each.take() if each.stdout in ready else each.lost("hang")
                file.write(json.dumps(answer) + "\n")
                file.flush()
                each.index = None
                if each.process.poll() is not None or each.process.stdin is None:
                    workers[workers.index(each)] = each = Worker(folder)
                if waiting:
                    each.give(waiting.pop())
    for each in workers:
        each.stdin.close()
        each.process.wait()


def table(answers: list[dict[str, Any]]) -> str:
    """Return what became of the files, a row a kind, and the numbers of those that broke."""
    kinds = sorted({answer["kind"] for answer in answers})
    rows = [
        "| files | all | read | refused | " + " | ".join(BROKEN) + " | slowest [s] | most [MB] |"
    ]
    rows.append("|---" * (6 + len(BROKEN)) + "|")
    for kind in [*kinds, "all"]:
        some = [answer for answer in answers if kind in ("all", answer["kind"])]
        ended = Counter(answer["how"] for answer in some)
        counts = [len(some), *(ended[how] for how in ("read", "refused", *BROKEN))]
        counts += [max(a["seconds"] for a in some), max(a["megabytes"] for a in some)]
        rows.append(f"| {kind} | " + " | ".join(map(str, counts)) + " |")
    broken = [answer for answer in answers if answer["how"] in BROKEN]
    rows += [f"{a['index']}: {a['how']} ({a['command']}) {a['said']}" for a in broken[:200]]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=int)
    parser.add_argument("--into", type=Path, default=Path("build/hostile"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    if asked.worker:
        worker(asked.into)
        return
    if asked.one is not None:
        from hostile_inputs import Maker, good_files

        good = asked.into / "good"
        place = asked.into / str(asked.one)
        for folder in (good, place):
            folder.mkdir(exist_ok=True)
        canary = asked.into / "canary"
        print(json.dumps(one(Maker(good_files(good), canary), asked.one, place, canary), indent=1))
        return
    results = asked.into / "results.jsonl"
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    done = {json.loads(line)["index"] for line in lines}
    numbers = [n for n in range(asked.first, asked.first + asked.files) if n not in done]
    drive(numbers, asked.into, asked.workers, results)
    answers = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    print(table(answers))


if __name__ == "__main__":
    main()
