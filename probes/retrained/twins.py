"""Networks that differ in the running statistics of their batch norms alone, trained as one.

Training normalises each batch by its own statistics, so that the weights of both go the same way,
bit for bit. Running statistics r become (1 - m) r + m b, with b the batch's: after n batches those
of the two are apart by (1 - m)^n times what they were apart before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Batch norms that are known not to look at their running statistics in training."""
_STATISTICS = ("running_mean", "running_var")


class NoTwinsError(Exception):
    """What is trained looks at its running statistics, or does not move them."""


@dataclass(frozen=True)
class _Norm:
    """One batch norm: how far its statistics are apart (float64), its momentum and its count."""

    apart: tuple[Tensor, ...]
    momentum: float
    count: int


@dataclass(frozen=True)
class Twins:
    """A network and its twin.

    Attributes:
        norms: The batch norms, in the network's order.
    """

    norms: tuple[_Norm, ...]

    @classmethod
    def of(cls, network: nn.Module, twin: nn.Module) -> Twins | None:
        """Return the pair; None where the two differ in anything but running statistics.

        Args:
            network: The one that is to be trained.
            twin: A copy of it, whose batch norms may have been recalibrated.
        """
        own, other = _tracking(network), _tracking(twin)
        if not own or any(type(each) not in _PLAIN for each in [*own, *other]):
            return None
        if not _equal_besides(network, twin) or [*map(_ways, own)] != [*map(_ways, other)]:
            return None
        norms = []
        for one, two in zip(own, other, strict=True):
            if one.momentum is None or one.num_batches_tracked is None:
                return None
            apart = tuple(_double(two, name) - _double(one, name) for name in _STATISTICS)
            norms.append(_Norm(apart, one.momentum, int(one.num_batches_tracked)))
        return cls(tuple(norms))

    @contextmanager
    def lent(self, trained: nn.Module, steps: int) -> Iterator[nn.Module]:
        """Lend a network that was trained from `network` with the statistics of one from `twin`.

        They are right to rounding; on leaving, the network's own are back, bit for bit.

        Args:
            trained: In training mode.
            steps: Optimizer steps so far.

        Raises:
            NoTwinsError: A batch norm was in eval mode in some of them.
        """
        norms = list(zip(_tracking(trained), self.norms, strict=True))
        passed = [int(_count(norm)) - known.count for norm, known in norms]
        if any(times < steps or times % steps for times in passed):  # each step as often
            raise NoTwinsError
        kept = [_statistics(norm) for norm, _ in norms]
        with torch.no_grad():
            for (norm, known), times in zip(norms, passed, strict=True):
                left = (1.0 - known.momentum) ** times
                for name, apart in zip(_STATISTICS, known.apart, strict=True):
                    own = getattr(norm, name)
                    own.copy_(own.double() + left * apart.to(own.device))
        try:
            yield trained
        finally:
            for (norm, _), values in zip(norms, kept, strict=True):
                for name, value in zip(_STATISTICS, values, strict=True):
                    getattr(norm, name).copy_(value)


def _tracking(network: nn.Module) -> list[_BatchNorm]:
    norms = (each for each in network.modules() if isinstance(each, _BatchNorm))
    return [norm for norm in norms if norm.running_mean is not None]


def _ways(norm: _BatchNorm) -> tuple[object, ...]:
    return type(norm), norm.momentum, norm.eps, norm.track_running_stats


def _count(norm: _BatchNorm) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked


def _double(norm: _BatchNorm, name: str) -> Tensor:
    value: Tensor = getattr(norm, name)
    return value.detach().double()


def _statistics(norm: _BatchNorm) -> tuple[Tensor, ...]:
    return tuple(getattr(norm, name).detach().clone() for name in _STATISTICS)


def _equal_besides(network: nn.Module, twin: nn.Module) -> bool:
    """Tell whether two networks have the same modules and tensors but for batch norms' own."""
    own, other = dict(network.named_modules()), dict(twin.named_modules())
    if [(name, type(each)) for name, each in own.items()] != [
        (name, type(each)) for name, each in other.items()
    ]:
        return False
    for name, module in own.items():
        mine, theirs = _tensors(module), _tensors(other[name])
        if mine.keys() != theirs.keys() or not all(_same(mine[k], theirs[k]) for k in mine):
            return False
    return True


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    """Return a module's own parameters and buffers, but the statistics that twins differ in."""
    tensors: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    if isinstance(module, _BatchNorm):
        left_out = (*_STATISTICS, "num_batches_tracked")
        tensors = {name: value for name, value in tensors.items() if name not in left_out}
    return tensors


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    return one.requires_grad == other.requires_grad and torch.equal(one, other)
