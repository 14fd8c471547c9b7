"""How a network came pruned: with masks, with zeros that mean pruned, narrower than its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from trainscope.errors import ActionError
from trainscope.networks.copies import whole_copy
from trainscope.networks.cost import dense_flops, flops
from trainscope.networks.example import Inputs
from trainscope.networks.masks import drop_masks, masks_of, set_masks
from trainscope.networks.network import Network
from trainscope.networks.weights import MULTIPLIED, Weight, inputs_last, outputs_first, weights_in
from trainscope.networks.zeros import find_zeros
from trainscope.records import LayerChange, PrunedBefore

CAME_PRUNED = "It came pruned"
"""How the notes begin that say so."""
ZERO_THROUGHOUT = "zero throughout, as a layer is that has not begun to train"
"""What those say of layers that are taken as free to grow."""


def noticed(network: Network, *, own: bool = False) -> Network:
    """Return a network with what it came pruned of told and held.

    Zeros that mean pruned get masks, which hold them in every measurement and training. Those masks
    are no part of the state dict: the network's digest stays that of its weights.

    Args:
        network: Its `before` may say already how it is narrower; of one whose zeros or masks are
            told in it nothing is said again.
        own: It is nobody else's, so its module gets the masks; else a copy does.
    """
    before, notes = [*network.before], [*network.notes]
    if any(each.how != "narrower" for each in before):
        return network
    module = network.module
    masks = masks_of(module)
    if masks:
        before.append(_masked(module, masks, "masks", network.inputs))
    zeros = find_zeros(module)
    if zeros.masks:
        module = module if own else whole_copy(module)
        set_masks(module, zeros.masks, persistent=False)
        before.append(_masked(module, zeros.masks, "zeros", network.inputs))
        notes.append(before[-1].sentence())
    if zeros.blank:
        verb = "is" if len(zeros.blank) == 1 else "are"
        note = (
            f"{', '.join(zeros.blank)} {verb} {ZERO_THROUGHOUT}: taken as free to grow, not as "
            "pruned."
        )
        notes += [] if note in notes else [note]
    return replace(network, module=module, before=tuple(before), notes=tuple(notes))


def regrown(network: Network) -> Network:
    """Return a copy of a network in which all that it came with at zero is free to grow.

    Raises:
        ActionError: It came with no masks and no zeros that mean pruned.
    """
    at_zero = [each for each in network.before if each.how != "narrower"]
    if not at_zero:
        raise ActionError(
            "there is nothing to regrow: the network came with no masks, and with no zeros that "
            "chance does not explain; leave --regrow out"
        )
    module = whole_copy(network.module)
    drop_masks(module)
    free = [replace(each, held=each.how == "narrower") for each in network.before]
    notes = [note for note in network.notes if not note.startswith(CAME_PRUNED)]
    notes += [each.sentence() for each in free if not each.held]
    return replace(network, module=module, before=tuple(free), notes=tuple(notes))


def narrower(dense: nn.Module, network: Network) -> PrunedBefore:
    """Say which layers of a network are narrower than those of the dense one, and what that saves.

    Args:
        dense: The dense network, which may be on the meta device.
        network: The narrower one, of the same layers.
    """
    layers = []
    for weight in weights_in(dense):
        if weight.kind not in MULTIPLIED:
            continue
        module = network.module.get_submodule(weight.layer)
        before, after = _outputs(weight.module, weight), _outputs(module, weight)
        if after < before:
            layers.append(LayerChange(weight.label, before, after))
    total = sum(layer.before for layer in layers)
    faster = _speedup(dense, network.module, network.inputs)
    return PrunedBefore("narrower", "filter", tuple(layers), total, faster)


def _speedup(dense: nn.Module, pruned: nn.Module, shape: Inputs) -> float | None:
    """Return the FLOPs of a network without its masks / those of its pruned form, if both run."""
    try:
        return dense_flops(dense, shape) / flops(pruned, shape)
    except Exception:  # whatever the code of a network raises that cannot run without numbers
        return None


def _outputs(module: nn.Module, weight: Weight) -> int:
    tensor = module.get_parameter(weight.name.rpartition(".")[2])
    return len(outputs_first(module, tensor))


def _masked(
    module: nn.Module, masks: Mapping[str, Tensor], how: str, shape: Inputs
) -> PrunedBefore:
    weights = {weight.name: weight for weight in weights_in(module)}
    layers = [
        LayerChange(weights[name].label if name in weights else name, mask.numel(), int(mask.sum()))
        for name, mask in masks.items()
    ]
    total = sum(weight.tensor.numel() for weight in weights.values())
    total += sum(mask.numel() for name, mask in masks.items() if name not in weights)
    return PrunedBefore(
        how=how,  # type: ignore[arg-type]
        structure=_structure({n: (weights[n], m) for n, m in masks.items() if n in weights}),
        layers=tuple(layer for layer in layers if layer.after < layer.before),
        total=total,
        speedup=_speedup(module, module, shape),
    )


def _structure(masks: Mapping[str, tuple[Weight, Tensor]]) -> str:
    """Return the granularity that masks show: whole filters, N:M, or single weights."""
    rows = [outputs_first(weight.module, mask) for weight, mask in masks.values()]
    if rows and all(bool((row.all(dim=1) | ~row.any(dim=1)).all()) for row in rows):
        return "filter"
    groups = [inputs_last(weight.module, mask) for weight, mask in masks.values()]
    for m in (2, 4, 8, 16):
        if groups and all(group.shape[-1] % m == 0 for group in groups):
            left = [group.reshape(-1, m).sum(dim=1) for group in groups]
            n = int(left[0].max())
            if 0 < n < m and all(
                int(each.max()) == n and float((each == n).double().mean()) > 0.9 for each in left
            ):
                return f"{n}:{m}"
    return "unstructured"
