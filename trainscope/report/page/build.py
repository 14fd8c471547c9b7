"""Putting the page of a comparison together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from trainscope.comparison.comparison import Comparison
from trainscope.records.files import MADE, write_text
from trainscope.report.page import every_run, judgement, sections
from trainscope.report.page.markup import listed
from trainscope.report.page.payload import payload
from trainscope.report.page.shell import shell

FOOTER = (
    "Accuracies are top-1, in percent, of the last epoch; spreads are standard deviations over "
    "seeds; FLOPs are multiply-adds."
)


def page_html(comparison: Comparison, title: str | None = None) -> str:
    """Return the whole page: verdict, plots, every number, exact settings.

    Args:
        comparison: What it shows.
        title: Its heading; by default what is compared.
    """
    data = payload(comparison)
    heading = title or _title(comparison)
    body = "".join(
        (
            sections.verdict(comparison),
            sections.bar(comparison) if data["plots"] and comparison.groups else "",
            sections.plots(data["plots"], sections.more(comparison)),
            sections.settings(comparison),
            judgement.fairness(comparison),
            judgement.traps(comparison) if comparison.groups or comparison.traps else "",
            judgement.diagnoses(comparison),
            every_run.runs(comparison),
            every_run.exact(comparison),
            f"<h2>Notes</h2>{listed(comparison.notes)}" if comparison.notes else "",
        )
    )
    return shell(heading, _subtitle(comparison), body, data, FOOTER)


def write_page(comparison: Comparison, path: Path, title: str | None = None) -> None:
    """Write the page in one step, over an earlier page at most.

    Raises:
        RecordError: The file cannot be written, or one is there that trainscope did not write.
    """
    write_text(path, page_html(comparison, title), over=MADE)


def _title(comparison: Comparison) -> str:
    groups = comparison.groups
    if not groups:
        return "Before and after the sparsifying action"
    networks = Counter(item.first.architecture for item in groups if item.first.architecture)
    ratios = {r for item in groups if item.first.pruning and (r := item.first.pruning.ratio)}
    name = next(iter(networks)) if len(networks) == 1 else f"{len(networks)} networks"
    if not networks:
        name = "Runs"
    if len(ratios) == 1:
        return f"Retraining {name}, pruned at ratio {ratios.pop():g}"
    return f"Retraining {name}" + (f", pruned at {len(ratios)} ratios" if ratios else "")


def _subtitle(comparison: Comparison) -> str:
    count = sum(len(item.runs) for item in comparison.groups)
    words = []
    if count:
        settings = len(comparison.groups)
        words.append(
            f"{count} run{'' if count == 1 else 's'} in {settings} setting"
            f"{'' if settings == 1 else 's'}"
        )
    data = {item.first.data for item in comparison.groups if item.first.data}
    words += [", ".join(sorted(data)[:3])] if data else []
    speedups = {
        round(p.speedup, 2)
        for item in comparison.groups
        if (p := item.first.pruning) is not None and p.speedup is not None
    }
    words += [f"{speedups.pop():.2f}× speedup"] if len(speedups) == 1 else []
    seeds = {run.seed for item in comparison.groups for run in item.runs if run.seed is not None}
    words += [f"{len(seeds)} seeds"] if len(seeds) > 1 else []
    found = len(comparison.diagnoses)
    words += [f"{found} Diagnos{'is' if found == 1 else 'es'}"] if found else []
    return " · ".join(words)
