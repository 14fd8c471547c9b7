"""How many bytes of tensors are alive at once: counted by operator, so the same everywhere."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode


class PeakBytes(TorchDispatchMode):
    """Counts the memory that operators inside make, as long as anything holds it.

    Attributes:
        most: The largest sum so far, bytes.
    """

    def __init__(self, *known: Tensor) -> None:
        """Leave out the memory of some tensors."""
        super().__init__()
        self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and count what it leaves."""
        out = func(*args, **(kwargs or {}))
        self._alive = {k: row for k, row in self._alive.items() if not row[0].expired()}
        for leaf in _pytree.tree_leaves(out):
            if isinstance(leaf, Tensor) and not leaf.is_meta:
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return out
