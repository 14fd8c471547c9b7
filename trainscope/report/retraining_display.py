"""How fast retraining recovers in its first epochs, before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from trainscope.records import Diagnosis
from trainscope.records.retrained import retrained
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes
from trainscope.report.style import COLOURS, DASHES, LABELS, drawn_from

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LOGARITHMIC = 30.0
"""Values of which the largest is so many times the smallest stand on a logarithmic axis."""


@dataclass
class RetrainingDisplay:
    """The test metric over the first epochs of retraining.

    Attributes:
        curves: Its values (before the first epoch, then after each) by column and LR.
        tested: What they are, with their unit.
        steps: Optimizer steps between two tests; None where these are an epoch apart.
    """

    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    curves: Mapping[tuple[str, float], Sequence[float]]
    tested: str = "top-1 test accuracy [%]"
    steps: int | None = None
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis) -> Self:
        """Take the curves from a Diagnosis whose trainability accuracy was measured.

        Raises:
            RecordError: It was not; the message says why.
        """
        columns = drawn_from(diagnosis, "trainability_accuracy", "lrs")
        told = {name: retrained(measurement) for name, measurement in columns.items()}
        one = next(iter(told.values()))
        unit = one.metric.unit
        return cls(
            {
                (name, lr): [math.nan if each.start is None else each.start, *curve]
                for name, each in told.items()
                for lr, curve in zip(each.lrs, each.curves, strict=True)
            },
            tested=f"{one.tested} [{unit}]" if unit else one.tested,
            steps=one.steps,
        )

    @property
    def title(self) -> str:
        """What the figure shows."""
        return f"First {'epochs' if self.steps is None else 'steps'} of retraining"

    @property
    def xlabel(self) -> str:
        """What the tests are drawn against."""
        return f"{'epoch' if self.steps is None else 'step'} of retraining (0: not retrained)"

    @property
    def logarithmic(self) -> bool:
        """Whether a logarithmic axis shows more: of a perplexity, where one LR blew it up."""
        values = [v for curve in self.curves.values() for v in curve if math.isfinite(v)]
        if "%" in self.tested or not values or min(values) <= 0:
            return False
        return max(values) > LOGARITHMIC * min(values)

    def places(self, count: int) -> list[int]:
        """Return where so many tests stand: after so many epochs, or steps."""
        return [k * (self.steps or 1) for k in range(count)]

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw one line a column and LR: colours tell columns, dashes learning rates."""
        self.ax_ = new_axes(ax, self.size)
        lrs = list(dict.fromkeys(lr for _, lr in self.curves))
        for (name, lr), curve in self.curves.items():
            self.ax_.plot(
                self.places(len(curve)),
                curve,
                DASHES[lrs.index(lr) % len(DASHES)],
                color=COLOURS[name],
                marker="o",
                markersize=3.5,
                linewidth=1.4,
                label=f"{LABELS[name]}, LR {lr:g}",
            )
        longest = max(len(curve) for curve in self.curves.values())
        self.ax_.set_xticks(self.places(longest)[:: max(1, longest // 10)])
        if self.logarithmic:
            self.ax_.set_yscale("log")
        self.ax_.set_xlabel(self.xlabel)
        self.ax_.set_ylabel(self.tested)
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self
