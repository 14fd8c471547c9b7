"""`trainscope oracle`: tries which filters to keep, and retrains what it tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.network_options import NetworkOptions
from trainscope.cli.options import (
    Checkpoint,
    Place,
    no_titles_option,
    probe_names,
    probes_option,
    seed_option,
    task_option,
)
from trainscope.cli.printing import remark, say, show
from trainscope.cli.taking import check_all_taken, take
from trainscope.cli.training_options import build_settings, optimizer_options

if TYPE_CHECKING:
    from trainscope.studies.oracle import OracleSearch
    from trainscope.studies.study import Study

SHOWN = 5
"""Candidates that are printed, of the lowest loss and of the highest."""
FIRST = "candidate,place,oracle_loss"
"""How results.csv begins."""


def _candidates(value: str) -> int | None:
    if value == "all":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"'{value}' is neither all nor a number of candidates like 100")
    return int(value)


@click.command("oracle")
@click.argument("checkpoint", type=Checkpoint(path_type=Path))
@click.option("--layer", multiple=True, required=True, help="The layer to prune; may be repeated.")
@click.option(
    "--keep",
    multiple=True,
    required=True,
    type=int,
    help="How many filters of it stay; once for each --layer.",
)
@click.option(
    "--candidates",
    default="all",
    show_default=True,
    callback=lambda _, __, value: _candidates(value),
    help="all: every combination, the exact oracle; N: so many drawn at random.",
)
@click.option(
    "--train-samples",
    type=click.IntRange(min=1),
    help="Training samples that the loss is of, drawn once; by default all.",
)
@click.option(
    "--retrain",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Seeds that each candidate is retrained with; 2 or more tell the ceiling, 0 is a search.",
)
@click.option(
    "--recipe",
    help="The LR recipe of retraining, like F10,1e-2, or its stages, like 0:1e-2,5:1e-3.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Total of epochs, where --recipe gives stages."
)
@click.option("--data", help="Data to train on; by default what the checkpoint remembers.")
@task_option
@click.option("--arch", help="The architecture's name, where it is not recognised.")
@click.option("--model", help="A function that builds the network: package.module:factory.")
@optimizer_options
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Samples in a step.",
)
@click.option(
    "--augment/--no-augment",
    default=True,
    show_default=True,
    help="The data set's standard augmentation, in retraining.",
)
@probes_option()
@click.option("--workers", type=click.IntRange(min=1), help="Processes that retrain; by default 1.")
@seed_option
@click.option(
    "--output",
    type=Place(file_okay=False, path_type=Path),
    default=Path("oracle"),
    show_default=True,
    help="Folder for the search, the store of the runs, the results and the figures.",
)
@no_titles_option
def command(
    checkpoint: Path,
    layer: tuple[str, ...],
    keep: tuple[int, ...],
    candidates: int | None,
    train_samples: int | None,
    retrain: int,
    recipe: str | None,
    epochs: int | None,
    probes: str | None,
    workers: int | None,
    seed: int,
    output: Path,
    no_titles: bool,
    **options: Any,
) -> None:
    """Try which filters of CHECKPOINT to keep, retrain what was tried, and correlate the two.

    The oracle keeps the filters that leave the lowest train loss. Each trial is a forward pass
    under masks. Candidates are then retrained, as runs of a study: killed at any moment, the same
    command goes on. At the end it says how the pruned train loss goes with what retraining ends at.
    """
    from trainscope.networks import digest
    from trainscope.records import files
    from trainscope.studies.oracle_study import FILE, study_of
    from trainscope.studies.spec import BaseModel, RunSpec

    if len(layer) != len(keep):
        raise click.UsageError("give --keep once for each --layer.")
    if len(set(layer)) < len(layer):
        raise click.UsageError("a --layer is named twice: give each once.")
    if retrain and recipe is None:
        raise click.UsageError("give --recipe, like --recipe F10,1e-2, or --retrain 0.")
    settings = build_settings(options)
    asked = take(NetworkOptions, options)
    check_all_taken(options)
    network, dataset = asked.open(checkpoint)
    with files.folder(output):
        found = _search(
            network,
            dataset,
            dict(zip(layer, keep, strict=True)),
            candidates,
            train_samples,
            seed,
            output / FILE,
        )
        _say(found, dataset.task.metric.name)
        if not retrain or recipe is None:
            say(f"wrote {output / FILE}")
            return
        path = str(checkpoint.absolute())
        retraining = RunSpec(
            recipe,
            base=BaseModel(path, digest(network.module), asked.arch, asked.model),
            data=asked.data,
            task=asked.task,
            settings=settings,
            epochs=epochs,
            probes=() if probes is None else tuple(probe_names(probes)),
        )
        study = study_of(found, retraining, seeds=retrain, store=output / "study.db")
        _retrain(study, found, workers, output, titles=not no_titles)


def _search(
    network: Any,
    dataset: Any,
    keep: dict[str, int],
    count: int | None,
    samples: int | None,
    seed: int,
    path: Path,
) -> OracleSearch:
    """Return the search of a folder, or do it and write it there."""
    from trainscope.data.split import DrawnSplit
    from trainscope.errors import DataError
    from trainscope.networks import digest
    from trainscope.studies.oracle import FilterChoice, search
    from trainscope.studies.oracle_study import read_search, write_search

    split = dataset.train
    if split is None:
        raise DataError(f"{dataset.name} has no training half, which the pruned train loss is of")
    if samples is not None:
        split = DrawnSplit.of(split, samples)
    choice = FilterChoice(network.module, network.inputs, keep)
    asked = {
        "base": digest(network.module),
        "data": dataset.name,
        "keep": keep,
        "candidates": count,
        "samples": len(split),
        "seed": seed,
    }
    known = read_search(path, asked)
    if known is not None:
        remark(f"the search is in {path}")
        return known
    found = search(choice, network.module, split, dataset.task, count=count, seed=seed, tell=remark)
    write_search(path, found, asked)
    return found


def _say(found: OracleSearch, metric: str) -> None:
    from trainscope.records.numbers import number

    kind = "exact" if found.exact else "approximate, drawn at random"
    say(
        f"{len(found.trials)} of {found.combinations} combinations tried ({kind}), "
        f"{found.samples:,} training samples each"
    )
    ranked = found.ranked
    shown = ranked if len(ranked) <= 2 * SHOWN else [*ranked[:SHOWN], None, *ranked[-SHOWN:]]
    for each in shown:
        if each is None:
            say("  …")
            continue
        loss = "not finite" if each.loss is None else number(each.loss)
        value = "" if each.metric is None else f", {metric} {number(each.metric)}"
        say(f"  {each.name}  pruned train loss {loss}{value}")


def _retrain(
    study: Study, found: OracleSearch, workers: int | None, folder: Path, *, titles: bool
) -> None:
    """Do the runs, and write and print what came of them."""
    from trainscope.cli.correlate import write
    from trainscope.cli.study_text import status_lines
    from trainscope.errors import StudyError
    from trainscope.records import files
    from trainscope.report.correlation_table import correlation_table
    from trainscope.studies.columns import candidates
    from trainscope.studies.correlate import correlate
    from trainscope.studies.engines import finish
    from trainscope.studies.oracle_results import known_in
    from trainscope.studies.oracle_study import joined
    from trainscope.studies.results import as_csv, results
    from trainscope.studies.telling import lines

    table = folder / "results.csv"
    files.refuse_others(table, FIRST)
    plan = study.plan()
    store = study.open_store()
    store.plan(study.name, plan, better=study.better)
    many = "s" * (len(plan) != 1)
    remark(f"{len(plan)} retraining{many}, {store.unfinished([study.name])} to do")
    engine = "serial" if workers is None else "processes"
    finish(store, [study.name], engine, workers=workers, telling=lines(remark))
    digests = {each.spec.digest for each in plan}
    rows = [row for row in results(store, study.name) if row["digest"] in digests]
    rows = joined(rows, found)
    say(status_lines(store, [study.name]))
    if not rows:
        raise StudyError("no candidate was retrained to its end, so there is nothing to correlate")
    files.write_text(table, as_csv(rows), over=FIRST)
    result = correlate(rows, known=known_in(rows), group=["candidate"])
    shown = candidates(rows, "final", [p.column for p in result.predictors], group=["candidate"])
    written = write(result, shown, "oracle_loss", folder, titles=titles)
    show(correlation_table(result))
    for path in (table, *written):
        say(f"wrote {path}")
