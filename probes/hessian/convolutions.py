"""Convolutions whose gradients can be differentiated once more at the cost of six convolutions.

The second derivative of a convolution that torch has makes the derivative by the weight with a
convolution whose kernel is as large as the image, and one for each group. Where images are large,
or groups many, that is the most of a whole product. Here each part is the forward or the backward
pass of an ordinary convolution, in the same formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv1d, conv2d, conv3d
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = {conv1d: 1, conv2d: 2, conv3d: 3}
"""What is taken the place of, and the axes of its images."""

SMALL = 64
"""Numbers in one channel of an image up to which torch's own way, of one group, is as fast or
faster: a product on a ResNet-18 with 64x64 images takes .86 of torch's time so, .98 with all."""

_Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside, convolutions return what they always do, with a graph that is differentiated twice.

    Not thrice. A convolution that is not of one batch of plain tensors (a sharded weight, inside
    `torch.func.vmap` or `torch.autocast`, padding given by a word), or of images so small that
    torch's way is as fast, stays torch's own.
    """
    with _InPlaceOfTorchs():
        yield


class _InPlaceOfTorchs(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        axes = CONVOLUTIONS.get(func)
        if axes is not None and torch.is_grad_enabled():
            found = _call(axes, *args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))


def _call(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return a convolution, or None where it is left to torch; the names are torch's."""
    plain = all(type(each) in (Tensor, torch.nn.Parameter) for each in (input, weight))
    if isinstance(padding, str) or not plain or input.ndim != axes + 2 or not len(input):
        return None
    if torch.is_autocast_enabled(input.device.type):
        return None
    if groups == 1 and input[0, 0].numel() <= SMALL:
        return None
    sizes = [[n] * axes if isinstance(n, int) else list(n) for n in (stride, padding, dilation)]
    sizes = [each * axes if len(each) == 1 else each for each in sizes]
    try:
        out: Tensor = _Forward.apply(input, weight, bias, (*sizes, False, [0] * axes, groups))
    except RuntimeError:  # inside a transform of torch.func, or shapes that do not fit
        return None
    return out


class _Forward(torch.autograd.Function):
    """The convolution y = W * x + b."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.geometry = geometry
        out: Tensor = torch.ops.aten.convolution(images, weight, bias, *geometry)
        return out

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Any:
        wanted = tuple(ctx.needs_input_grad[:3])
        return (*_Backward.apply(signal, *ctx.saved_tensors, ctx.geometry, wanted), None)


class _Backward(torch.autograd.Function):
    """The derivatives by x, W and b along a signal g: B(g, W), A(g, x) and the sum of g.

    They are linear in g, B in W and A in x, so that their own derivatives along (u, V, c) are
    W * u + V * x + c by g, B(g, V) by x and A(g, u) by W.
    """

    @staticmethod
    def forward(
        ctx: Any,
        signal: Tensor,
        images: Tensor,
        weight: Tensor,
        geometry: _Geometry,
        wanted: tuple[bool, bool, bool],
    ) -> Any:
        ctx.save_for_backward(signal, images, weight)
        ctx.set_materialize_grads(False)
        ctx.geometry = geometry
        return _derivatives(signal, images, weight, geometry, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None, c: Tensor | None) -> Any:
        signal, images, weight = ctx.saved_tensors
        by_signal, by_images, by_weight = ctx.needs_input_grad[:3]
        total = None
        if by_signal and u is not None:
            total = torch.ops.aten.convolution(u, weight, None, *ctx.geometry)
        if by_signal and v is not None:
            part = torch.ops.aten.convolution(images, v, c, *ctx.geometry)
            total = part if total is None else total.add_(part)
        elif by_signal and c is not None:
            part = c.view(-1, *[1] * (signal.ndim - 2))
            total = part.expand_as(signal) if total is None else total.add_(part)
        other = (images if u is None else u, weight if v is None else v)
        wanted = (by_images and v is not None, by_weight and u is not None, False)
        found = _derivatives(signal, *other, ctx.geometry, wanted)
        return total, found[0], found[1], None, None


def _derivatives(
    signal: Tensor,
    images: Tensor,
    weight: Tensor,
    geometry: _Geometry,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return those of one convolution by its images, weight and bias, of which some are wanted."""
    if not any(wanted):
        return None, None, None
    sizes = [len(weight)] if wanted[2] else None
    found = torch.ops.aten.convolution_backward(
        signal, images, weight, sizes, *geometry, list(wanted)
    )
    by_images, by_weight, by_bias = (x if w else None for x, w in zip(found, wanted, strict=True))
    return by_images, by_weight, by_bias
