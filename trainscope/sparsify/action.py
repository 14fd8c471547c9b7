"""What is asked of the sparsifying action, and the checks that need no network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from trainscope.errors import ActionError, Field, about
from trainscope.records.action import CRITERION_SAMPLES
from trainscope.sparsify.criteria import Criterion, as_criterion
from trainscope.sparsify.criteria.criterion import (
    Allotting,
    check_unit,
    is_comparable,
    ranks_of,
    rounds_of,
)
from trainscope.sparsify.statistics import FROM_DATA, Statistic, Unit

SCOPES = ("inner", "all")
INFLUENCE = "influence"
"""Ranks whole blocks by what they do to their inputs, and nothing else."""
_N_M = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Action:
    """One sparsifying action, as asked.

    Attributes:
        structure: "filter" takes filters out (small-dense); "unstructured" masks single weights;
            "N:M", written like "2:4", keeps N non-zero weights of every M consecutive ones.
        ratio: The share to prune, in (0, 1): of the filters of every layer in scope, or of its
            weights. None where `ratios` say it, and for N:M, which implies 1 - N/M.
        ratios: Shares by pattern of layer name (`*`, `?`, `[abc]`), in order; the last pattern
            that matches wins, and 0 spares the layer. `ratio` holds where none matches; without
            a `ratio` such layers are spared.
        scope: "inner" or "all"; what each takes is in `docs/sparsify.md`.
        criterion: The name of a criterion (`trainscope.criteria`), or one as an object.
        global_ranking: True ranks all layers in scope together instead of each by itself; some
            criteria do so of their own (`ranks_together`).
        seed: The seed of a criterion that draws, and of the samples that one is told of.
        heads: The share of the attention heads of every attention to cut out, in (0, 1).
        blocks: The share of the residual blocks of every list of blocks to take out, in (0, 1).
        kept: The filters that stay, as indices, by layer: nothing is ranked, and other layers are
            left alone. The first convolution may be among the layers.
        criterion_samples: How many training samples a criterion that needs data is told of.

    Raises:
        ActionError: On construction, where a field is out of range or two contradict.
    """

    structure: str = "filter"
    ratio: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    scope: str = "inner"
    criterion: str | Criterion = "l1"
    global_ranking: bool = False
    seed: int = 0
    heads: float | None = None
    blocks: float | None = None
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    criterion_samples: int = CRITERION_SAMPLES

    def __post_init__(self) -> None:
        """Refuse what no network could be given."""
        if self.structure not in ("filter", "unstructured") and self.n_m is None:
            raise ActionError(
                f"no structure is named '{self.structure}'; choose filter, unstructured, or N:M "
                "with N below M, like 2:4",
                field=("structure",),
            )
        if self.scope not in SCOPES:
            said = f"no scope is named '{self.scope}'; choose inner or all"
            raise ActionError(said, field=("scope",))
        if self.criterion != INFLUENCE:
            with about("criterion"):
                object.__setattr__(self, "_by", as_criterion(self.criterion))
        if self.criterion_samples < 1:
            raise ActionError(
                f"{self.criterion_samples} samples tell a criterion nothing; give at least 1 "
                "(--criterion-samples)",
                field=("criterion_samples",),
            )
        self._check_numbers()
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise ActionError(
                f"the ratio is {self.ratio:g}; give a share between 0 and 1, like 0.9",
                field=("ratio",),
            )
        for pattern, ratio in self.ratios.items():
            if not 0 <= ratio < 1:
                raise ActionError(
                    f"the ratio of '{pattern}' is {ratio:g}; give a share from 0 up to, not with, "
                    "1",
                    field=("ratios", pattern),
                )
        self._check_parts()
        if self.kept:
            self._check_kept()
        elif self.n_m:
            self._check_n_m()
        elif self.prunes_units or (self.heads is None and self.blocks is None):
            self._check_shares()
        if self.criterion != INFLUENCE:
            with about("criterion"):
                self._check_criterion()

    @property
    def by(self) -> Criterion:
        """The criterion as an object; "influence" has none."""
        found: Criterion = self._by  # type: ignore[attr-defined]
        return found

    @property
    def criterion_name(self) -> str:
        """The criterion's name."""
        return self.criterion if isinstance(self.criterion, str) else self.criterion.name

    @property
    def needs(self) -> frozenset[Statistic]:
        """What the criterion is told beside the weights."""
        return frozenset() if self.criterion == INFLUENCE else frozenset(self.by.needs)

    @property
    def needs_data(self) -> bool:
        """Say whether the criterion needs training samples."""
        return not FROM_DATA.isdisjoint(self.needs)

    @property
    def rounds(self) -> int:
        """In how many rounds filters or weights go."""
        if self.criterion == INFLUENCE or self.n_m is not None or not self.prunes_units:
            return 1
        return rounds_of(self.by)

    @property
    def ranks_together(self) -> bool:
        """Say whether all layers are ranked together: asked for, or as the criterion's authors do.

        Theirs holds for single weights alone, and where no ratios are given layer by layer.
        """
        if self.global_ranking or self.criterion == INFLUENCE:
            return self.global_ranking
        uniform = self.ratio is not None and not any(self.ratios.values())
        return self.structure == "unstructured" and uniform and ranks_of(self.by) == "network"

    @property
    def prunes_units(self) -> bool:
        """Say whether filters, hidden units or weights go too, beside heads and blocks."""
        shares = self.ratio is not None or bool(self.ratios)
        return shares or bool(self.kept) or self.n_m is not None

    @property
    def n_m(self) -> tuple[int, int] | None:
        """Return N and M (N weights of every M are kept), None for another structure."""
        match = _N_M.fullmatch(self.structure)
        if match is None:
            return None
        n, m = int(match[1]), int(match[2])
        return (n, m) if 0 < n < m else None

    def _check_numbers(self) -> None:
        shares: dict[Field, tuple[str, object]] = {
            (name,): (name, getattr(self, name)) for name in ("ratio", "heads", "blocks")
        }
        for pattern, ratio in self.ratios.items():
            shares["ratios", pattern] = f"ratio of '{pattern}'", ratio
        for where, (what, share) in shares.items():
            if share is not None and (isinstance(share, bool) or not isinstance(share, Real)):
                said = f"the {what} is {share!r}, and not a number: give one like 0.9"
                raise ActionError(said, field=where)

    def _check_parts(self) -> None:
        for what, share in (("heads", self.heads), ("blocks", self.blocks)):
            if share is None:
                continue
            if not 0 < share < 1:
                raise ActionError(
                    f"the share of {what} is {share:g}; give one between 0 and 1, like 0.25",
                    field=(what,),
                )
            if self.structure != "filter":
                raise ActionError(
                    f"{what} are cut out, which goes with the structure filter and not with "
                    f"{self.structure}: do one after the other",
                    field=(what,),
                )
        if self.criterion == INFLUENCE and (self.prunes_units or self.heads is not None):
            raise ActionError(
                "the criterion influence ranks whole blocks alone; prune the blocks first, and "
                "units or heads with l1, l2 or random afterwards",
                field=("criterion",),
            )
        if self.criterion == INFLUENCE and self.blocks is None:
            raise ActionError(
                "the criterion influence ranks whole blocks; say how many with blocks",
                field=("criterion",),
            )

    def _check_kept(self) -> None:
        shares = self.ratio is not None or self.ratios or self.heads is not None
        if shares or self.blocks is not None or self.structure != "filter" or self.global_ranking:
            raise ActionError(
                "the filters that stay are named, so nothing else can be asked for: leave ratios, "
                "heads, blocks, other structures and the global ranking out",
                field=("kept",),
            )
        for layer, places in self.kept.items():
            if not places or len(set(places)) < len(places) or min(places) < 0:
                raise ActionError(
                    f"the filters of {layer} that stay are {list(places)}: name one or more, each "
                    "once, from 0 on",
                    field=("kept", layer),
                )

    def _check_criterion(self) -> None:
        if self.structure != "filter":
            check_unit(self.by, Unit.WEIGHTS)
        if self.structure == "filter" and (self.prunes_units or self.heads is not None):
            check_unit(self.by, Unit.FILTERS)
        if self.blocks is not None:
            check_unit(self.by, Unit.BLOCKS)
        name = self.by.name
        if self.global_ranking and not is_comparable(self.by):
            raise ActionError(
                f"the scores of {name} do not compare across layers; leave the global ranking "
                "(--global) out, or choose another criterion"
            )
        if isinstance(self.by, Allotting) and (self.n_m is not None or any(self.ratios.values())):
            given = self.structure if self.n_m is not None else "ratios by pattern"
            raise ActionError(
                f"{name} sets the ratio of every layer itself, and {given} "
                f"{'sets' if self.n_m is not None else 'set'} it too; use l1 with "
                f"{'it' if self.n_m is not None else 'them'}, or give {name} one ratio"
            )
        if isinstance(self.by, Allotting) and self.ratio is None:
            raise ActionError(f"{name} needs one ratio for all layers; give it")

    def _check_n_m(self) -> None:
        n, m = self.n_m or (1, 2)
        implied = 1 - n / m
        if self.global_ranking:
            raise ActionError(
                f"{self.structure} keeps {n} of every {m} weights in every layer, so there is "
                "nothing to rank globally; leave the global ranking out",
                field=("global_ranking",),
            )
        shares: dict[Field, float | None] = {("ratio",): self.ratio}
        for pattern, share in self.ratios.items():
            shares["ratios", pattern] = share or None
        for where, ratio in shares.items():
            if ratio is not None and not math.isclose(ratio, implied, abs_tol=1e-3):
                raise ActionError(
                    f"{self.structure} prunes {implied:g} of the weights, which contradicts the "
                    f"ratio {ratio:g}; leave the ratio out",
                    field=where,
                )

    def _check_shares(self) -> None:
        if self.ratio is None and self.ratios and not any(self.ratios.values()):
            raise ActionError(
                "the ratios by pattern are all 0, which spares those layers, and there is no ratio "
                "for the others, so nothing would be pruned; give a ratio above 0",
                field=("ratios",),
            )
        if self.ratio is None and not self.ratios:
            raise ActionError("no ratio is given; give the share to prune, like 0.9")
        if self.global_ranking and self.ratio is None:
            said = "a global ranking needs one ratio for all layers; give it"
            raise ActionError(said, field=("global_ranking",))
        if self.global_ranking and any(self.ratios.values()):
            raise ActionError(
                "a global ranking has one ratio for all layers; of the ratios by pattern only "
                "0, which spares a layer, can stand beside it",
                field=("global_ranking",),
            )
