"""What a set of runs says, in sentences that each rest on numbers they name."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from trainscope.studies.facts import last_epoch, ratio_of, schedule_of
from trainscope.studies.groups import SHORTEST_STAGE, Group, shared_first_stage
from trainscope.studies.keys import NOT_SETTINGS, extra_epochs
from trainscope.studies.significance import welch
from trainscope.training.schedule import write_lr

MOST_FAMILIES = 3
"""So many pruned networks are written about, those with the most settings first."""
MOST_LRS = 5
GROWS = 0.5
"""Points by which a gap must grow to be called growing."""
ALIKE = 0.5
"""Points within which accuracies that do not differ significantly are called alike."""
PAST = 0.5
"""Points above another accuracy from which on it is called passed."""
CLOSED = 0.9
"""A share of the gap from which on it counts as closed."""


def findings(groups: Sequence[Group]) -> list[str]:
    """Return the sentences, the most telling first.

    Args:
        groups: The settings, as `groups.group` returns them.
    """
    families = families_of(groups)
    facts: list[str] = []
    rest: list[str] = []
    for place, family in enumerate(families[:MOST_FAMILIES]):
        where = _where(family, families)
        told = [where + line for line in (*_learning_rates(family), *_longer(family))]
        (rest if place else facts).extend(told)
        rest += [where + line for line in _trainability(family)]
    lines = [*facts, *_ratios(groups), *rest]
    return lines or _plain(groups)


def families_of(groups: Sequence[Group]) -> list[list[Group]]:
    """Return the groups that retrain one pruned network: most settings, then most pruned, first."""
    found: dict[Hashable, list[Group]] = {}
    for item in groups:
        if item.pruned_alike is not None and item.mean is not None and item.lr is not None:
            settings = {k: v for k, v in item.first.settings.items() if k not in NOT_SETTINGS}
            found.setdefault((item.pruned_alike, repr(sorted(settings.items()))), []).append(item)
    several = [held for held in found.values() if len(held) > 1]
    return sorted(several, key=lambda held: (-len(held), -(ratio_of(held[0].first) or 0.0)))


def _where(family: Sequence[Group], families: Sequence[Sequence[Group]]) -> str:
    """Name a pruned network by what tells it from the others."""

    def parts(item: Group) -> tuple[str, ...]:
        pruning = item.first.pruning
        if pruning is None:
            return ("dense", "", "")
        size = f"{pruning.speedup}×" if pruning.ratio is None else f"ratio {pruning.ratio:g}"
        return (
            pruning.criterion or "pruned",
            size,
            "" if pruning.epoch is None else f"P{pruning.epoch}",
        )

    all_parts = [parts(held[0]) for held in families]
    told = [k for k in range(3) if len({part[k] for part in all_parts}) > 1]
    words = " ".join(parts(family[0])[k] for k in told)
    return f"{words}: " if words else ""


def _learning_rates(family: Sequence[Group]) -> Iterator[str]:
    """The larger LR ends higher after as many epochs: the first of the paper's two facts."""
    by_epochs: dict[int, list[Group]] = {}
    for item in family:
        done = last_epoch(item.first)
        if done is not None:
            by_epochs.setdefault(done, []).append(item)
    epochs, held = max(
        by_epochs.items(), key=lambda pair: (len(pair[1]), -pair[0]), default=(0, [])
    )
    if len({item.lr for item in held}) < 2:
        return
    best = max(held, key=lambda item: item.mean or 0.0)
    ordered = sorted(held, key=lambda item: -(item.lr or 0.0))
    names = [_lr(item) for item in ordered]
    if len(set(names)) < len(names):
        names = [item.label for item in ordered]
    pairs = zip(names[:MOST_LRS], ordered, strict=False)
    told = ", ".join(f"{name} {_accuracy(item)}" for name, item in pairs)
    lowest = min(held, key=lambda item: item.mean or 0.0)
    gap = welch(best.finals, lowest.finals)
    if gap.significant or min(len(best.finals), len(lowest.finals)) < 2:
        yield (
            f"After {epochs} epochs the learning rate decides: {told}. The gap of "
            f"{gap.value:.1f} points comes from retraining alone; the pruned network is the same."
        )
    elif gap.value > ALIKE:
        yield (
            f"After {epochs} epochs the learning rates end {gap.value:.1f} points apart, which "
            f"these seeds cannot tell from chance (p = {gap.p:.2g}): {told}."
        )
    else:
        yield f"After {epochs} epochs the learning rates end alike: {told}."


def _longer(family: Sequence[Group]) -> Iterator[str]:
    """A small LR catches up when its first stage is longer: the second fact."""
    chains: dict[str, tuple[Group, list[tuple[int, Group]]]] = {}
    for short in family:
        longer = [(extra, item) for item in family if (extra := _extra(item, short))]
        if longer and not any(_extra(short, item) for item in family):
            chains[short.label] = short, sorted(longer, key=lambda pair: pair[0])
    for short, longer in chains.values():
        yield _chain(family, short, longer)


def _extra(item: Group, short: Group) -> int | None:
    one, two = schedule_of(item.first), schedule_of(short.first)
    return extra_epochs(one, two) if one is not None and two is not None else None


def _chain(family: Sequence[Group], short: Group, longer: Sequence[tuple[int, Group]]) -> str:
    done, start = last_epoch(short.first), short.mean or 0.0
    extras = " / ".join(str(extra) for extra, _ in longer)
    ends = " / ".join(f"{item.mean:.1f}" for _, item in longer)
    top = max(item.mean or 0.0 for _, item in longer)
    line = f"{extras} more first-stage epochs take {_lr(short)} from {start:.1f} to {ends} %"
    rivals = [o for o in family if (o.lr or 0) > (short.lr or 0) and last_epoch(o.first) == done]
    best = max(rivals, key=lambda o: o.mean or 0.0, default=None)
    if best is None or best.mean is None or best.mean <= start:
        return f"{line}: it had not converged after {done} epochs." if top > start else f"{line}."
    share = (top - start) / (best.mean - start)
    aim = f"the {best.mean:.1f} % of {_lr(best)}"
    if share >= CLOSED:
        level = "past" if top > best.mean + PAST else "level with"
        return (
            f"{line}, {level} {aim}: the large LR gets there sooner, not further; the small "
            "one had not converged."
        )
    if share >= 0.5:
        return (
            f"{line} and close {100 * share:.0f} % of its gap to {aim}: most of the gap was time."
        )
    if share > 0:
        return f"{line} and close {100 * share:.0f} % of its gap to {aim}."
    return f"{line}, no nearer to {aim}: time was not what it lacked."


def _trainability(family: Sequence[Group]) -> Iterator[str]:
    epochs = shared_first_stage(family)
    if epochs is None or epochs < SHORTEST_STAGE:
        return
    by_lr: dict[float, tuple[Group, float]] = {}
    for item in family:
        ta = item.ta(epochs)
        if ta is not None and item.lr is not None:
            by_lr.setdefault(item.lr, (item, ta[0]))
    if len(by_lr) < 2:
        return
    told = ", ".join(
        f"{ta:.1f} % at {_lr(item)}" for _, (item, ta) in sorted(by_lr.items(), reverse=True)
    )
    yield (
        f"Trainability accuracy (mean test accuracy of the first {epochs} epochs) is {told}: how "
        "fast retraining recovers, told before any decay."
    )


def _ratios(groups: Sequence[Group]) -> Iterator[str]:
    """Does the gap between LRs grow with the ratio? Told of the method with the most settings."""
    by_method: dict[tuple[str | None, ...], dict[Hashable, dict[float, Group]]] = {}
    for item in groups:
        ratio, schedule, run = ratio_of(item.first), schedule_of(item.first), item.first
        if ratio and schedule is not None and item.mean is not None and run.pruning is not None:
            key = (run.pruning.criterion, run.pruning.structure, str(run.kind))
            line = by_method.setdefault(key, {}).setdefault((str(schedule), schedule.total), {})
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
    told = ", ".join(
        f"{_lr(held[low])} {held[low].mean:.1f} → {held[high].mean:.1f} %"
        for held in rows[:MOST_LRS]
    )
    whose = f"{method[0]}: " if len(by_method) > 1 else ""
    gaps = [
        max(held[r].mean or 0.0 for held in rows) - min(held[r].mean or 0.0 for held in rows)
        for r in (low, high)
    ]
    more = (
        f"; the gap between LRs grows from {gaps[0]:.1f} to {gaps[1]:.1f} points with the damage"
        if gaps[1] > gaps[0] + GROWS
        else ""
    )
    start = f"{whose}from" if whose else "From"
    yield f"{start} ratio {low:g} to {high:g}, {told}{more}."


def _plain(groups: Sequence[Group]) -> list[str]:
    """Without two settings of one pruned network, name the best and whether it is clear."""
    known = sorted((g for g in groups if g.mean is not None), key=lambda g: -(g.mean or 0.0))
    if not known:
        return ["No run has an accuracy."] if groups else []
    best = known[0]
    line = f"The best setting is {best.label} with {_accuracy(best)}"
    if len(known) == 1:
        return [line + "."]
    gap = welch(best.finals, known[1].finals)
    sure = f"p = {gap.p:.2g}" if min(len(g.finals) for g in known[:2]) > 1 else "one seed: no test"
    return [f"{line}, {gap.value:.2f} points above {known[1].label} ({sure})."]


def _lr(item: Group) -> str:
    return "LR ?" if item.lr is None else f"LR {write_lr(item.lr)}"


def _accuracy(item: Group) -> str:
    spread = "" if item.spread is None else f" ± {item.spread:.1f}"
    return f"{item.mean:.1f}{spread} %"
