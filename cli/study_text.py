"""What `trainscope study` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainscope.studies import Store, Study
    from trainscope.studies.planned import Planned
    from trainscope.studies.results import Row

MOST_RUNS = 40
"""Runs of a plan that are printed."""
MOST_FAILURES = 5
ORDER = ("waiting", "running", "finished", "stopped", "diverged", "interrupted", "failed")
COLUMNS = ("action.criterion", "action.ratio", "plan", "recipe", "weights", "seed")


def status_lines(store: Store, names: Sequence[str]) -> str:
    """Write how many runs are in which state, and why some failed."""
    from trainscope.records.text import count_of
    from trainscope.studies.results import failures

    lines = []
    for name in names:
        counts = store.counts(name)
        total = sum(counts.values())
        parts = [f"{counts[word]} {word}" for word in ORDER if word in counts]
        lines.append(f"{name}: {count_of(total, 'run')}: {', '.join(parts)}")
        if counts.get("failed"):
            failed = failures(store, name)
            lines += [f"  {digest[:16]}: {why}" for digest, why in failed[:MOST_FAILURES]]
            if len(failed) > MOST_FAILURES:
                lines.append(f"  and {len(failed) - MOST_FAILURES} more")
    return "\n".join(lines)


def dry_run_lines(
    study: Study, plan: Sequence[Planned], workers: int, tell: Callable[[str], None]
) -> str:
    """Write the runs of a plan, what they cost and how long that takes."""
    from trainscope.errors import StudyError
    from trainscope.records.text import plain
    from trainscope.studies.costs import forecast
    from trainscope.studies.plain import KEY
    from trainscope.studies.results import planned_digests, results
    from trainscope.studies.telling import short

    done: list[Row] = []
    try:
        done = results(study.open_store(make=False))
    except StudyError:  # there is none yet
        done = []
    cost = forecast(plan, done, tell)
    finished = planned_digests(done)
    lines = []
    for place, (planned, flops) in enumerate(zip(plan, cost.each, strict=True)):
        spec = planned.spec
        price = "FLOPs unknown" if flops is None else f"{flops:.3g} FLOPs"
        if place in cost.refused:
            price = f"it cannot be done: {plain(cost.refused[place])}"
        elif place >= MOST_RUNS:
            continue
        mark = "  done" if planned.digest in finished else ""
        what = short(spec, planned.names.get("action", ""))
        if planned.slot is not None:
            what += f", LR {planned.slot.place + 1} of {planned.slot.search.trials} of a search"
        lines.append(f"{planned.digest[:KEY]}  {what}: {price}{mark}")
    if len(plan) > len(lines):
        lines.append(f"and {len(plan) - len(lines)} more")
    left = sum(planned.digest not in finished for planned in plan)
    epochs = f"{cost.epochs} epoch{'s' * (cost.epochs != 1)}"
    runs = f"{cost.runs} run{'s' * (cost.runs != 1)}"
    lines += ["", f"{study.name}: {runs}, {left} of them to do; {epochs}"]
    if cost.refused:
        lines.append(f"{len(cost.refused)} of them cannot be done; the sums are without them")
    if cost.stems:
        lines.append(
            f"{cost.stems} pretraining{'s' * (cost.stems > 1)} that runs share: "
            f"{cost.stem_epochs} epoch{'s' * (cost.stem_epochs != 1)}"
        )
    if cost.flops is None or cost.stem_flops is None:
        lines.append("FLOPs: unknown, since the data does not say how many samples it has")
    else:
        lines.append(
            f"FLOPs: {cost.flops + cost.stem_flops:.4g} multiply-adds of training, "
            f"{cost.stem_flops:.4g} of them for pretraining"
        )
    if left and cost.seconds is not None and cost.rate is not None:
        rate, known = cost.rate
        lines.append(
            f"Time: about {_long(cost.seconds / workers)} with {workers} "
            f"worker{'s' * (workers > 1)}, at {rate:.2g} multiply-adds a second, {known}; "
            "evaluation and probes come on top"
        )
    return "\n".join(lines)


def run_table(rows: Sequence[Row]) -> str:
    """Write a row for every run, in a few columns."""
    from trainscope.records.origin import ONE_SHOT
    from trainscope.studies.summary import SHOWN, markdown_table

    if not rows:
        return "no run is done yet"
    plain = {"plan": (None, ONE_SHOT)}
    shown = [c for c in COLUMNS if any(row.get(c) not in plain.get(c, (None,)) for row in rows)]
    lines = [["digest", *shown, *SHOWN, "status"]]
    for row in rows:
        numbers = ["-" if row[name] is None else f"{row[name]:.2f}" for name in SHOWN]
        asked = ["-" if row[name] is None else str(row[name]) for name in shown]
        lines.append([row["digest"][:16], *asked, *numbers, row["status"]])
    return markdown_table(lines)


def report_lines(store: Store, name: str, rows: Sequence[Row]) -> str:
    """Write what a study came to."""
    from trainscope.studies.oracle_results import choice_line, tried_in, tried_table
    from trainscope.studies.summary import best_of_searches, markdown_table, table

    lines = [f"# {name}", "", status_lines(store, [name]), ""]
    tried = tried_in(rows)
    if rows:
        metric = rows[0]["metric"]
        lines += [
            f"Test {metric}: of the dense network; after pruning; its mean over the first LR stage "
            "(ta), which compares runs of one LR schedule alone; and after the last epoch. Means "
            "over the seeds, with standard deviations in brackets.",
            "",
        ]
    if tried:
        lines += [choice_line(tried), "", markdown_table(tried_table(tried))]
    elif rows:
        lines += [markdown_table(table(rows))]
    if best := best_of_searches(rows):
        lines += ["", "The best run of each search, by its last epoch:", "", markdown_table(best)]
    return "\n".join(lines).rstrip() + "\n"


def paper_lines(rows: Sequence[Row], study: Study) -> str:
    """Write what a study's paper has beside what it came to, and the study's notes."""
    from trainscope.studies.summary import beside_paper, markdown_table

    lines = []
    if study.paper:
        lines += [
            "The paper's numbers, and those of the runs that stand in their place here. Network, "
            "data and epochs are others where the notes say so, so the two are not to be equal; "
            "what can be compared is which row is above which.",
            "",
            markdown_table(beside_paper(rows, study.published)),
            "",
        ]
    return "\n".join([*lines, *study.notes])


def _long(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
