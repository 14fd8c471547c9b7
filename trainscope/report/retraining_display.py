"""How fast retraining recovers in its first epochs, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from trainscope.records import Diagnosis
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes
from trainscope.report.style import COLOURS, DASHES, LABELS, measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class RetrainingDisplay:
    """Test accuracies of the first epochs of retraining.

    Attributes:
        curves: Accuracies (percent; before the first epoch, then after each) by column and LR.
    """

    title: ClassVar[str] = "First epochs of retraining"
    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    curves: Mapping[tuple[str, float], Sequence[float]]
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis) -> Self:
        """Take the curves from a Diagnosis whose trainability accuracy was measured."""
        columns = measured(diagnosis.probes["trainability_accuracy"], "epoch_accuracies")
        return cls(
            {
                (name, lr): [m.get("start_accuracy") or 0.0, *curve]
                for name, m in columns.items()
                for lr, curve in zip(m.arrays["lrs"], m.arrays["epoch_accuracies"], strict=True)
            }
        )

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw one line a column and LR: colours tell columns, dashes learning rates."""
        self.ax_ = new_axes(ax, self.size)
        lrs = list(dict.fromkeys(lr for _, lr in self.curves))
        for (name, lr), curve in self.curves.items():
            self.ax_.plot(
                range(len(curve)),
                curve,
                DASHES[lrs.index(lr) % len(DASHES)],
                color=COLOURS[name],
                marker="o",
                markersize=3.5,
                linewidth=1.4,
                label=f"{LABELS[name]}, LR {lr:g}",
            )
        longest = max(len(curve) for curve in self.curves.values())
        self.ax_.set_xticks(range(0, longest, max(1, longest // 10)))
        self.ax_.set_xlabel("epoch of retraining (0: not retrained)")
        self.ax_.set_ylabel("top-1 test accuracy [%]")
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self
