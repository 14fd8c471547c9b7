"""The architecture of a bare state dict, found by the names and shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from trainscope.errors import CheckpointError
from trainscope.networks import registry
from trainscope.networks.fit import Fit, fit
from trainscope.networks.meta import Shapes
from trainscope.networks.strangers import told_by_names

MOSTLY = 0.9
"""So much of a network's tensors must be there for it to be named as the one that is meant."""


@dataclass(frozen=True)
class Match:
    """What tensors were recognised as.

    Attributes:
        fit: How they fit the architecture chosen.
        also: Names of others that they fit as well.
    """

    fit: Fit
    also: tuple[str, ...] = ()


def recognise(found: Shapes) -> Match:
    """Find the architecture that tensors belong to, on the meta device.

    A dense network comes before a narrower (pruned) one, and ours before torchvision's, which is
    not imported if one of ours fits. Of several that the tensors can be a pruned form of, the
    smallest is taken.

    Raises:
        CheckpointError: No architecture fits; the nearest is named, and what differs.
    """
    tried: list[Fit] = []
    for group in registry.groups():
        fits = [fit(each, found) for each in group if each.may_be(found)]
        exact = [each for each in fits if each.exact]
        if exact:
            return _match(exact)
        tried += fits
    narrower = sorted((each for each in tried if each.narrower), key=lambda each: each.parameters)
    if narrower:
        return _match(narrower)
    raise CheckpointError(_unknown(tried, found))


def _match(fits: list[Fit]) -> Match:
    return Match(fits[0], tuple(each.architecture.name for each in fits[1:]))


def _unknown(tried: list[Fit], found: Shapes) -> str:
    say = "say which it is with --arch NAME or --model package.module:factory"
    told = told_by_names(found)
    if told:
        return f"no known architecture fits: {told}"
    if not tried:
        first = next(iter(found))
        return (
            f"no known architecture has tensors of such names (the first of {len(found)} is "
            f"'{first}'{_but_for(found)}); {say}, or where transformers made it, give the folder "
            "that has its config.json"
        )
    nearest = max(tried, key=_agreement)
    return f"no known architecture fits; the nearest differs: {nearest.difference}; {say}"


def _but_for(found: Shapes) -> str:
    """Say what tensor is missing, where the rest is a known architecture's."""
    near = [
        fit(each, found)
        for group in registry.groups()
        for each in group
        if sum(name not in found for name in each.marker) == 1 < len(each.marker)
    ]
    nearest = max(near, key=_agreement, default=None)
    if nearest is None or _agreement(nearest) < MOSTLY:
        return ""
    architecture = nearest.architecture
    missing = next(name for name in architecture.marker if name not in found)
    return f"; of a {architecture.name} '{missing}' is missing"


def _agreement(each: Fit) -> float:
    """Return the share of all names, in file or network, that are in both and of one shape."""
    same = sum(each.found.get(name) == shape for name, shape in each.dense.items())
    return same / len(each.dense.keys() | each.found.keys())
