"""The gradient norms of many steps as one measurement, so that a Run stays small."""

from __future__ import annotations

from collections.abc import Sequence

from trainscope.probes.hooks.step_norms import NAME
from trainscope.records import Measurement, Scalar, Status, Taken


def compact(taken: Sequence[Taken]) -> list[Taken]:
    """Merge the gradient norms of a moment into one measurement; leave the rest as it is.

    Scalars: `mean_norm` and `max_norm` over the steps whose gradient was finite. Arrays: `steps`
    and `norms`, None where a gradient was not finite. Its step is the last one's.

    Args:
        taken: Of one stretch of training, as an epoch, in order.
    """
    rest = [each for each in taken if each.measurement.probe != NAME]
    norms = [each for each in taken if each.measurement.probe == NAME]
    moments = dict.fromkeys(each.moment for each in norms)
    return rest + [_merged([n for n in norms if n.moment == moment]) for moment in moments]


def _merged(norms: list[Taken]) -> Taken:
    values = [each.measurement.value("norm") for each in norms]
    finite = [value for value in values if value is not None]
    lost = [each for each in norms if each.measurement.value("norm") is None]
    reason, status = None, Status.OK
    if lost:
        first, status = lost[0], lost[0].measurement.status
        what = "was not finite" if status is Status.NONFINITE else "could not be read"
        reason = (
            f"the gradient {what} at {len(lost)} of {len(norms)} steps; at step {first.step}: "
            f"{first.measurement.reason}"
        )
    none = "no gradient was finite"
    units = (each.measurement.scalars.get("norm") for each in norms)
    unit = next((scalar.unit for scalar in units if scalar is not None), "nats/weight")
    mean = sum(finite) / len(finite) if finite else float("nan")
    measurement = Measurement(
        NAME,
        status,
        reason,
        scalars={
            "mean_norm": Scalar.of(mean, unit, reason=none),
            "max_norm": Scalar.of(max(finite, default=mean), unit, reason=none),
        },
        arrays={"steps": [each.step for each in norms], "norms": list(values)},
    )
    last = norms[-1]
    return Taken(measurement, last.step, last.moment, last.epoch)
