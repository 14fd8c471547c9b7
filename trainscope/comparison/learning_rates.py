"""What the learning rates of one pruned network came to: the two facts of Wang et al. (2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainscope.comparison.facts import last_epoch, schedule_of
from trainscope.comparison.grounds import Ground, Known, fuller, share, widest
from trainscope.comparison.setting_identity import extra_epochs
from trainscope.comparison.settings import Setting
from trainscope.comparison.significance import LEAST, untested, welch
from trainscope.training.schedule import write_lr

MOST_LRS = 5
PAST = 0.5
"""Points above another accuracy from which on it is called passed."""
CLOSED = 0.9
"""A share of the gap from which on it counts as closed."""


def learning_rates(family: Sequence[Setting]) -> Iterator[str]:
    """The larger LR ends higher after as many epochs: the first of the paper's two facts."""
    by_epochs: dict[int, list[Setting]] = {}
    for item in family:
        done = last_epoch(item.first)
        if done is not None:
            by_epochs.setdefault(done, []).append(item)
    epochs, held = max(
        by_epochs.items(), key=lambda pair: (len(pair[1]), -pair[0]), default=(0, [])
    )
    ground = widest(held)
    if ground is None:
        return
    yield from _told(ground, epochs)
    more = fuller(held, ground)
    if more is not None:
        yield from _told(more, epochs, f" and on {more.networks} pruned networks")


def _told(ground: Ground, epochs: int, more: str = "") -> Iterator[str]:
    """Tell what the LRs come to on the pruned networks that all of them retrained."""
    held = ground.groups
    if len({item.lr for item in held}) < 2:
        return
    metric = held[0].metric
    best, lowest = (pick(held, key=lambda item: item.quality) for pick in (max, min))
    ordered = sorted(held, key=lambda item: -(item.lr or 0.0))
    names = [lr_name(item) for item in ordered]
    if len(set(names)) < len(names):
        names = [item.label for item in ordered]
    named = dict(zip((item.label for item in ordered), names, strict=True))
    shown = ordered if len(ordered) <= MOST_LRS else [best, lowest]
    told = ", ".join(f"{named[item.label]} {level(item)}" for item in shown)
    if len(shown) < len(ordered):
        told = f"of {len(ordered)}, the best and the {metric.worst} are {told}"
    gap = welch(best.qualities, lowest.qualities, among=len(held))
    behind = metric.points(gap.value, best.mean or 0.0)
    start = f"After {epochs} epoch{'s' * (epochs != 1)}{more}"
    if ground.partial:
        start += f" {ground.partial},"
    between = f"between {named[best.label]} and {named[lowest.label]}" if len(held) > 2 else ""
    cause = f"The gap of {metric.gap(gap.value, 1)} {between} {ground.cause}.".replace("  ", " ")
    if untested(best.finals, lowest.finals):
        yield (
            f"{start} the learning rates end {metric.gap(gap.value, 1)} apart (one seed: no test): "
            f"{told}." + (f" {cause}" if behind > LEAST else "")
        )
    elif gap.significant:
        yield f"{start} the learning rate decides: {told}. {cause}"
    elif behind > LEAST:
        yield (
            f"{start} the learning rates end {metric.gap(gap.value, 1)} apart, which "
            f"these seeds cannot tell from chance (p = {gap.p:.2g}): {told}."
        )
    else:
        yield f"{start} the learning rates end alike: {told}."


def longer_first_stages(family: Sequence[Setting]) -> Iterator[str]:
    """A small LR catches up when its first stage is longer: the second fact."""
    chains: dict[str, tuple[Setting, list[tuple[int, Setting]]]] = {}
    for short in family:
        longer = [(extra, item) for item in family if (extra := _extra(item, short))]
        if longer and not any(_extra(short, item) for item in family):
            chains[short.label] = short, sorted(longer, key=lambda pair: pair[0])
    for short, longer in chains.values():
        chain = [short, *(item for _, item in longer)]
        own = widest(chain)
        if own is not None and own.groups[0].label == short.label:
            kept = {item.label for item in own.groups}
            yield _chain(family, own, [item for item in chain if item.label in kept])


def _extra(item: Setting, short: Setting) -> int | None:
    one, two = schedule_of(item.first), schedule_of(short.first)
    return extra_epochs(one, two) if one is not None and two is not None else None


def _rival(family: Sequence[Setting], chain: Sequence[Setting]) -> Ground | None:
    """Return a chain with, last, the best larger LR within as many epochs as its longest run."""
    short, *longer = chain
    latest = max(last_epoch(item.first) or 0 for item in longer)
    found = [
        ground
        for other in family
        if (other.lr or 0) > (short.lr or 0)
        and (last_epoch(other.first) or latest + 1) <= latest
        and (ground := share([*chain, other])) is not None
    ]
    return max(found, key=lambda ground: ground.groups[-1].quality, default=None)


def _chain(family: Sequence[Setting], own: Ground, chain: Sequence[Setting]) -> str:
    against = _rival(family, chain)
    ground = own if against is None else against
    short, *longer = ground.groups if against is None else ground.groups[:-1]
    done, start, metric = last_epoch(short.first), short.mean or 0.0, short.metric
    extras = " / ".join(str(_extra(item, short)) for item in longer)
    values = [metric.written(value) for value in (start, *(item.mean or 0.0 for item in longer))]
    unit = f" {metric.unit}" if metric.unit else ""
    begun, *ends = (value.removesuffix(unit) for value in values)
    last = max(longer, key=lambda item: item.quality)
    top = last.mean or 0.0
    gained = last.quality > short.quality
    where = f"{ground.partial[0].upper()}{ground.partial[1:]}, " if ground.partial else ""
    name = lr_name(short)
    word = "" if metric.is_accuracy else f" from {metric.name}"
    line = f"{where}{extras} more first-stage epochs take {name}{word or ' from'} {begun} to "
    line += f"{' / '.join(ends)}{unit}"
    best = None if against is None else against.groups[-1]
    if best is None or best.mean is None or best.quality <= short.quality:
        alone = " (one seed: no test)" if untested(short.finals, last.finals) else ""
        why = f": it had not converged after {done} epochs" if gained else ""
        return f"{line}{alone}{why}."
    single = untested(best.finals, last.finals)
    test = " (one seed: no test)" if single else ""
    given = "if the pruned network is the same, " if ground.known is Known.UNKNOWN else ""
    name = lr_name(best) if last_epoch(best.first) == done else best.label
    aim = f"the {metric.called(best.mean)} of {name}"
    closed = (top - start) / (best.mean - start)
    short_of = metric.points(best.quality - last.quality, best.mean)
    if closed >= CLOSED and short_of < LEAST:
        where_to = "past" if -short_of > PAST else "level with"
        where_to = f"the best of them {where_to}" if len(longer) > 1 else where_to
        return (
            f"{line}, {where_to} {aim}{test}: {given}the large LR gets there sooner, not further; "
            "the small one had not converged."
        )
    if not single:
        test = f" (what is left: p = {welch(best.qualities, last.qualities).p:.2g})"
    if closed > 0:
        end = f": {given}most of the gap was time" if closed >= 0.5 else ""
        return f"{line} and close {100 * closed:.0f} % of its gap to {aim}{test}{end}."
    end = "" if single else ": time was not what it lacked"
    return f"{line}, no nearer to {aim}{test}{end}."


def lr_name(item: Setting) -> str:
    """Return "LR 1e-3"."""
    return "LR ?" if item.lr is None else f"LR {write_lr(item.lr)}"


def level(item: Setting) -> str:
    """Return "97.3 ± 0.6 %", with the name of a metric that is no accuracy."""
    several = len(item.finals) > 1  # a published ± is no test
    return item.metric.called(item.mean or 0.0, spread=item.spread if several else None)
