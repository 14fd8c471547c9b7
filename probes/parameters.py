"""Which parameters a probe measures: trainable, used by the loss, and of those the survivors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainscope.sparsify.masks import masks_of

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
    """

    names: tuple[str, ...]
    tensors: tuple[nn.Parameter, ...]
    masks: tuple[Tensor | None, ...]
    frozen: tuple[str, ...]
    unused: tuple[str, ...] = ()

    @property
    def counts(self) -> list[int]:
        """Count the surviving weights of each parameter."""
        pairs = zip(self.tensors, self.masks, strict=True)
        return [t.numel() if m is None else int(m.sum()) for t, m in pairs]

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

    def flatten(self, values: Sequence[Tensor]) -> Tensor:
        """Return the survivors' entries of tensors shaped like the parameters, as [survivors]."""
        pairs = zip(values, self.masks, strict=True)
        return torch.cat([v.reshape(-1) if m is None else v[m] for v, m in pairs])

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Return what `flatten` took, zero where masked, in the parameters' own dtype."""
        out = []
        pieces = torch.split(vector, self.counts)
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
        reached = _leaves(loss)
        used = [id(tensor) in reached for tensor in self.tensors]
        rows = [row for row, keep in zip(self._rows(), used, strict=True) if keep]
        unused = tuple(name for name, keep in zip(self.names, used, strict=True) if not keep)
        names, tensors, masks = zip(*rows, strict=True) if rows else ((), (), ())
        return Measured(names, tensors, masks, self.frozen, self.unused + unused)

    def some(self, places: Sequence[int]) -> Measured:
        """Return the same of some of the parameters."""
        rows = self._rows()
        names, tensors, masks = zip(*(rows[place] for place in places), strict=True)
        return Measured(names, tensors, masks, self.frozen, self.unused)

    def notes(self) -> dict[str, str]:
        """Return what was left out, for a Measurement's notes."""
        out = {}
        if self.frozen:
            out["frozen"] = "left out, for they are frozen: " + _few(self.frozen)
        if self.unused:
            out["unused"] = "left out, for the loss does not use them: " + _few(self.unused)
        masked = sum(tensor.numel() for tensor in self.tensors) - self.survivors
        if masked:
            out["masked"] = f"{masked} masked weights, left out; {self.survivors} survive"
        return out

    def _rows(self) -> list[tuple[str, nn.Parameter, Tensor | None]]:
        return list(zip(self.names, self.tensors, self.masks, strict=True))


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def measured(network: nn.Module) -> Measured:
    """Return the trainable parameters of a network with their masks."""
    masks = masks_of(network)
    trainable = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    return Measured(
        names=tuple(name for name, _ in trainable),
        tensors=tuple(parameter for _, parameter in trainable),
        masks=tuple(masks.get(name) for name, _ in trainable),
        frozen=tuple(name for name, p in network.named_parameters() if not p.requires_grad),
    )


def _leaves(result: Tensor) -> set[int]:
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
        waiting += [parent for parent, _ in node.next_functions]
    return found
