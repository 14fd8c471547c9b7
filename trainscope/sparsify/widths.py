"""Widths that a network's own modules repeat as attributes, known from how its graph uses them.

torchvision's VisionTransformer reshapes its first convolution's outputs to `self.hidden_dim`
channels. After a cut that number must follow the convolution; another attribute that holds the same
number for another layer must not. So each such attribute is traced to the reshape that uses it, and
from there to the layers that make the channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trainscope.errors import ActionError
from trainscope.networks.example import Inputs, as_example
from trainscope.networks.meta import bare_copy
from trainscope.sparsify.channels import named_widths
from trainscope.sparsify.layout import NamedWidth


@dataclass(frozen=True)
class Width:
    """An attribute that holds the width of a reshape.

    Attributes:
        module: The name of the module that has it.
        attribute: Its name.
        segments: What it counts: for each run of channels, the layer that makes them and how
            often each is repeated.
    """

    module: str
    attribute: str
    segments: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """The attribute as code would write it."""
        return f"{self.module}.{self.attribute}" if self.module else self.attribute


def find_widths(network: nn.Module, inputs: Inputs, changed: set[int]) -> tuple[Width, ...]:
    """Find the attributes that a network reshapes channels by.

    Args:
        network: As it was before the cut; not touched.
        inputs: The shape of one input, or an example of a call.
        changed: Widths that layers had and have no more; attributes of another value are let be.

    Returns:
        One for each attribute and use; none where `torch.fx` cannot trace the network.
    """
    twin = bare_copy(network, as_example(inputs).values)
    places: dict[str, tuple[str, str]] = {}
    for name, module in twin.named_modules():
        if type(module).__module__.startswith("torch.nn"):
            continue
        for attribute, value in list(vars(module).items()):
            if type(value) is int and value in changed and attribute[0] != "_":
                width = NamedWidth(value)
                width.name = f"{name}.{attribute}"
                places[width.name] = (name, attribute)
                setattr(module, attribute, width)
    if not places:
        return ()
    try:
        used = named_widths(twin, inputs)
    except ActionError:
        return ()
    return tuple(Width(*places[name], segments) for name, segments in used)


def set_widths(pruned: nn.Module, widths: tuple[Width, ...]) -> list[str]:
    """Set attributes to the widths that their layers have after a cut; return their names.

    Args:
        pruned: Changed in place.
        widths: As `find_widths` found them in the network before.

    Raises:
        ActionError: One attribute counts channels that are not equally many any more.
    """
    new: dict[str, int] = {}
    for width in widths:
        value = sum(_outputs(pruned, layer) * repeat for layer, repeat in width.segments)
        if new.setdefault(width.name, value) != value:
            raise ActionError(
                f"the network reshapes channels of several layers by its attribute {width.name}, "
                "and the cut leaves those layers unequal; use --scope inner or the structure "
                "unstructured"
            )
    changed = []
    for width in widths:
        module = pruned.get_submodule(width.module)
        if getattr(module, width.attribute) != new[width.name]:
            setattr(module, width.attribute, new[width.name])
            changed.append(width.name)
    return changed


def _outputs(network: nn.Module, layer: str) -> int:
    module = network.get_submodule(layer)
    width = getattr(module, "out_channels", getattr(module, "out_features", None))
    assert isinstance(width, int)
    return width
