"""What a person brings: a module as a Network, and inputs of another size for one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from trainscope.errors import CheckpointError, DataError
from trainscope.foreign import reason
from trainscope.networks.forward import check_forward
from trainscope.networks.guess_shape import GUESSED
from trainscope.networks.network import Network


def given_network(module: nn.Module, inputs: Tensor) -> Network:
    """Return a module as a Network, in its own mode and on its own device.

    Args:
        module: Run once in eval mode without gradients; modes and random states are put back.
        inputs: [N, ...], of which two are put forward.

    Raises:
        CheckpointError: It does not take such inputs, or does not return logits [N, classes].
    """
    if isinstance(module, nn.DataParallel):
        module = module.module
    name = type(module).__name__
    shape = tuple(inputs.shape[1:])
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            # A copy: a forward pass may write into its input.
            out = module(inputs[:2].detach().to(device=like.device, dtype=like.dtype, copy=True))
    except Exception as error:  # whatever the module's own code raises
        raise CheckpointError(
            f"{name} does not take inputs of shape {'x'.join(map(str, shape))}: {reason(error)}"
        ) from error
    finally:
        for part, mode in modes:
            part.training = mode
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(inputs[:2]):
        what = (
            f"a tensor of shape {tuple(out.shape)}"
            if isinstance(out, Tensor)
            else f"a {type(out).__name__}"
        )
        raise CheckpointError(
            f"{name} returns {what} for {len(inputs[:2])} inputs and not logits of shape "
            "[samples, classes]: wrap it in a module that does"
        )
    return Network(
        module=module,
        architecture=name,
        input_shape=shape,
        num_classes=int(out.shape[1]),
        recognised="the module that was given",
    )


def with_inputs_of(network: Network, shape: tuple[int, ...], data: str) -> Network:
    """Return a network with the input shape of the data, where it takes such inputs.

    Args:
        network: Not touched.
        shape: Of one input of the data, (C, H, W).
        data: The data's name, for the message.

    Raises:
        DataError: It takes inputs of its own shape alone.
    """
    if shape == tuple(network.input_shape):
        return network
    try:
        check_forward(network.module, shape, network.architecture)
    except CheckpointError as error:
        own, other = ("x".join(map(str, sides)) for sides in (network.input_shape, shape))
        raise DataError(
            f"{data} has inputs {other} and {network.architecture} takes {own}: give the data that "
            "it was trained on with --data"
        ) from error
    notes = tuple(note for note in network.notes if not note.startswith(GUESSED))
    return replace(network, input_shape=shape, notes=notes)
