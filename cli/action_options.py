"""Options that say a sparsifying action, and the action they say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import click

from trainscope.cli.options import together
from trainscope.records.action import CRITERIA, CRITERION_SAMPLES

if TYPE_CHECKING:
    from trainscope.sparsify import Action


@dataclass(frozen=True)
class ActionOptions:
    """A sparsifying action as a person types it.

    Attributes:
        ratio: As `Action` has it, like the others.
        ratios: Patterns with their ratios, as `sparsify.ratios.parse` reads them.
        structure: See `Action`.
        scope: See there.
        criterion: See there.
        global_ranking: See there.
        heads: See there.
        blocks: See there.
        criterion_samples: See there.
    """

    ratio: float | None = None
    ratios: str | None = None
    structure: str = "filter"
    scope: str = "inner"
    criterion: str = "l1"
    global_ranking: bool = False
    heads: float | None = None
    blocks: float | None = None
    criterion_samples: int = CRITERION_SAMPLES

    @property
    def chosen(self) -> tuple[str, ...]:
        """The options that are not at their defaults, as they are typed."""
        names = (f.name for f in fields(self) if getattr(self, f.name) != f.default)
        typed = (name.removesuffix("_ranking").replace("_", "-") for name in sorted(names))
        return tuple(f"--{name}" for name in typed)

    @property
    def prunes(self) -> bool:
        """Tell whether they say how much is to go."""
        shares = (self.ratio, self.ratios, self.heads, self.blocks)
        return ":" in self.structure or any(share is not None for share in shares)

    def build(self, seed: int) -> Action:
        """Return the action.

        Raises:
            ActionError: They describe none.
        """
        from trainscope.sparsify import Action
        from trainscope.sparsify.ratios import parse

        given = {each.name: getattr(self, each.name) for each in fields(self)}
        given["ratios"] = {} if self.ratios is None else parse(self.ratios)
        return Action(**given, seed=seed)


def _criteria() -> list[str]:
    """Return the names of all installed criteria, ours first; nothing is imported for them."""
    names = {point.name for point in entry_points(group="trainscope.criteria")}
    return [*CRITERIA, *sorted(names.difference(CRITERIA))]


_DEFAULT = ActionOptions()
action_options = together(
    click.option("--ratio", type=float, help="Share to prune, in (0, 1)."),
    click.option("--ratios", help="Shares by layer name: 'layer[1-3]*conv[12]=0.6,layer4*=0.21'."),
    click.option(
        "--structure",
        default=_DEFAULT.structure,
        show_default=True,
        help="filter, unstructured, or N:M as 2:4 (2 of every 4 weights stay).",
    ),
    click.option(
        "--scope",
        type=click.Choice(["inner", "all"]),
        default=_DEFAULT.scope,
        show_default=True,
        help="Filters that meet no residual addition, or every coupled group.",
    ),
    click.option(
        "--criterion",
        default=_DEFAULT.criterion,
        show_default=True,
        help=f"What ranks them: {', '.join(_criteria())}; for blocks alone also influence.",
    ),
    click.option(
        "--criterion-samples",
        type=click.IntRange(min=1),
        default=_DEFAULT.criterion_samples,
        show_default=True,
        help="Training samples that a criterion which needs data is told of.",
    ),
    click.option(
        "--global",
        "global_ranking",
        is_flag=True,
        help="Rank across layers, not within each.",
    ),
    click.option("--heads", type=float, help="Share of the heads of every attention to cut out."),
    click.option(
        "--blocks", type=float, help="Share of every list of residual blocks to take out."
    ),
)
"""What describes a sparsifying action."""
