"""A pass over the first two samples with its graph, on which the rules are chosen and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

from trainscope.errors import ProbeError
from trainscope.probes.gradients.layer_rules import LayerRule, rule_for
from trainscope.probes.subject.folding import ConvNorm, laid
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.task import Batch
from trainscope.task.calls import ModuleCall, hooked


class Watching:
    """A forward pass, and what layers were given and returned in it.

    Attributes:
        batch: The samples.
        outputs: What the network returned.
        taken: The input of each layer, and where the gradient at its output is found.
        calls: How often each was called.
    """

    def __init__(self, lent: Lent, layers: Collection[nn.Module], batch: Batch) -> None:
        self.batch = batch
        self.taken: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
        self.calls: Counter[nn.Module] = Counter()

        def remember(call: ModuleCall[int]) -> None:
            self.calls[call.module] += 1
            if call.args and isinstance(call.out, Tensor) and call.out.requires_grad:
                self.taken[call.module] = call.args[0].detach(), get_gradient_edge(call.out)

        # Samples are taken as groups of channels, which lie apart in memory with channels last.
        with hooked(enumerate(layers), after=remember), laid(layers, torch.contiguous_format):
            self.outputs = lent.outputs(batch)


@dataclass(frozen=True)
class Look:
    """A pass over the first two samples with its graph, on which everything is found out.

    Attributes:
        watching: The pass.
        graph: Bytes that it keeps of one sample for the backward pass, None where unknown.
    """

    watching: Watching
    graph: int | None


def first_look(lent: Lent, measured: Measured) -> Look:
    """Put the first samples forward.

    Args:
        lent: The network and data.
        measured: The parameters whose gradients may be asked for.
    """
    kept: dict[int, int] = {}
    own = {p.untyped_storage()._cdata for p in lent.network.parameters()}
    shapes = {p.shape for p in lent.network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.shape not in shapes:  # a weight that is made of others is no sample's
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    batch, rules = lent.some(0, 2), rules_of(lent.model, measured)
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            watching = Watching(lent, rules, batch)
    except ProbeError:  # a network that differentiates with torch.func takes no such hooks
        return Look(Watching(lent, rules, batch), None)
    size = sum(nbytes for storage, nbytes in kept.items() if storage not in own)
    return Look(watching, size // lent.task.size(batch))


def rules_of(model: nn.Module, measured: Measured) -> dict[nn.Module, LayerRule]:
    """Return a rule for each layer with measured parameters."""
    wanted = {id(tensor) for tensor in measured.tensors}
    found: dict[nn.Module, LayerRule] = {}
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module in inside:
            continue
        if isinstance(module, ConvNorm):
            inside.update(module.modules())
        rule = rule_for(module)
        if rule is not None and any(id(p) in wanted for p in rule.owned()):
            found[module] = rule
    return found
