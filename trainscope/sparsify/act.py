"""The sparsifying action, whole: a copy is pruned, checked and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from trainscope.errors import ActionError
from trainscope.networks.cost import flops, parameters
from trainscope.records import ActionRecord
from trainscope.sparsify.action import Action
from trainscope.sparsify.copies import whole_copy
from trainscope.sparsify.filters import cut_filters
from trainscope.sparsify.outcome import Outcome
from trainscope.sparsify.unstructured import mask_weights
from trainscope.sparsify.verify import check_outputs, check_weights, first_line, run, run_before


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
    """

    module: nn.Module
    record: ActionRecord
    notes: tuple[str, ...] = ()
    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def sparsify(network: nn.Module, action: Action, input_shape: tuple[int, ...]) -> Sparsified:
    """Prune a copy of a network and check that it still runs.

    The random states are not touched: the criterion `random` draws from the action's own seed.

    Args:
        network: Not touched.
        action: What to do.
        input_shape: The shape of one input, (C, H, W).

    Returns:
        The pruned copy with its record. FLOPs are multiply-adds of one sample; the speedup is the
        FLOPs of the network given over those that remain, by density where weights are masked
        (what hardware that skips zeros could gain).

    Raises:
        ActionError: Weights that are not finite, a network that cannot be followed or cut, an
            input shape that does not fit, or an action that would prune nothing.
    """
    check_weights(network)
    before = run_before(network, input_shape)
    pruned = whole_copy(network)
    trained = {name: parameter.requires_grad for name, parameter in pruned.named_parameters()}
    modes = [(module, module.training) for module in pruned.modules()]
    apply = cut_filters if action.structure == "filter" else mask_weights
    outcome = apply(pruned, action, input_shape)
    for name, parameter in pruned.named_parameters():
        parameter.requires_grad_(trained[name])
        parameter.grad = None
    for module, mode in modes:
        module.training = mode
    after, notes = _run_after(pruned, input_shape, action, outcome)
    check_outputs(before, after)
    left, dense = parameters(pruned), parameters(network)
    if left >= dense:
        raise ActionError(
            f"the action left all {dense} parameters in place, so the network is not pruned; "
            "choose another scope or ratio"
        )
    remaining = flops(pruned, input_shape)
    record = ActionRecord(
        structure=action.structure,
        scope=action.scope,
        criterion=action.criterion,
        ratio=_ratio(action),
        ratios=dict(action.ratios),
        global_ranking=action.global_ranking,
        parameters=left,
        flops=remaining,
        speedup=flops(network, input_shape) / remaining if remaining else 1.0,
        layers=outcome.layers,
        meaning=outcome.meaning,
        seed=action.seed,
    )
    return Sparsified(pruned, record, (*outcome.notes, *notes), outcome.removed)


def _ratio(action: Action) -> float | None:
    if action.n_m is None or action.ratio is not None:
        return action.ratio
    return 1 - action.n_m[0] / action.n_m[1]


def _run_after(
    pruned: nn.Module, input_shape: tuple[int, ...], action: Action, outcome: Outcome
) -> tuple[list[Tensor], tuple[str, ...]]:
    """Run the pruned network, correcting widths that its own modules repeat as attributes."""
    try:
        return run(pruned, input_shape), ()
    except Exception as first:
        error = first
        changed = _correct_widths(pruned, outcome.widths) if action.scope == "all" else []
        if changed:
            try:
                note = f"widths that the network keeps as attributes were set: {', '.join(changed)}"
                return run(pruned, input_shape), (note,)
            except Exception as again:
                error = again
        raise ActionError(
            f"the pruned {type(pruned).__name__} does not run ({first_line(error)}), so scope "
            f"{action.scope} cannot cut it; use "
            f"--scope {'inner' if action.scope == 'all' else 'all'} or the structure unstructured"
        ) from error


def _correct_widths(network: nn.Module, widths: Mapping[int, int]) -> list[str]:
    """Set integer attributes of the network's own modules that hold a width which is gone.

    A module of `torch.nn` keeps its own widths right; one of the network may repeat a width, as
    torchvision's VisionTransformer does in `hidden_dim`, to reshape by it.
    """
    changed = []
    for name, module in network.named_modules():
        if type(module).__module__.startswith("torch.nn"):
            continue
        for attribute, value in vars(module).items():
            if (
                type(value) is int
                and value != widths.get(value, value)
                and attribute.endswith("dim")
            ):
                setattr(module, attribute, widths[value])
                changed.append(f"{name}.{attribute}" if name else attribute)
    return changed
