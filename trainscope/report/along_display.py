"""A probe's number along retraining."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from trainscope.comparison.settings import Setting, group
from trainscope.records import Run
from trainscope.report.layout import HEIGHT, WIDTH, finish, new_axes, whole_epochs
from trainscope.report.series import AXES, Curve, along, axis_of, is_logarithmic, name_of
from trainscope.report.style import styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class AlongDisplay:
    """Any number that its probe wants drawn, as mean JSV, along retraining.

    Attributes:
        curves: One curve a setting that was measured.
        name: The number, in words.
        unit: Its unit.
        order: All settings that are compared, where a figure draws some of them: a setting's place
            there is its colour in every figure.
        logarithmic: Whether its axis is, where all values are above 0.
    """

    size: ClassVar[tuple[float, float]] = (WIDTH, HEIGHT)
    curves: Sequence[Curve]
    name: str
    unit: str = ""
    order: Sequence[str] = ()
    logarithmic: bool = True
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_runs(cls, runs: Iterable[Run], *, probe: str, scalar: str) -> Self:
        """Group runs by setting and take what a probe measured on the way."""
        return cls.from_groups(group(runs), probe=probe, scalar=scalar)

    @classmethod
    def from_groups(
        cls, groups: Iterable[Setting], *, probe: str, scalar: str, order: Sequence[str] = ()
    ) -> Self:
        """Take what a probe measured on the way."""
        found = [along(item, probe, scalar) for item in groups]
        known = [held for held in found if held is not None]
        unit = next((unit for _, unit in known), "")
        name, logarithmic = name_of(probe, scalar), is_logarithmic(probe, scalar)
        return cls([held for held, _ in known], name, unit, order, logarithmic)

    @property
    def title(self) -> str:
        """What the figure shows."""
        return f"{self.name[:1].upper()}{self.name[1:]} along retraining"

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw a line a setting."""
        self.ax_ = new_axes(ax, self.size)
        drawn = styles((held.label for held in self.curves), self.order)
        for held, style in zip(self.curves, drawn, strict=True):
            self.ax_.plot(held.x, held.mean, marker="o", markersize=3, label=held.label, **style)
        above = bool(self.curves) and all(min(held.mean) > 0 for held in self.curves)
        if self.logarithmic and above:
            self.ax_.set_yscale("log")
        whole_epochs(self.ax_)
        self.ax_.set_xlabel(AXES["epoch"])
        self.ax_.set_ylabel(axis_of(self.name, self.unit))
        self.figure_ = finish(self.ax_, self.title if title is None else title)
        return self
