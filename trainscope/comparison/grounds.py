"""The pruned networks that settings share: on them alone do two settings tell retraining apart.

A network is known by the digest of the weights that retraining started from. Where that is not
recorded, the base model and the pruning method stand for it, with the seed where the seed draws
what is pruned. Where neither is known nothing is the same, and what is said is said under that
condition.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from trainscope.comparison.facts import SCRATCH, method_of, ratio_of, speedup_of
from trainscope.comparison.setting_identity import settings_key
from trainscope.comparison.settings import Setting
from trainscope.records import Kind, Run
from trainscope.records.run import UNKNOWN


class Known(StrEnum):
    """What is known to be the same."""

    NETWORK = "on the same pruned network"
    BASE = "from the same base model and pruning"
    UNKNOWN = "on one pruned network, as far as is known"


@dataclass(frozen=True)
class Ground:
    """Settings, held to the runs on the pruned networks that all of them retrained.

    Attributes:
        groups: The settings, with those runs alone.
        known: What is known to be the same.
        networks: How many pruned networks they share; 0 where that is not known.
        among: How many there were in all.
    """

    groups: tuple[Setting, ...]
    known: Known
    networks: int
    among: int

    @property
    def partial(self) -> str:
        """Say which networks are meant where some setting has others too; else ""."""
        if self.networks == self.among or self.known is Known.UNKNOWN:
            return ""
        held = [run.seed for item in self.groups for run in item.runs if run.seed is not None]
        seeds = sorted(set(held))
        word = "seed" if len(seeds) == 1 else "seeds"
        which = f" ({word} {', '.join(map(str, seeds))})" if seeds else ""
        one = f"one pruned network of {self.among}"
        some = f"{self.networks} of {self.among} pruned networks"
        return f"on the {one if self.networks == 1 else some} that all retrained{which}"

    @property
    def where(self) -> str:
        """Say what is the same, and on how many pruned networks where that is not all of them."""
        few = f" ({self.networks} of {self.among})" if self.partial else ""
        return f"{self.known}{few}"

    @property
    def cause(self) -> str:
        """Say what a difference comes from: a clause that ends a sentence."""
        return {
            Known.NETWORK: "comes from retraining alone; the pruned network is the same",
            Known.BASE: "comes from retraining alone; the base model and the pruning are the same",
            Known.UNKNOWN: "comes from retraining if the pruned network is the same, which is not "
            "known",
        }[self.known]


def share(groups: Sequence[Setting]) -> Ground | None:
    """Hold settings to the pruned networks that all of them retrained.

    Args:
        groups: Settings of one `Setting.pruned_alike`.

    Returns:
        None where no network is common to all.
    """
    read, known = _reader(groups)
    held = [_networks(item, read) for item in groups]
    common, everything = set.intersection(*held), set.union(*held)
    named = common - {None}
    if not common:
        return None
    kept = named or {None}
    return Ground(
        tuple(_only(item, kept, read) for item in groups),
        known if named else Known.UNKNOWN,
        len(named),
        len(everything),
    )


def widest(groups: Sequence[Setting]) -> Ground | None:
    """Hold as many settings as possible to pruned networks that all of those share.

    Returns:
        None where no two settings share one.
    """
    found = share(groups) if len(groups) > 1 else None
    if found is not None:
        return found
    read, _ = _reader(groups)
    sets = [_networks(item, read) for item in groups]
    several = [
        kept
        for network in sorted(set().union(*sets), key=str)
        if len(kept := [item for item, own in zip(groups, sets, strict=True) if network in own]) > 1
    ]
    return share(max(several, key=len)) if several else None


def fuller(groups: Sequence[Setting], ground: Ground) -> Ground | None:
    """Return the settings that share more pruned networks than all of them do; None if no two."""
    read, _ = _reader(groups)
    most = max((len(_networks(item, read)) for item in groups), default=0)
    rich = [item for item in groups if len(_networks(item, read)) == most]
    found = share(rich) if len(rich) > 1 else None
    return found if found is not None and found.networks > ground.networks else None


def kin(groups: Sequence[Setting]) -> list[list[Setting]]:
    """Return the settings that may be held against each other, those that share a network together.

    They were pruned alike, have the same optimizer settings, and finished; each is in one list.
    """
    alike: dict[Hashable, list[Setting]] = {}
    for item in groups:
        if item.pruned_alike is not None and item.finished:
            alike.setdefault((item.pruned_alike, settings_key(item.first)), []).append(item)
    return [part for held in alike.values() for part in _parts(held)]


def _parts(groups: Sequence[Setting]) -> list[list[Setting]]:
    """Split settings where no network links them."""
    read, _ = _reader(groups)
    parts: list[tuple[set[Hashable], list[Setting]]] = []
    for item in groups:
        own, members = _networks(item, read), [item]
        apart = []
        for networks, held in parts:
            if networks & own:
                own, members = own | networks, [*held, *members]
            else:
                apart.append((networks, held))
        parts = [*apart, (own, members)]
    place = {item.label: k for k, item in enumerate(groups)}
    return [sorted(held, key=lambda item: place[item.label]) for _, held in parts]


Reader = Callable[[Run], Hashable]


def _reader(groups: Sequence[Setting]) -> tuple[Reader, Known]:
    runs = [run for item in groups for run in item.runs]
    if all(run.start != UNKNOWN for run in runs):
        return (lambda run: run.start), Known.NETWORK
    return _stated, Known.BASE


def _stated(run: Run) -> Hashable:
    """Return what stands for a pruned network whose weights are not recorded; None if unknown."""
    unsure = None in (run.data, run.architecture, method_of(run))
    if run.base == UNKNOWN or unsure or (ratio_of(run) is None and speedup_of(run) is None):
        return None
    drawn = method_of(run) == "random" or run.kind in (*SCRATCH, Kind.RANDOM_REINIT)
    if not drawn:
        return run.base
    return None if run.seed is None else (run.base, run.seed)


def _networks(item: Setting, read: Reader) -> set[Hashable]:
    return {read(run) for run in item.runs}


def _only(item: Setting, kept: set[Hashable], read: Reader) -> Setting:
    return replace(item, runs=tuple(run for run in item.runs if read(run) in kept))
