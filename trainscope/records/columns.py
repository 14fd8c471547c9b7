"""One probe's measurements of a network, before and after a sparsifying action; the damage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainscope.records.measurement import Json, Measurement

COLUMNS = ("before", "after", "recalibrated")


@dataclass(frozen=True, slots=True)
class Columns:
    """One probe's measurements.

    Attributes:
        before: Of the base network.
        after: Of the pruned network; None where one network was measured and no action.
        recalibrated: Of the pruned network with its batch-norm statistics measured anew; None
            where there is no batch norm.
    """

    before: Measurement
    after: Measurement | None = None
    recalibrated: Measurement | None = None

    @property
    def last(self) -> Measurement:
        """The network as retraining meets it: recalibrated, else after, else the only one."""
        return self.recalibrated or self.after or self.before

    def damage(self) -> dict[str, float]:
        """Return after / before of every scalar that both have.

        Left out where before is zero, or within two standard errors of it.
        """
        ratios: dict[str, float] = {}
        if self.after is None:
            return ratios
        for name in self.before.scalars:
            old, new = self.before.get(name), self.after.get(name)
            error = self.before.scalars[name].stderr or 0.0
            if old and new is not None and abs(old) >= 2 * error:
                ratios[name] = new / old
        return ratios

    def told_from_noise(self, name: str) -> float | None:
        """Return after / before of one scalar; None where it does not differ beyond its noise.

        Where the noise of one of them is not known (of a single sample, say), nothing is told.
        """
        ratio, noise = self.damage().get(name), self.noise(name)
        if ratio is None or noise is None:
            return None
        return ratio if abs(ratio - 1) > noise else None

    def noise(self, name: str) -> float | None:
        """Return two standard errors of after / before, from both; None where one is not known.

        The samples of the columns are the same, so that the errors of the two are mostly one, and
        the bound is on the safe side. They are widened for few samples where they are measured.
        """
        old = self.before.scalars.get(name)
        new = None if self.after is None else self.after.scalars.get(name)
        if old is None or new is None or not old.value or old.stderr is None or new.stderr is None:
            return None
        return 2 * math.hypot(old.stderr, new.stderr) / abs(old.value)

    def to_json(self) -> Json:
        """Return the columns, and the damage for readers without arithmetic."""
        after, recalibrated = (
            None if part is None else part.to_json() for part in (self.after, self.recalibrated)
        )
        return {
            "before": self.before.to_json(),
            "after": after,
            "recalibrated": recalibrated,
            "damage": self.damage(),
        }

    @classmethod
    def from_json(cls, probe: str, raw: Json) -> Columns:
        """Return the Columns that `to_json` wrote."""
        parts = {
            name: None if raw[name] is None else Measurement.from_json(probe, raw[name])
            for name in COLUMNS
        }
        return cls(**parts)  # type: ignore[arg-type]
