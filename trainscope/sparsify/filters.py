"""The structure `filter`: filters are taken out, and a smaller dense network is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn

from trainscope.errors import ActionError, NoOpError, about, first_line
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs
from trainscope.networks.linear import is_turned
from trainscope.networks.linear import widths as linear_widths
from trainscope.networks.weights import CONVOLUTION, LINEAR, weights_in
from trainscope.records import LayerChange
from trainscope.sparsify.action import Action
from trainscope.sparsify.candidate import (
    Candidate,
    Cutter,
    Removed,
    Selection,
    left_alone,
    shares_of,
    why_untouched,
)
from trainscope.sparsify.choose import choose
from trainscope.sparsify.coupled import Settled, Wary, coupled
from trainscope.sparsify.criteria import scored
from trainscope.sparsify.dependencies import TooSlowError
from trainscope.sparsify.heads import find_heads
from trainscope.sparsify.inner import inner, with_first
from trainscope.sparsify.ratios import after_round, assign
from trainscope.sparsify.removal import Removal, percent, together
from trainscope.sparsify.statistics import Source, Subject


def cut_filters(
    network: nn.Module,
    action: Action,
    source: Source,
    wary: Wary = MappingProxyType({}),
    gone: Mapping[str, int] = MappingProxyType({}),
    settled: Settled | None = None,
) -> Removal:
    """Take filters, hidden units and heads out of a network, in place; heads first.

    Args:
        network: Changed in place.
        action: With structure "filter".
        source: An example of a call, and what the criterion is told.
        wary: Modules whose layers the scope `all` leaves alone.
        gone: How many filters of a layer earlier actions cut, which count in its ratio.
        settled: As `coupled` takes it.

    Raises:
        ActionError: The network cannot be followed, or nothing would be pruned (`NoOpError` where
            that is because as many are gone already).
    """
    if action.kept:
        return _keep(network, action, source.inputs)
    done = None
    if action.heads is not None:
        done = _cut_heads(network, action, source)
    if action.prunes_units:
        touched = frozenset() if done is None else done.touched
        units = _cut_units(network, action, source, touched, wary, gone, settled)
        done = units if done is None else together(done, units)
    assert done is not None
    return done


def _keep(network: nn.Module, action: Action, inputs: Inputs) -> Removal:
    """Cut all filters of some layers but those that an action names."""
    cutter = with_first(network, inputs)
    removed, counts, stay = {}, [], []
    for layer, kept in action.kept.items():
        with about("kept", layer):
            candidate = cutter.candidate(layer)
            check_kept(candidate, kept)
            if candidate.name in removed:
                said = f"the filters of {layer} go with {candidate.name}: name one of them"
                raise ActionError(said)
        gone = sorted(set(range(candidate.count)) - set(kept))
        removed[candidate.name] = torch.tensor(gone)
        counts.append((layer, candidate.count, len(gone)))
        stay.append(f"{', '.join(map(str, sorted(kept)))} of {layer}")
    widths = _widths(network)
    outputs = _cut(cutter, removed, network)
    layers = tuple(
        LayerChange(name, widths[name], widths[name] - len(outputs[name]))
        for name in widths
        if name in outputs
    )
    words = ", ".join(f"{gone} of {count} {cutter.unit} of {name}" for name, count, gone in counts)
    total = sum(count for _, count, _ in counts)
    reached = sum(gone for _, _, gone in counts) / total
    words += f"; {' and '.join(stay)} stay"
    return Removal(words, layers, outputs, cutter.notes, cutter.spared, reached)


def check_kept(candidate: Candidate, kept: Sequence[int]) -> None:
    """Refuse filters that are not there, or that cannot stay together.

    Raises:
        ActionError: They are none of the layer's, all of them, or of one part more than of another.
    """
    if max(kept) >= candidate.count or len(kept) >= candidate.count:
        raise ActionError(
            f"{candidate.name} has {candidate.count} filters, 0 to {candidate.count - 1}, and "
            f"{', '.join(map(str, kept))} are to stay: name some of them, not all"
        )
    part = candidate.count // candidate.chunks
    held = [sorted(k % part for k in kept if k // part == p) for p in range(candidate.chunks)]
    uneven = len({len(each) for each in held}) > 1
    if uneven or (candidate.aligned and any(each != held[0] for each in held)):
        raise ActionError(
            f"the {candidate.chunks} parts of {candidate.name} must lose equally many filters, and "
            f"{', '.join(map(str, kept))} are to stay: keep as many of each part"
        )


def _cut_heads(network: nn.Module, action: Action, source: Source) -> Removal:
    assert action.heads is not None
    cutter = find_heads(network, source.inputs)
    if not cutter.candidates:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(cutter.spared.items())[:3])
        raise ActionError(
            f"no attention head can be cut ({reasons or 'no attention was found'}); "
            "leave the heads out, or use the structure unstructured",
            field=("heads",),
        )
    ratios = [action.heads] * len(cutter.candidates)
    share = action.heads if action.global_ranking else None
    selection = _select(network, cutter.candidates, ratios, action, share, source)
    if not selection.removed:
        raise ActionError(_no_op(cutter, ratios, selection), field=("heads",))
    attentions = cutter.attentions
    left = tuple(f"heads left alone: {name} ({why})" for name, why in cutter.untold.items())
    notes = (*cutter.notes, *selection.notes, *left)
    touched = {n.rpartition(".")[0] for name in selection.removed for n in attentions[name].labels}
    removed = cutter.cut(selection.removed)
    layers = []
    for name, units in removed.items():
        heads = attentions[name].heads
        gone = heads * len(units) // attentions[name].units
        layers.append(LayerChange(name, heads, heads - gone))
    count = len(attentions)
    meaning = f"{percent([action.heads])} of the heads of {count} attention{'s' * (count != 1)}"
    if action.global_ranking:
        meaning += ", ranked together"
    total = sum(attention.heads for attention in attentions.values())
    return Removal(
        meaning,
        tuple(layers),
        notes=notes,
        spared=cutter.spared,
        reached=sum(layer.before - layer.after for layer in layers) / total,
        heads=removed,
        touched=frozenset(touched),
    )


def _cut_units(
    network: nn.Module,
    action: Action,
    source: Source,
    touched: frozenset[str],
    wary: Wary,
    gone: Mapping[str, int],
    settled: Settled | None,
) -> Removal:
    cutter, given_way = _cutter(network, action, source, wary, settled)
    ratios = assign(
        [candidate.layers for candidate in cutter.candidates],
        action.ratio,
        action.ratios,
        cutter.spared,
    )
    share = action.ratio if action.global_ranking else None
    selection = _select(
        network, cutter.candidates, ratios, action, share, source, rounds=action.rounds, gone=gone
    )
    asked_of = [c for c, ratio in zip(cutter.candidates, ratios, strict=True) if ratio > 0]
    before = sum(gone.get(candidate.name, 0) for candidate in asked_of)
    whole = before + sum(candidate.count for candidate in asked_of)
    if not selection.removed:
        if before:
            raise NoOpError("as many filters are gone already", reached=before / whole)
        raise ActionError(_no_op(cutter, ratios, selection))
    widths, parameters = _widths(network), shares_of(network)
    others = [w for w in weights_in(network) if w.kind not in (CONVOLUTION, LINEAR)]
    removed = _cut(cutter, selection.removed, network)
    layers = tuple(
        LayerChange(name, widths[name], widths[name] - len(removed[name]))
        for name in widths
        if name in removed
    )
    asked = [
        ratio
        for candidate, ratio in zip(cutter.candidates, ratios, strict=True)
        if candidate.name in selection.removed
        or (action.global_ranking and ratio > 0 and candidate.chunks == 1)
    ]
    meaning = f"{percent(asked)} of the {cutter.unit} of {len(asked)} {cutter.noun}"
    meaning += "s" * (len(asked) != 1)
    if action.global_ranking:
        meaning += ", ranked together"
    told = {name: why for name, why in cutter.untold.items() if name not in touched}
    now = {weight.label: weight.tensor.shape for weight in weights_in(network)}
    along = frozenset(w.label for w in others if now.get(w.label) != w.tensor.shape)
    told |= _without_filters(network, cutter.spared, touched | along)
    notes = (*given_way, *cutter.notes, *selection.notes, *left_alone(told, parameters))
    now_gone = sum(len(indices) for indices in selection.removed.values())
    reached, scope = (before + now_gone) / whole, "inner" if given_way else None
    return Removal(
        *(meaning, layers, removed, notes, cutter.spared, reached), touched=along, scope=scope
    )


def _cutter(
    network: nn.Module, action: Action, source: Source, wary: Wary, settled: Settled | None
) -> tuple[Cutter, tuple[str, ...]]:
    """Return the cutter of a scope; of `inner`, with a note, where `all` takes too long."""
    if action.scope == "inner":
        return inner(network, source.inputs), ()
    try:
        return coupled(network, source.inputs, wary, settled), ()
    except TooSlowError as error:
        note = (
            f"scope all gave way to scope inner: to find the coupled channels of "
            f"{type(network).__name__} {error}"
        )
        return inner(network, source.inputs), (note,)


def _cut(cutter: Cutter, removed: Removed, network: nn.Module) -> dict[str, tuple[int, ...]]:
    try:
        return cutter.cut(removed)
    except Exception as error:  # whatever Torch-Pruning raises within a cut
        raise ActionError(
            f"the {cutter.unit} of {type(network).__name__} cannot be cut "
            f"({type(error).__name__}: {first_line(error)}); choose another scope, or use the "
            "structure unstructured"
        ) from error


def _without_filters(
    network: nn.Module, spared: Mapping[str, str], touched: frozenset[str]
) -> dict[str, str]:
    """Name the weights that this structure never takes: recurrent ones, embeddings and so on."""
    return {
        weight.label: why_untouched(weight)
        for weight in weights_in(network)
        if weight.kind not in (CONVOLUTION, LINEAR)
        and touched.isdisjoint((weight.layer, weight.label))
        and weight.layer not in spared
    }


def _select(
    network: nn.Module,
    candidates: Sequence[Candidate],
    ratios: Sequence[float],
    action: Action,
    share: float | None,
    source: Source,
    *,
    rounds: int = 1,
    gone: Mapping[str, int] = MappingProxyType({}),
) -> Selection:
    """Choose the filters that go; in several rounds on what each left, where those are at zero."""
    criterion, chosen = action.by, Selection()
    whole = {candidate.name: candidate.subject for candidate in candidates}
    network = network if rounds == 1 else whole_copy(network)
    for number in range(1, rounds + 1):
        subjects = whole
        if chosen.removed:
            _zero(network, whole, chosen.removed)
            weights = {name: p.detach() for name, p in network.named_parameters()}
            subjects = {name: s.with_weight(s.laid_out(weights)) for name, s in whole.items()}
        statistics = source.collect(network, criterion.needs, criterion.name)
        scores = []
        for candidate, ratio in zip(candidates, ratios, strict=True):
            if ratio <= 0:  # a spared layer is not ranked: it may lack what the criterion needs
                scores.append(torch.zeros(candidate.count, dtype=torch.float64))
                continue
            found = scored(criterion, subjects[candidate.name], statistics).double().cpu()
            if candidate.name in chosen.removed:
                found = found.index_fill(0, chosen.removed[candidate.name], -torch.inf)
            scores.append(found)
        now = [after_round(ratio, number, rounds) for ratio in ratios]
        together = None if share is None else after_round(share, number, rounds)
        chosen = choose(candidates, scores, now, global_ratio=together, gone=gone)
    return chosen


@torch.no_grad()
def _zero(network: nn.Module, subjects: Mapping[str, Subject], removed: Removed) -> None:
    """Set the weights of filters to zero, whichever way they are laid out in their parameters."""
    places, start = {}, 0
    for name, parameter in network.named_parameters():
        stop = start + parameter.numel()
        places[name] = torch.arange(start, stop).view_as(parameter)
        start = stop
    for name, filters in removed.items():
        subject = subjects[name]
        found = subject.laid_out(places)[filters].flatten()
        for own in subject.parameters:
            first, parameter = int(places[own].flatten()[0]), network.get_parameter(own)
            inside = found[(found >= first) & (found < first + parameter.numel())] - first
            parameter.view(-1)[inside.to(parameter.device)] = 0.0


def _no_op(cutter: Cutter, ratios: Sequence[float], selection: Selection) -> str:
    if not any(ratios):
        return "nothing would be pruned: every layer in scope has the ratio 0; raise one"
    why = "; ".join(selection.notes[:3]) or "every layer in scope has one filter left"
    return f"nothing would be pruned: {why}; choose another scope or ratio"


def _widths(network: nn.Module) -> dict[str, int]:
    """Return the number of outputs of each convolution and linear layer, in forward order."""
    found = {}
    for name, module in network.named_modules():
        width = getattr(module, "out_channels", getattr(module, "out_features", None))
        if is_turned(module):
            width = linear_widths(module)[1]
        if isinstance(width, int):
            found[name] = width
    return found
