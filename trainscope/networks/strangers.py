"""What tensors are that no known architecture has, told by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KERNEL = re.compile(r"(^|[./])(kernel|embedding|scale)(:0)?$")
_ADAPTER = re.compile(r"(^|\.)(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)\.")
_COMPRESSED = re.compile(
    r"\.(weight_packed|qweight|qzeros|weight_zero_point|weight_shape|bitmask|compressed|row_offsets)$"
)
"""What compressed-tensors (N:M, bitmasks), GPTQ and AWQ keep of a weight in place of it."""
_PACKED = ("_packed_params", "activation_post_process", "weight_fake_quant")


def told_by_names(names: Iterable[str]) -> str:
    """Return a sentence on whose tensors these are, "" where their names do not say.

    Args:
        names: Of the tensors, as the file has them.
    """
    found = list(names)
    if any(part in name for name in found for part in _PACKED):
        return (
            "it is a quantised network, or one prepared for that, and what was quantised has no "
            "weights of floating point; give the checkpoint from before"
        )
    packed = next((name for name in found if _COMPRESSED.search(name)), None)
    if packed is not None:
        return (
            f"its weights are compressed ('{packed}'), as tools for inference store sparse or "
            "quantised ones; give the checkpoint from before it was compressed"
        )
    if any(_ADAPTER.search(f"{name}.") for name in found):
        return (
            "it holds LoRA adapters of peft's; call merge_and_unload() on the model and save the "
            "state_dict() of what comes back"
        )
    if any(_KERNEL.search(name) for name in found) and not any(
        name.endswith(".weight") for name in found
    ):
        return (
            "its names are those of Flax or Keras ('kernel'), whose kernels have their axes in "
            "another order; convert the network to PyTorch and save its state_dict()"
        )
    return ""
