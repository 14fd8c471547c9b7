"""Folders of transformers' networks, tiny and untrained; the package must be there."""

from __future__ import annotations

from pathlib import Path

import torch


def image_classifier(folder: Path) -> None:
    """Write a ViT of four classes, 8x8."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_labels=4,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
