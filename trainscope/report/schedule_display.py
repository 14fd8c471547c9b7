"""LR schedules against the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from trainscope.report.style import DASHES, new_axes, tidy
from trainscope.training.schedule import LRSchedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


@dataclass
class ScheduleDisplay:
    """LR schedules as steps on a logarithmic axis.

    Attributes:
        schedules: By the name that the legend gives them.
    """

    schedules: Mapping[str, LRSchedule]
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)
    lines_: list[Line2D] = field(init=False, repr=False)

    @classmethod
    def from_schedules(cls, schedules: Mapping[str, LRSchedule]) -> Self:
        """Take schedules by name."""
        return cls(dict(schedules))

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw one line a schedule; each stage is level, each decay a drop."""
        self.ax_ = new_axes(ax)
        self.lines_ = []
        for index, (name, schedule) in enumerate(self.schedules.items()):
            edges = [stage.start for stage in schedule.stages] + [schedule.total]
            rates = [stage.lr for stage in schedule.stages]
            self.lines_ += self.ax_.plot(
                edges,
                [*rates, rates[-1]],
                drawstyle="steps-post",
                linestyle=DASHES[index % len(DASHES)],
                label=name,
            )
        self.ax_.set_yscale("log")
        self.ax_.set_xlabel("epoch")
        self.ax_.set_ylabel("learning rate")
        self.ax_.legend(frameon=False)
        tidy(self.ax_)
        self.figure_ = self.ax_.get_figure(root=True)  # type: ignore[assignment]
        return self
