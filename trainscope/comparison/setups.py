"""The comparison setups of Wang et al. (2023), Table 2, as sets of facts that must agree.

Each setup from S1 to S3.2 asks for all that the one before it asks for; S4.1 and S4.2 each ask
for S3.2 and one thing of the pruning stage, and S4.2 includes S4.1. SX-A and SX-B ask for S1 and
the budget of the whole pipeline, whatever its stages took.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """One setup.

    Attributes:
        name: As the paper numbers it.
        meaning: What must agree, in words.
        facts: The names of what must agree (`agreement.disagreements`), that which no looser setup
            asks for first: it is the reason to name.
        crosses: Compares pipelines by their budget, whatever their base models.
    """

    name: str
    meaning: str
    facts: tuple[str, ...]
    crosses: bool = False


_S1 = ("data", "architecture", "compression")
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
    Setup("SX-A", f"S1 with the same epochs {_ALL}", ("total_epochs", *_S1), True),
    Setup("SX-B", f"S1 with the same FLOPs {_ALL}", ("total_flops", *_S1), True),
)
RECOMMENDED = "S3.2"
"""The loosest setup that the paper recommends for comparing pruning methods."""
STRICTEST = "S4.2"
ONE_SCHEDULE = (
    "one LR schedule from the first epoch of pretraining to the last of retraining; what differs "
    "is the pruning epoch"
)
"""What S4.2 means between pipelines: Table 4 calls it the same overall LR schedule."""
