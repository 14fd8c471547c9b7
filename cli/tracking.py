"""`--report-to`: where a command sends its Run or Diagnosis besides the folder of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import together
from trainscope.cli.printing import remark

if TYPE_CHECKING:
    from trainscope.probes.reporting import Reporter
    from trainscope.probes.sinks import Sink
    from trainscope.records import Diagnosis
    from trainscope.training.job import Job

TRACKING = ("report_to", "project", "run_name")


@dataclass(frozen=True)
class Tracking:
    """What the options ask for.

    Attributes:
        sinks: By name; none where nothing is to be sent.
        project: Of the trackers' runs.
        name: Of the trackers' runs.
    """

    sinks: Mapping[str, Sink]
    project: str | None
    name: str | None


def _sinks(_: object, __: object, given: tuple[str, ...]) -> Mapping[str, Sink]:
    """Return the sinks before anything else is done, so that a wrong name costs nothing."""
    names = [name for text in given for name in text.split(",")]
    if not names:
        return {}
    if not all(name.strip() for name in names):
        raise click.BadParameter("a name is empty: write names with one comma between them")
    from trainscope.probes.sinks.named import named

    return named(names)


tracking_options = together(
    click.option(
        "--report-to",
        multiple=True,
        callback=_sinks,
        help="Trackers that get the numbers, with commas between them: mlflow, wandb, "
        "trackio, tensorboard, or all that are installed; none is the default.",
    ),
    click.option(
        "--project",
        help="What the run belongs to there: MLflow's experiment, W&B's and Trackio's project.",
    ),
    click.option(
        "--run-name", help="Name of the run in the tracker; by default that of its folder."
    ),
)
"""The trackers, and what runs are called in them."""


def take_tracking(options: dict[str, Any]) -> Tracking:
    """Take the options of trackers out of a command's options.

    Raises:
        ProbeError: A project or a name is given, and no tracker.
    """
    from trainscope.errors import ProbeError

    sinks, project, name = (options.pop(each) for each in TRACKING)
    if not sinks and (project or name):
        option = "--project" if project else "--run-name"
        raise ProbeError(f"{option} is for trackers: name one with --report-to, like mlflow")
    return Tracking(sinks, project, name)


@contextmanager
def reporting(tracking: Tracking | None, job: Job, folder: Path) -> Iterator[Reporter | None]:
    """Lend what sends a job's Run to the trackers; where the block fails they are closed."""
    from trainscope.probes.reported import plain_parameters
    from trainscope.probes.reporting import LEDGER, Reporter
    from trainscope.probes.sinks import About

    if tracking is None or not tracking.sinks:
        yield None
        return
    parameters = plain_parameters(job.frozen())
    name = tracking.name or folder.resolve().name
    about = About(parameters, name, tracking.project, folder)
    reporter = Reporter(tracking.sinks, about, folder / LEDGER, remark)
    try:
        yield reporter
    finally:
        reporter.close()


def send(diagnosis: Diagnosis, tracking: Tracking) -> None:
    """Send a Diagnosis to the trackers; one that fails is a line on stderr, and takes no other."""
    from trainscope.errors import ProbeError
    from trainscope.probes.reporting import report

    for sink in tracking.sinks.values():
        try:
            report(diagnosis, sink, project=tracking.project, name=tracking.name)
        except ProbeError as error:
            remark(str(error))
