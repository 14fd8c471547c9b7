"""Timm's networks as architectures, by name, where timm is installed.

There are more than a thousand, so that they are not among those a bare state dict is compared with:
a file or `--arch timm/NAME` names one. Nothing is fetched.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

from torch import nn

from trainscope.networks.architecture import Architecture

PREFIX = "timm/"
_NAME = re.compile(r"\w+")  # timm takes addresses of hubs too, and would fetch


@lru_cache(maxsize=64)
def architecture(name: str) -> Architecture | None:
    """Return one of timm's networks, or None where timm has none of that name or is not there.

    Args:
        name: With or without "timm/"; what follows a dot names weights, and is left out.
    """
    plain = name.removeprefix(PREFIX).partition(".")[0]
    if _NAME.fullmatch(plain) is None or find_spec("timm") is None:
        return None
    import timm

    if not timm.is_model(plain):
        return None
    settings: Any = timm.get_pretrained_cfg(plain)
    shape = (3, 224, 224) if settings is None else tuple(settings.input_size)
    return Architecture(
        name=PREFIX + plain,
        input_shape=shape,
        num_classes=1000 if settings is None else settings.num_classes or 1000,
        factory=partial(_build, plain),
        on_meta=False,  # many keep positions and the like outside their state dict
    )


def _build(name: str, *, num_classes: int) -> nn.Module:
    import timm

    built: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return built
