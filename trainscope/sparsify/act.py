"""The sparsifying action, whole: a copy is pruned, checked and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch import nn

from trainscope.data import Dataset, ProbeData
from trainscope.errors import ActionError, NoOpError, first_line
from trainscope.networks.copies import whole_copy
from trainscope.networks.cost import flops, parameters
from trainscope.networks.example import Inputs, as_example
from trainscope.networks.masks import apply_masks, keep_masks, set_masks
from trainscope.networks.weights import CONVOLUTION, LINEAR, weights_in
from trainscope.networks.zeros import find_zeros
from trainscope.records import ActionRecord, LayerLeft
from trainscope.records.action import falls_short
from trainscope.records.before import shares
from trainscope.sparsify.action import Action
from trainscope.sparsify.blocks import drop_some
from trainscope.sparsify.candidate import shares_of, why_untouched
from trainscope.sparsify.coupled import GivesWayError, Settled, Wary
from trainscope.sparsify.criteria.criterion import Repairing
from trainscope.sparsify.filters import cut_filters
from trainscope.sparsify.removal import Removal
from trainscope.sparsify.statistics import Source
from trainscope.sparsify.statistics.source import first_of, no_data
from trainscope.sparsify.unstructured import mask_weights
from trainscope.sparsify.verify import (
    Outputs,
    check_outputs,
    check_weights,
    failing_inside,
    run,
    run_before,
)
from trainscope.sparsify.widths import Width, find_widths, set_widths
from trainscope.task.modes import kept_modes

CHOSEN = "chosen"
"""The criterion of a record whose filters were named."""


@dataclass(frozen=True)
class Sparsified:
    """A pruned network and what was done to it.

    Attributes:
        module: The pruned copy. Modes, dtype, device and `requires_grad` are those of the network
            given; gradients are gone.
        record: What was asked and done, with what is left of parameters and FLOPs.
        notes: What was left alone and why, each one sentence.
        removed: For the structure `filter`: the outputs that went, by layer, batch norms among
            them, as indices in the network given. Empty for masks.
        heads: The heads that went, by attention; where heads share keys and values, the groups.
        blocks: The places of the blocks that went, by the list that held them. What `removed` and
            `heads` name is named as in the network without these.
    """

    module: nn.Module
    record: ActionRecord
    notes: tuple[str, ...] = ()
    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    heads: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    blocks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def sparsify(
    network: nn.Module,
    action: Action,
    input_shape: Inputs,
    *,
    hold_zeros: bool = True,
    data: Dataset | ProbeData | None = None,
    gone: Mapping[str, int] = MappingProxyType({}),
) -> Sparsified:
    """Prune a copy of a network and check that it still runs.

    The random states are not touched: the criterion `random` draws from the action's own seed.

    Args:
        network: Not touched.
        action: What to do.
        input_shape: The shape of one input, (C, H, W), or an example of a call: a tensor, a tuple
            of arguments, or a dictionary of arguments by name, of any dtypes (token ids stay
            whole numbers).
        hold_zeros: Take weights that are exactly zero without a mask, more than chance explains,
            as pruned before: the copy gets masks for them.
        data: For a criterion that needs samples: a data set, of whose training half
            `action.criterion_samples` are drawn by the action's seed, or pinned samples, all of
            which are taken. Any other criterion does not look at it.
        gone: How many filters of a layer earlier actions cut: a ratio is a share of those with the
            ones that are there, as a ratio of single weights is of all, masked ones among them.

    Returns:
        The pruned copy with its record. FLOPs are multiply-adds of one sample; the speedup is the
        FLOPs of the network given over those that remain, by density where weights are masked
        (what hardware that skips zeros could gain).

    Raises:
        ActionError: A criterion that needs data without any, weights that are not finite, a network
            that cannot be followed or cut, an
            input shape that does not fit, or an action that would prune nothing.
        DataError: The example has no tensor in it.
    """
    source = Source.of(
        input_shape, data, action.needs, samples=action.criterion_samples, seed=action.seed
    )
    if action.needs_data and source.data is None:
        raise no_data(action.criterion_name, first_of(action.needs))
    check_weights(network)
    before = run_before(network, input_shape)
    wary: dict[type[nn.Module], bool] = {}
    settled: Settled = {}  # in one try for all that follow
    while True:
        try:
            return _sparsified(
                network, action, source, before, wary, settled, gone, hold_zeros=hold_zeros
            )
        except GivesWayError as error:
            if action.scope != "all":
                raise
            if isinstance(error, _DoesNotRunError) and _warier(wary, error.kinds):
                continue
            failed = error
            break
    action = replace(action, scope="inner")
    try:
        done = _sparsified(network, action, source, before, {}, {}, gone, hold_zeros=hold_zeros)
    except ActionError:
        raise failed from None
    note = f"scope all gave way to scope inner: {failed.why}"
    return replace(done, notes=(note, *done.notes))


class _DoesNotRunError(GivesWayError):
    """A pruned network that does not run.

    Attributes:
        kinds: The classes of the modules that it fails inside of, the outermost first.
    """

    kinds: tuple[type[nn.Module], ...] = ()


def _warier(wary: dict[type[nn.Module], bool], kinds: tuple[type[nn.Module], ...]) -> bool:
    """Be wary of the innermost class that fails, more than before; say whether that is possible.

    torch's own layers fail for what they are given, and the network itself cannot be left alone.
    """
    own = [kind for kind in kinds[1:] if not kind.__module__.startswith("torch.nn")]
    if not own or wary.get(own[-1], False):
        return False
    wary[own[-1]] = own[-1] in wary
    return True


def _sparsified(
    network: nn.Module,
    action: Action,
    source: Source,
    before: Outputs,
    wary: Wary,
    settled: Settled,
    gone: Mapping[str, int],
    *,
    hold_zeros: bool,
) -> Sparsified:
    """Prune a copy of a network, and leave alone what one must be wary of."""
    input_shape, inputs = source.inputs, as_example(source.inputs)
    source = replace(source, inputs=inputs)
    pruned, notes = working_copy(network, hold_zeros=hold_zeros)
    dense, cost = parameters(pruned), flops(pruned, input_shape)
    dropped = None if action.blocks is None else drop_some(pruned, action, source)
    base = network if dropped is None else whole_copy(pruned)  # whose layers have their new names
    trained = {name: parameter.requires_grad for name, parameter in pruned.named_parameters()}
    outcome = Removal("", ())
    with kept_modes(pruned):
        if action.structure != "filter":
            outcome = mask_weights(pruned, action, source)
        elif action.prunes_units or action.heads is not None:
            outcome = cut_filters(pruned, action, source, wary, gone, settled)
    action = replace(action, scope=outcome.scope or action.scope)
    for name, parameter in pruned.named_parameters():
        parameter.requires_grad_(trained[name])
        parameter.grad = None
    widths: tuple[Width, ...] = ()
    if action.structure == "filter" and action.scope == "all":
        widths = find_widths(base, inputs, {layer.before for layer in outcome.layers})
    after, told = _run_after(pruned, inputs, action, widths)
    check_outputs(before, after, inputs.size if inputs.count is None else None)
    left = parameters(pruned)
    if left >= dense:
        raise ActionError(
            f"the action left all {dense} parameters in place, so the network is not pruned; "
            "choose another scope or ratio"
        )
    remaining = flops(pruned, input_shape)
    record = ActionRecord(
        structure=action.structure,
        scope=action.scope,
        criterion=CHOSEN if action.kept else action.criterion_name,
        ratio=_ratio(action),
        ratios=dict(action.ratios),
        global_ranking=action.ranks_together,
        parameters=left,
        flops=remaining,
        speedup=cost / remaining if remaining else 1.0,
        layers=(*(() if dropped is None else dropped.layers), *outcome.layers),
        meaning=" and ".join(filter(None, (dropped.meaning if dropped else "", outcome.meaning))),
        seed=action.seed,
        reached=outcome.reached,
        left_alone=_left_alone(base, action, outcome),
        heads=action.heads,
        blocks=action.blocks,
        rounds=action.rounds,
        collected=source.record(action.needs),
    )
    notes = (
        *notes,
        *(dropped.notes if dropped else ()),
        *outcome.notes,
        *told,
        *_short_of(record),
        *_told_of(record, action),
    )
    blocks = dropped.blocks if dropped else {}
    return Sparsified(pruned, record, notes, outcome.removed, outcome.heads, blocks)


def unchanged(network: nn.Module, action: Action, inputs: Inputs, error: NoOpError) -> Sparsified:
    """Return a copy of a network that an action found done: its record says that nothing went."""
    pruned, notes = working_copy(network, hold_zeros=True)
    record = ActionRecord(
        structure=action.structure,
        scope=action.scope,
        criterion=action.criterion_name,
        ratio=_ratio(action),
        ratios=dict(action.ratios),
        global_ranking=action.ranks_together,
        parameters=parameters(pruned),
        flops=flops(pruned, inputs),
        speedup=1.0,
        layers=(),
        meaning="nothing: as many weights are zero already",
        seed=action.seed,
        reached=error.reached,
    )
    return Sparsified(pruned, record, (*notes, f"The action changed nothing: {error}."))


def working_copy(network: nn.Module, *, hold_zeros: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy whose masks are its own, with masks for zeros that mean pruned, and notes."""
    copied = whole_copy(network)
    keep_masks(copied)
    apply_masks(copied)  # where a layer's own code masks them they may have any value
    found = find_zeros(copied) if hold_zeros else None
    if found is None or not found.masks:
        return copied, ()
    set_masks(copied, found.masks)
    gone = sum(layer.before - layer.after for layer in found.layers)
    return copied, (
        f"{gone:,} weights were exactly zero before the action, without masks, more than chance "
        f"explains: they are taken as pruned and held ({shares(found.layers)})",
    )


def _left_alone(network: nn.Module, action: Action, outcome: Removal) -> tuple[LayerLeft, ...]:
    """Name every weight that was not pruned, with its share of the parameters."""
    sizes, changed = shares_of(network), {layer.name for layer in outcome.layers}
    rows = []
    for weight in weights_in(network):
        why = outcome.spared.get(weight.label, outcome.spared.get(weight.layer))
        if weight.label in changed:
            continue
        if not outcome.touched.isdisjoint((weight.label, weight.layer)):
            continue
        if why is None and weight.layer in outcome.removed:
            continue
        if why is None:
            filters = action.structure == "filter" and weight.kind not in (CONVOLUTION, LINEAR)
            why = why_untouched(weight) if filters else "nothing more of it was asked for"
        rows.append(LayerLeft(weight.label, sizes[weight.label], why))
    return tuple(rows)


def _short_of(record: ActionRecord) -> tuple[str, ...]:
    """Say where the ratio asked for was not reached."""
    if not falls_short(record) or record.ratio is None:
        return ()
    what = "filters" if record.structure == "filter" else "weights"
    gone = f"{100 * (record.reached or 0):.3g} % of the {what}"
    return (
        f"the ratio asked for is {100 * record.ratio:.6g} %, and {gone} are gone, those that were "
        "left alone counted in",
    )


def _told_of(record: ActionRecord, action: Action) -> tuple[str, ...]:
    """Say what the criterion was told of, and what it did to the weights that stay."""
    notes = []
    if record.collected is not None:
        notes.append(record.collected.sentence())
    if record.rounds > 1:
        notes.append(f"pruned by {record.criterion} in {record.rounds} rounds")
    if action.structure != "filter" and isinstance(action.by, Repairing):
        notes.append(
            f"{record.criterion} changed the weights that stay, to make up for those that went"
        )
    return tuple(notes)


def _ratio(action: Action) -> float | None:
    if action.n_m is None or action.ratio is not None:
        return action.ratio
    return 1 - action.n_m[0] / action.n_m[1]


def _run_after(
    pruned: nn.Module, inputs: Inputs, action: Action, widths: tuple[Width, ...]
) -> tuple[Outputs, tuple[str, ...]]:
    """Run the pruned network, its attributes that repeat a width put right."""
    changed = set_widths(pruned, widths)
    try:
        outputs = run(pruned, inputs)
    except Exception as error:
        why = f"the pruned {type(pruned).__name__} does not run ({first_line(error)})"
        other = "inner" if action.scope == "all" else "all"
        failed = _DoesNotRunError(
            f"{why}, so scope {action.scope} cannot cut it; use --scope {other} or the structure "
            "unstructured",
            why,
        )
        inside = failing_inside(pruned, inputs)
        failed.kinds = tuple(type(pruned.get_submodule(name)) for name in inside)
        raise failed from error
    if not changed:
        return outputs, ()
    return outputs, (f"widths that the network keeps as attributes were set: {', '.join(changed)}",)
