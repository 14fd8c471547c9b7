"""The sections that judge: how fair the comparison is, the traps, and the Diagnoses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainscope.comparison.comparison import Comparison
from trainscope.comparison.setups import MOST_REASONS, Check, Fairness
from trainscope.comparison.traps import Severity
from trainscope.report.notebook import diagnosis_html
from trainscope.report.page.markup import escape, prose


def fairness(comparison: Comparison) -> str:
    """Return every comparison setup with the reasons against it, the pairs, and the advice."""
    fair = comparison.fairness
    if fair is None:
        return ""
    rungs = "".join(_rungs(fair))
    advice = "".join(_advice(line) for line in fair.advice)
    advice += "".join(_advice(f"Run: {line}") for duel in comparison.duels for line in duel.missing)
    aside = (f"<h3>What would make it fair</h3>{advice}" if advice else "") + _pairs(comparison)
    return (
        '<h2 id="fairness">How fair is the comparison?</h2>'
        '<p class="aside">The comparison setups of Wang et al. (2023), Table 2, from the loosest '
        "to the strictest; S3.2 or stricter is recommended for pruning methods. What is unknown is "
        "not the same.</p>"
        + "".join(f"<p>{escape(line)}</p>" for line in fair.beside)
        + f'<div class="two"><ul class="ladder">{rungs}</ul><div>{aside}</div></div>'
    )


def _rungs(fair: Fairness) -> Iterator[str]:
    """Yield the setups, those together that fail for one reason."""
    checks = {check.setup: check for check in fair.checks}
    failures = {names[0]: (names, reasons) for names, reasons in fair.failures}
    told = {name for names, _ in failures.values() for name in names}
    for name, check in checks.items():
        if name in failures:
            names, reasons = failures[name]
            why = "; ".join(reasons[:MOST_REASONS]) or "for the reasons above"
            yield _rung("", [checks[one] for one in names], "fails", why)
        elif name not in told:
            word = "holds" if check.holds else "does not apply"
            yield _rung("yes" if check.holds else "na", [check], word, "; ".join(check.reasons))


def _rung(kind: str, checks: Sequence[Check], word: str, why: str) -> str:
    rows = "".join(
        f"<b>{check.setup}</b><span>{escape(check.meaning)}: {word}</span>" for check in checks
    )
    reason = f'<span class="why">{escape(why)}</span>' if why else ""
    return f'<li class="{kind}">{rows}{reason}</li>'


def _advice(line: str) -> str:
    if line.startswith("Run: "):
        command = escape(line.removeprefix("Run: "))
        copy = '<button type="button" data-copy>copy</button>'
        return f'<div class="todo"><code>{command}</code>{copy}</div>'
    return f'<p class="todo">{escape(line)}</p>'


def _pairs(comparison: Comparison) -> str:
    if len(comparison.groups) < 3 or not comparison.pairs:
        return ""
    labels = [item.label for item in comparison.groups]
    heads = "".join(f'<th scope="col">{k + 1}</th>' for k in range(len(labels) - 1))
    rows = []
    for i in range(1, len(labels)):
        cells = []
        for j in range(i):
            found = comparison.pairs[j, i]
            kind = "yes" if found.fair else "no"
            title = escape(f"{labels[j]} and {labels[i]}: {found.sentence()}")
            name = escape(found.strictest or "none")
            cells.append(f'<td class="{kind}" title="{title}">{name}</td>')
        blank = "<td></td>" * (len(labels) - 1 - i)
        head = f'<th scope="row">{i + 1} {escape(labels[i])}</th>'
        rows.append(f"<tr>{head}{''.join(cells)}{blank}</tr>")
    return (
        "<h3>Pair by pair</h3>"
        f'<p class="aside">1 is {escape(labels[0])}. Green pairs are as strict as S3.2.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Strictest setup of every pair">'
        f'<table class="pairs"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def traps(comparison: Comparison) -> str:
    """Return every trap with its evidence, the heavier ones first."""
    ordered = sorted(comparison.traps, key=lambda trap: trap.weight is not Severity.WARNING)
    items = "".join(
        f'<li class="{trap.weight}"><strong>{escape(trap.label)}: {escape(trap.name)}</strong>'
        f"<div>{prose(trap.sentence)}</div>"
        + (f"<small>{trap.runs[0]} of {trap.runs[1]} runs</small>" if trap.runs[1] > 1 else "")
        + "</li>"
        for trap in ordered
    )
    if not items:
        return '<h2 id="traps">Traps</h2><p>None of the known traps was found.</p>'
    return f'<h2 id="traps">Traps</h2><ul class="traps">{items}</ul>'


def diagnoses(comparison: Comparison) -> str:
    """Return the tables of Diagnoses, closed where runs are what the page is about."""
    is_open = "" if comparison.groups else " open"
    items = "".join(
        f"<details{is_open}><summary>{escape(d.title)}"
        f"{'' if d.action is None else escape(f' ({d.action.criterion})')}</summary>"
        f'<div class="scroll">{diagnosis_html(d)}</div></details>'
        for d in comparison.diagnoses
    )
    return (
        f'<h2 id="diagnoses">Before and after the sparsifying action</h2>{items}' if items else ""
    )
