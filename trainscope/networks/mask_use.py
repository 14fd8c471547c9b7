"""Masks in a module that keep what is pruned: told by its stored zeros, and by what it computes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainscope.networks.copies import whole_copy
from trainscope.networks.masks import masks_of, own_masks
from trainscope.task.batches import tensors
from trainscope.task.modes import evaluating


def inverted_mask(
    module: nn.Module, run: Callable[[nn.Module], object] | None = None
) -> str | None:
    """Return why a module's masks cannot be read as they are meant, None where they can.

    A mask is read as 1 where a weight survives. It is another one where every stored weight is zero
    under the masks' ones and some are not under their zeros, and where the outputs follow from the
    weights under its zeros and not from those under its ones.

    Args:
        module: Not touched: a copy is run, and only where a layer's own code has a mask.
        run: Puts a network forward and returns its outputs.
    """
    masks = {name: mask for name, mask in masks_of(module).items() if not mask.is_meta}
    if not masks:
        return None
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    ones = sum(int(weights[name][mask].count_nonzero()) for name, mask in masks.items())
    zeros = sum(int(weights[name][~mask].count_nonzero()) for name, mask in masks.items())
    if ones == 0 < zeros:
        return (
            "its masks are 1 where the weights are zero, and 0 where they are not, so 1 seems to "
            "mean pruned: turn them round, so that a 1 is a weight that survives"
        )
    layers = [name for name, part in module.named_modules() if own_masks(part)]
    if run is None or not layers or zeros == 0:
        return None
    twin = evaluating(whole_copy(module))
    for name in layers:
        part = twin.get_submodule(name)
        for leaf in own_masks(part):
            kept = getattr(part, leaf).bool()
            if not _follows(twin, part, kept, run) and _follows(twin, part, ~kept, run):
                where = f"{name}.{leaf}" if name else leaf
                return (
                    f"the mask '{where}' is 1 where the layer's code drops a weight (its outputs "
                    "follow from the others): keep masks that are 1 where a weight survives"
                )
    return None


@torch.no_grad()
def _follows(
    twin: nn.Module, part: nn.Module, where: Tensor, run: Callable[[nn.Module], object]
) -> bool:
    """Tell whether outputs change with some of a layer's weights, which are put back."""
    weight = next(part._parameters[n] for n in ("weight", "weight_orig") if n in part._parameters)
    assert weight is not None
    before, values = _outputs(twin, run), weight.detach().clone()
    weight.add_(where.to(weight.dtype) * (weight.abs().mean() + 1))
    after = _outputs(twin, run)
    weight.copy_(values)
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=False))


def _outputs(twin: nn.Module, run: Callable[[nn.Module], object]) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [leaf.clone() for leaf in tensors(run(twin))]
