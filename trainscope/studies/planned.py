"""A run in the plan of a study, and what a trial of Optuna's holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from trainscope.records import Json
from trainscope.studies.queues import DIGEST, NAMES, SEARCH, SPEC

if TYPE_CHECKING:
    from trainscope.studies.lines import Path
    from trainscope.studies.search import Slot
    from trainscope.studies.spec import RunSpec


@dataclass(frozen=True)
class Planned:
    """A run of a study.

    Attributes:
        spec: What to run.
        names: What the study calls its parts, like {"action": "L1, 0.9"}.
        slot: Of a search, which chooses the LR later; None for a run as it stands.
        places: Where its parts stand in the study.
    """

    spec: RunSpec
    names: Mapping[str, str]
    slot: Slot | None = None
    places: Mapping[str, Path] = field(default_factory=dict, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """What names the run in the plan of its study."""
        return self.spec.digest if self.slot is None else self.slot.digest(self.spec)

    def trial(self) -> Json:
        """Return what a trial of it holds: its numbers as parameters, and the rest."""
        spec, kinds = self.spec, _distributions()
        values: dict[str, float] = {"lr": spec.schedule.lr(0), "epochs": spec.schedule.total}
        values["seed"] = spec.seed
        user = {DIGEST: self.digest, SPEC: spec.as_dict(), NAMES: dict(self.names)}
        if self.slot is not None:
            del values["lr"]
            user[SEARCH] = self.slot.attrs(spec)
        if spec.action is not None and spec.action.ratio is not None:
            values["ratio"] = spec.action.ratio
        return {
            "params": {name: (value, kinds[name]) for name, value in values.items()},
            "user": user,
            "system": {"fixed_params": values},
        }


@cache
def _distributions() -> dict[str, str]:
    """Return what values a parameter of a trial may have, as Optuna writes it."""
    from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json

    whole = distribution_to_json(IntDistribution(0, 2**53))
    return {
        "lr": distribution_to_json(FloatDistribution(1e-12, 1e3, log=True)),
        "epochs": whole,
        "seed": whole,
        "ratio": distribution_to_json(FloatDistribution(0.0, 1.0)),
    }
