"""Several recipes or seeds of a pipeline: the runs of a study, in a store."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import probe_names
from trainscope.cli.printing import remark, say
from trainscope.cli.running import epochs_of

if TYPE_CHECKING:
    from trainscope.sparsify import Action
    from trainscope.studies import Study
    from trainscope.training.settings import Settings

STORE = "pipeline.db"
OF_ONE = {
    "output": "--output",
    "stem": "--stem",
    "stage": "--stage",
    "speedup": "--speedup",
    "input_shape": "--input-shape",
    "probe_every": "--probe-every",
    "report_to": "--report-to",
    "as_json": "--json",
}
"""Options of a single run, which a study has no place for."""


def refuse_single(ctx: click.Context) -> None:
    """Refuse the options that are of a single run.

    Raises:
        UsageError: One was given.
    """
    given = [
        option
        for name, option in OF_ONE.items()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"{', '.join(given)} is of a single pipeline, and several recipes or seeds are the "
            "runs of a study: leave it out, or give one --recipe and no --seeds, --store or "
            "--workers."
        )


def study_of(
    *,
    recipes: Sequence[str],
    architecture: str,
    data: str,
    task: str | None,
    action: Action,
    weights: str,
    settings: Settings,
    seeds: int,
    store: str,
    plan: str | None,
    shape: str,
    min_lr: float | None,
    warmup: int,
    extra_epochs: int,
    pretrain_schedule: str | None,
    pretrain_epochs: int | None,
    norms: bool,
    probes: str | None,
    probe_epochs: str | None,
    samples: int,
) -> Study:
    """Return the study that the options of a pipeline describe.

    The pretraining has the first seed; the retrainings have as many as are asked for, from it on.

    Raises:
        TrainscopeError: They describe none.
    """
    from trainscope.cli.schedule_options import build_pretraining
    from trainscope.errors import ScheduleError
    from trainscope.studies import Study
    from trainscope.training.recipe import parse_recipe

    base: dict[str, Any] = {"architecture": architecture, "seed": settings.seed}
    asked = []
    for text in recipes:
        read = parse_recipe(text)
        if read.pretrain is None:
            raise ScheduleError(
                f"recipe '{text}' has no pretraining: write one like P60{text}, or retrain a "
                "checkpoint with `trainscope study run`"
            )
        if extra_epochs and read.extra:
            raise ScheduleError(f"'{text}' says its extra epochs itself: leave --extra-epochs out")
        longer = f"(+{extra_epochs})" if extra_epochs else ""
        fields = {"recipe": f"{text}{longer}", "shape": shape, "min_lr": min_lr, "warmup": warmup}
        asked.append(fields | ({} if plan is None else {"plan": plan}))
        pretraining = build_pretraining(read, pretrain_schedule, pretrain_epochs)
        if pretrain_schedule is not None and pretraining is not None:
            base |= {"recipe": str(pretraining), "epochs": pretraining.total}
    described = [base, asked, data, task, weights, repr(action), repr(settings)]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return Study(
        name=f"pipeline-{digest[:8]}",
        base=base,
        action=action,
        recipes=asked,
        weights=weights,
        data=data,
        task=task,
        seeds=list(range(settings.seed, settings.seed + seeds)),
        settings=settings,
        probes=[] if probes is None else probe_names(probes),
        probe_epochs=[] if probe_epochs is None else epochs_of(probe_epochs),
        norms=norms,
        samples=samples,
        store=store,
    )


def run(study: Study, *, workers: int | None, device: str) -> None:
    """Do the runs of a pipeline's study that are not done yet, and print what they came to."""
    from trainscope.cli.study_text import report_lines
    from trainscope.cli.studying import work_through
    from trainscope.studies.results import results

    store = work_through(
        study,
        study.plan(remark),
        engine="serial" if workers is None else "processes",
        workers=workers,
        device=device,
    )
    say(report_lines(store, study.name, results(store, study.name)))
    say(f"`trainscope compare {shlex.quote(str(study.store))}` says what they show")
