"""Putting the page together: one file that asks nothing of any network."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainscope.comparison.comparison import Comparison
from trainscope.records.files import MADE, write_text
from trainscope.report.page import every_run, judgement, sections
from trainscope.report.page.markup import escape, listed
from trainscope.report.page.payload import payload

# Nothing may be fetched, whatever a record says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page_html(comparison: Comparison, title: str | None = None) -> str:
    """Return the whole page: verdict, plots, every number, exact settings.

    Styles, script and data are inline; the page makes no request, works by keyboard, in light and
    dark, on a phone and on paper.

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
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{MADE}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(heading)} – trainscope</title>
<link rel="icon" href="data:,">
<style>
{_file("style.css")}</style>
</head>
<body>
<a class="skip" href="#verdict">To the verdict</a>
<header class="top"><div><h1>{escape(heading)}</h1><p>{escape(_subtitle(comparison))}</p></div>
<div class="tools"><button type="button" id="theme">Dark</button>
<button type="button" id="print">Print</button></div></header>
<main>{body}
<noscript><p>The plots need JavaScript; every number is in the tables.</p></noscript></main>
<footer>Made by trainscope {escape(_version())}. Accuracies are top-1, in percent, of the last
epoch; spreads are standard deviations over seeds; FLOPs are multiply-adds.</footer>
<script type="application/json" id="data">{_embedded(data)}</script>
<script>
{_file("plot.js")}
{_file("rows.js")}
{_file("layout.js")}
{_file("app.js")}</script>
</body>
</html>
"""


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


def _embedded(data: object) -> str:
    """Return JSON that cannot end the script element that holds it."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _file(name: str) -> str:
    folder = resources.files("trainscope.report.page")
    return (folder / name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return version("trainscope-pruning")
    except PackageNotFoundError:
        return ""
