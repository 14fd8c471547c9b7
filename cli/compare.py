"""`trainscope compare`: runs side by side, how fair that is, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trainscope.cli.options import Place, no_titles_option
from trainscope.cli.printing import remark, say, say_json, show


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--output",
    type=Place(dir_okay=False, path_type=Path),
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

    Runs that differ in their seed alone form one setting. Says what the runs show, how fair the
    comparison is, which traps a setting fell into, and how many more epochs the slower settings
    need.
    """
    from trainscope.comparison.comparison import compare
    from trainscope.comparison.reading import read
    from trainscope.records.files import refuse_others

    if output is not None:
        refuse_others(output)
    found = read(runs)
    comparison = compare(found.runs, found.diagnoses, found.notes)
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
