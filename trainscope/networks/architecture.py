"""What the registry knows of one architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from trainscope.networks.meta import Shapes, weights_on_meta


@dataclass(frozen=True)
class Architecture:
    """One architecture that can be built by name.

    Attributes:
        name: Its name in the registry.
        input_shape: The shape of one input that it was made for, (C, H, W).
        num_classes: Width of the logits unless told otherwise.
        factory: Takes `num_classes=` and returns the network with random weights.
        marker: Names that its state dict has for sure; a quick test before it is built.
        left_out: Prefixes of tensors that files may hold and we do without, such as auxiliary
            heads, which give no logits outside training.
        at_resolution: Returns the architecture for the input size that shapes give away.
        note: What a person who opens such a network should know, one sentence.
        on_meta: It can be built without numbers: its state dict holds all that it computes.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    factory: Callable[..., nn.Module]
    marker: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    at_resolution: Callable[[Architecture, Shapes], Architecture] | None = None
    note: str = ""
    on_meta: bool = True

    def build(self, num_classes: int | None = None) -> nn.Module:
        """Return the network with random weights."""
        return self.factory(num_classes=num_classes or self.num_classes)

    def skeleton(self, num_classes: int | None = None) -> nn.Module:
        """Return the network with its weights on the meta device: shapes and no numbers.

        Where that cannot be (`on_meta`), with random weights.
        """
        if not self.on_meta:
            return self.build(num_classes)
        with weights_on_meta():
            return self.build(num_classes)

    def may_be(self, shapes: Shapes) -> bool:
        """Say, without building it, whether tensors of these names can belong to it."""
        return all(name in shapes for name in self.marker)

    def fitted(self, shapes: Shapes) -> Architecture:
        """Return the architecture for the input size that the shapes give away."""
        return self.at_resolution(self, shapes) if self.at_resolution else self
