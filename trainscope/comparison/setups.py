"""The comparison setups of Wang et al. (2023), Table 2, as sets of facts that must agree.

Each setup asks for all that the one before it asks for. SX-A and SX-B compare across pipelines
(training from scratch, or one method at several pruning epochs), where the base models differ on
purpose and the budget of the whole pipeline must agree instead. docs/fairness.md says where the
paper is quoted and where its wording is filled in.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """One setup.

    Attributes:
        name: As the paper numbers it.
        meaning: What must agree, in words.
        facts: The names of `facts.FACTS` that must agree, those that no looser setup asks for
            first: they are the reason to name.
        crosses: Compares pipelines, so that base models differ on purpose.
    """

    name: str
    meaning: str
    facts: tuple[str, ...]
    crosses: bool = False


_S1 = ("data", "architecture", "structure", "compression")
_S2 = ("base", *_S1)
_S31 = ("epochs", *_S2)
_S32 = ("schedule", "settings", *_S31)
_S41 = ("plan", *_S32)
_S42 = ("layers", *_S41)

SETUPS = (
    Setup("S1", "same data set, network, granularity and compression", _S1),
    Setup("S2", "S1 from the same base model", _S2),
    Setup("S3.1", "S2 with the same number of retraining epochs", _S31),
    Setup("S3.2", "S3.1 with the same LR schedule and optimizer settings", _S32),
    Setup("S4.1", "S3.2 with the same pruning schedule", _S41),
    Setup("S4.2", "S4.1 with the same layer-wise ratios: the criterion alone differs", _S42),
)
"""From the loosest to the strictest."""

CROSSING = (
    Setup("SX-A", "S1 across pipelines with the same epochs in all", ("total_epochs", *_S1), True),
    Setup("SX-B", "S1 across pipelines with the same FLOPs in all", ("total_flops", *_S1), True),
)
RECOMMENDED = "S3.2"
"""The loosest setup that the paper recommends for comparing pruning methods."""
