"""What one probe found: scalars with units and standard errors, arrays, and the cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from trainscope.errors import UnknownNameError
from trainscope.records.arrays import check_arrays
from trainscope.records.shown import Shown
from trainscope.records.typed import record_of

Json = dict[str, Any]
"""A JSON object, as `json.loads` returns it."""

Array = list[Any]
"""Numbers, None where a number could not be had, or names; or a list of such lists."""


FORMER_UNITS = {"loss/param": "nats/weight", "loss/param²": "nats/weight²"}
"""Units as earlier versions wrote them, and as they are written now: the same quantities."""


class Status(StrEnum):
    """How a measurement ended. Each value reads as the words a user sees."""

    OK = "ok"
    SKIPPED = "skipped"
    NOT_CONVERGED = "not converged"
    NONFINITE = "non-finite values"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number.

    Attributes:
        value: The number, or None where it could not be had; then `reason` says why.
        unit: Its unit, "" for a pure number.
        stderr: Its standard error where it is an estimate; None where it is exact.
        reason: Why there is no value.
    """

    value: float | None
    unit: str = ""
    stderr: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that JSON cannot hold."""
        for number in (self.value, self.stderr):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"a Scalar holds finite numbers, not {number}; give a reason")
        if self.value is None and not self.reason:
            raise ValueError("a Scalar without a value needs a reason")

    @classmethod
    def of(
        cls, value: float, unit: str = "", stderr: float | None = None, *, reason: str = ""
    ) -> Scalar:
        """Return a Scalar, with the reason in the place of a value that is not finite."""
        value = float(value)
        if not math.isfinite(value):
            return cls(None, unit, reason=reason or f"the value is {value}")
        if stderr is not None and not math.isfinite(stderr):
            stderr = None
        return cls(value, unit, None if stderr is None else float(stderr))

    def to_json(self) -> Json:
        """Return the pinned form: value, stderr, unit, and a reason where there is one."""
        out: Json = {"value": self.value, "stderr": self.stderr, "unit": self.unit}
        return out | ({"reason": self.reason} if self.reason else {})

    @classmethod
    def from_json(cls, raw: Json) -> Scalar:
        """Return the Scalar that `to_json` wrote; units of earlier versions in today's words."""
        found = record_of(cls, {"reason": None, **raw})
        return replace(found, unit=FORMER_UNITS.get(found.unit, found.unit))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a measurement took, or is expected to take.

    Attributes:
        seconds: Wall-clock seconds (0 in an estimate made beforehand).
        forward: Samples put forward through the network.
        backward: Samples put backward through the network.
        memory: Bytes held at the peak beyond the network itself, where estimated.
    """

    seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    memory: int | None = None

    def to_json(self) -> Json:
        """Return the fields."""
        out: Json = {"seconds": self.seconds, "forward": self.forward, "backward": self.backward}
        return out | ({} if self.memory is None else {"memory": self.memory})

    @classmethod
    def from_json(cls, raw: Json) -> Cost:
        """Return the Cost that `to_json` wrote."""
        return record_of(cls, {"memory": None, **raw})


@dataclass(frozen=True, slots=True)
class Measurement(Shown):
    """What one probe found on one network.

    Attributes:
        probe: The probe's name.
        status: How it ended.
        reason: Why it is not `ok`, in a sentence; None where it is.
        scalars: The numbers, by name.
        arrays: Spectra, per-layer and per-epoch values and the names of layers, by name.
        cost: What it took.
        notes: What a reader must know beside the numbers, by subject: the method used for a
            trace, which accuracy and LR schedule a TA has, which parameters were left out.
    """

    probe: str
    status: Status = Status.OK
    reason: str | None = None
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    notes: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return one line: the probe, how it ended, and its first numbers."""
        known = [(name, scalar.value) for name, scalar in self.scalars.items()]
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in known[:4] if value is not None)
        more = f" and {len(known) - 4} more" if len(known) > 4 else ""
        ended = "" if self.status is Status.OK else f" {self.status}: {self.reason}"
        return f"<Measurement {self.probe}{ended}{': ' if numbers else ''}{numbers}{more}>"

    @classmethod
    def skipped(cls, probe: str, reason: str) -> Measurement:
        """Return the row of a probe that did not run."""
        return cls(probe, Status.SKIPPED, reason)

    def value(self, name: str) -> float | None:
        """Return one scalar's value, None where it could not be had, or nothing was measured.

        Raises:
            UnknownNameError: Something was measured, and no scalar of it has that name.
        """
        if not self.scalars:  # skipped, or ended early: `reason` says why
            return None
        if name not in self.scalars:
            raise UnknownNameError(
                f"the probe {self.probe} measured no '{name}': it has {', '.join(self.scalars)}"
            )
        return self.scalars[name].value

    def get(self, name: str) -> float | None:
        """Return one scalar's value, None also where the probe, or its version, has no such."""
        found = self.scalars.get(name)
        return None if found is None else found.value

    def to_json(self) -> Json:
        """Return the pinned form of `trainscope.diagnosis/1`."""
        return {
            "status": str(self.status),
            "reason": self.reason,
            "scalars": {name: scalar.to_json() for name, scalar in self.scalars.items()},
            "arrays": {name: list(values) for name, values in self.arrays.items()},
            "cost": self.cost.to_json(),
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, probe: str, raw: Json) -> Measurement:
        """Return the Measurement that `to_json` wrote.

        Raises:
            KeyError: Something is missing.
            ValueError: Something is not what it should be, or has another length.
        """
        found = record_of(
            cls,
            {"notes": {}, **raw},
            probe=probe,
            scalars={name: Scalar.from_json(value) for name, value in raw["scalars"].items()},
            cost=Cost.from_json(raw["cost"]),
        )
        check_arrays(found.arrays, probe)
        return found


class Measurements(dict[str, Measurement], Shown):
    """The Measurement of each probe, by its name.

    Attributes:
        notes: What was said of the network and the data, as in a Diagnosis, each one sentence.
    """

    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return one line: what was measured."""
        return f"<Measurements of {', '.join(self) or 'nothing'}>"
