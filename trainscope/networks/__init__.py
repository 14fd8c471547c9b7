"""Checkpoint files to networks: reading, recognising, rebuilding by shape, and what they cost."""

from __future__ import annotations

from trainscope.networks.checkpoint import open_checkpoint, save_checkpoint
from trainscope.networks.cost import flops, layer_flops, parameters
from trainscope.networks.factory import from_factory
from trainscope.networks.masks import apply_masks, masks_of, set_masks
from trainscope.networks.network import Network, Remembered, check_classes, digest
from trainscope.networks.origin import noticed, regrown
from trainscope.networks.registry import build

__all__ = [
    "Network",
    "Remembered",
    "apply_masks",
    "build",
    "check_classes",
    "digest",
    "flops",
    "from_factory",
    "layer_flops",
    "masks_of",
    "noticed",
    "open_checkpoint",
    "parameters",
    "regrown",
    "save_checkpoint",
    "set_masks",
]
