"""The sparsifying action: what goes (criteria, ratios, scopes) and how (filters, masks)."""

from trainscope.sparsify.act import Sparsified, sparsify, unchanged
from trainscope.sparsify.action import Action
from trainscope.sparsify.given import given_action
from trainscope.sparsify.masks import apply_masks, hold_masks, masks_of, set_masks
from trainscope.sparsify.recalibrate import has_batch_norm, recalibrate_batch_norm

__all__ = [
    "Action",
    "Sparsified",
    "apply_masks",
    "given_action",
    "has_batch_norm",
    "hold_masks",
    "masks_of",
    "recalibrate_batch_norm",
    "set_masks",
    "sparsify",
    "unchanged",
]
