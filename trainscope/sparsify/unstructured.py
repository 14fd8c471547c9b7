"""The structures `unstructured` and `N:M`: single weights are masked, the shapes stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainscope.errors import ActionError
from trainscope.networks.masks import masks_of, set_masks
from trainscope.records import LayerChange
from trainscope.sparsify.action import Action
from trainscope.sparsify.candidate import FIRST, OUTPUT, left_alone
from trainscope.sparsify.choose import lowest, lowest_of_all
from trainscope.sparsify.criteria import Context, Subject, find
from trainscope.sparsify.n_m import fits, keep_n_of_m
from trainscope.sparsify.outcome import Outcome, percent
from trainscope.sparsify.ratios import assign, to_prune
from trainscope.sparsify.verify import called_modules


@dataclass(frozen=True)
class _Weight:
    """One weight tensor: its parameter's name, its layer's, the tensor, and its mask so far."""

    parameter: str
    layer: str
    tensor: Tensor
    mask: Tensor


def mask_weights(network: nn.Module, action: Action, input_shape: tuple[int, ...]) -> Outcome:
    """Mask weights of convolutions, linear layers and attention projections, in place.

    Scope `inner` spares the first convolution and the classifier; `all` spares none. Masks that
    the network has stay; a ratio is the share of *all* weights of a layer that are masked in the
    end, those masked before among them.

    Args:
        network: Given boolean buffers `NAME_mask`; masked weights are set to zero.
        action: With structure "unstructured" or "N:M".
        input_shape: The shape of one input, (C, H, W).

    Raises:
        ActionError: Nothing would be pruned.
    """
    weights, spared = _in_scope(network, action, input_shape)
    notes = []
    if action.n_m is not None:
        dense = [w.layer for w in weights if not fits(w.tensor, action.n_m[1])]
        weights = [w for w in weights if w.layer not in dense]
        why = f"its input width is not a multiple of {action.n_m[1]}"
        spared.update(dict.fromkeys(dense, why))
    if not weights:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(spared.items())[:3])
        raise ActionError(
            f"nothing can be pruned: no weight is in scope {action.scope} ({reasons}); "
            "try --scope all"
        )
    implied = None if action.n_m is None else 1 - action.n_m[0] / action.n_m[1]
    ratios = assign([(w.layer,) for w in weights], action.ratio or implied, action.ratios, spared)
    rows = [row for row in zip(weights, ratios, strict=True) if row[1] > 0]
    masks, missing = _masks(rows, action)
    changed = [
        (weight, ratio, mask)
        for (weight, ratio), mask in zip(rows, masks, strict=True)
        if not torch.equal(mask, weight.mask)
    ]
    if not changed:
        raise ActionError(_no_op(rows, action))
    set_masks(network, {weight.parameter: mask for weight, _, mask in changed})
    if missing:
        notes.append(f"{missing} weights fewer went: each layer keeps one")
    notes.extend(left_alone({n: why for n, why in spared.items() if why not in (FIRST, OUTPUT)}))
    layers = tuple(
        LayerChange(weight.layer, int(weight.mask.sum()), int(mask.sum()))
        for weight, _, mask in changed
    )
    counted = rows if action.global_ranking else [row[:2] for row in changed]
    modules = [network.get_submodule(weight.layer) for weight, _ in counted]
    meaning = _meaning(action, [ratio for _, ratio in counted], modules)
    return Outcome(meaning, layers, notes=tuple(notes))


def _masks(rows: list[tuple[_Weight, float]], action: Action) -> tuple[list[Tensor], int]:
    """Return what survives of each weight, and how many fewer went than asked."""
    criterion = find(action.criterion)
    context = Context(torch.Generator().manual_seed(action.seed))
    scores = [
        # What is masked already goes first, and so stays masked.
        criterion.weights(
            Subject(w.layer, w.tensor, parameters=(w.parameter,)), context
        ).masked_fill(~w.mask, -torch.inf)
        for w, _ in rows
    ]
    if action.n_m is not None:
        pairs = zip(rows, scores, strict=True)
        return [keep_n_of_m(s, *action.n_m) & w.mask for (w, _), s in pairs], 0
    if action.global_ranking and action.ratio is not None:
        gone, missing = lowest_of_all([s.flatten().cpu() for s in scores], action.ratio)
    else:
        counts = [to_prune(w.tensor.numel(), ratio) for w, ratio in rows]
        pairs_ = zip(scores, counts, strict=True)
        gone, missing = [lowest(s.flatten(), count) for s, count in pairs_], 0
    return [
        ~mask.to(w.mask.device).view_as(w.mask) & w.mask
        for mask, (w, _) in zip(gone, rows, strict=True)
    ], missing


def _wide(scores: Tensor) -> Tensor:
    """Return scores in a dtype that can be sorted on every device."""
    return scores if scores.dtype == torch.float64 else scores.float()


def _in_scope(
    network: nn.Module, action: Action, input_shape: tuple[int, ...]
) -> tuple[list[_Weight], dict[str, str]]:
    """Return the weights in scope, in forward order, and why the other layers are not."""
    found = _weights(network)
    called = called_modules(network, input_shape)
    spared = {w.layer: "not used in eval mode" for w in found if w.layer not in called}
    found = sorted(
        (w for w in found if w.layer in called), key=lambda weight: called.index(weight.layer)
    )
    if action.scope == "inner" and found:
        modules = dict(network.named_modules())
        first = next((w.layer for w in found if isinstance(modules[w.layer], _ConvNd)), None)
        if first is not None:
            spared[first] = FIRST
        spared[found[-1].layer] = OUTPUT
    return [w for w in found if w.layer not in spared], spared


def _weights(network: nn.Module) -> list[_Weight]:
    """Return every weight of a convolution, linear layer or attention projection."""
    masks = masks_of(network)
    found: list[_Weight] = []
    seen: set[int] = set()
    for name, module in network.named_modules():
        leaves: tuple[str, ...] = ()
        if isinstance(module, (_ConvNd, nn.Linear)):
            leaves = ("weight", "weight_orig")
        elif isinstance(module, nn.MultiheadAttention):
            leaves = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        for leaf in leaves:
            parameter = module._parameters.get(leaf)
            if parameter is not None and id(parameter) not in seen:  # a tied weight counts once
                seen.add(id(parameter))
                full = f"{name}.{leaf}" if name else leaf
                mask = masks.get(full, torch.ones_like(parameter, dtype=torch.bool))
                found.append(_Weight(full, name, parameter.detach(), mask))
    return found


def _no_op(rows: list[tuple[_Weight, float]], action: Action) -> str:
    masked = [weight for weight, _ in rows if not weight.mask.all()]
    if not rows:
        return "nothing would be pruned: every layer in scope has the ratio 0; raise one"
    if action.n_m is not None:
        return f"nothing would be pruned: the masks of the network are {action.structure} already"
    if masked:
        share = 1 - min(float(weight.mask.float().mean()) for weight in masked)
        return (
            f"nothing would be pruned: masks hold up to {100 * share:.3g} % of the weights at zero "
            "already, and a ratio is the share of all weights; give a larger one"
        )
    return "nothing would be pruned: every layer in scope has a single weight"


def _meaning(action: Action, ratios: list[float], modules: list[nn.Module]) -> str:
    kinds = {
        "convolution": sum(isinstance(module, _ConvNd) for module in modules),
        "linear layer": sum(isinstance(module, nn.Linear) for module in modules),
        "attention projection": sum(isinstance(m, nn.MultiheadAttention) for m in modules),
    }
    parts = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in kinds.items() if count]
    layers = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    spared = " (first convolution and classifier spared)" if action.scope == "inner" else ""
    if action.n_m is not None:
        n, m = action.n_m
        return f"{n} of every {m} weights along the inputs kept in {layers}{spared}"
    together = ", ranked together" if action.global_ranking else ""
    return f"{percent(ratios)} of the weights of {layers}{together}{spared}"
