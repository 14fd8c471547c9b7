"""Settings of convolutions that tensors do not tell, taken over from a pickled network."""

from __future__ import annotations

from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks.forward import check_forward
from trainscope.networks.network import Network
from trainscope.networks.readers.contents import Geometry
from trainscope.networks.tensor_names import plain_names

TAKEN = ("stride", "padding", "dilation")


def apply_geometry(network: Network, geometry: Geometry) -> tuple[str, ...]:
    """Give a rebuilt network the strides, padding and dilation that its file has.

    Args:
        network: Its module is changed in place.
        geometry: Settings by the name of a convolution, as the file has it.

    Returns:
        A sentence that names the layers changed; nothing where all were so already.

    Raises:
        CheckpointError: The number of groups differs, or the network does not run with them.
    """
    convolutions = dict(network.module.named_modules())
    names = plain_names([f"{name}.weight" for name in geometry])
    changed = []
    for name, settings in geometry.items():
        plain = names[f"{name}.weight"].removesuffix(".weight")
        layer = convolutions.get(plain)
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        if settings.get("groups") not in (None, layer.groups):
            raise CheckpointError(
                f"the layer '{plain}' has {settings['groups']} groups in the file and "
                f"{layer.groups} in {network.architecture}; say which network it is with --model"
            )
        for key in TAKEN:
            value = settings.get(key)
            if value is not None and value != getattr(layer, key):
                setattr(layer, key, value)
                changed.append(f"{plain}.{key}")
    if not changed:
        return ()
    check_forward(network.module, network.input_shape, network.architecture)
    return (f"Taken over from the file: {', '.join(dict.fromkeys(changed))}.",)
