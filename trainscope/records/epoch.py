"""What one epoch of training did, and what was measured on the way."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from trainscope.records.measurement import Json, Measurement
from trainscope.records.metric import ACCURACY, Metric
from trainscope.records.typed import record_of

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
        test_metric: What the test measured at its end, in the metric's unit (percent for an
            accuracy); None where it is not known.
        seconds: Wall-clock seconds; None where they are not known.
        metric: What `test_metric` is a value of: the metric of the Run.
    """

    epoch: int
    lr: float
    train_loss: float | None
    test_loss: float | None
    test_metric: float | None
    seconds: float | None = None
    metric: Metric = ACCURACY

    def __post_init__(self) -> None:
        """Refuse numbers that JSON cannot hold, and values that the metric cannot have."""
        if self.epoch < 1:
            raise ValueError(f"an epoch counts from 1, not {self.epoch}")
        for number in (self.lr, self.train_loss, self.test_loss, self.test_metric, self.seconds):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"an EpochRecord holds finite numbers, not {number}")
        if self.lr < 0:
            raise ValueError(f"a learning rate is 0 or more, not {self.lr:g}")
        fault = None if self.test_metric is None else self.metric.fault(self.test_metric)
        if fault is not None:
            raise ValueError(fault)

    @property
    def test_accuracy(self) -> float | None:
        """Return the test accuracy, percent; None also where another metric was measured."""
        return self.test_metric if self.metric.is_accuracy else None

    def to_json(self) -> Json:
        """Return the fields, without the metric, which the Run has.

        An accuracy is there by its own name too, for those who read accuracies alone.
        """
        held = asdict(self)
        del held["metric"]
        return held | {"test_accuracy": self.test_accuracy}

    @classmethod
    def from_json(cls, raw: Json, metric: Metric = ACCURACY) -> EpochRecord:
        """Return the EpochRecord that `to_json` wrote, of a Run with this metric.

        Those of `trainscope.run/1` have accuracies alone, by that name.

        Raises:
            ValueError: An accuracy is told twice, and not the same.
        """
        value = raw["test_metric"] if "test_metric" in raw else raw["test_accuracy"]
        if metric.is_accuracy and raw.get("test_accuracy", value) != value:
            told = f"test_metric {value} and test_accuracy {raw['test_accuracy']}"
            raise ValueError(f"{told} are to be the same: change both")
        return record_of(cls, {**raw, "test_metric": value}, metric=metric)


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
        return record_of(cls, raw, measurement=measurement)
