"""Who does one task at what cost: contenders run in turns, and what each answers is checked."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peers_cases import Case

LONG = 5.0
"""Seconds from which a first run is timed too, and not only those after it."""


@dataclass
class Answer:
    """What a contender found.

    Attributes:
        raw: As the tool returns it.
        read: Makes what is compared of it; not timed.
    """

    raw: Any
    read: Callable[[Any], Any] = field(default=lambda raw: raw)

    @property
    def value(self) -> Any:
        return self.read(self.raw)


@dataclass
class Contender:
    """One way to do a task.

    Attributes:
        who: Tool and method.
        make: What comes before the clock starts; returns what is timed.
        slow: Run once only.
        refuses: Why it is not run, where it is not.
    """

    who: str
    make: Callable[[], Callable[[], Answer]]
    slow: bool = False
    refuses: str = ""


@dataclass(frozen=True)
class Task:
    """What is raced for.

    Attributes:
        name: As `--tasks` takes it.
        title: What is measured.
        error_title: What the error is.
        contenders: Who takes part.
        reference: The right answer, in float64 where nothing else is said.
        error: How far an answer is off.
        accepted: Errors up to this count as an answer.
        equal: The cost of a random estimate at an error; None where answers are not random.
        reference_name: Tasks of one name share a reference; by default each has its own.
        needs_pixels: Inputs must be floating-point numbers.
    """

    name: str
    title: str
    error_title: str
    contenders: Callable[[Case], Iterator[Contender]]
    reference: Callable[[Case], Any]
    error: Callable[[Answer, Any], float]
    accepted: float
    equal: Callable[[float, Answer, list[float], float], float | None] | None = None
    reference_name: str = ""
    needs_pixels: bool = False


@dataclass
class Result:
    """What came of one contender.

    Attributes:
        who: Its name.
        cpu: Median seconds of the processor (of the device's clock on a GPU).
        wall: Median seconds.
        runs: How many were timed.
        error: The largest of its answers' errors.
        problem: What went wrong, where it did.
        equal: Its cost at the error that all are compared at.
        megabytes: Peak memory beyond what the case takes, where that was asked for.
    """

    who: str
    cpu: float | None = None
    wall: float | None = None
    runs: int = 0
    error: float | None = None
    problem: str = ""
    equal: float | None = None
    megabytes: float | None = None


@dataclass
class _Running:
    result: Result
    run: Callable[[], Answer]
    most: int
    times: list[tuple[float, float]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    answer: Answer | None = None


def race(
    case: Case,
    task: Task,
    reference: Any,
    *,
    repeats: int,
    seconds: float,
    slow: bool = True,
    only: Sequence[str] = (),
) -> list[Result]:
    """Return the results of all who take part, one gradient first.

    Args:
        case: Network and samples.
        task: What for.
        reference: The right answer.
        repeats: Timed runs of each, in turns.
        seconds: Of all runs of one contender; the run in which they are over is its last.
        slow: Run those that are many times as slow as the rest too.
        only: Leave out everyone but these; empty for nobody.
    """

    def gradient() -> Callable[[], Answer]:
        return lambda: Answer(torch.autograd.grad(case.loss(), case.parameters))

    contenders = [Contender("one gradient", gradient), *task.contenders(case)]
    if only:
        contenders = [each for each in contenders if each.who in only]
    results, running = [], []
    for each in contenders:
        left_out = "" if slow or not each.slow else "too slow for the quick selection"
        results.append(Result(each.who, problem=each.refuses or left_out))
        if results[-1].problem:
            continue
        try:
            with quiet():
                run = each.make()
        except Exception as error:  # a peer that is missing or fails must not stop the others
            results[-1].problem = in_words(error)
            case.clean()
            continue
        running.append(_Running(results[-1], run, 1 if each.slow else repeats))
    for each in running:  # to be warm, and for who is too slow to be run twice
        cpu, wall = once(case, task, each, reference)
        if each.most == 1 or wall > LONG:
            each.times.append((cpu, wall))
    for _ in range(repeats):
        for each in running:
            spent = sum(wall for _, wall in each.times)
            if each.result.problem or len(each.times) >= each.most or spent > seconds:
                continue
            each.times.append(once(case, task, each, reference))
    for each in running:
        if each.times and not each.result.problem:
            each.result.cpu = statistics.median(cpu for cpu, _ in each.times)
            each.result.wall = statistics.median(wall for _, wall in each.times)
            each.result.runs = len(each.times)
            each.result.error = max(each.errors, default=None)
    if task.equal is not None and not only:
        compare_equally(task, running)
    return results


def once(case: Case, task: Task, each: _Running, reference: Any) -> tuple[float, float]:
    """Run a contender once and check its answer; return its seconds of processor and clock."""
    try:
        with quiet():
            synchronize(case)
            cpu, wall = time.process_time(), time.perf_counter()
            answer = each.run()
            synchronize(case)
            taken = time.process_time() - cpu, time.perf_counter() - wall
            if each.result.who != "one gradient" and reference is not None:
                each.errors.append(task.error(answer, reference))
                each.answer = Answer(answer.value)
    except Exception as error:
        each.result.problem = in_words(error)
        return 0.0, 0.0
    finally:
        case.clean()
    return (taken[1], taken[1]) if case.device.type == "cuda" else taken


def compare_equally(task: Task, running: list[_Running]) -> None:
    """Put every random estimate's cost at the error of trainscope's, 1 % at least."""
    assert task.equal is not None
    target = 0.01
    for each in running:
        if each.result.who == "trainscope" and each.answer is not None:
            value, stderr = each.answer.value
            target = max(target, stderr / abs(value))
    for each in running:
        if each.result.cpu is not None and each.answer is not None:
            each.result.equal = task.equal(each.result.cpu, each.answer, each.errors, target)


def synchronize(case: Case) -> None:
    if case.device.type == "cuda":
        torch.cuda.synchronize()


def in_words(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:90]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what peers print and warn of out of the table."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            yield
