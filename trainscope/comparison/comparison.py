"""Everything that a set of runs and Diagnoses says, computed once for every reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from trainscope.comparison.duels import Duel, crowded, duels
from trainscope.comparison.estimates import GroupEstimate, estimates
from trainscope.comparison.facts import method_of, ratio_of, speedup_of
from trainscope.comparison.fairness import fairness
from trainscope.comparison.findings import findings
from trainscope.comparison.reasons import listed
from trainscope.comparison.settings import Setting, group, shared_first_stage
from trainscope.comparison.setups import Fairness
from trainscope.comparison.traps import Severity, Trap, detect
from trainscope.comparison.within import one_at_a_time, within
from trainscope.records import Diagnosis, Json, Metric, Run, Shown

SCHEMA = "trainscope.comparison/1"
MOST_PAIRED = 16
FIRST = 3
"""So many findings come before the pairs of methods."""
MOST_DUELS = 6
MOST_ESTIMATES = 4


@dataclass(frozen=True)
class Comparison(Shown):
    """A comparison of runs.

    Attributes:
        groups: The settings.
        diagnoses: Measurements before and after sparsifying actions.
        fairness: The strictest comparison setup; None with fewer than two settings.
        findings: What the runs say, in sentences.
        duels: Pairs of methods, and who wins.
        traps: What makes a result look worse or better than it is.
        estimates: The epochs that slower settings need.
        notes: What a reader should know of how the runs were read.
        ta_epochs: N of the TA that is shown: the shortest first LR stage.
        pairs: The strictest setup of every pair of settings, by their places in `groups`; None
            where not even S1 holds. Empty with more than `MOST_PAIRED` settings.
        within: The loosest setup that the methods satisfy under one schedule and compression at a
            time, where that is fair; else None.
        within_methods: Which they are, where not all of them.
        crowded: Where methods are too many for pairs to be tested, in sentences.
        apart: What settings of one data set, network and compression are, where these differ and so
            there is no comparison as a whole; else "".
    """

    groups: tuple[Setting, ...]
    diagnoses: tuple[Diagnosis, ...]
    fairness: Fairness | None
    findings: tuple[str, ...]
    duels: tuple[Duel, ...]
    traps: tuple[Trap, ...]
    estimates: tuple[GroupEstimate, ...]
    notes: tuple[str, ...] = ()
    ta_epochs: int | None = None
    pairs: Mapping[tuple[int, int], Fairness] = field(default_factory=dict)
    within: str | None = None
    within_methods: tuple[str, ...] = ()
    crowded: tuple[str, ...] = ()
    apart: str = ""

    def __repr__(self) -> str:
        """Return one line: how much is compared, and the strictest setup that holds."""
        parts = [f"{len(self.groups)} settings"]
        if self.diagnoses:
            parts.append(f"{len(self.diagnoses)} Diagnoses")
        if self.fairness is not None:
            parts.append(self.fairness.strictest or "not comparable")
        return f"<Comparison of {', '.join(parts)}, {len(self.traps)} traps>"

    def facts(self) -> list[str]:
        """Return what the runs show: the first findings, the pairs of methods, the others."""
        if not self.groups:
            return [line for diagnosis in self.diagnoses for line in diagnosis.verdict]
        arenas = len({duel.where for duel in self.duels})
        # What is decided comes first; the order is otherwise that of the settings.
        ordered = sorted(self.duels, key=lambda duel: not duel.decided)
        told = [
            f"At {duel.where}: {duel.sentence()}" if arenas > 1 else duel.sentence()
            for duel in ordered
        ]
        told = [*told[:MOST_DUELS], *self.crowded]
        return [*self.findings[:FIRST], *told, *self.findings[FIRST:]]

    def verdict(self, traps_are: str = "see the list") -> list[str]:
        """Return the verdict: fairness, findings, methods, estimates and a count of the traps.

        Args:
            traps_are: Where the traps are told, for a reader who is not shown `traps`.
        """
        lines = self.facts()
        lines += [estimate.sentence() for estimate in self.estimates[:MOST_ESTIMATES]]
        if self.fairness is not None:
            lines.append(self.fairness_sentence())
        warned = {trap.label for trap in self.traps if trap.weight is Severity.WARNING}
        if warned:
            lines.append(
                f"{len(warned)} of {max(len(self.groups), len(warned))} settings fell into a trap; "
                f"{traps_are}."
            )
        return lines

    def fairness_sentence(self) -> str:
        """Return how fair the comparison is, as a whole and pair by pair."""
        if self.fairness is None:
            return "One setting: there is nothing to compare it with."
        ended = {k for k, item in enumerate(self.groups) if item.finished}
        pairs = [found for pair, found in self.pairs.items() if ended.issuperset(pair)]
        fair = sum(found.fair for found in pairs)
        line = f"{self.fairness.sentence()} {self.apart}".strip()
        if len(ended) < 3 or self.fairness.fair:
            return line
        if self.within is not None:
            who = " and ".join(self.within_methods) or "the methods"
            return f"{line} One schedule and compression at a time, {who} meet {self.within}."
        if not fair:
            return line
        verb = "is" if fair == 1 else "are"
        names = sorted({str(found.strictest) for found in pairs if found.fair})
        return f"{line} Pair by pair, {fair} of {len(pairs)} {verb} fair ({', '.join(names)})."

    def as_dict(self) -> Json:
        """Return the document of `trainscope.comparison/1` as a JSON object."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict(),
            "fairness": None if self.fairness is None else self.fairness.as_dict(),
            "pairs": [
                {
                    "settings": [self.groups[i].label, self.groups[j].label],
                    "strictest": found.strictest,
                    "fair": found.fair,
                }
                for (i, j), found in self.pairs.items()
            ],
            "settings": [_group_dict(item, self.ta_epochs) for item in self.groups],
            "methods": [duel.as_dict() for duel in self.duels],
            "traps": [trap.as_dict() for trap in self.traps],
            "estimates": [estimate.as_dict() for estimate in self.estimates],
            "notes": list(self.notes),
        }


def compare(
    runs: Iterable[Run], diagnoses: Sequence[Diagnosis] = (), notes: Sequence[str] = ()
) -> Comparison:
    """Compare runs: group them by setting, judge fairness, and say what they show.

    >>> compare([Run.load(path) for path in paths]).verdict()  # doctest: +SKIP

    Args:
        runs: Any runs; those that differ in their seed alone form one setting.
        diagnoses: Measurements of the same pruned networks, where there are any.
        notes: How they were read, for the reader.
    """
    held = list(runs)
    groups = group(held)
    ended = [item for item in groups if item.finished]
    fair = fairness(ended) if len(ended) > 1 else None
    traps = detect(groups, diagnoses)
    loosest, among = within(groups)
    apart = fair is not None and fair.strictest is None and fair.possible is None
    unconverged = {trap.label for trap in traps if trap.name == "not converged"}
    return Comparison(
        groups=tuple(groups),
        diagnoses=tuple(diagnoses),
        fairness=fair,
        findings=tuple(findings(groups)),
        duels=tuple(_new(duels(groups), fair)),
        crowded=tuple(crowded(groups)),
        traps=tuple(traps),
        estimates=tuple(estimates(groups, unconverged)),
        notes=(
            *notes,
            *_copies(len(held) - sum(len(item.runs) for item in groups)),
            *_metrics(groups),
        ),
        ta_epochs=shared_first_stage(groups),
        within=loosest,
        within_methods=among,
        apart=one_at_a_time(ended) if apart else "",
        pairs={
            (i, j): fairness([groups[i], groups[j]])
            for i, j in combinations(range(len(groups) if len(groups) <= MOST_PAIRED else 0), 2)
        },
    )


def _copies(count: int) -> list[str]:
    if count == 0:
        return []
    what = "is a copy of another" if count == 1 else "are copies of others"
    return [f"{count} of the runs {what}, counted once"]


def _metrics(groups: Sequence[Setting]) -> list[str]:
    """Say what follows from metrics that are several."""
    held: dict[Metric, int] = {}
    for item in groups:
        held[item.metric] = held.get(item.metric, 0) + 1
    notes = []
    if len(held) > 1:
        told = listed(
            [f"{m.label} for {n} setting{'' if n == 1 else 's'}" for m, n in held.items()]
        )
        notes.append(
            f"The runs are told by {len(held)} metrics, {told}: no setting is held against one of "
            "another metric."
        )
    return notes


def _new(found: Sequence[Duel], fair: Fairness | None) -> list[Duel]:
    """Leave out commands that were given already; a fair comparison needs none."""
    given = set() if fair is None else {line.removeprefix("Run: ") for line in fair.advice}
    kept = []
    for duel in found:
        missing = tuple(line for line in duel.missing if line not in given)
        given |= set(missing)
        kept.append(replace(duel, missing=() if fair is not None and fair.fair else missing))
    return kept


def _group_dict(item: Setting, ta_epochs: int | None) -> Json:
    run, ta = item.first, item.ta(ta_epochs)
    final = {"mean": item.mean, "spread": item.spread, "values": item.finals}
    flops = [held.flops for held in item.runs if held.flops is not None]
    return {
        "setting": item.label,
        "runs": len(item.runs),
        "seeds": [held.seed for held in item.runs],
        "kind": str(run.kind),
        "method": method_of(run),
        "ratio": ratio_of(run),
        "speedup": speedup_of(run),
        "schedule": run.schedule,
        "epochs": item.epochs,
        "ta": None if ta is None else {"mean": ta[0], "spread": ta[1], "epochs": ta_epochs},
        "metric": item.metric.to_json(),
        "final": final,
        "accuracy": final if item.metric.is_accuracy else None,
        "flops": max(flops, default=None),
    }
