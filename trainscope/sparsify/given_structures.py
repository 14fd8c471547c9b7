"""Which blocks and attention heads somebody else took out of a network, found by comparison."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from trainscope.networks.depth import block_lists
from trainscope.networks.heads import is_count, own_numbers
from trainscope.records import LayerChange


def missing_blocks(base: nn.Module, pruned: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the places of the blocks that a pruned network has not, by the list in the dense one.

    Blocks are matched in order, each with the dense block whose weights it has most of; widths may
    differ, and weights that were retrained since are still nearest to their own.
    """
    found = {}
    modules = dict(pruned.named_modules())
    for name, keys in block_lists(base).items():
        other = modules.get(name)
        children = [] if other is None else list(other.children())
        if not 0 < len(children) < len(keys):
            continue
        dense = list(base.get_submodule(name).children())
        distances = torch.tensor([[_distance(b, p) for b in dense] for p in children])
        kept = _in_order(distances)
        found[name] = tuple(place for place in range(len(dense)) if place not in kept)
    return found


def _distance(dense: nn.Module, other: nn.Module) -> float:
    """Return how far the weights of two blocks are from each other, over those of one shape."""
    theirs = dict(other.named_parameters())
    total = shared = 0.0
    for name, own in dense.named_parameters():
        if name in theirs and theirs[name].shape == own.shape:
            difference = own.detach().double() - theirs[name].detach().double()
            total += float(difference.square().sum())
            shared += own.numel()
    return total / shared if shared else 0.0


def _in_order(distances: Tensor) -> list[int]:
    """Return for each row [rows, columns] a column, rising, so that the sum is the least."""
    rows, columns = distances.shape
    best = torch.full((rows + 1, columns + 1), torch.inf, dtype=torch.float64)
    best[0] = 0.0
    for row in range(1, rows + 1):
        for column in range(row, columns + 1):
            taken = best[row - 1, column - 1] + distances[row - 1, column - 1]
            best[row, column] = torch.minimum(best[row, column - 1], taken)
    chosen, column = [], columns
    for row in range(rows, 0, -1):
        while best[row, column - 1] == best[row, column]:
            column -= 1
        column -= 1
        chosen.append(column)
    return chosen[::-1]


def heads_lost(base: nn.Module, pruned: nn.Module) -> tuple[LayerChange, ...]:
    """Return the attentions that have fewer heads than in the dense network.

    An attention is a module whose own numbers count heads, or which is called one. It has lost the
    share of its heads that its matrices have lost of their rows.
    """
    found: list[LayerChange] = []
    theirs = dict(pruned.named_parameters())
    for name, module in reversed(list(base.named_modules())):
        if any(each.name.startswith(f"{name}.") or not name for each in found):
            continue
        counts = {value for key, value in own_numbers(module) if is_count(key)}
        config = vars(module).get("config")
        told = getattr(config, "num_attention_heads", None)
        if type(told) is int and (counts or "attention" in type(module).__name__.lower()):
            counts.add(told)
        shares = set()
        for leaf, parameter in module.named_parameters():
            other = theirs.get(f"{name}.{leaf}".lstrip("."), parameter)
            pairs = zip(parameter.shape, other.shape, strict=False)
            shares |= {Fraction(new, old) for old, new in pairs if new < old}
        share = shares.pop() if len(shares) == 1 else None
        heads = max(counts, default=0)
        if share is not None and heads and heads * share % 1 == 0:
            found.append(LayerChange(name, heads, int(heads * share)))
    return tuple(reversed(found))
