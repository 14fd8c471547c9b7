"""Running a job from the command line: progress with the time left, Ctrl-C, what is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainscope.cli.boundary import INTERRUPTED
from trainscope.cli.printing import progress_console, remark, say, say_json
from trainscope.cli.tracking import Tracking, reporting, take_tracking
from trainscope.records.text import plain

if TYPE_CHECKING:
    from trainscope.probes.hooks import ProbeHook
    from trainscope.records import EpochRecord, Metric, Run
    from trainscope.training.job import Job
    from trainscope.training.runner import Watch
    from trainscope.training.stage import PruningStage
    from trainscope.training.staging import Staged
    from trainscope.training.state import State


@dataclass(frozen=True)
class RunOptions:
    """Where a job runs, and what becomes of its Run.

    Attributes:
        output: Its folder; None for `runs/KIND-KEY`.
        device: Where to train.
        as_json: Print the Run, not a summary.
        tracking: The trackers that get the Run too.
    """

    output: Path | None
    device: str
    as_json: bool
    tracking: Tracking

    @classmethod
    def taken(cls, options: dict[str, Any]) -> RunOptions:
        """Take them out of a command's options.

        Raises:
            ProbeError: A project or a name is given, and no tracker.
        """
        tracking = take_tracking(options)
        output, device, as_json = (options.pop(n) for n in ("output", "device", "as_json"))
        return cls(output, device, as_json, tracking)


def run_and_show(job: Job, asked: RunOptions, hook: ProbeHook | None, name: str) -> Run:
    """Run a job in its folder, and say what came out.

    Args:
        job: What to train.
        asked: Where, and how that is said.
        hook: Measures on the way.
        name: Of the job, for progress.
    """
    from trainscope.networks.device import find_device
    from trainscope.training.job import key_of
    from trainscope.training.runner import run_job

    find_device(asked.device)
    folder = asked.output or Path("runs") / f"{job.kind}-{key_of(job.frozen())}"
    with reporting(asked.tracking, job, folder) as reporter:
        on_state = None if reporter is None else reporter.on_state
        with kept_on_interrupt(folder), watching(hook, name, on_state) as watch:
            run = run_job(job, folder, device=asked.device, watch=watch)
        if reporter is not None:
            reporter.end(run)
    if run.status == "interrupted":
        remark(_interrupted(run, folder))
    if asked.as_json:
        say_json(run.to_json())
    else:
        say(summary(run, folder))
    if run.status == "interrupted":
        raise SystemExit(INTERRUPTED)
    return run


def staging(folder: Path | None, device: str, name: str) -> Callable[[PruningStage], Staged]:
    """Return what does a pruning stage, and shows its progress.

    Args:
        folder: Of the stage; by default `runs/stage-KEY`.
        device: Where to train.
        name: Of the network, for progress.
    """

    def done(stage: PruningStage) -> Staged:
        from trainscope.training.staging import run_stage

        place = folder or Path("runs") / f"stage-{stage.key}"
        with kept_on_interrupt(place), watching(None, f"pruning {name}") as watch:
            return run_stage(stage, place, device=device, watch=watch)

    return done


def _interrupted(run: Run, folder: Path) -> str:
    from trainscope.training.folder import CHECKPOINT

    where = f"interrupted after epoch {run.epochs[-1].epoch} of {run.total}"
    if (folder / CHECKPOINT).exists():
        return (
            f"{where}: run.json and {CHECKPOINT} in {folder} hold what was done, and the same "
            "command goes on"
        )
    return (
        f"{where}: run.json in {folder} holds what was done; the training had diverged, so there "
        "is no checkpoint to go on from: try a smaller LR in another folder"
    )


@contextmanager
def kept_on_interrupt(folder: Path) -> Iterator[None]:
    """Turn a Ctrl-C that leaves no result into a line and the shell's exit code for it."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"what earlier calls did is in {folder}, and the same command goes on"
        remark(
            "interrupted before an epoch was over; "
            + (
                kept
                if folder.exists()
                else "nothing was written, and the same command begins again"
            )
        )
        raise SystemExit(INTERRUPTED) from None


@contextmanager
def watching(
    hook: ProbeHook | None, name: str, on_state: Callable[[State], None] | None = None
) -> Iterator[Watch]:
    """Lend a Watch that shows progress on stderr: a bar on a terminal, a line an epoch.

    Args:
        hook: Measures on the way.
        name: What is trained.
        on_state: Gets the state after every epoch.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from trainscope.training.runner import Watch

    console = progress_console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("epoch {task.completed:.1f} of {task.total:.0f}"),
        TimeRemainingColumn(compact=True),
    )
    begun, first = time.monotonic(), 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(plain(name), total=1.0)  # until on_start knows the epochs

        def on_start(done: int, total: int) -> None:
            nonlocal first
            first = done
            bar.update(task, total=total, completed=done)
            if done:
                console.print(f"going on after epoch {done} of {total}", style="dim")

        def on_step(epoch: int, step: int, steps: int) -> None:
            bar.update(task, completed=epoch + step / steps)

        def on_epoch(record: EpochRecord) -> None:
            total = bar.tasks[0].total or 1.0
            pace = (time.monotonic() - begun) / max(record.epoch - first, 1)
            left = pace * (total - record.epoch)
            console.print(f"{line(record, int(total))}  {_clock(left)} left", style="dim")

        yield Watch((hook,) if hook else (), on_start, on_epoch, on_step, on_state)


def line(record: EpochRecord, total: int) -> str:
    """Write one epoch in a line."""
    from trainscope.training.schedule import write_lr

    loss = "not finite" if record.train_loss is None else f"{record.train_loss:.4f}"
    return (
        f"epoch {record.epoch}/{total}  LR {write_lr(record.lr)}  train loss {loss}  "
        f"test {record.metric.name} {_value(record.metric, record.test_metric)}"
    )


def summary(run: Run, folder: Path) -> str:
    """Write what a Run came to, in a few lines."""
    from trainscope.records.action import speedup
    from trainscope.training.folder import CHECKPOINT

    ta, metric = run.trainability(), run.metric
    n = "" if ta.epochs is None else f", N = {ta.epochs}"
    note = f" ({ta.note})" if ta.note else ""
    files = ", ".join(name for name in ("run.json", CHECKPOINT) if (folder / name).exists())
    rows = [
        ("LR schedule", f"{run.schedule}, {run.total} epoch{'s' * (run.total != 1)}"),
        (f"final test {metric.name}", _value(metric, run.final_metric)),
        (f"trainability {metric.name}{n}", f"{_value(metric, ta.value)}{note}"),
        ("FLOPs spent", "unknown" if run.flops is None else f"{run.flops:.4g} multiply-adds"),
        ("status", str(run.status)),
        ("written to", f"{folder} ({files})"),
    ]
    if run.pruning is not None and run.pruning.action is not None:
        action = run.pruning.action
        rows.insert(0, ("pruned", f"{action.meaning}; speedup {speedup(action)}"))
        if run.pruning.stage_epochs:
            epochs = f"{run.pruning.stage_epochs} epoch{'s' * (run.pruning.stage_epochs != 1)}"
            cost = f"{run.pruning.stage_flops:.4g} multiply-adds"
            how = f"{run.pruning.plan}: {epochs} under {run.pruning.stage_schedule}, {cost}"
            rows.insert(1, ("pruning schedule", how))
    for each in () if run.pruning is None else run.pruning.before:
        state = "" if each.held else ", free to grow"
        what = f"{100 * each.share:.1f} % ({each.how}, {each.structure}{state})"
        rows.insert(0, ("pruned before", what))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _value(metric: Metric, value: float | None) -> str:
    return "unknown" if value is None else metric.written(value, 2)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
