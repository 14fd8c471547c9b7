"""A sparsifying action that somebody else did, worked out from the network before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from trainscope.errors import ActionError
from trainscope.networks.copies import whole_copy
from trainscope.networks.cost import flops, parameters
from trainscope.networks.depth import drop
from trainscope.networks.example import Inputs, as_example
from trainscope.networks.linear import is_turned
from trainscope.networks.masks import SUFFIX, mask_parameters, masks_of, own_masks, set_masks
from trainscope.records import ActionRecord, LayerChange
from trainscope.sparsify.act import Sparsified
from trainscope.sparsify.attention import within
from trainscope.sparsify.candidate import some
from trainscope.sparsify.given_structures import heads_lost, missing_blocks
from trainscope.sparsify.removal import percent
from trainscope.sparsify.verify import check_outputs, check_weights, run_before

GIVEN = "given"
_PATTERNS = ((1, 4), (2, 4), (4, 8))
_MOVED = 0.01
"""Above this share of surviving weights that differ, the pruned network was trained since."""


@dataclass(frozen=True)
class _Pair:
    """One weight of both networks; masks are applied.

    Attributes:
        name: The parameter's plain name.
        layer: The layer's name.
        before: The dense weight, in the dtype of the other.
        after: The pruned weight.
        outputs: The axis of the outputs.
        follows: It has an output for each input (depthwise), so it is cut where they are.
    """

    name: str
    layer: str
    before: Tensor
    after: Tensor
    outputs: int = 0
    follows: bool = False

    @property
    def narrower(self) -> bool:
        """Say whether filters are gone."""
        return self.after.shape[self.outputs] < self.before.shape[self.outputs]

    @property
    def zeroed(self) -> int:
        """Count the weights that are zero now and were not; by number where shapes differ."""
        if self.before.shape == self.after.shape:
            return int(((self.after == 0) & (self.before != 0)).sum())
        was = float((self.before == 0).double().mean()) * self.after.numel()
        return max(0, int((self.after == 0).sum()) - round(was))


def given_action(base: nn.Module, pruned: nn.Module, inputs: Inputs) -> Sparsified:
    """Describe what was done to a network by comparing its weights before and after.

    Layers are paired by name. A layer with fewer outputs was cut; weights that are zero now and
    were not were masked, by a mask or without one. A record of it has the structure "given"; its
    scope says "cut", "masked" or both, and its criterion what the weights that are gone show:
    ``smallest |w| in each layer``, ``smallest |w| over all layers``, or ``unknown``.

    Args:
        base: The network before. Not touched.
        pruned: The network after, perhaps retrained. Not touched.
        inputs: The shape of one input, or an example of a call.

    Returns:
        The pruned network as it was given (a copy with masks, which are no part of its state dict,
        where weights are zero without them), the record, and what a person should know: whether
        it was retrained since, and which layers stand in one network alone.

    Raises:
        ActionError: Nothing was pruned, the second network is the larger one, they have no layer
            in common, or their outputs differ in shape.
    """
    check_weights(base)
    check_weights(pruned)
    samples = as_example(inputs).size
    check_outputs(run_before(base, inputs), run_before(pruned, inputs), samples)
    gone = missing_blocks(base, pruned)
    aligned = whole_copy(base) if gone else base
    drop(aligned, gone)
    pairs, notes = _pairs(aligned, pruned)
    heads = heads_lost(aligned, pruned)
    cut = [pair for pair in pairs if pair.narrower and not pair.follows]
    cut = [pair for pair in cut if not any(within(pair.layer, each.name) for each in heads)]
    masked = [pair for pair in pairs if pair.zeroed]
    held = _held(pruned)
    module = _masked(pruned, pairs)
    left, dense = parameters(module), parameters(base)
    grown = next((p for p in pairs if _grew(p)), None)
    if grown is not None or left > dense:
        which = "" if grown is None else f"'{grown.layer}' is {_by(grown.before)} in the first "
        which += "" if grown is None else f"and {_by(grown.after)} in the second, and "
        raise ActionError(
            f"{which}the second network has {left} parameters where the first has {dense}, so it "
            "is not the first one pruned: give the dense network first, then the pruned one"
        )
    structural = bool(cut or heads or gone)
    depths = [_depth(base, name, places) for name, places in gone.items()]
    if not structural and not masked and left == dense:
        raise ActionError(
            "nothing was pruned: the two networks have the same layers and no weight is zero in "
            "the second that is not in the first; give the pruned network with --after (after=)"
        )
    moved = _moved(pairs)
    remaining = flops(module, inputs)
    record = ActionRecord(
        structure=GIVEN,
        scope=" and ".join(
            word for word, there in (("cut", structural), ("masked", masked)) if there
        )
        or "layers removed",
        criterion="unknown" if structural or moved > _MOVED else _ranking(masked),
        ratio=None if heads or gone else _uniform(cut or masked, cut=bool(cut)),
        parameters=left,
        flops=remaining,
        speedup=flops(base, inputs) / remaining if remaining else 1.0,
        layers=(
            *depths,
            *heads,
            *(_change(p, cut=True) for p in cut),
            *(_change(p, cut=False) for p in masked if not structural),
        ),
        meaning=", and ".join(
            filter(None, (*_parts(depths, heads), _meaning(cut, masked, held, structural)))
        )
        or "whole layers",
    )
    if moved > _MOVED:
        notes.append(
            f"The pruned network was retrained after the action: {100 * moved:.3g} % of its "
            "surviving weights differ from the dense network's. The columns before and after show "
            "the action and that retraining together."
        )
    return Sparsified(module, record, tuple(notes))


def _pairs(base: nn.Module, pruned: nn.Module) -> tuple[list[_Pair], list[str]]:
    """Return the weights that both networks have, in order, and a sentence on the others."""
    before, after = _weights(base), _weights(pruned)
    modules = dict(base.named_modules())
    pairs = []
    for name in (name for name in before if name in after):
        old, new = before[name], after[name]
        if old.ndim != new.ndim:
            raise ActionError(
                f"'{name}' has {old.ndim} axes before and {new.ndim} after: the two are not one "
                "network before and after pruning"
            )
        owner, _, leaf = name.rpartition(".")
        module = modules[owner]
        turned = isinstance(module, _ConvTransposeNd) or is_turned(module)
        follows = isinstance(module, _ConvNd) and module.groups == module.in_channels > 1
        layer = owner if leaf == "weight" else name
        moved = old.detach().to(device=new.device, dtype=new.dtype)
        pairs.append(_Pair(name, layer, moved, new.detach(), int(turned), follows))
    if not pairs:
        raise ActionError(
            "the two networks have no layer of one name in common, so what was done cannot be "
            "worked out: give the dense and the pruned network of one architecture"
        )
    notes = []
    for names, where in (
        ([name for name in before if name not in after], "the dense network"),
        ([name for name in after if name not in before], "the pruned network"),
    ):
        if names:
            notes.append(f"Only {where} has {some(names)}; it is not part of what was compared.")
    return pairs, notes


_MADE = re.compile(r"(^|\.)parametrizations\.(\w+)\.original$")
"""What a parametrization makes a weight of."""


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Return every weight of two axes or more by its plain name, masks applied."""
    masks, none = masks_of(network), mask_parameters(network)
    found: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or id(parameter) in none:
            continue
        weight = parameter.detach()
        if name in masks:
            weight = weight * masks[name]
        found[_plain(name)] = weight
    return found


def _plain(name: str) -> str:
    """Return the name of the weight that a parameter is, or is masked to make."""
    return _MADE.sub(r"\1\2", name).removesuffix("_orig")


def _held(network: nn.Module) -> set[str]:
    """Name the layers whose zeros a mask of the network's own holds, and not one found for it."""
    own = network.state_dict().keys()
    held = {
        name.removesuffix(".weight")
        for given in masks_of(network)
        if (name := _plain(given)) + SUFFIX in own or _MADE.search(given)
    }
    return held | {name for name, module in network.named_modules() if own_masks(module)}


def _masked(network: nn.Module, pairs: Sequence[_Pair]) -> nn.Module:
    """Return a network in which masks hold every weight that is zero and was not."""
    there = {_plain(name) for name in masks_of(network)}
    masks = {}
    for pair in pairs:
        gone = pair.after == 0
        if pair.before.shape == pair.after.shape:
            gone &= pair.before != 0
        if pair.zeroed and pair.name not in there:
            masks[pair.name] = ~gone
    if not masks:
        return network
    copied = whole_copy(network)
    set_masks(copied, masks, persistent=False)
    return copied


def _grew(pair: _Pair) -> bool:
    sides = zip(pair.after.shape, pair.before.shape, strict=True)
    return any(new > old for new, old in sides)


def _moved(pairs: Sequence[_Pair]) -> float:
    """Return the share of surviving weights whose value the dense network does not have there.

    Where shapes differ, a weight counts as kept if its layer had that value anywhere: two float
    weights of one layer are hardly ever equal, and one that was trained hardly ever comes back.
    Rounding is no training: where the pruned network was stored in half precision, so is the other.
    """
    changed = total = 0
    narrow = next((dtype for dtype in _NARROW if all(_is_of(p.after, dtype) for p in pairs)), None)
    for pair in pairs:
        alive, before = pair.after != 0, pair.before
        if narrow is not None:  # the pruned network was stored in half precision
            before = before.to(narrow).to(before.dtype)
        if before.shape == pair.after.shape:
            same = pair.after == before
        else:
            same = torch.isin(pair.after, before)
        changed += int((alive & ~same).sum())
        total += int(alive.sum())
    return changed / total if total else 0.0


_NARROW = (torch.bfloat16, torch.float16)
"""The coarser first: its values are mostly the other's too."""


def _is_of(values: Tensor, dtype: torch.dtype) -> bool:
    """Say whether values are such as a dtype has, so that they may have been stored in it."""
    return torch.equal(values, values.to(dtype).to(values.dtype))


def _ranking(masked: Sequence[_Pair]) -> str:
    """Say whether the weights that went are the smallest ones."""
    bounds = []
    for pair in masked:
        size = pair.before.abs()
        gone = (pair.after == 0) & (pair.before != 0)
        kept = pair.after != 0
        if not kept.any() or float(size[gone].max()) > float(size[kept].min()):
            return "unknown"
        bounds.append((float(size[gone].max()), float(size[kept].min())))
    if len(bounds) > 1 and max(low for low, _ in bounds) <= min(high for _, high in bounds):
        return "smallest |w| over all layers"
    return "smallest |w| in each layer"


def _change(pair: _Pair, *, cut: bool) -> LayerChange:
    if cut:
        axis = pair.outputs
        return LayerChange(pair.layer, pair.before.shape[axis], pair.after.shape[axis])
    alive = int((pair.after != 0).sum())
    return LayerChange(pair.layer, alive + pair.zeroed, alive)


def _ratios(pairs: Sequence[_Pair], *, cut: bool) -> list[float]:
    changes = [_change(pair, cut=cut) for pair in pairs]
    return [1 - change.after / change.before for change in changes if change.before]


def _uniform(pairs: Sequence[_Pair], *, cut: bool) -> float | None:
    """Return the ratio that all layers share, up to one filter or weight; else None."""
    changes = [_change(pair, cut=cut) for pair in pairs]
    if not changes:
        return None
    total = sum(change.before for change in changes)
    ratio = 1 - sum(change.after for change in changes) / total
    # Rounding takes a filter more or less in each layer: the roundest number that explains all.
    for guess in (round(ratio, 1), round(20 * ratio) / 20, round(ratio, 2), round(ratio, 3)):
        if all(abs(c.before - c.after - guess * c.before) <= 1 for c in changes):
            return guess
    return None


def _depth(base: nn.Module, name: str, gone: Sequence[int]) -> LayerChange:
    before = len(list(base.get_submodule(name).children()))
    return LayerChange(name, before, before - len(gone))


def _parts(depths: Sequence[LayerChange], heads: Sequence[LayerChange]) -> list[str]:
    """Say how many blocks and heads went."""
    parts = [f"{d.before - d.after} of the {d.before} blocks of {d.name}" for d in depths]
    if heads:
        shares = [round(1 - each.after / each.before, 3) for each in heads]
        count = f"{len(heads)} attention{'s' * (len(heads) > 1)}"
        parts.append(f"{percent(shares)} of the heads of {count}")
    return parts


def _meaning(
    cut: Sequence[_Pair], masked: Sequence[_Pair], held: set[str], structural: bool
) -> str:
    parts = []
    if cut:
        ratio = _uniform(cut, cut=True)
        shares = _ratios(cut, cut=True) if ratio is None else [ratio]
        unit = "filters" if any(pair.before.ndim > 2 for pair in cut) else "outputs"
        parts.append(f"{_words(shares)} of the {unit} of {_layers(cut)}")
    if masked:
        pattern = next((form for form in _PATTERNS if all(_fits(p, *form) for p in masked)), None)
        how = "held by masks" if all(p.layer in held for p in masked) else "zeroed without masks"
        if pattern is not None and not structural:
            n, m = pattern
            parts.append(
                f"{m - n} of every {m} weights along the inputs of {_layers(masked)}, {how}"
            )
        else:
            ratio = _uniform(masked, cut=False)
            shares = _ratios(masked, cut=False) if ratio is None else [ratio]
            parts.append(f"{_words(shares)} of the weights of {_layers(masked)}, {how}")
    return ", and ".join(parts)


def _words(shares: Sequence[float]) -> str:
    return percent([round(share, 3) for share in shares])


def _layers(pairs: Sequence[_Pair]) -> str:
    return f"{len(pairs)} layer{'s' * (len(pairs) > 1)}"


def _fits(pair: _Pair, n: int, m: int) -> bool:
    """Say whether of every M consecutive inputs exactly N are kept, but for zeros there were."""
    axis = 0 if pair.outputs else 1
    weight = pair.after.movedim(axis, -1)
    if pair.before.shape != pair.after.shape or weight.shape[-1] % m:
        return False
    counts = (weight != 0).reshape(-1, m).sum(1)
    return bool((counts <= n).all()) and float((counts == n).double().mean()) > 0.99


def _by(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape))
