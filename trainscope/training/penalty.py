"""A penalty on chosen weights, added to their gradient before every step of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.networks.masks import masks_of
from trainscope.networks.weights import CONVOLUTION, LINEAR, Weight, outputs_first, weights_in
from trainscope.sparsify import Sparsified
from trainscope.training.plans.plan import Growth


class Penalty:
    """Adds f w to the gradient of chosen weights, with a factor f that grows from step to step.

    Args:
        network: Whose weights.
        growth: The factor by steps.
        chosen: For each parameter name, True where a weight is penalised.
        step: Steps done.
    """

    def __init__(
        self, network: nn.Module, growth: Growth, chosen: Mapping[str, Tensor], step: int = 0
    ) -> None:
        self.network, self.growth, self.step = network, growth, step
        self.choose(chosen)

    def choose(self, chosen: Mapping[str, Tensor]) -> None:
        """Penalise these weights from now on, and no others."""
        parameters = dict(self.network.named_parameters())
        self.places = [
            (parameters[name], mask.to(parameters[name].device)) for name, mask in chosen.items()
        ]

    def attach(self, optimizer: Optimizer) -> None:
        """Look after every step of an optimizer, whose gradient is unscaled and clipped by then."""
        optimizer.register_step_pre_hook(self._before_step)

    @torch.no_grad()
    def _before_step(self, *_: object) -> None:
        factor = self.growth.at(self.step)
        for parameter, mask in self.places:
            if parameter.grad is not None:
                parameter.grad.add_(parameter * mask, alpha=factor)


def leaving(network: nn.Module, done: Sparsified) -> dict[str, Tensor]:
    """Return the weights of a network that an action takes, True at each, by parameter name.

    Of filters these are the weights that make them, without biases and norms.

    Args:
        network: That the action was done to.
        done: What it did.
    """
    if done.record.structure != "filter":
        before = {name: mask.cpu() for name, mask in masks_of(network).items()}
        after = {name: mask.cpu() for name, mask in masks_of(done.module).items()}
        return {
            name: before[name] & ~mask if name in before else ~mask
            for name, mask in after.items()
            if name not in before or not torch.equal(before[name], mask)
        }
    makers = _makers(network)
    return {
        makers[layer].name: _outputs(makers[layer], torch.tensor(places))
        for layer, places in done.removed.items()
        if layer in makers
    }


def in_scope(network: nn.Module, done: Sparsified) -> dict[str, Tensor]:
    """Return all weights of the layers that an action takes some of, True at each that is there."""
    if done.record.structure == "filter":
        makers = _makers(network)
        names = [makers[layer].name for layer in done.removed if layer in makers]
    else:
        changed = {layer.name for layer in done.record.layers}
        names = [w.name for w in weights_in(network) if w.label in changed]
    parameters, masks = dict(network.named_parameters()), masks_of(network)
    everything = {n: torch.ones_like(parameters[n], dtype=torch.bool) for n in names}
    return {n: masks.get(n, mask) for n, mask in everything.items()}


def separation(
    network: nn.Module, chosen: Mapping[str, Tensor], among: Mapping[str, Tensor]
) -> float:
    """Return the mean magnitude of the weights in scope that stay, over that of those that go."""
    parameters = dict(network.named_parameters())
    stays, goes = [], []
    for name, mask in among.items():
        values = parameters[name].detach().abs().double()
        gone = chosen.get(name, torch.zeros_like(mask))
        goes.append(values[gone])
        stays.append(values[mask & ~gone])
    low = torch.cat(goes).mean()
    return float(torch.cat(stays).mean() / low) if low > 0 else float("inf")


def _makers(network: nn.Module) -> dict[str, Weight]:
    """Return the weights that make the outputs of layers, by layer; norms have none."""
    kinds = (CONVOLUTION, LINEAR)
    return {weight.layer: weight for weight in weights_in(network) if weight.kind in kinds}


def _outputs(weight: Weight, places: Tensor) -> Tensor:
    """Return a mask of the weights that make some outputs, whichever way they are stored."""
    order = torch.arange(weight.tensor.numel()).view(weight.tensor.shape)
    mask = torch.zeros(weight.tensor.numel(), dtype=torch.bool)
    mask[outputs_first(weight.module, order)[places].flatten()] = True
    return mask.view(weight.tensor.shape)
