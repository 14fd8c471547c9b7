"""`trainscope demo`: the whole story on a small network, in a few minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainscope.cli.options import Place, seed_option
from trainscope.cli.printing import remark, say

if TYPE_CHECKING:
    from trainscope.comparison.comparison import Comparison
    from trainscope.data import Dataset
    from trainscope.records import Diagnosis

ARCHITECTURE = "digits_resnet"
SCHEDULE, EPOCHS = "0:1e-2,10:1e-3,15:1e-4", 20
PAGE, STORE = "report.html", "study.db"
RATIO = 0.9
RETRAINING = ("F12,1e-2", "F12,3e-3", "F12,1e-3", "F12,3e-3(+36)")
SEEDS = 3
MOST_WORKERS = 4


@click.command("demo")
@click.option(
    "--output",
    type=Place(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for the checkpoint, the Diagnosis, the figures, the runs and the page.",
)
@seed_option
def command(output: Path, seed: int) -> None:
    """Pretrain a small network on handwritten digits, prune it at 0.9, and show the damage.

    Then retrain what is left at three learning rates, and show that on a page. Takes a minute or
    two on a laptop; everything it prints is measured in that run.
    """
    from trainscope.cli.probe import measure_and_write, show
    from trainscope.records.files import refuse_others
    from trainscope.report.files import output_folder

    checkpoint = output / "checkpoint.pt"
    check_checkpoint(checkpoint)
    refuse_others(output / PAGE)
    with output_folder(output):
        pretrain(checkpoint, seed)
    for line in ("", f"Now: trainscope probe {checkpoint} --ratio {RATIO} --output {output}", ""):
        remark(line)
    outcome, paths = measure_and_write(checkpoint, output, ratio=RATIO, seed=seed)
    show(outcome)
    say()
    comparison, page = retrain(checkpoint, outcome.diagnosis, output, seed)
    say("Retraining")
    for line in comparison.verdict(traps_are=f"{page} has the list"):
        say(f" • {line}")
    say()
    for path in [checkpoint, *paths, output / STORE, page]:
        say(f"wrote {path}")


def check_checkpoint(path: Path) -> None:
    """Refuse to write over a checkpoint that no demo wrote.

    Raises:
        RecordError: There is one.
    """
    from trainscope.errors import RecordError, TrainscopeError
    from trainscope.networks import open_checkpoint

    if not path.exists():
        return
    try:
        left = open_checkpoint(path)
        ours = (left.architecture, left.remembered.schedule) == (ARCHITECTURE, SCHEDULE)
    except TrainscopeError:
        ours = False
    if not ours:
        raise RecordError(f"{path} is there and no demo wrote it: give another --output")


def retrain(
    checkpoint: Path, diagnosis: Diagnosis, output: Path, seed: int
) -> tuple[Comparison, Path]:
    """Retrain the pruned network under several LR schedules, and write the page about it.

    The retrainings are a study, whose runs the cores share; what an earlier demo of the same base
    model finished is not done again.

    Raises:
        StudyError: A retraining failed.
        KeyboardInterrupt: One was interrupted. Its state is kept: the same call goes on there.
    """
    from trainscope.comparison.comparison import compare
    from trainscope.errors import StudyError
    from trainscope.report.page.build import write_page
    from trainscope.studies.engines import finish, planned
    from trainscope.studies.results import failures, runs_of
    from trainscope.studies.study import Study
    from trainscope.studies.telling import lines

    study = Study(
        name="demo",
        base=str(checkpoint),
        data="digits",
        action={"ratio": RATIO},
        recipes=list(RETRAINING),
        seeds=list(range(seed, seed + SEEDS)),
        store=output / STORE,
    )
    store = study.open_store()
    planned(study, study.plan(), store, again=True)
    if left := store.unfinished([study.name]):
        workers = min(MOST_WORKERS, os.cpu_count() or 1, left)
        remark(f"{left} retrainings, {workers} at once: {', '.join(RETRAINING)}, {SEEDS} seeds")
        engine = "serial" if workers == 1 else "processes"
        finish(store, [study.name], engine, workers=workers, telling=lines(remark))
    for _, why in failures(store, study.name):
        raise StudyError(f"a retraining of the demo failed: {why}")
    runs = runs_of(store, [study.name])
    store.close()
    comparison, page = compare(runs, [diagnosis]), output / PAGE
    write_page(comparison, page)
    return comparison, page


def pretrain(checkpoint: Path, seed: int) -> None:
    """Train the digits network and save it."""
    from trainscope.cli.progress import progress
    from trainscope.networks import save_checkpoint
    from trainscope.networks.registry import input_shape
    from trainscope.training.loop import Settings
    from trainscope.training.pretrained import pretrained_network
    from trainscope.training.schedule import parse_schedule

    data = digits(input_shape(ARCHITECTURE))
    with progress() as tell:
        tell(f"pretraining {ARCHITECTURE} on {data.name}: {SCHEDULE}, {EPOCHS} epochs")
        network = pretrained_network(
            ARCHITECTURE,
            data,
            parse_schedule(SCHEDULE, EPOCHS),
            Settings(seed=seed),
            on_epoch=lambda record, _: tell(
                f"epoch {record.epoch}/{EPOCHS}, LR {record.lr:g}: test accuracy "
                f"{record.test_accuracy:.1f} %"
            ),
        )
    save_checkpoint(checkpoint, network)


def digits(shape: tuple[int, ...]) -> Dataset:
    """Return the handwritten digits."""
    from trainscope.data import load
    from trainscope.data.dataset import Dataset

    data = load("digits", shape)
    assert isinstance(data, Dataset)
    return data
