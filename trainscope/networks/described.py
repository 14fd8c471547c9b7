"""Tensors of kinds that no network here is measured with: described, and never built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

NESTED, SPARSE, QUANTISED, META = "nested", "sparse", "quantised", "meta"
COMPLEX, PACKED, FOREIGN = "complex", "packed", "foreign"

_SAID = {
    NESTED: "is a nested tensor, rows of different lengths; no network's weights are such",
    SPARSE: "is sparse; call `.to_dense()` on it and save the network's weights as plain float32",
    QUANTISED: (
        "is quantised; call `.dequantize()` on it and save the network's weights as plain float32"
    ),
    META: "has a shape and no values; save the network after its weights were loaded",
    COMPLEX: "is complex; no network here has such weights",
    PACKED: "packs two values in a byte; save the network's weights as plain float32",
    FOREIGN: "needs a tensor class's own code; save the network's weights as plain float32",
}


@dataclass(frozen=True)
class Described:
    """A tensor that a file holds and that is not built.

    Attributes:
        kind: One of the constants of this module.
        dtype: Its type, like "float32"; with its layout, like "float32, sparse_coo".
        shape: Its shape; of a nested tensor that of its parts in one row.
        stored: The bytes that the file has of it.
        count: Returns the share of its elements that are exactly zero, or None where the file is
            not right; None where that cannot be told from its parts.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    stored: int = 0
    count: Callable[[], float | None] | None = field(default=None, compare=False, repr=False)

    @property
    def problem(self) -> str:
        """Why it cannot be measured and what to do, a sentence after "the tensor 'x' "."""
        return _SAID[self.kind]
