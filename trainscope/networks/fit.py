"""How tensors fit one architecture: exactly, as a narrower (pruned) form of it, or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from torch import Tensor, nn

from trainscope.networks.architecture import Architecture
from trainscope.networks.forward import check_forward
from trainscope.networks.meta import Shapes, shapes_of
from trainscope.networks.rebuild import (
    fill,
    is_narrower,
    mismatch,
    resize,
    with_counters,
)
from trainscope.task.modes import evaluating


@dataclass(frozen=True)
class Fit:
    """One architecture held against the shapes found in a file.

    Attributes:
        architecture: It, at the input size and channels that the shapes give away.
        num_classes: Width of the logits in the file.
        dense: Shapes of the dense network with those classes and input channels.
        found: Shapes found, without what the architecture leaves out; counters of batch norm that
            old files lack are added.
    """

    architecture: Architecture
    num_classes: int
    dense: Shapes
    found: Shapes

    @property
    def exact(self) -> bool:
        """Every tensor is there in the shape of the dense network, and no other."""
        return self.dense == self.found

    @property
    def narrower(self) -> bool:
        """The tensors are the dense network's with channels or units taken out."""
        return is_narrower(self.dense, self.found)

    @property
    def difference(self) -> str | None:
        """What first keeps the tensors from fitting, in words."""
        return mismatch(self.dense, self.found, self.architecture.name)

    @property
    def parameters(self) -> int:
        """Values in the dense network's state dict."""
        return sum(prod(shape) for shape in self.dense.values())

    def network(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Return the network with these tensors as its weights, in eval mode, run once.

        Args:
            tensors: At least those of `found`; they become the network's own.

        Raises:
            CheckpointError: Its layers do not fit each other.
        """
        module = self.architecture.skeleton(self.num_classes)
        resize(module, self.found)
        check_forward(
            module, self.architecture.input_shape, self.architecture.name, regroup=not self.exact
        )
        fill(module, tensors)
        return evaluating(module)

    def dense_network(self) -> nn.Module:
        """Return the dense network with those classes and input channels, without numbers."""
        module = self.architecture.skeleton(self.num_classes)
        resize(module, self.dense)
        return module


def fit(architecture: Architecture, found: Shapes) -> Fit:
    """Hold one architecture against the shapes of a state dict.

    The width of the logits is read off the last matrix, the channels of an input off the first
    convolution.
    """
    architecture = architecture.fitted(found)
    dense = dict(_dense_shapes(architecture))
    kept = {n: s for n, s in found.items() if not n.startswith(architecture.left_out)}
    kept = with_counters(kept, dense)

    classes = architecture.num_classes
    classifier = next(name for name in reversed(dense) if len(dense[name]) >= 2)
    if len(kept.get(classifier, ())) == len(dense[classifier]):
        classes = kept[classifier][0]
        bias = classifier.removesuffix("weight") + "bias"
        others = [dense[name] for name in dense if name not in (classifier, bias)]
        if any(shape[:1] == (architecture.num_classes,) for shape in others):
            dense = shapes_of(architecture.skeleton(classes).state_dict())  # it has two heads
        dense[classifier] = (classes, *dense[classifier][1:])
        if bias in dense:
            dense[bias] = (classes,)

    stem = next((name for name in dense if len(dense[name]) == 4), None)
    if stem is not None and len(kept.get(stem, ())) == 4:
        channels = kept[stem][1]
        dense[stem] = (dense[stem][0], channels, *dense[stem][2:])
        shape = (channels, *architecture.input_shape[1:])
        architecture = replace(architecture, input_shape=shape)
    return Fit(architecture, classes, dense, kept)


@lru_cache(maxsize=128)
def _dense_shapes(architecture: Architecture) -> Shapes:
    return shapes_of(architecture.skeleton().state_dict())
