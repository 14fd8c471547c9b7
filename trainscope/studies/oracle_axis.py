"""Combinations of filters as the actions of a study: an oracle's candidates, planned as a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainscope.errors import StudyError, about
from trainscope.networks import Network
from trainscope.networks.copies import whole_copy
from trainscope.sparsify import Action
from trainscope.sparsify.inner import inner, with_first
from trainscope.sparsify.ratios import to_prune
from trainscope.studies.combinations import all_of, check_counts, some_of

LONGEST = 24
"""Characters of a name that says which filters stay; a candidate of more is named by its number."""


@dataclass(frozen=True)
class OracleActions:
    """Which combinations of filters a study tries, each of them an action.

    Attributes:
        keep: How many filters stay, by layer; combinations of several layers are tried together.
        ratio: Or the share of the filters that goes, of every inner convolution.
        candidates: How many combinations, drawn at random; None tries all: the exact oracle.
        seed: Of the draw.
    """

    keep: Mapping[str, int] = field(default_factory=dict)
    ratio: float | None = None
    candidates: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what tries nothing.

        Raises:
            StudyError: It says no filters, says them twice, or a number is out of range.
        """
        if bool(self.keep) == (self.ratio is not None):
            raise StudyError(
                "an oracle says which filters are tried: give keep, like { conv1 = 2 }, or ratio"
            )
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise StudyError(
                f"the ratio is {self.ratio:g}: give a share between 0 and 1, like 0.5",
                field=("ratio",),
            )
        if self.candidates is not None and self.candidates < 2:
            raise StudyError(
                f"{self.candidates} candidates cannot be compared: give 2 or more",
                field=("candidates",),
            )
        if self.seed < 0:
            raise StudyError(f"the seed {self.seed} is below 0", field=("seed",))

    def actions(self, network: Network) -> list[tuple[str, Action]]:
        """Return every candidate of a network by name; its weights do not matter.

        Raises:
            ActionError: A layer is not there, or so many filters cannot stay.
        """
        keep = self.keep or self._of_all(network)
        cutter = with_first(network.module, network.inputs)
        counts = list(keep.values())
        with about("keep" if self.keep else "ratio"):
            layers = [cutter.candidate(name) for name in keep]
            if len({layer.name for layer in layers}) < len(layers):
                raise StudyError(f"{', '.join(keep)} go together: name one of them in keep")
            check_counts(layers, counts)
        if self.candidates is None:
            chosen = list(all_of(layers, counts))
        else:
            chosen = some_of(layers, counts, self.candidates, self.seed)
        named = []
        for place, kept in enumerate(chosen):
            stay = {layer.name: each for layer, each in zip(layers, kept, strict=True)}
            name = " ".join(f"{layer}:{','.join(map(str, each))}" for layer, each in stay.items())
            short = name if len(name) <= LONGEST else f"candidate {place + 1}"
            named.append((short, Action(kept=stay)))
        return named

    def _of_all(self, network: Network) -> dict[str, int]:
        """Return how many filters of every inner convolution stay under the ratio."""
        assert self.ratio is not None
        found = inner(whole_copy(network.module), network.inputs).candidates
        return {each.name: each.count - to_prune(each.count, self.ratio) for each in found}
