"""What a set of runs says, in sentences that each rest on numbers they name."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from trainscope.comparison.facts import pretraining_epochs, ratio_of, schedule_of
from trainscope.comparison.grounds import kin, widest
from trainscope.comparison.learning_rates import (
    MOST_LRS,
    learning_rates,
    level,
    longer_first_stages,
    lr_name,
)
from trainscope.comparison.pipelines import stage_epochs
from trainscope.comparison.setting_identity import schedule_key, settings_key
from trainscope.comparison.settings import SHORTEST_STAGE, Setting, shared_first_stage
from trainscope.comparison.significance import untested, welch
from trainscope.records import Metric
from trainscope.records.trainability import trainability_name

MOST_FAMILIES = 3
"""So many pruned networks are written about, those with the most settings first."""
GROWS = 0.5
"""Points by which a gap must grow to be called growing."""


def findings(groups: Sequence[Setting]) -> list[str]:
    """Return the sentences, the most telling first.

    Args:
        groups: The settings, as `settings.group` returns them.
    """
    families = families_of(groups)
    facts: list[str] = []
    rest: list[str] = []
    for place, family in enumerate(families[:MOST_FAMILIES]):
        where = _where(family, families)
        told = [where + line for line in (*learning_rates(family), *longer_first_stages(family))]
        (rest if place else facts).extend(told)
        rest += [where + line for line in _trainability(family)]
    lines = [*facts, *_ratios(groups), *rest]
    return [*(lines or _plain(groups)), *left_out(groups)]


def left_out(groups: Sequence[Setting]) -> list[str]:
    """Return how many runs of a setting did not finish, where others of it did."""
    lines = []
    for item in (item for item in groups if not item.finished):
        held = [other for other in groups if other.setting == item.setting]
        kept = [other for other in held if other.finished]
        if kept:
            count, total = len(item.runs), sum(len(other.runs) for other in held)
            lines.append(
                f"{count} of {total} runs of {kept[0].label} {item.fate} and "
                f"{'is' if count == 1 else 'are'} not in its mean."
            )
    return lines


def families_of(groups: Sequence[Setting]) -> list[list[Setting]]:
    """Return the settings to hold against each other: most settings, then most pruned, first.

    Those of a list were pruned alike, have one optimizer's settings, and share pruned networks; how
    far they do is `grounds.share`'s to tell.
    """
    known = [item for item in groups if item.mean is not None and item.lr is not None]
    several = [held for held in kin(known) if len(held) > 1]
    return sorted(several, key=lambda held: (-len(held), -(ratio_of(held[0].first) or 0.0)))


def _where(family: Sequence[Setting], families: Sequence[Sequence[Setting]]) -> str:
    """Name a pruned network by what tells it from the others."""

    def parts(item: Setting) -> tuple[str, ...]:
        run, pruning = item.first, item.first.pruning
        known = [run.data or "", run.architecture or ""]
        optimizer = str(run.settings.get("optimizer") or "")
        if pruning is None:
            return (*known, "dense", "", "", optimizer)
        size = f"{pruning.speedup}×" if pruning.ratio is None else f"ratio {pruning.ratio:g}"
        return (
            *known,
            pruning.criterion or "pruned",
            size,
            "" if pruning.epoch is None else f"P{pruning.epoch}",
            optimizer,
        )

    all_parts = [parts(held[0]) for held in families]
    told = [k for k in range(6) if len({part[k] for part in all_parts}) > 1]
    words = " ".join(parts(family[0])[k] for k in told)
    return f"{words}: " if words else ""


def _trainability(family: Sequence[Setting]) -> Iterator[str]:
    ground = widest(family)
    epochs = None if ground is None else shared_first_stage(ground.groups)
    if ground is None or epochs is None or epochs < SHORTEST_STAGE:
        return
    by_lr: dict[float, tuple[Setting, float]] = {}
    for item in ground.groups:
        ta = item.ta(epochs)
        if ta is not None and item.lr is not None:
            by_lr.setdefault(item.lr, (item, ta[0]))
    if len(by_lr) < 2:
        return
    where = f" {ground.partial}" if ground.partial else ""
    ordered = [held for _, held in sorted(by_lr.items(), reverse=True)]
    metric = family[0].metric
    if len(ordered) > MOST_LRS:  # the table has them all
        ranked = sorted(ordered, key=lambda held: metric.sign * held[1])
        ordered = [ranked[-1], ranked[0]]
    told = ", ".join(f"{metric.written(ta)} at {lr_name(item)}" for item, ta in ordered)
    name = trainability_name(metric)
    first = "epoch" if epochs == 1 else f"{epochs} epochs"
    yield (
        f"{name[0].upper()}{name[1:]} (mean test {metric.name} of the first {first})"
        f"{where} is {told}: how fast retraining recovers, told before any decay."
    )


def _ratios(groups: Sequence[Setting]) -> Iterator[str]:
    """Does the gap between LRs grow with the ratio? Told of the method with the most settings."""
    by_method: dict[tuple[Hashable, ...], dict[Hashable, dict[float, Setting]]] = {}
    for item in groups:
        ratio, schedule, run = ratio_of(item.first), schedule_of(item.first), item.first
        known = schedule is not None and item.mean is not None and item.finished
        if ratio and known and run.pruning is not None:
            kind = (run.pruning.structure, str(run.kind), run.data, run.architecture, run.metric)
            stages = (pretraining_epochs(run), stage_epochs(run))
            key = (run.pruning.criterion, *stages, *kind, settings_key(run))
            line = by_method.setdefault(key, {}).setdefault(schedule_key(run), {})
            line[ratio] = item
    if not by_method:
        return
    method, lines = max(by_method.items(), key=lambda pair: sum(map(len, pair[1].values())))
    rows = [held for held in lines.values() if len(held) > 1]
    if len(rows) < 2:
        return
    low, high = max(map(min, rows)), min(map(max, rows))
    rows = [held for held in rows if low < high and low in held and high in held]
    rows.sort(key=lambda held: -(held[low].lr or 0.0))
    if len({held[low].lr for held in rows}) < 2:
        return
    metric = rows[0][low].metric
    told = ", ".join(
        f"{lr_name(held[low])} {_from_to(held[low], held[high])}" for held in rows[:MOST_LRS]
    )
    after = f" after epoch {method[1]}" if len({key[1] for key in by_method}) > 1 else ""
    whose = f"{method[0]}{after}: " if len(by_method) > 1 else ""
    gaps = [
        max(held[r].mean or 0.0 for held in rows) - min(held[r].mean or 0.0 for held in rows)
        for r in (low, high)
    ]
    more = (
        f"; the gap between LRs grows from {metric.change(gaps[0], 1).split(' ')[0]} to "
        f"{metric.gap(gaps[1], 1)} with the damage"
        if metric.points(gaps[1] - gaps[0], rows[0][high].mean or 0.0) > GROWS
        else ""
    )
    start = f"{whose}from" if whose else "From"
    yield f"{start} ratio {low:g} to {high:g}, {told}{more}."


def _from_to(one: Setting, other: Setting) -> str:
    """Return "95.1 → 93.2 %", with the name of a metric that is no accuracy."""
    first, last = (one.metric.written(item.mean or 0.0) for item in (one, other))
    unit = f" {one.metric.unit}" if one.metric.unit else ""
    name = "" if one.metric.is_accuracy else f"{one.metric.name} "
    return f"{name}{first.removesuffix(unit)} → {last}"


def _plain(groups: Sequence[Setting]) -> list[str]:
    """Without two settings of one pruned network, name the best and whether it is clear."""
    ended = [item for item in groups if item.finished]
    if groups and not ended:
        return ["No run came to the end of its schedule, so none is ranked."]
    by_data: dict[tuple[Metric, str | None], list[Setting]] = {}
    for item in ended:
        if item.mean is not None:
            by_data.setdefault((item.metric, item.first.data), []).append(item)
    if not by_data:
        name = groups[0].metric.name if groups else ""
        a = "an" if name[:1] in "aeiou" else "a"
        return [f"No run has {a} {name}."] if groups else []
    # Values on two data sets, or of two metrics, are not ranked.
    several = len({data for _, data in by_data}) > 1
    return [
        _best(held, f"On {data or 'data unknown'}, " if several else "")
        for (_, data), held in list(by_data.items())[:MOST_FAMILIES]
    ]


def _best(groups: Sequence[Setting], where: str) -> str:
    ordered = sorted(groups, key=lambda item: -item.quality)
    best, metric = ordered[0], groups[0].metric
    if len(ordered) == 1 and where:
        where = "" if best.label == best.first.data else where
        return f"{where}{best.label} ends at {level(best)}."
    line = f"{where}{'the' if where else 'The'} best setting is {best.label} with {level(best)}"
    if len(ordered) == 1:
        return line + "."
    gap = welch(best.qualities, ordered[1].qualities)
    if not gap.value:
        top = "highest" if metric.sign > 0 else "lowest"
        both = f"{where}{best.label} and {ordered[1].label} end {top}, both with"
        return f"{both} {metric.called(best.mean or 0.0)}."
    none = untested(best.finals, ordered[1].finals)
    sure = "one seed: no test" if none else f"p = {gap.p:.2g}"
    return f"{line}, {metric.gap(gap.value)} {metric.ahead} {ordered[1].label} ({sure})."
