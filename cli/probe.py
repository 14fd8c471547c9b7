"""`trainscope probe`: a checkpoint, measured before and after a sparsifying action."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli import printing
from trainscope.cli.action_options import ActionOptions, action_options
from trainscope.cli.boundary import INTERRUPTED, is_first
from trainscope.cli.network_options import (
    NetworkOptions,
    network_options,
    part_option,
    unsafe_load_option,
)
from trainscope.cli.options import (
    Checkpoint,
    Place,
    no_titles_option,
    probe_names,
    probes_option,
    seed_option,
    shape_option,
)
from trainscope.cli.printing import remark, say, say_json
from trainscope.cli.sections import Sectioned
from trainscope.cli.taking import take
from trainscope.cli.tracking import Tracking, send, take_tracking, tracking_options
from trainscope.cli.training_options import (
    LORA,
    OPTIMIZER,
    build_settings,
    lora_options,
    optimizer_options,
)
from trainscope.records.arrays import PROBES

if TYPE_CHECKING:
    from trainscope.diagnosis import Outcome
    from trainscope.probes import Probe
    from trainscope.sparsify import Action
    from trainscope.training.settings import Settings

RETRAIN_LR = "1e-2,1e-3"
TOP = 3


@click.command("probe", cls=Sectioned)
@network_options
@shape_option
@action_options
@click.option(
    "--after",
    type=Checkpoint(path_type=Path),
    help="The network after somebody else's action: what was done is worked out from the two.",
)
@probes_option(default=",".join(PROBES))
@click.option(
    "--retrain-lr",
    default=RETRAIN_LR,
    show_default=True,
    help="LRs of the trainability accuracy, with commas between them.",
)
@click.option(
    "--retrain-epochs",
    type=click.IntRange(min=1),
    help="Epochs of each, N; by default 5, fewer (at least 2) for large training sets, and 50 "
    "steps of a language model.",
)
@click.option(
    "--retrain-steps",
    type=click.IntRange(min=1),
    help="Optimizer steps in place of epochs, tested five times on the way.",
)
@click.option(
    "--retrain-batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Samples of a retraining step.",
)
@optimizer_options
@lora_options
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    help="Pinned samples; by default 256, fewer for a costly network.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Samples that a probe holds at once.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=TOP,
    show_default=True,
    help="Number of largest Hessian eigenvalues.",
)
@click.option(
    "--budget",
    default="2m",
    show_default=True,
    help="Time for all measurements, like 90s, 2m or 1h; what it is too short for is measured in "
    "part. none: as long as it takes.",
)
@click.option("--exact", is_flag=True, help="The Jacobian of every output, however many.")
@click.option("--ggn", is_flag=True, help="Curvature of the GGN in the place of the Hessian.")
@seed_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float64"]),
    default="float32",
    show_default=True,
    help="What is measured in: bfloat16 halves what a large network takes, to about a percent.",
)
@click.option("--device", default="cpu", show_default=True, help="As torch names it: cpu, cuda:0.")
@unsafe_load_option
@part_option
@click.option("--json", "as_json", is_flag=True, help="Print the Diagnosis as JSON on stdout.")
@click.option(
    "--output",
    type=Place(file_okay=False, path_type=Path),
    help="Folder for the page diagnosis.html, diagnosis.json, the pruned network and figures.",
)
@no_titles_option
@tracking_options
def command(
    checkpoint: Path, as_json: bool, output: Path | None, no_titles: bool, **options: Any
) -> None:
    """Measure the trainability of CHECKPOINT before and after a sparsifying action.

    Opens a network, measures it, prunes a copy (or opens the pruned network given with --after),
    measures that, and says what the action did and what it means for retraining. Without an action
    the network is measured as it stands. Files are only read.
    """
    tracking = take_tracking(options)
    if not is_first():  # all processes measure, and the first writes
        output, tracking = None, Tracking({}, None, None)
    # What a probe holds at once is no setting of retraining, which has its own batch size.
    own = {name: options.pop(name) for name in (*OPTIMIZER, *LORA)}
    settings = build_settings({**own, "batch_size": options.pop("retrain_batch_size")})
    outcome, paths = measure_and_write(
        checkpoint, output, titles=not no_titles, settings=settings, **options
    )
    send(outcome.diagnosis, tracking)
    if as_json:
        say_json(outcome.diagnosis.to_json())
    else:
        show(outcome)
    for path in paths:
        (remark if as_json else say)(f"wrote {path}")
    if outcome.interrupted:
        raise SystemExit(INTERRUPTED)


@dataclass(frozen=True)
class ProbeOptions:
    """The probes, as a person types them.

    Attributes:
        probes: Names with commas between them.
        retrain_lr: LRs of the trainability accuracy, likewise.
        retrain_epochs: Its epochs.
        retrain_steps: Or its optimizer steps.
        top: Number of largest eigenvalues.
        ggn: Curvature of the GGN in the place of the Hessian.
        exact: The Jacobian of every output.
    """

    probes: str = ",".join(PROBES)
    retrain_lr: str = RETRAIN_LR
    retrain_epochs: int | None = None
    retrain_steps: int | None = None
    top: int = TOP
    ggn: bool = False
    exact: bool = False

    def build(self, settings: Settings | None) -> list[Probe]:
        """Return the probes.

        Args:
            settings: Of retraining; None for those of SGD.

        Raises:
            TrainscopeError: There is none of a name, or an LR cannot be read.
        """
        from trainscope.probes import find
        from trainscope.training.schedule import parse_rates
        from trainscope.training.settings import Settings

        settings = settings or Settings()
        options: dict[str, dict[str, Any]] = {
            "trainability_accuracy": {
                "lrs": tuple(dict.fromkeys(parse_rates(self.retrain_lr))),
                "epochs": self.retrain_epochs,
                "steps": self.retrain_steps,
                "settings": settings,
            },
            "jacobian": {"exact": self.exact},
            "curvature": {"top": self.top, "ggn": self.ggn, "settings": settings},
        }
        return [find(name)(**options.get(name, {})) for name in probe_names(self.probes)]


def measure_and_write(
    checkpoint: Path,
    output: Path | None,
    *,
    titles: bool = True,
    settings: Settings | None = None,
    after: Path | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Outcome, list[Path]]:
    """Run the probe command up to what it prints; return the outcome and the files written.

    Args:
        checkpoint: What is measured.
        output: The folder of the files; None for none.
        titles: Of the figures.
        settings: Of retraining.
        after: The network after somebody else's action.
        seed: Of every random choice.
        options: Of `NetworkOptions`, `ActionOptions`, `ProbeOptions` and `diagnosis.examine`.
    """
    from trainscope.cli.progress import progress
    from trainscope.diagnosis import examine
    from trainscope.report.files import output_folder, write_diagnosis, write_outcome

    network, asked = take(NetworkOptions, options), take(ActionOptions, options)
    probes = take(ProbeOptions, options).build(settings)
    kept = nullcontext() if output is None else output_folder(output, checkpoint)
    with kept, progress() as tell:
        outcome = examine(
            checkpoint,
            action=_action(asked, after, seed),
            after=after,
            probes=probes,
            seed=seed,
            update=None if output is None else partial(write_diagnosis, folder=output),
            progress=tell,
            **vars(network),
            **options,
        )
        if output is None:
            return outcome, []
        tell(f"drawing the figures into {output}")
        return outcome, write_outcome(outcome, output, titles=titles)


def _action(asked: ActionOptions, after: Path | None, seed: int) -> Action | None:
    """Return the action that the options describe; None where they describe none.

    Raises:
        ActionError: Options of an action stand beside --after.
    """
    from trainscope.errors import ActionError

    if after is not None and asked.chosen:
        raise ActionError(
            f"--after brings the network that was pruned already, so {', '.join(asked.chosen)} "
            "cannot be done: leave one of them out"
        )
    return asked.build(seed) if asked.chosen else None


def show(outcome: Outcome) -> None:
    """Print the table and the verdict."""
    from trainscope.report.table import diagnosis_table

    printing.show(diagnosis_table(outcome.diagnosis), wide=120)
