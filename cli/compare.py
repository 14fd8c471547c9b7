"""`trainscope compare`: runs side by side, how fair that is, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trainscope.cli.options import no_titles_option


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the page, like report.html: self-contained, with plots and every number.",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
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

    found = read(runs)
    comparison = compare(found.runs, found.diagnoses, found.notes)
    if as_json:
        click.echo(json.dumps(comparison.as_dict(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from rich.console import Console

        from trainscope.report.comparison_table import comparison_table

        console = Console(highlight=False)
        if not console.is_terminal:  # a pipe or a file is not 80 columns wide
            console = Console(highlight=False, width=140)
        console.print(comparison_table(comparison))
    written = []
    if output is not None:
        from trainscope.report.page.build import write_page

        write_page(comparison, output, title)
        written.append(output)
    if figures is not None:
        from trainscope.report.comparison_figures import write_comparison_figures

        written += write_comparison_figures(comparison, figures, titles=not no_titles)
    for path in written:
        click.echo(f"wrote {path}", err=as_json)
