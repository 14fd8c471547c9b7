"""Torchvision's classification networks as architectures. Imports torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from torch import nn
from torchvision import models

from trainscope.networks.architecture import Architecture
from trainscope.networks.meta import Shapes

_MARKERS: dict[str, tuple[str, ...]] = {
    "alexnet": ("features.10.weight", "classifier.6.weight"),
    "convnext": ("features.1.0.layer_scale", "classifier.2.weight"),
    "densenet": ("features.denseblock1.denselayer1.conv1.weight", "classifier.weight"),
    "efficientnet": ("features.1.0.block.0.0.weight", "classifier.1.weight"),
    "googlenet": ("inception3a.branch1.conv.weight", "fc.weight"),
    "inception": ("Mixed_5b.branch1x1.conv.weight", "fc.weight"),
    "maxvit": ("stem.0.0.weight", "classifier.5.weight"),
    "mnasnet": ("layers.0.weight", "classifier.1.weight"),
    "mobilenet_v2": ("features.1.conv.0.0.weight", "classifier.1.weight"),
    "mobilenet_v3": ("features.1.block.0.0.weight", "classifier.3.weight"),
    "regnet": ("stem.0.weight", "fc.weight"),
    "resnet": ("layer1.0.conv1.weight", "fc.weight"),
    "resnext": ("layer1.0.conv3.weight", "fc.weight"),
    "shufflenet": ("stage2.0.branch1.0.weight", "fc.weight"),
    "squeezenet": ("features.3.squeeze.weight", "classifier.1.weight"),
    "swin": ("features.1.0.attn.qkv.weight", "head.weight"),
    "vgg": ("features.0.weight", "classifier.6.weight"),
    "vit": ("class_token", "conv_proj.weight"),
    "wide_resnet": ("layer1.0.conv3.weight", "fc.weight"),
}
"""By the start of a name: tensors that each of the family has. Others are always built to see."""

_SIZES = {
    "efficientnet_b1": 240,
    "efficientnet_b2": 288,
    "efficientnet_b3": 300,
    "efficientnet_b4": 380,
    "efficientnet_b5": 456,
    "efficientnet_b6": 528,
    "efficientnet_b7": 600,
    "efficientnet_v2_l": 480,
    "efficientnet_v2_m": 480,
    "efficientnet_v2_s": 384,
    "inception_v3": 299,
    "swin_v2_b": 256,
    "swin_v2_s": 256,
    "swin_v2_t": 256,
}
"""Height and width of an input where it is not 224: the crop of torchvision's own weights."""

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}

_TRANSFORM = (
    "Its inputs go in as they are; torchvision's own pretrained {name} first rescales them "
    "(transform_input), so with those weights normalise to mean 0.5 and deviation 0.5."
)


@lru_cache(maxsize=1)
def architectures() -> dict[str, Architecture]:
    """Return every classification network that this torchvision can build, by name."""
    return {name: _architecture(name) for name in models.list_models(module=models)}


def _architecture(name: str) -> Architecture:
    family = max((start for start in _MARKERS if name.startswith(start)), key=len, default="")
    size = _SIZES.get(name, 224)
    options: dict[str, Any] = {"weights": None}
    if name in _AUXILIARY:
        options |= {"aux_logits": False, "init_weights": True}
    return Architecture(
        name=name,
        input_shape=(3, size, size),
        num_classes=1000,
        factory=partial(_build, name, options),
        marker=_MARKERS.get(family, ()),
        left_out=_AUXILIARY.get(name, ()),
        at_resolution=_vit_at_resolution if family == "vit" else None,
        note=_TRANSFORM.format(name=name) if name in _AUXILIARY else "",
    )


def _build(name: str, options: dict[str, Any], *, num_classes: int) -> nn.Module:
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder(num_classes=num_classes, **options)


def _vit_at_resolution(vit: Architecture, shapes: Shapes) -> Architecture:
    """Read the input size off the number of positions: one a patch, and one for the class token."""
    positions = shapes.get("encoder.pos_embedding", ())
    patch = shapes.get("conv_proj.weight", ())
    if len(positions) != 3 or len(patch) != 4 or not vit.name.endswith(f"_{patch[-1]}"):
        return vit
    side = math.isqrt(max(positions[1] - 1, 0))
    size = side * patch[-1]
    if size in (0, vit.input_shape[1]) or side**2 != positions[1] - 1:
        return vit
    resized = partial(_build, vit.name, {"weights": None, "image_size": size})
    return replace(vit, input_shape=(3, size, size), factory=resized)
