"""`trainscope study`: grids of runs that survive anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainscope.cli.nearest import Nearest
from trainscope.cli.options import PagePlace, Place, together
from trainscope.cli.printing import remark, say, say_json, show
from trainscope.cli.studying import work_through

if TYPE_CHECKING:
    from trainscope.studies import Store, Study


folder_option = click.option(
    "--folder",
    type=Place(file_okay=False, path_type=Path),
    help="Folder of the runs, where the store is a database elsewhere.",
)
place_options = together(
    click.argument("place", metavar="STORE"),
    click.option("--study", "name", help="Name of the study, where the store holds several."),
    folder_option,
)
"""The store, or the study that names it, and where its runs lie."""


grace_option = click.option(
    "--grace",
    type=click.FloatRange(min=1.0),
    default=60.0,
    show_default=True,
    help="Seconds of silence after which a worker is taken for dead and its run is taken up.",
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where to train: cpu, cuda:0, ..."
)
small_option = click.option(
    "--small", is_flag=True, help="Take the small twin of a preset, which ends in minutes."
)


@click.group("study", cls=Nearest)
def command() -> None:
    """Run grids of runs that survive kills, and ask for their results.

    STUDY is a TOML file, or preset:NAME. STORE is that too, or the place of a store: study.db
    beside a study's file, or its folder; a database's URL; or journal:FILE. The runs lie in the
    folder runs beside the store, each named by the digest of what it is.
    """


@command.command("run")
@click.argument("study")
@click.option("--dry-run", is_flag=True, help="Print the runs, their FLOPs and a time, and end.")
@click.option(
    "--engine",
    type=click.Choice(["serial", "processes", "ray"]),
    help="Who does the runs: this process by default, with --workers processes of this machine.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of workers; they share the threads."
)
@click.option("--address", help="Address of a Ray cluster; by default Ray is started here.")
@click.option("--store", "place", help="The store to use in place of the one that the study names.")
@folder_option
@small_option
@click.option("--retry-failed", is_flag=True, help="Run again what failed.")
@grace_option
@device_option
def run_command(
    study: str,
    dry_run: bool,
    engine: str | None,
    workers: int | None,
    address: str | None,
    place: str | None,
    folder: Path | None,
    small: bool,
    retry_failed: bool,
    grace: float,
    device: str,
) -> None:
    """Do what of STUDY is not done yet.

    Killed at any moment, the same command goes on. Several may run at once on one store: none does
    a run that another does. A run that fails is kept with its reason, and the others go on.
    """
    from trainscope.cli.study_text import dry_run_lines, status_lines
    from trainscope.networks.device import find_device

    find_device(device)
    planned_study = _study(study, small=small, place=place, folder=folder)
    plan = planned_study.plan(remark)
    if dry_run:
        say(dry_run_lines(planned_study, plan, workers or 1, remark))
        return
    chosen = engine or ("serial" if workers is None and address is None else "processes")
    if address is not None and engine is None:
        chosen = "ray"
    store = work_through(
        planned_study,
        plan,
        engine=chosen,
        workers=workers,
        device=device,
        grace=grace,
        address=address,
        again=retry_failed,
    )
    say(status_lines(store, [planned_study.name]))


@command.command("status")
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def status_command(place: str, name: str | None, folder: Path | None, as_json: bool) -> None:
    """Say how many runs of the studies in STORE wait, are under way, are done, or failed."""
    from trainscope.cli.study_text import status_lines

    store, names = _store(place, name, folder)
    if as_json:
        say_json(json.dumps({each: store.counts(each) for each in names}))
        return
    say(status_lines(store, names))


@command.command("results")
@place_options
@click.option(
    "--csv",
    "csv_path",
    type=Place(dir_okay=False, allow_dash=True, path_type=Path),
    help="File for all columns of all runs as CSV; - for stdout.",
)
@click.option(
    "--parquet", type=Place(dir_okay=False, path_type=Path), help="The same as Parquet (pyarrow)."
)
def results_command(
    place: str, name: str | None, folder: Path | None, csv_path: Path | None, parquet: Path | None
) -> None:
    """Print the runs of STORE that are done: a row each, or all columns as CSV or Parquet.

    Columns are the fields of the run by dotted names (action.ratio) and every number that came
    out: dense, pruned, pruned_loss, ta, early, final, best, and the scalars of probes.
    """
    from trainscope.cli.study_text import run_table
    from trainscope.records.files import write_text
    from trainscope.studies.results import CSV_MARK, as_csv, results, write_parquet

    store, names = _store(place, name, folder)
    rows = results(store, names[0] if len(names) == 1 else None)
    if parquet is not None:
        write_parquet(rows, parquet)
        remark(f"wrote {parquet}: {len(rows)} run{'s' * (len(rows) != 1)}")
    if csv_path is not None and str(csv_path) != "-":
        write_text(csv_path, as_csv(rows), over=CSV_MARK)
        remark(f"wrote {csv_path}: {len(rows)} run{'s' * (len(rows) != 1)}")
    elif csv_path is not None:
        say(as_csv(rows).rstrip("\n"))
    if csv_path is None and parquet is None:
        say(run_table(rows))


@command.command("report")
@place_options
@small_option
@click.option(
    "--output",
    type=PagePlace(dir_okay=False, path_type=Path),
    help="File for the page that compares the runs, like report.html.",
)
def report_command(
    place: str, name: str | None, folder: Path | None, small: bool, output: Path | None
) -> None:
    """Print what the studies in STORE came to: a row a setting, means over the seeds.

    Of a preset, the numbers of its paper stand beside ours.
    """
    from trainscope.cli.study_text import paper_lines, report_lines
    from trainscope.records.files import refuse_others
    from trainscope.studies.oracle_results import correlated
    from trainscope.studies.results import results

    if output is not None:
        refuse_others(output)
    study = _named_study(place, small=small)
    store, names = _store(place, name, folder, small=small)
    for each in names:
        rows = results(store, each)
        say(report_lines(store, each, rows))
        if (correlation := correlated(rows)) is not None:
            from trainscope.report.correlation_table import correlation_table

            show(correlation_table(correlation))
            say()
        if study is not None and study.name == each and (study.paper or study.notes):
            say(paper_lines(rows, study))
    if output is not None:
        from trainscope.comparison.comparison import compare
        from trainscope.report.page.build import write_page
        from trainscope.studies.results import runs_of

        write_page(compare(runs_of(store, names), []), output)
        say(f"wrote {output}")


@command.command("gc")
@place_options
@click.option("--dry-run", is_flag=True, help="Print the folders, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def gc_command(place: str, name: str | None, folder: Path | None, dry_run: bool, yes: bool) -> None:
    """Remove folders of runs that no study in STORE names any more.

    What a study did not write is never touched, nor a folder that anything else lies in.
    """
    from trainscope.errors import StudyError
    from trainscope.studies.collecting import garbage, remove

    if name is not None:
        raise StudyError("gc asks all studies of a store what they name: leave --study out")
    store, _ = _store(place, None, folder)
    folders = garbage(store)
    for each in folders:
        say(f"{each.folder}  {each.size / 2**20:.1f} MiB")
    if not folders or dry_run:
        say(f"{len(folders)} folders are named by no study")
        return
    if not yes and not click.confirm(f"Remove these {len(folders)} folders?", err=True):
        say("nothing was removed")
        return
    for each in folders:
        remove(each)
    say(f"removed {len(folders)} folders, {sum(e.size for e in folders) / 2**20:.1f} MiB")


@command.command("work")
@place_options
@grace_option
@device_option
def work_command(
    place: str, name: str | None, folder: Path | None, grace: float, device: str
) -> None:
    """Do runs that wait in STORE, until none waits and none is under way.

    Start as many as you like, on any machine that sees the store and the folder of the runs, by
    hand or as jobs of a queue like Slurm. A worker that dies loses nothing: its run is taken up at
    its last epoch by another.
    """
    from trainscope.networks.device import find_device
    from trainscope.records.text import count_of
    from trainscope.studies.telling import lines
    from trainscope.studies.working import work

    find_device(device)
    store, names = _store(place, name, folder, grace=grace)
    done = work(store, names, device=device, telling=lines(remark))
    verb = "was" if done == 1 else "were"
    say(f"{count_of(done, 'run')} {verb} done here; nothing waits in the store")


@command.command("presets")
@click.argument("name", required=False)
@small_option
def presets_command(name: str | None, small: bool) -> None:
    """List the studies that come with trainscope, or print one, as a file to begin with."""
    from trainscope.studies.presets import files as presets

    if name is not None:
        say(presets.read(name.removeprefix(presets.PREFIX), small=small)[0].rstrip("\n"))
        return
    names = presets.names()
    width = max(map(len, names))
    for each in names:
        say(f"{presets.PREFIX}{each.ljust(width)}  {presets.title(each)}")


def _study(
    named: str, *, small: bool, place: str | None = None, folder: Path | None = None
) -> Study:
    """Return the study of a file or a preset, with another store where one is named."""
    from dataclasses import replace

    from trainscope.errors import StudyError

    study = _named_study(named, small=small)
    if study is None:
        raise StudyError(f"{named} is no study: give a TOML file, or preset:NAME")
    if place is not None:
        study = replace(study, store=place)
    return study if folder is None else replace(study, folder=folder)


def _named_study(named: str, *, small: bool = False) -> Study | None:
    """Return the study that a TOML file or a preset is; None for a store."""
    from trainscope.errors import StudyError
    from trainscope.studies import Study
    from trainscope.studies.presets.files import PREFIX, file_of, read

    if named.startswith(PREFIX):
        name = named.removeprefix(PREFIX)
        return Study.parse(read(name, small=small)[0], file_of(name, small=small))
    if small:
        raise StudyError("--small is for presets, which have small twins: leave it out")
    return Study.read(named) if named.endswith(".toml") else None


def _place(named: str, *, small: bool) -> tuple[str, str | None]:
    """Return the place of a store, and the study that is meant where its file was given."""
    from trainscope.studies.named import name_of, place_of, read_toml
    from trainscope.studies.presets.files import PREFIX, file_of, read

    if named.startswith(PREFIX):
        path = file_of(named.removeprefix(PREFIX), small=small)
        raw = read(named.removeprefix(PREFIX), small=small)[1]
    elif named.endswith(".toml"):
        path = Path(named)
        raw = read_toml(path)[1]
    else:
        return named, None
    return place_of(raw, path), name_of(raw, path)


def _store(
    place: str,
    name: str | None,
    folder: Path | None,
    *,
    small: bool = False,
    grace: float = 60.0,
) -> tuple[Store, list[str]]:
    """Open a store, and return it with the names of the studies that are asked for."""
    from trainscope.errors import StudyError
    from trainscope.studies.store import Store

    place, own = _place(place, small=small)
    name = name or own
    store = Store(place, folder, make=False, grace=grace)
    there = store.studies
    if name is not None and name not in there:
        raise StudyError(
            f"the store holds no study named '{name}': it holds {', '.join(there) or 'none'}"
        )
    if not there:
        raise StudyError(f"{place} holds no study of trainscope's")
    return store, [name] if name is not None else there
