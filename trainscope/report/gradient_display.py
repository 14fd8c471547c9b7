"""How long the gradient is, layer by layer, before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Self

from trainscope.records import Diagnosis
from trainscope.report.layout import WIDTH, finish, new_axes, spaced, tidy
from trainscope.report.style import COLOURS, LABELS, drawn_from, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"before": "o", "after": "s", "recalibrated": "^", "alone": "o"}
WEIGHTS, NORMS = "weights", "norms"
PANELS = {WEIGHTS: "weights", NORMS: "normalisation and biases"}
NAMED_NORMS = re.compile(
    r"(^|[._])(bn|norm|ln|gn|layernorm|batchnorm|groupnorm|bias)\w*$|(downsample|shortcut)\.1$",
    re.IGNORECASE,
)
"""Names of normalisation layers, for a Diagnosis that does not say what its layers are."""
ROW, TALLEST = 0.15, 6.6
"""Inches that a named row needs, and of all rows of a figure: with more, only stages are named."""
FRAME, BETWEEN = 1.2, 2.0
"""Inches of all that is no row; rows between the panels."""
LONGEST = 60
"""Letters of a name; of a longer one the middle is left out."""


@dataclass
class GradientDisplay:
    """Gradient norms per layer: weights above, layers of normalisation and lone biases below.

    Attributes:
        norms: (layer names, norms) by column, in the network's order.
        kinds: WEIGHTS or NORMS by layer; by its name where a layer is missing.
        unit: Of the norms.
        norms_ax_: The panel below; None where all layers are of one kind.
    """

    title: ClassVar[str] = "Gradient norm by layer, input to output"
    norms: Mapping[str, tuple[Sequence[str], Sequence[float | None]]]
    kinds: Mapping[str, str] = field(default_factory=dict)
    unit: str = "nats/weight"
    ax_: Axes = field(init=False, repr=False)
    norms_ax_: Axes | None = field(init=False, repr=False, default=None)
    figure_: Figure = field(init=False, repr=False)

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis) -> Self:
        """Take the norms from a Diagnosis whose gradient was measured.

        Raises:
            RecordError: It was not; the message says why.
        """
        columns = drawn_from(diagnosis, "gradient", "layer_norms")
        kinds: dict[str, str] = {}
        for m in columns.values():
            kinds |= dict(zip(m.arrays["layers"], m.arrays.get("layer_kinds", ()), strict=False))
        return cls(
            {n: (m.arrays["layers"], m.arrays["layer_norms"]) for n, m in columns.items()},
            kinds,
            unit_of(columns, "norm", "nats/weight"),
        )

    @property
    def panels(self) -> dict[str, list[str]]:
        """Return the layers by their kind, in the network's order; a kind without any is left out.

        Only layers with a norm above 0 in one of the columns are drawn.
        """
        names = dict.fromkeys(
            name
            for layers, values in self.norms.values()
            for name, value in zip(layers, values, strict=True)
            if value is not None and value > 0
        )
        order = list(dict.fromkeys(name for layers, _ in self.norms.values() for name in layers))
        found: dict[str, list[str]] = {WEIGHTS: [], NORMS: []}
        for name in order:
            if name in names:
                found[self._kind(name)].append(name)
        return {kind: held for kind, held in found.items() if held}

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, inches: as high as the rows need, up to a page."""
        rows = sum(len(held) + BETWEEN for held in self.panels.values())
        return WIDTH, FRAME + min(max(rows * ROW, 1.4), TALLEST)

    def plot(self, ax: Axes | None = None, *, title: str | None = None) -> Self:
        """Draw a row a layer, input on top, on a logarithmic axis."""
        self.ax_ = new_axes(ax, self.size)
        panels = self.panels
        drawn = _split(self.ax_, [len(held) + BETWEEN for held in panels.values()])
        for (kind, names), part in zip(panels.items(), drawn, strict=True):
            self._panel(part, names)
            if len(panels) > 1:
                part.set_ylabel(PANELS[kind])
        drawn[-1].set_xlabel(f"gradient norm [{self.unit}]")
        for names, part in zip(panels.values(), drawn, strict=True):
            _name_rows(part, names)
        self.norms_ax_ = drawn[1] if len(drawn) > 1 else None
        shown = self.title if title is None else title
        self.figure_ = finish(self.ax_, shown, below=drawn[1:])
        return self

    def _kind(self, name: str) -> str:
        known = self.kinds.get(name)
        if known in (WEIGHTS, NORMS):
            return known
        return NORMS if NAMED_NORMS.search(name) else WEIGHTS

    def _panel(self, ax: Axes, names: Sequence[str]) -> None:
        place = {name: index for index, name in enumerate(names)}
        ax.set_xscale("log")
        for column, (layers, norms) in self.norms.items():
            points = [
                (value, place[name])
                for name, value in zip(layers, norms, strict=True)
                if name in place and value is not None and value > 0
            ]
            ax.plot(
                [value for value, _ in points],
                [row for _, row in points],
                color=COLOURS[column],
                marker=MARKERS[column],
                markersize=4,
                linewidth=0.8,
                label=LABELS[column],
            )
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_yticks([])


def _split(ax: Axes, shares: Sequence[float]) -> list[Axes]:
    """Return axes below one another in the place of one, which becomes the upper one."""
    if len(shares) < 2:
        return [ax]
    figure = ax.get_figure(root=False)
    spec = ax.get_subplotspec()
    assert figure is not None
    if spec is not None:
        parts = spec.subgridspec(2, 1, height_ratios=list(shares), hspace=0.06)
        ax.set_subplotspec(parts[0])
        below = figure.add_subplot(parts[1], sharex=ax)
    else:  # axes that were put somewhere by hand
        box = ax.get_position()
        high = 0.94 * box.height * shares[1] / sum(shares)
        below = figure.add_axes((box.x0, box.y0, box.width, high), sharex=ax)
        ax.set_position(
            (box.x0, box.y0 + high + 0.06 * box.height, box.width, 0.94 * box.height - high)
        )
    ax.tick_params(labelbottom=False)
    tidy(below)
    return [ax, below]


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name every layer where there is room, else the first layer of every stage."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    rows = ax.get_window_extent().height / figure.dpi / ROW
    least = len(names) / max(rows, 1.0)
    every = list(enumerate(_shortened(name) for name in names))
    labels = every if least <= 1.05 else spaced(_stages(names, rows), len(names), least)
    ax.set_yticks(
        [row for row, _ in labels], [name for _, name in labels], fontsize=7, parse_math=False
    )


def _stages(names: Sequence[str], most: float) -> list[tuple[int, str]]:
    """Return the first row and the name of every stage, the finest stages that fit.

    A stage is a run of layers that share the first parts of their names.
    """
    parts = [name.split(".") for name in names]
    found: list[tuple[int, str]] = []
    for depth in range(1, max(map(len, parts)) + 1):
        shared = [".".join(part[:depth]) for part in parts]
        firsts = groupby(range(len(names)), key=shared.__getitem__)
        stages = [(next(rows), _shortened(name)) for name, rows in firsts]
        if found and len(stages) > most:
            break
        found = stages
    return found


def _shortened(name: str) -> str:
    """Leave out the middle of a name that is longer than LONGEST: its end tells it apart."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST // 3]}…{name[-(LONGEST - LONGEST // 3 - 1) :]}"
