"""LR schedules against the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes, whole_epochs
from trainscope.report.style import series_style
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

    title: ClassVar[str] = "LR schedule"
    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    schedules: Mapping[str, LRSchedule]
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)
    lines_: list[Line2D] = field(init=False, repr=False)

    @classmethod
    def from_schedules(cls, schedules: Mapping[str, LRSchedule]) -> Self:
        """Take schedules by name."""
        return cls(dict(schedules))

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw one line a schedule; each stage is level, each decay a drop."""
        self.ax_ = new_axes(ax, self.size)
        self.lines_ = []
        for index, (name, schedule) in enumerate(self.schedules.items()):
            edges = [stage.start for stage in schedule.stages] + [schedule.total]
            rates = [stage.lr for stage in schedule.stages]
            self.lines_ += self.ax_.plot(
                edges,
                [*rates, rates[-1]],
                drawstyle="steps-post",
                label=name,
                **series_style(index),
            )
        self.ax_.set_yscale("log")
        whole_epochs(self.ax_)
        self.ax_.set_xlabel("epoch")
        self.ax_.set_ylabel("learning rate")
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self
