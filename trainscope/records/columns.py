"""One probe's measurements before and after a sparsifying action, and the damage."""

from __future__ import annotations

from dataclasses import dataclass

from trainscope.records.measurement import Json, Measurement

COLUMNS = ("before", "after", "recalibrated")


@dataclass(frozen=True, slots=True)
class Columns:
    """One probe's measurements.

    Attributes:
        before: Of the base network.
        after: Of the pruned network.
        recalibrated: Of the pruned network with its batch-norm statistics measured anew; None
            where there is no batch norm.
    """

    before: Measurement
    after: Measurement
    recalibrated: Measurement | None = None

    def damage(self) -> dict[str, float]:
        """Return after / before of every scalar that both have.

        Left out where before is zero, or within two standard errors of it.
        """
        ratios = {}
        for name in self.before.scalars:
            old, new = self.before.get(name), self.after.get(name)
            error = self.before.scalars[name].stderr or 0.0
            if old and new is not None and abs(old) >= 2 * error:
                ratios[name] = new / old
        return ratios

    def to_json(self) -> Json:
        """Return the columns, and the damage for readers without arithmetic."""
        after = None if self.recalibrated is None else self.recalibrated.to_json()
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "recalibrated": after,
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
