"""Which parameters a probe measures: trainable, used by the loss, and of those the survivors."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from trainscope.errors import ProbeError
from trainscope.probes.processes.exchange import SpreadParameter, edges
from trainscope.probes.processes.ranks import ALONE, Ranks
from trainscope.probes.processes.shards import local_masks, parts_of
from trainscope.probes.subject.streamed import squared

SHOWN = 8
"""Names that a note writes out."""


@dataclass(frozen=True)
class Measured:
    """The parameters that a probe differentiates by.

    Attributes:
        names: Their names.
        tensors: The parameters themselves.
        masks: For each, True where the weight survives, or None where all do.
        frozen: Names left out because `requires_grad` is False.
        unused: Names left out because the loss does not depend on them.
        parts: How each is spread over processes, so that the tensors and masks are local parts;
            empty where none is.
        survived: Surviving weights of each in all processes together; empty likewise.
    """

    names: tuple[str, ...]
    tensors: tuple[nn.Parameter, ...]
    masks: tuple[Tensor | None, ...]
    frozen: tuple[str, ...]
    unused: tuple[str, ...] = ()
    parts: tuple[SpreadParameter, ...] = ()
    survived: tuple[int, ...] = ()

    @property
    def counts(self) -> list[int]:
        """Count the surviving weights of each parameter."""
        return list(self.survived) if self.parts else self.held

    @property
    def held(self) -> list[int]:
        """Count the surviving weights of each parameter in this process."""
        pairs = zip(self.tensors, self.masks, strict=True)
        return [t.numel() if m is None else int(m.sum()) for t, m in pairs]

    @property
    def ranks(self) -> Ranks:
        """Return the processes over which parameters are spread, or this one alone."""
        return self.parts[0].ranks if self.parts else ALONE

    def squares(self, values: Sequence[Tensor]) -> Tensor:
        """Return the squared norm of each of tensors shaped like the parameters, float64."""
        found = torch.stack([squared(value) for value in values])
        if self.parts:
            holders = [part.holders for part in self.parts]
            found = self.ranks.sum(found / found.new_tensor(holders))
        return found

    @property
    def survivors(self) -> int:
        """Count the weights measured."""
        return sum(self.counts)

    @property
    def layers(self) -> dict[str, list[int]]:
        """Return the positions of each layer's parameters by the layer's name, in order."""
        found: dict[str, list[int]] = {}
        for position, name in enumerate(self.names):
            layer, _, leaf = name.rpartition(".")
            found.setdefault(layer or leaf, []).append(position)
        return found

    def keep(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return tensors shaped like the parameters with the masked entries set to zero."""
        pairs = zip(values, self.masks, strict=True)
        return [value if mask is None else value * mask for value, mask in pairs]

    def whole(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return tensors shaped like the parameters whole, from their local parts."""
        if not self.parts:
            return list(values)
        return [part.whole(value) for part, value in zip(self.parts, values, strict=True)]

    def flatten(self, values: Sequence[Tensor]) -> Tensor:
        """Return the survivors' entries of tensors shaped like the parameters, as [survivors].

        Where parameters are spread, the local ones. An entry that k processes hold is divided by
        the root of k, so that inner products of what they hold add up to those of whole vectors.
        """
        found = self.entries(values)
        return found / self._roots.to(found) if self.parts else found

    def entries(self, values: Sequence[Tensor]) -> Tensor:
        """Return the survivors' entries as they are, local ones where parameters are spread."""
        pairs = zip(values, self.masks, strict=True)
        return torch.cat([v.reshape(-1) if m is None else v[m] for v, m in pairs])

    def once(self, entries: Tensor) -> Tensor:
        """Return local entries so that their sums over processes count each weight once."""
        return entries / self._roots.to(entries).square() if self.parts else entries

    @cached_property
    def _roots(self) -> Tensor:
        roots = torch.tensor([part.holders for part in self.parts], dtype=torch.float64).sqrt()
        if bool((roots == 1).all()):
            return roots[:1]
        device = self.tensors[0].device
        return roots.repeat_interleave(torch.tensor(self.held)).to(device)

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Return what `flatten` took, zero where masked, in the parameters' own dtype."""
        out = []
        if self.parts:
            vector = vector * self._roots.to(vector)
        pieces = torch.split(vector, self.held)
        for tensor, mask, piece in zip(self.tensors, self.masks, pieces, strict=True):
            piece = piece.to(tensor.dtype)
            if mask is None:
                out.append(piece.view(tensor.shape))
            else:
                full = torch.zeros_like(tensor)
                full[mask] = piece
                out.append(full)
        return out

    def used_by(self, loss: Tensor) -> Measured:
        """Return the same without the parameters that a loss (graph kept) does not depend on."""
        reached = leaves_of(loss)
        rows = zip(self.names, self.tensors, strict=True)
        return self.named([name for name, tensor in rows if id(tensor) in reached])

    def named(self, names: Collection[str]) -> Measured:
        """Return the same with some of the parameters alone, which are those that a loss uses."""
        kept = [i for i, name in enumerate(self.names) if name in names]
        return replace(
            self,
            names=tuple(self.names[i] for i in kept),
            tensors=tuple(self.tensors[i] for i in kept),
            masks=tuple(self.masks[i] for i in kept),
            unused=self.unused + tuple(name for name in self.names if name not in names),
            parts=tuple(self.parts[i] for i in kept if self.parts),
            survived=tuple(self.survived[i] for i in kept if self.survived),
        )

    def some(self, places: Sequence[int]) -> Measured:
        """Return the same of some of the parameters."""
        return replace(self.named([self.names[place] for place in places]), unused=self.unused)

    def notes(self) -> dict[str, str]:
        """Return what was left out, for a Measurement's notes."""
        out = {}
        if self.frozen:
            out["frozen"] = "left out, for they are frozen: " + _few(self.frozen)
        if self.unused:
            out["unused"] = "left out, for the loss does not use them: " + _few(self.unused)
        whole = self.parts or self.tensors
        masked = sum(math.prod(each.shape) for each in whole) - self.survivors
        if masked:
            out["masked"] = f"{masked} masked weights, left out; {self.survivors} survive"
        return out


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def measured(network: nn.Module) -> Measured:
    """Return the trainable parameters of a network with their masks.

    All processes call it where parameters are spread.

    Raises:
        ProbeError: A weight is complex.
    """
    masks, parts = local_masks(network), parts_of(network)
    trainable = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    made = next((name for name, p in trainable if p.is_complex()), None)
    if made is not None:
        raise ProbeError(
            f"the parameter '{made}' is complex, and what is measured of weights is of real ones: "
            "hold its real and imaginary parts as one real parameter, and make the complex one of "
            "them in forward (torch.view_as_complex)"
        )
    found = Measured(
        names=tuple(name for name, _ in trainable),
        tensors=tuple(parameter for _, parameter in trainable),
        masks=tuple(masks.get(name) for name, _ in trainable),
        frozen=tuple(name for name, p in network.named_parameters() if not p.requires_grad),
    )
    if not parts or not trainable:
        return found
    own = [parts[name] for name in found.names]
    holders = torch.tensor([part.holders for part in own], dtype=torch.float64)
    counts = own[0].ranks.sum(torch.tensor(found.held, dtype=torch.float64) / holders)
    return replace(found, parts=tuple(own), survived=tuple(map(round, counts.tolist())))


def leaves_of(result: Tensor) -> set[int]:
    """Return the ids of the leaf tensors that a result's graph reaches; no backward pass."""
    found: set[int] = set()
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.add(id(leaf))
        waiting += edges(node)
    return found
