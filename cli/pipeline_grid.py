"""Several recipes or seeds of a pipeline: the runs of a study, in a store."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import is_typed
from trainscope.cli.printing import remark, say

if TYPE_CHECKING:
    from trainscope.cli.action_options import ActionOptions
    from trainscope.cli.measuring_options import MeasuringOptions
    from trainscope.cli.network_options import NewNetworkOptions
    from trainscope.cli.schedule_options import PlanOptions, ShapeOptions
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


def refuse_single() -> None:
    """Refuse the options that are of a single run.

    Raises:
        UsageError: One was given.
    """
    given = [option for name, option in OF_ONE.items() if is_typed(name)]
    if given:
        raise click.UsageError(
            f"{', '.join(given)} is of a single pipeline, and several recipes or seeds are the "
            "runs of a study: leave it out, or give one --recipe and no --seeds, --store or "
            "--workers."
        )


@dataclass(frozen=True)
class Pipeline:
    """What is asked of a pipeline, but for its recipe and how often it is run.

    Attributes:
        network: What is pretrained, on what.
        action: What is done to it.
        weights: What is retrained, as `RunSpec.weights` has it.
        plan: The pruning schedule.
        shape: Of the LR schedules.
        settings: Of the trainings, with the first seed.
        measuring: What is measured in retraining.
    """

    network: NewNetworkOptions
    action: ActionOptions
    weights: str
    plan: PlanOptions
    shape: ShapeOptions
    settings: Settings
    measuring: MeasuringOptions


def study_of(asked: Pipeline, recipes: Sequence[str], seeds: int, store: str) -> Study:
    """Return the study of a pipeline's runs.

    The pretraining has the first seed; the retrainings have as many as are asked for, from it on.

    Args:
        asked: The pipeline.
        recipes: Each is retrained by.
        seeds: How many retrainings of each.
        store: Where they are kept.

    Raises:
        TrainscopeError: They are no runs.
    """
    from trainscope.errors import ScheduleError
    from trainscope.studies import Study
    from trainscope.training.recipe import parse_recipe

    network, settings, shape = asked.network, asked.settings, asked.shape
    network.open_data()  # what is wrong with it is said first
    action = asked.action.build(settings.seed)
    base: dict[str, Any] = {"architecture": network.name, "seed": settings.seed}
    described: list[dict[str, Any]] = []
    for text in recipes:
        read = parse_recipe(text)
        if read.pretrain is None:
            raise ScheduleError(
                f"recipe '{text}' has no pretraining: write one like P60{text}, or retrain a "
                "checkpoint with `trainscope study run`"
            )
        extra = shape.extra_epochs
        if extra and read.extra:
            raise ScheduleError(f"'{text}' says its extra epochs itself: leave --extra-epochs out")
        training: dict[str, Any] = {
            "recipe": f"{text}(+{extra})" if extra else text,
            "shape": shape.shape,
            "min_lr": shape.min_lr,
            "warmup": shape.warmup,
        }
        described.append(training | ({} if asked.plan.plan is None else {"plan": asked.plan.plan}))
        pretraining = shape.pretraining(read)
        if shape.pretrain_schedule is not None and pretraining is not None:
            base |= {"recipe": str(pretraining), "epochs": pretraining.total}
    named = [base, described, network.data, network.task]
    named += [asked.weights, repr(action), repr(settings)]
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    return Study(
        name=f"pipeline-{digest[:8]}",
        base=base,
        action=action,
        recipes=described,
        weights=asked.weights,
        data=network.data,
        task=network.task,
        seeds=list(range(settings.seed, settings.seed + seeds)),
        settings=settings,
        probes=asked.measuring.names,
        probe_epochs=asked.measuring.epochs,
        norms=asked.measuring.norms,
        samples=asked.measuring.samples,
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
