"""`trainscope correlate`: which number, known before retraining, goes with what it ends at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import Place, no_titles_option
from trainscope.cli.printing import remark, say, say_json, show

if TYPE_CHECKING:
    from trainscope.studies.columns import Candidates
    from trainscope.studies.correlation import Correlation

TABLES = (".csv", ".tsv", ".txt")
WRITTEN = "correlation.json"


@click.command("correlate")
@click.argument("results")
@click.option(
    "--target",
    default="final",
    show_default=True,
    help="The column of what retraining ended at: of the last epoch, not of the best.",
)
@click.option(
    "--known",
    multiple=True,
    help="A column known before retraining, or a pattern like 'pruned*'; may be repeated. By "
    "default all that hold numbers and do not say by their names that they are of the end.",
)
@click.option(
    "--group",
    multiple=True,
    help="A column that names the candidate: rows that share it are retrainings of one; may be "
    "repeated. By default, of a store, the start of the retraining; of a table, each row is one.",
)
@click.option(
    "--within",
    multiple=True,
    help="A column, like data: candidates are compared only where it is the same; may be repeated.",
)
@click.option(
    "--better",
    type=click.Choice(["higher", "lower"]),
    help="Whether higher or lower values of --target are better.",
)
@click.option("--lower", multiple=True, help="A column of which lower is better; may be repeated.")
@click.option(
    "--higher", multiple=True, help="A column of which higher is better; may be repeated."
)
@click.option(
    "--level",
    type=float,
    default=0.95,
    show_default=True,
    help="Probability that intervals hold.",
)
@click.option("--study", help="The study of a store whose runs are taken; by default all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of every draw.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.option(
    "--output",
    type=Place(file_okay=False, path_type=Path),
    help="Folder for correlation.json and the figures.",
)
@click.option("--scatter", help="The column of the figure of candidates; by default the strongest.")
@no_titles_option
def command(
    results: str,
    target: str,
    known: tuple[str, ...],
    group: tuple[str, ...],
    within: tuple[str, ...],
    better: str | None,
    lower: tuple[str, ...],
    higher: tuple[str, ...],
    level: float,
    study: str | None,
    seed: int,
    as_json: bool,
    output: Path | None,
    scatter: str | None,
    no_titles: bool,
) -> None:
    """Correlate what was known before retraining with what it ended at.

    RESULTS is a table with a row a retraining (CSV), or a study: its store or its file. Prints
    Kendall's tau, Spearman's rho and Pearson's r of every column with the end, with bootstrap
    intervals over candidates, how often a candidate ends better than the one that the column ranks
    first, and the ceiling that the noise of retraining sets to any prediction.
    """
    from trainscope.studies.columns import candidates
    from trainscope.studies.correlate import correlate

    rows, start = _rows(results, study)
    group = group or start
    found = correlate(
        rows,
        target,
        known or None,
        group=group,
        within=within,
        better=better,
        directions=dict.fromkeys(lower, "lower") | dict.fromkeys(higher, "higher"),
        level=level,
        seed=seed,
    )
    written = []
    if output is not None:
        columns = [each.column for each in found.predictors]
        shown = candidates(rows, target, columns, group=group, within=within)
        written = write(found, shown, scatter, output, titles=not no_titles)
    if as_json:
        say_json(json.dumps(found.to_json(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from trainscope.report.correlation_table import correlation_table

        show(correlation_table(found))
    for path in written:
        (remark if as_json else say)(f"wrote {path}")


def _rows(results: str, study: str | None) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the rows of a table or a store, and what names a candidate in it."""
    if Path(results).suffix.lower() in TABLES:
        from trainscope.records.imports.table import read_table

        if study is not None:
            raise click.UsageError("--study is of a store, and RESULTS is a table: leave it out.")
        table = read_table(Path(results))
        table.refuse_twice(table.columns)
        return [dict(row) for row in table.rows], ()
    from trainscope.studies.results import results as of_store

    if results.endswith(".toml"):
        from trainscope.studies.named import name_of, place_of, read_toml

        raw = read_toml(Path(results))[1]
        results, study = place_of(raw, Path(results)), study or name_of(raw, Path(results))
    return of_store(results, study), ("start",)


def write(
    found: Correlation, held: Candidates, scatter: str | None, folder: Path, *, titles: bool
) -> list[Path]:
    """Write correlation.json and the figures; names what it wrote."""
    from trainscope.records import files
    from trainscope.report.candidate_display import CandidateDisplay
    from trainscope.report.correlation_display import CorrelationDisplay
    from trainscope.report.pictures import save_alone
    from trainscope.studies.correlation import FAMILY

    column = found[scatter] if scatter is not None else found.predictors[0]
    paths = [folder / WRITTEN, folder / "correlation.png", folder / "candidates.png"]
    with files.folder(folder):
        for path, mark in zip(paths, (FAMILY, files.MADE, files.MADE), strict=True):
            files.refuse_others(path, mark)
        text = json.dumps(found.to_json(), indent=2, allow_nan=False)
        files.write_text(paths[0], text + "\n", over=FAMILY)
        title = None if titles else ""
        save_alone(CorrelationDisplay.from_correlation(found), paths[1], title=title)
        scattered = CandidateDisplay.from_candidates(
            held, column.column, target=found.target, better=column.better, wanted=found.better
        )
        save_alone(scattered, paths[2], title=title)
    return paths
