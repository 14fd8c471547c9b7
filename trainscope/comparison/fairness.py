"""Which comparison setup a set of runs satisfies, and what keeps it from a stricter one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from trainscope.comparison.advice import advise, missing_words
from trainscope.comparison.facts import FACTS, SCRATCH, is_digest, method_of, pretraining_epochs
from trainscope.comparison.grounds import Known, share
from trainscope.comparison.groups import Group, group
from trainscope.comparison.setups import CROSSING, RECOMMENDED, SETUPS, Setup
from trainscope.errors import RecordError
from trainscope.records import Json, Run

MOST_VALUES = 3
"""So many values are written out in a sentence."""


@dataclass(frozen=True, slots=True)
class Check:
    """One setup, tried on the runs.

    Attributes:
        setup: Its name.
        meaning: What it asks for.
        holds: Whether the runs satisfy it.
        applies: False for a crossing setup where the pipelines are the same.
        reasons: What differs or is not known, each one sentence; empty where it holds.
    """

    setup: str
    meaning: str
    holds: bool
    applies: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fairness:
    """How fair a comparison is.

    Attributes:
        strictest: The strictest setup that holds; None where not even S1 does.
        checks: Every setup with the reasons against it.
        advice: What would make the comparison fair, each one sentence or command.
        one_network: All runs retrain one pruned network, so they compare retraining alone.
    """

    strictest: str | None
    checks: tuple[Check, ...]
    advice: tuple[str, ...]
    one_network: bool = False

    @property
    def fair(self) -> bool:
        """Return whether it is S3.2 or stricter between methods, or SX between pipelines."""
        names = [setup.name for setup in SETUPS]
        if self.strictest in names:
            return names.index(self.strictest) >= names.index(RECOMMENDED)
        return self.strictest is not None

    def sentence(self) -> str:
        """Return the outcome in one sentence."""
        if self.strictest is None:
            return f"Not one comparison: {self.checks[0].reasons[0]}."
        held = next(check for check in self.checks if check.setup == self.strictest)
        if self.fair:
            what = "Fair" if held.setup in [s.name for s in SETUPS] else "Fair between pipelines"
            return f"{what}: {held.setup} holds ({held.meaning})."
        if self.one_network:
            return (
                "These runs retrain one pruned network, so they tell retraining apart, not pruning "
                f"methods; as a comparison of methods they would be {held.setup} at best."
            )
        failed = next((c for c in self.checks[: len(SETUPS)] if not c.holds), None)
        why = f"; {failed.setup} fails: {failed.reasons[0]}" if failed else ""
        return f"Not fair between methods: {held.setup} at best ({held.meaning}){why}."

    def as_dict(self) -> Json:
        """Return the fields for JSON."""
        return {
            "strictest": self.strictest,
            "fair": self.fair,
            "one_network": self.one_network,
            "recommended": RECOMMENDED,
            "setups": {
                check.setup: {
                    "holds": check.holds,
                    "applies": check.applies,
                    "meaning": check.meaning,
                    "reasons": list(check.reasons),
                }
                for check in self.checks
            },
            "advice": list(self.advice),
        }


def fairness(runs: Iterable[Run] | Sequence[Group]) -> Fairness:
    """Find the strictest comparison setup that two or more settings satisfy.

    "Unknown" is not "same". Source: Wang et al. (2023), Table 2; see docs/fairness.md.

    Args:
        runs: Runs of two settings or more, or groups of them. Of runs, those that did not finish
            are left out.

    Raises:
        RecordError: There is one setting or none: there is nothing to compare.
    """
    held = list(runs)
    groups = [item for item in held if isinstance(item, Group)]
    if len(groups) != len(held):
        made = group([item for item in held if isinstance(item, Run)])
        groups = [item for item in made if item.finished] or made
    if len(groups) < 2:
        raise RecordError(
            "fairness compares two settings or more: these runs differ in nothing but their seed"
        )
    checks = [_check(setup, groups) for setup in (*SETUPS, *CROSSING)]
    strictest = _strictest(checks)
    alike = {item.pruned_alike for item in groups}
    ground = share(groups) if len(alike) == 1 and None not in alike else None
    one = ground is not None and ground.known is not Known.UNKNOWN and not ground.partial
    one = one and any(check.setup == "S2" and check.holds for check in checks)
    return Fairness(strictest, tuple(checks), advise(groups, strictest), one)


def _strictest(checks: Sequence[Check]) -> str | None:
    """S2 and above are told by the base model; below it a crossing setup is the stricter one."""
    chain = [check for check in checks[: len(SETUPS)] if check.holds]
    crossing = [check for check in checks[len(SETUPS) :] if check.holds]
    if len(chain) > 1 or not crossing:
        return chain[-1].setup if chain else None
    return crossing[-1].setup


def _check(setup: Setup, groups: Sequence[Group]) -> Check:
    reasons = [reason for name in setup.facts if (reason := _differs(name, groups))]
    barred = _not_crossing(groups) if setup.crosses else None
    if barred is not None:
        reasons = [barred]
    return Check(setup.name, setup.meaning, not reasons, barred is None, tuple(reasons))


def _not_crossing(groups: Sequence[Group]) -> str | None:
    """Say why no pipelines are compared; None where base models differ on purpose.

    They do against training from scratch, and where one method acts at several pruning epochs.
    """
    pruned = [item for item in groups if item.first.kind not in SCRATCH]
    methods = {method_of(item.first) for item in pruned}
    recommended = next(setup for setup in SETUPS if setup.name == RECOMMENDED)
    if len(pruned) == len(groups):
        if len({pretraining_epochs(item.first) for item in groups}) == 1:
            return "the pipelines share their base model, so the S setups apply"
        if len(methods) > 1 or None in methods:
            return "the pruning methods differ too, so the S setups apply"
    elif len(methods) > 1 and any(_differs(name, pruned) for name in recommended.facts):
        return f"the pruning methods differ too, and are not {RECOMMENDED} among themselves"
    return None


def _differs(name: str, groups: Sequence[Group]) -> str | None:
    """Say why a fact does not agree, or None where it does."""
    fact = FACTS[name]
    values = [_value(name, item) for item in groups]
    unknown = [item.label for item, value in zip(groups, values, strict=True) if not value]
    if unknown:
        who = "every run" if len(unknown) == len(groups) else _listed(unknown)
        more = _told_apart(groups) if name == "base" else ""
        if name == "settings":
            more = f": {missing_words(groups)} not stated"
        return f"{fact.name} are unknown for {who}{more}"
    singles: list[Hashable] = []
    for value in values:
        assert value is not None
        singles += value if name != "base" else [value]
    if name == "base":
        return _base_differs(values, [item.label for item in groups])
    if fact.agree(singles):
        return None
    written = [fact.write(value[0]) for value in values if value]
    if len(set(written)) == 1:
        return f"{fact.name} differ, though they are written alike ({written[0]})"
    return f"{fact.name} {_listed(list(dict.fromkeys(written)))}"


def _base_differs(
    values: Sequence[tuple[Hashable, ...] | None], labels: Sequence[str]
) -> str | None:
    """Compare sets of base models: every seed may have its own, the same in all groups."""
    sets = [frozenset(value) for value in values if value]
    if len(set(sets)) == 1:
        return None
    common, union = frozenset.intersection(*sets), frozenset.union(*sets)
    if common:
        lacking = [label for label, held in zip(labels, sets, strict=True) if held != union]
        gone = [FACTS["base"].write(base) for base in sorted(union - common, key=str)]
        are = "are" if len(gone) > 1 else "is"
        return f"base models {_listed(gone)} {are} not among those of {_listed(lacking)}"
    forms = {is_digest(str(base)) for held in sets for base in held if base != "none"}
    everything = [str(base) for held in sets for base in sorted(map(str, held))]
    names = [FACTS["base"].write(base) for base in dict.fromkeys(everything)]
    if len(forms) > 1 and not any(name.startswith("none") for name in names):
        return (
            f"base models are unknown to be the same: {_listed(names)}, some by digest and some "
            "by name"
        )
    return f"base models {_listed(names)}"


def _told_apart(groups: Sequence[Group]) -> str:
    """Tell unknown base models apart by their accuracies before pruning, where those differ."""
    found = [item.first.pretraining for item in groups]
    known = {p.accuracy for p in found if p is not None and p.accuracy is not None}
    if len(known) < 2:
        return ""
    told = [f"{value:g}" for value in sorted(known)]
    span = _listed(told) if len(told) <= MOST_VALUES else f"{told[0]} to {told[-1]}"
    return f", and differ: {span} % before pruning"


def _value(name: str, item: Group) -> tuple[Hashable, ...] | None:
    """Return the values of all runs of a group, once each; None where any is unknown."""
    found = [FACTS[name].read(run) for run in item.runs]
    if any(value is None for value in found):
        return None
    return tuple(dict.fromkeys(found))


def _listed(words: Sequence[str]) -> str:
    shown = list(words[:MOST_VALUES])
    rest = len(words) - len(shown)
    if rest:
        return ", ".join(shown) + f" and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
