"""The comparison setups of Wang et al. (2023), Table 2, as sets of facts that must agree.

Each setup from S1 to S3.2 asks for all that the one before it asks for; S4.1 and S4.2 each ask
for S3.2 and one thing of the pruning stage, and S4.2 includes S4.1. SX-A and SX-B ask for S1 and
the budget of the whole pipeline, whatever its stages took.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainscope.records import Json


@dataclass(frozen=True, slots=True)
class Setup:
    """One setup.

    Attributes:
        name: As the paper numbers it.
        meaning: What must agree, in words.
        facts: The names of what must agree (`agreement.disagreements`), that which no looser setup
            asks for first: it is the reason to name.
    """

    name: str
    meaning: str
    facts: tuple[str, ...]


_S1 = ("metric", "data", "architecture", "compression")
_S2 = ("base", *_S1)
_S31 = ("epochs", *_S2)
_S32 = ("schedule", "settings", *_S31)
_S41 = ("stage_epochs", *_S32)
_S42 = ("stage_schedule", *_S41)

SETUPS = (
    Setup("S1", "same data set and network at the same compression or speedup", _S1),
    Setup("S2", "S1 from the same base model", _S2),
    Setup("S3.1", "S2 with the same number of retraining epochs", _S31),
    Setup("S3.2", "S2 with the same LR schedule and settings of retraining", _S32),
    Setup("S4.1", "S3.2 with as many epochs in the pruning stage", _S41),
    Setup("S4.2", "S3.2 with the same LR schedule in the pruning stage", _S42),
)
"""From the loosest to the strictest."""

_ALL = "of pretraining, pruning and retraining together"
CROSSING = (
    Setup("SX-A", f"S1 with the same epochs {_ALL}", ("total_epochs", *_S1)),
    Setup("SX-B", f"S1 with the same FLOPs {_ALL}", ("total_flops", *_S1)),
)
RECOMMENDED = "S3.2"
"""The loosest setup that the paper recommends for comparing pruning methods."""
STRICTEST = "S4.2"
ONE_SCHEDULE = (
    "one LR schedule from the first epoch of pretraining to the last of retraining; what differs "
    "is the pruning epoch"
)
"""What S4.2 means between pipelines: Table 4 calls it the same overall LR schedule."""
CHAIN = tuple(setup.name for setup in SETUPS)
MOST_REASONS = 2
"""So many reasons are given in one sentence."""


@dataclass(frozen=True, slots=True)
class Check:
    """One setup, tried on the runs.

    Attributes:
        setup: Its name.
        meaning: What it asks for.
        holds: Whether the runs satisfy it.
        applies: False where the setup is not the one to ask for: a crossing one where the pipelines
            are alike, one of the S setups where pipelines follow one overall LR schedule.
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
        pipelines: A budget or an overall LR schedule is what they share, not a base model.
        several: Pruning methods differ that do not meet S3.2 among themselves.
        possible: The strictest of the S setups that nothing known rules out: what is unknown is
            taken to be the same.
        beside: What no setup asks for and a reader should know, each one sentence.
    """

    strictest: str | None
    checks: tuple[Check, ...]
    advice: tuple[str, ...] = ()
    one_network: bool = False
    pipelines: bool = False
    several: bool = False
    possible: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def fair(self) -> bool:
        """Return whether it is S3.2 or stricter between methods, or S4.2 or SX between pipelines.

        Pruning methods that differ and do not meet S3.2 among themselves are not: what one gains
        may come from its base model or its retraining.
        """
        if self.pipelines:
            return not self.several
        return self.strictest in CHAIN[CHAIN.index(RECOMMENDED) :]

    @property
    def failures(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """Return the setups that fail, those together that fail for the same reasons.

        A reason that a looser setup fails for is told there, once.
        """
        found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        told: set[str] = set()
        for check in self.checks:
            if check.holds or not check.applies:
                continue
            crossing = check.setup not in CHAIN
            new = tuple(why for why in check.reasons if why not in told)
            told |= set(new)
            if new or not found or crossing:
                found.append(((check.setup,), new))
            else:
                names, why = found[-1]
                found[-1] = ((*names, check.setup), why)
        return tuple(found)

    def sentence(self) -> str:
        """Return the outcome in one sentence, and what stands beside it."""
        return " ".join((self._outcome(), *self.beside))

    def _outcome(self) -> str:
        if self.strictest is None:
            return self._nothing()
        held = next(check for check in self.checks if check.setup == self.strictest)
        if self.fair:
            what = "Fair between pipelines" if self.pipelines else "Fair"
            return f"{what}: {held.setup} holds ({held.meaning})."
        if self.one_network:
            return (
                "These runs retrain one pruned network, so they tell retraining apart, not pruning "
                f"methods; as a comparison of methods they would be {held.setup} at best."
            )
        names, why = next((part for part in self.failures if part[0][0] in CHAIN), ((), ()))
        more = f"; {names[0]} fails: {'; '.join(why[:MOST_REASONS])}" if names else ""
        if self.pipelines:
            return (
                f"Not fair between methods: {held.setup} holds ({held.meaning}), which tells whole "
                f"pipelines apart and not pruning methods{more}."
            )
        return f"Not fair between methods: {held.setup} at best ({held.meaning}){more}."

    def _nothing(self) -> str:
        first = self.checks[0]
        if self.possible is None:
            return f"Not one comparison: {first.reasons[0]}."
        line = f"Not known to be one comparison: {'; '.join(first.reasons[:MOST_REASONS])}."
        if self.possible == CHAIN[-1]:
            return line
        failed = CHAIN[CHAIN.index(self.possible) + 1]
        check = next(check for check in self.checks if check.setup == failed)
        return (
            f"{line} Were that the same, it would be {self.possible} at best: {failed} fails: "
            f"{check.reasons[0]}."
        )

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
            "beside": list(self.beside),
            "advice": list(self.advice),
        }
