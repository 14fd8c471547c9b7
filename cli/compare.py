"""`trainscope compare`: runs side by side, how fair that is, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainscope.cli.options import PagePlace, Place, no_titles_option
from trainscope.cli.printing import remark, say, say_json, show

if TYPE_CHECKING:
    from trainscope.records import Run


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--output",
    type=PagePlace(dir_okay=False, path_type=Path),
    help="File for the page, like report.html: self-contained, with plots and every number.",
)
@click.option(
    "--figures",
    type=Place(file_okay=False, path_type=Path),
    help="Folder for every figure, as SVG and PNG.",
)
@no_titles_option
@click.option("--title", help="Heading of the page.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def command(
    runs: tuple[str, ...],
    output: Path | None,
    figures: Path | None,
    no_titles: bool,
    title: str | None,
    as_json: bool,
) -> None:
    """Compare RUNS: Runs, Diagnoses, run cards, folders of them, or patterns like 'runs/*'.

    The store of studies is named by its place, like study.db, and stands for all of its runs.

    Runs that differ in their seed alone form one setting. Says what the runs show, how fair the
    comparison is, which traps a setting fell into, and how many more epochs the slower settings
    need.
    """
    from trainscope.comparison.comparison import compare
    from trainscope.comparison.reading import RecordsRead, read
    from trainscope.records.files import refuse_others

    if output is not None:
        refuse_others(output)
    stores = [name for name in runs if is_store(name)]
    others = [name for name in runs if name not in stores]
    found = read(others) if others else RecordsRead((), (), ())
    all_runs = [*found.runs, *(run for place in stores for run in _runs_of(place))]
    comparison = compare(all_runs, found.diagnoses, found.notes)
    written = []  # before anything is printed, which may fail
    if figures is not None:
        from trainscope.report.comparison_figures import write_comparison_figures

        written += write_comparison_figures(comparison, figures, titles=not no_titles)
    if output is not None:
        from trainscope.report.page.build import write_page

        write_page(comparison, output, title)
        written.append(output)
    if as_json:
        say_json(json.dumps(comparison.as_dict(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from trainscope.report.comparison_table import comparison_table

        show(comparison_table(comparison))
    for path in written:
        (remark if as_json else say)(f"wrote {path}")


def is_store(name: str) -> bool:
    """Tell whether a name is the place of a store of studies, and not of records."""
    if "://" in name or name.startswith("journal:"):
        return True
    try:
        with Path(name).open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except (OSError, ValueError):  # said where it is read
        return False


def _runs_of(place: str) -> list[Run]:
    """Return the runs of a store that are done.

    Raises:
        TrainscopeError: It is no store, or holds none.
    """
    from trainscope.errors import RecordError
    from trainscope.studies.results import runs_of

    found = runs_of(place)
    if not found:
        raise RecordError(f"no run is done yet in {place}: `trainscope study status {place}`")
    return found
