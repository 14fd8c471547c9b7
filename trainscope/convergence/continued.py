"""The whole schedule of a run that is under way, from its LRs so far and the name of its shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.passage import Floats
from trainscope.convergence.plan import written
from trainscope.convergence.track import CHANGES
from trainscope.errors import ScheduleError

SHAPES: dict[str, Callable[[Floats, float], Floats]] = {
    "cosine": lambda share, _: (1 + np.cos(math.pi * share)) / 2,
    "linear": lambda share, _: 1 - share,
    "wsd": lambda share, cooldown: np.minimum(1, (1 - share) / cooldown),
}
"""What is left of the LR above its minimum, by the share of the epochs after the warm-up."""
OFF = 0.1
"""Share of the peak by which LRs may differ from the shape that is named."""
TOLD = 0.05
"""Share of its range that an LR must have fallen by to tell the minimum that it falls to."""
COOLDOWN = 0.2
"""Share of the total that the last part of "wsd" takes where nobody says it."""
STAGES = 25
"""Stages at least that a long rest of a schedule is written in, each with its mean LR: few enough
that a `Track` tells most of them, and the run's own, apart."""


def continued_schedule(
    curve: LearningCurve,
    shape: str,
    total: float,
    *,
    minimum: float | None = None,
    cooldown: float | None = None,
) -> str:
    """Return the schedule that a run is in the middle of, as `estimate_extra_epochs` takes it.

    Up to the last record the LRs are the run's own, a warm-up among them; the peak is their
    largest. After it they follow the shape to the total.

    Args:
        curve: The run so far, with the LR of every record.
        shape: "cosine" (half a wave from the end of the warm-up), "linear" (a line from there) or
            "wsd" (warm-up, a stable LR, and a line over the last part).
        total: Epochs (or steps, or tokens, as the curve counts) of the whole schedule.
        minimum: The LR at the end; by default what the LRs so far fall towards, by least squares,
            and 0 where they have not fallen yet.
        cooldown: The share of the total that the last part of "wsd" takes, in (0, 1]; by default
            a fifth.

    Raises:
        ScheduleError: There is no such shape, or it has no cooldown; the run has no LRs, is longer
            than the total, or its LRs differ by more than a tenth of their peak from the shape.
    """
    if shape not in SHAPES:
        raise ScheduleError(f"no shape of a schedule is named '{shape}': {', '.join(SHAPES)}")
    if cooldown is not None and shape != "wsd":
        raise ScheduleError(f"the cooldown is of the shape wsd, and this one is {shape}")
    cooldown = COOLDOWN if cooldown is None else cooldown
    if not 0 < cooldown <= 1:
        raise ScheduleError(f"the cooldown is a share of the total in (0, 1], not {cooldown:g}")
    if not len(curve.lr_epochs) or not curve.lr.max():
        raise ScheduleError("the run has no learning rates, so that no schedule can be continued")
    now, whole = float(curve.lr_epochs[-1]), curve.per == "epoch"
    if not now < total < math.inf:
        raise ScheduleError(
            f"the run has {now:g} {curve.per}s: the total of its schedule is above that, "
            f"not {total:g}"
        )
    starts = np.append(0.0, curve.lr_epochs[:-1])
    top = int(np.argmax(curve.lr))
    # The LR of an epoch is that of its start, and a log of steps has that of the step.
    peak, begun = float(curve.lr[top]), float((starts if whole else curve.lr_epochs)[top])

    def left(at: Floats) -> Floats:
        share = np.clip((at - begun) / (total - begun), 0.0, 1.0)
        # The cooldown is a share of the total, and the shape counts from the end of the warm-up.
        return SHAPES[shape](share, min(1.0, cooldown * total / (total - begun)))

    falling = slice(top, None)
    seen, ends = starts[falling], curve.lr_epochs[falling]
    least = (
        minimum
        if minimum is not None
        else _minimum(left(seen if whole else ends), curve.lr[falling], peak)
    )
    if not 0 <= least <= peak:
        raise ScheduleError(f"an LR that falls from {peak:g} ends at 0 to {peak:g}, not {least:g}")

    def rates(at: Floats) -> Floats:
        return least + (peak - least) * left(at)

    off = np.maximum(rates(ends) - curve.lr[falling], curve.lr[falling] - rates(seen))
    worst = int(np.argmax(off))
    if off[worst] > OFF * peak:
        raise ScheduleError(
            f"the LRs of the run are not those of {shape} over {total:g} {curve.per}s: at "
            f"{curve.per} {ends[worst]:g} it would be {float(rates(ends)[worst]):.3g}, and was "
            f"{curve.lr[falling][worst]:.3g}; give the total and the last LR that were planned, or "
            "the stages themselves"
        )
    new = np.append(True, np.diff(curve.lr) != 0)
    stages = list(zip(starts[new].tolist(), curve.lr[new].tolist(), strict=True))
    most = max(STAGES, CHANGES - len(stages))
    count = round(total - now) if whole else most
    if exact := count <= most and whole:
        edges = np.arange(count, dtype=np.float64) + now
    else:
        edges = np.linspace(now, total, most, endpoint=False)
    middle = edges if exact else edges + (total - now) / most / 2 - (0.5 if whole else 0.0)
    stages += zip(edges.tolist(), rates(middle).tolist(), strict=True)
    return written(stages)


def _minimum(left: Floats, rates: Floats, peak: float) -> float:
    """Return the LR that LRs fall towards, by least squares; 0 where they hardly fell."""
    gone = 1 - left
    if gone[-1] < TOLD:
        return 0.0
    found = float(gone @ (rates - peak * left) / (gone @ gone))
    return min(max(found, 0.0), peak)
