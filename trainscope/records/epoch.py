"""What one epoch of training did, and what was measured on the way."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from trainscope.records.measurement import Json, Measurement
from trainscope.records.typed import taken

BEFORE_CLIPPING, AFTER_CLIPPING = "before clipping", "after clipping"
AFTER_STEP = "after step"
BEFORE_ACTION, AFTER_ACTION = "before action", "after action"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: Epochs done by its end: 1 for the first.
        lr: The learning rate during it.
        train_loss: Mean training loss over it, nats; None where it is not known or not finite.
        test_loss: Test loss at its end, nats; None likewise.
        test_accuracy: Test accuracy at its end, percent; None where it is not known.
        seconds: Wall-clock seconds; None where they are not known.
    """

    epoch: int
    lr: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that JSON cannot hold, and accuracies that are no percentages."""
        if self.epoch < 1:
            raise ValueError(f"an epoch counts from 1, not {self.epoch}")
        for number in (self.lr, self.train_loss, self.test_loss, self.test_accuracy, self.seconds):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"an EpochRecord holds finite numbers, not {number}")
        if self.lr < 0:
            raise ValueError(f"a learning rate is 0 or more, not {self.lr:g}")
        if self.test_accuracy is not None and not 0.0 <= self.test_accuracy <= 100.0:
            raise ValueError(f"accuracy is in percent, 0 to 100, not {self.test_accuracy:g}")

    def to_json(self) -> Json:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Json) -> EpochRecord:
        """Return the EpochRecord that `to_json` wrote."""
        return taken(cls, raw)


@dataclass(frozen=True, slots=True)
class Taken:
    """A Measurement taken while a network trained.

    Attributes:
        measurement: What the probe found.
        step: Optimizer steps done when it was taken; of a gradient, the step it is about to make,
            so that the first step's gradient has step 1 and the untrained network has step 0.
        moment: "before clipping", "after clipping" (what the optimizer sees), "after step",
            "before action" or "after action".
        epoch: Epochs done by then, with fractions; None where it is not known.
    """

    measurement: Measurement
    step: int
    moment: str
    epoch: float | None = None

    def to_json(self) -> Json:
        """Return the fields, and the probe's name with them."""
        where: Json = {"step": self.step, "moment": self.moment, "epoch": self.epoch}
        return {"probe": self.measurement.probe} | where | self.measurement.to_json()

    @classmethod
    def from_json(cls, raw: Json) -> Taken:
        """Return the Taken that `to_json` wrote."""
        measurement = Measurement.from_json(raw["probe"], raw)
        return taken(cls, raw, measurement=measurement)
