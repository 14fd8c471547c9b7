"""SynFlow's objective: what flows through the linear network of a network's magnitudes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from trainscope.errors import ActionError
from trainscope.networks.example import Example, Inputs, as_example, tensors_of
from trainscope.task.batches import mapped

_LINEARISED = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus),
)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def synaptic_flow(twin: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Return dR/d|w| by every parameter, float64.

    R is the sum of the outputs of the network of magnitudes, where every floating-point input is 1
    (Tanaka et al., 2020): weights are |w|, biases and shifts are zero, activations are the
    identity, and norms multiply by their |scale| (a batch norm over its running deviation too).
    What the network's own code does beside its layers stays as it is.

    Args:
        twin: A copy in eval mode, changed in place.
        inputs: The shape of one input, or an example of a call.
    """
    twin.double()
    _take_magnitudes(twin)
    for module in twin.modules():
        if isinstance(module, _LINEARISED):
            module.register_forward_hook(_pass_on)
        elif isinstance(module, _NORMS) and not _is_fixed(module):
            module.register_forward_hook(_scale)
    given = as_example(inputs).beside(twin)

    def ones(leaf: Tensor) -> Tensor:
        return torch.ones_like(leaf) if leaf.is_floating_point() else leaf

    args, kwargs = mapped(ones, (given.args, dict(given.kwargs)))
    found = tensors_of(Example(args, kwargs, given.count).run(twin)).values()
    sums = [each.sum() for each in found if each.is_floating_point() and each.requires_grad]
    if not sums:
        raise ActionError("synflow needs outputs that depend on the weights, and there are none")
    weights = dict(twin.named_parameters())
    slopes = torch.autograd.grad(
        torch.stack(sums).sum(), list(weights.values()), materialize_grads=True
    )
    return dict(zip(weights, slopes, strict=True))


@torch.no_grad()
def _take_magnitudes(network: nn.Module) -> None:
    for module in network.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                zero = leaf.startswith("bias") or leaf.endswith("_bias")
                parameter.zero_() if zero else parameter.abs_()
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.zero_()


def _is_fixed(module: nn.Module) -> bool:
    """Say whether a norm has statistics of its own, so that it is linear already."""
    return isinstance(module, _NormBase) and module.running_mean is not None


def _pass_on(_: nn.Module, args: tuple[Any, ...], __: Any) -> Any:
    return args[0]


def _scale(module: nn.Module, args: tuple[Any, ...], _: Any) -> Any:
    x, weight = args[0], module.weight
    if not isinstance(weight, Tensor):
        return x
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return x * weight
    return x * weight.view(1, -1, *(1 for _ in x.shape[2:]))
