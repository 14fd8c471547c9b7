"""Per-sample gradients of one layer from its input and the gradient at its output.

A layer that is affine in its weights needs no gradient per sample to be formed: with x its input
and d the gradient at its output, a linear layer's weight gradient is the sum over positions of the
outer products d x^T, and a convolution is a linear layer on the unfolded input. Squared norms come
either from that sum or, where that is less work, from the inner products of positions
(Goodfellow 2015; Rochette et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.probes.subject.folding import NORMS, ConvNorm

Masks = Mapping[int, Tensor | None]
"""Masks by the id of the parameter; the keys are the parameters asked for."""


class LayerRule(Protocol):
    """What is known of one layer type. Sizes: N samples, R cotangents."""

    def owned(self) -> list[nn.Parameter]:
        """Return the parameters that the rule covers."""

    def squares(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        """Return, by parameter id, |gradient|^2 of each sample summed over cotangents, [N].

        `x` is the layer's input [N, ...], `d` the gradients at its output, [R, N, ...].
        """

    def formed(self, x: Tensor, d: Tensor, masks: Masks, most: int) -> dict[int, Tensor]:
        """Return, by parameter id, the samples' gradients [N, ...] where it pays to form them.

        `d` is the gradient at the output, [N, ...]; masked entries are not left out. `most` is the
        bytes that a sample's may take where only speed asks for it. The others' are `summed`, and
        their squares and responses come without them.
        """

    def summed(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        """Return the sum over samples of the gradients that `formed` leaves out."""

    def response(self, x: Tensor, along: Mapping[int, Tensor]) -> Tensor:
        """Return the output's derivative when parameters move `along`, as the output is shaped."""


def rule_for(module: nn.Module) -> LayerRule | None:
    """Return the rule of a layer, None where there is none."""
    if module._forward_pre_hooks or module._forward_hooks:  # they may change what is computed
        return None
    if isinstance(module, ConvNorm):
        return _ConvNormRule(module) if type(module.conv) is nn.Conv2d else None
    if type(module) is nn.Conv2d:
        return _ConvRule(module)
    if type(module) is nn.Linear:
        return _LinearRule(module)
    if type(module) in NORMS and module.running_var is not None:
        return _NormRule(cast(nn.BatchNorm2d, module))
    return None


def _own(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer._parameters.values() if parameter is not None]


class _LinearRule:
    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    def owned(self) -> list[nn.Parameter]:
        return _own(self.layer)

    def squares(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        n, out = len(x), d.shape[-1]
        columns = x.reshape(n, 1, -1, x.shape[-1]).transpose(2, 3)
        rows = d.reshape(len(d), n, 1, -1, out).permute(1, 2, 0, 4, 3)
        return _weight_and_bias(self.layer.weight, self.layer.bias, columns, rows, masks)

    def formed(self, x: Tensor, d: Tensor, masks: Masks, most: int) -> dict[int, Tensor]:
        found = {}
        x, d = x.reshape(len(x), -1, x.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
        weight, places = self.layer.weight, x.shape[1]
        # Sum and products with it take two more passes over all places where none is formed.
        quick = places >= _PLACES and id(weight) in masks and weight.nbytes <= most
        if quick or _pays(weight, places, masks):
            found[id(self.layer.weight)] = d.transpose(1, 2) @ x
        if self.layer.bias is not None and id(self.layer.bias) in masks:
            found[id(self.layer.bias)] = d.sum(1)
        return found

    def summed(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        return {id(self.layer.weight): d.flatten(0, -2).T @ x.flatten(0, -2)}

    def response(self, x: Tensor, along: Mapping[int, Tensor]) -> Tensor:
        weight, bias = _moved(self.layer.weight, along), _moved(self.layer.bias, along)
        return F.linear(x, cast(Tensor, weight), bias)


class _ConvRule:
    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer

    def owned(self) -> list[nn.Parameter]:
        return _own(self.layer)

    def squares(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        weight, found = self.layer.weight, {}
        if len(d) <= _FEW and _pays(weight, d[0, 0, 0].numel(), masks):
            each = [_masked_squares(self._each(x, r)[:, None], masks[id(weight)]) for r in d]
            found[id(weight)] = torch.stack(each).sum(0)
            masks = {key: mask for key, mask in masks.items() if key != id(weight)}
            if self.layer.bias is not None and id(self.layer.bias) in masks:
                beta = d.flatten(3).sum(3).transpose(0, 1)
                found[id(self.layer.bias)] = _masked_squares(beta, masks[id(self.layer.bias)])
            return found
        columns, rows = _unfolded(self.layer, x), _rows(self.layer, d)
        return _weight_and_bias(weight, self.layer.bias, columns, rows, masks)

    def formed(self, x: Tensor, d: Tensor, masks: Masks, most: int) -> dict[int, Tensor]:
        found = {}
        if _pays(self.layer.weight, d[0, 0].numel(), masks):
            found[id(self.layer.weight)] = self._each(x, d)
        if self.layer.bias is not None and id(self.layer.bias) in masks:
            found[id(self.layer.bias)] = d.flatten(2).sum(2)
        return found

    def summed(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        return {id(self.layer.weight): self._gradient(x, d, 1)[0]}

    def _each(self, x: Tensor, d: Tensor) -> Tensor:
        """Return each sample's weight gradient, [N, O, I, h, w], with samples as groups.

        No input is unfolded, which takes three times as long where a layer has many places.
        """
        return self._gradient(
            x.reshape(1, -1, *x.shape[2:]), d.reshape(1, -1, *d.shape[2:]), len(x)
        )

    def _gradient(self, x: Tensor, d: Tensor, count: int) -> Tensor:
        """Return the weight's gradient of so many samples side by side, [count, O, I, h, w]."""
        layer, shape = self.layer, self.layer.weight.shape
        padding = layer.padding
        if layer.padding_mode != "zeros" or isinstance(padding, str):
            x, padding = _padded(layer, x), (0, 0)
        found: Tensor = torch.ops.aten.convolution_backward(
            d,
            x,
            layer.weight.detach().new_empty(count * shape[0], *shape[1:]),  # only its shape
            None,
            list(layer.stride),
            list(padding),
            list(layer.dilation),
            False,
            [0, 0],
            layer.groups * count,
            [False, True, False],
        )[1]
        return found.view(count, *shape)

    def response(self, x: Tensor, along: Mapping[int, Tensor]) -> Tensor:
        weight, bias = _moved(self.layer.weight, along), _moved(self.layer.bias, along)
        out: Tensor = self.layer._conv_forward(x, cast(Tensor, weight), bias)
        return out


class _NormRule:
    def __init__(self, layer: nn.BatchNorm2d) -> None:
        self.layer = layer

    def owned(self) -> list[nn.Parameter]:
        return _own(self.layer)

    def normalised(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean, var = cast(Tensor, self.layer.running_mean), cast(Tensor, self.layer.running_var)
        return (x - mean.view(shape)) * torch.rsqrt(var + self.layer.eps).view(shape)

    def squares(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        return _scale_and_shift(self.layer, self.normalised(x), d, masks)

    def formed(self, x: Tensor, d: Tensor, masks: Masks, most: int) -> dict[int, Tensor]:
        found = {}
        if self.layer.weight is not None and id(self.layer.weight) in masks:
            found[id(self.layer.weight)] = _over_places(d * self.normalised(x))
        if self.layer.bias is not None and id(self.layer.bias) in masks:
            found[id(self.layer.bias)] = _over_places(d)
        return found

    def summed(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        return {}

    def response(self, x: Tensor, along: Mapping[int, Tensor]) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        gamma, beta = _moved(self.layer.weight, along), _moved(self.layer.bias, along)
        out = self.normalised(x) * cast(Tensor, gamma).view(shape)
        return out if beta is None else out + beta.view(shape)


class _ConvNormRule:
    def __init__(self, layer: ConvNorm) -> None:
        self.layer = layer
        self.conv = _ConvRule(cast(nn.Conv2d, layer.conv))
        self.norm = _NormRule(layer.norm)
        self.last: tuple[Tensor, Tensor] | None = None

    def convolved(self, x: Tensor) -> Tensor:
        """Return the convolution of x, kept from the call before where x is the same tensor."""
        if self.last is None or self.last[0] is not x:
            self.last = x, self.layer.conv(x).detach()
        return self.last[1]

    def owned(self) -> list[nn.Parameter]:
        return [*self.conv.owned(), *self.norm.owned()]

    def squares(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        scale = self.layer.scale().detach().view(-1, 1, 1)
        found = {}
        if any(id(parameter) in masks for parameter in self.conv.owned()):
            found.update(self.conv.squares(x, d * scale, masks))
        if any(id(parameter) in masks for parameter in self.norm.owned()):
            found.update(self.norm.squares(self.convolved(x), d, masks))
        return found

    def formed(self, x: Tensor, d: Tensor, masks: Masks, most: int) -> dict[int, Tensor]:
        conv, norm = self.layer.conv, self.layer.norm
        inverse = self.layer.inverse_std().detach()
        scale = self.layer.scale().detach()
        found = self.conv.formed(x, d, masks, most)  # by the folded weight, until it is scaled
        shift = _over_places(d)
        each = found.get(id(conv.weight))
        if norm.weight is not None and id(norm.weight) in masks:
            if each is not None and conv.bias is None:
                # <d, W x - mean> is <d x, W> - mean <d, 1>: no second convolution.
                mean = cast(Tensor, norm.running_mean)
                inner = (each * conv.weight.detach()).flatten(2).sum(2)
                found[id(norm.weight)] = (inner - shift * mean) * inverse
            else:
                gamma = _over_places(d * self.norm.normalised(self.convolved(x)))
                found[id(norm.weight)] = gamma
        if norm.bias is not None and id(norm.bias) in masks:
            found[id(norm.bias)] = shift
        if conv.bias is not None and id(conv.bias) in masks:
            found[id(conv.bias)] = shift * scale
        if each is not None:
            each.mul_(scale.view(-1, *[1] * (each.ndim - 2)))
            if id(conv.weight) not in masks:
                del found[id(conv.weight)]
        return found

    def summed(self, x: Tensor, d: Tensor, masks: Masks) -> dict[int, Tensor]:
        return self.conv.summed(x, d * self.layer.scale().detach().view(-1, 1, 1), masks)

    def response(self, x: Tensor, along: Mapping[int, Tensor]) -> Tensor:
        scale = self.layer.scale().detach().view(-1, 1, 1)
        out = self.conv.response(x, along) * scale
        if any(id(parameter) in along for parameter in self.norm.owned()):
            out = out + self.norm.response(self.convolved(x), along)
        return out


def _moved(parameter: Tensor | None, along: Mapping[int, Tensor]) -> Tensor | None:
    """Return a parameter's direction, zero where it does not move."""
    if parameter is None:
        return None
    return along.get(id(parameter), torch.zeros_like(parameter))


_FEW = 2
"""Cotangents up to which gradients are formed without unfolding the input for all of them."""


_PLACES = 4
"""Positions from which on a linear layer's gradients are formed at less cost than left out."""


def _pays(weight: Tensor, places: int, masks: Masks) -> bool:
    """Tell whether a weight's gradients are formed for less than the inner products of places."""
    if id(weight) not in masks:
        return False
    size = weight.numel()
    outs, inner = len(weight), size // len(weight)
    return masks[id(weight)] is not None or places * (outs + inner) >= size


def _over_places(values: Tensor) -> Tensor:
    """Return the sums of [N, C, ...] over all places, [N, C]."""
    return values.flatten(2).sum(2) if values.ndim > 2 else values


def _padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)


def _unfolded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what each output position sees: [N, groups, I, T], I inputs of a group, T places."""
    x = _padded(conv, x)
    kernel, stride = cast("tuple[int, int]", conv.kernel_size), conv.stride
    if kernel == (1, 1):
        columns = x[:, :, :: stride[0], :: stride[1]].flatten(2)
    else:
        columns = F.unfold(x, kernel, dilation=conv.dilation, stride=stride)
    return columns.reshape(len(x), conv.groups, -1, columns.shape[-1])


def _rows(conv: nn.Conv2d, d: Tensor) -> Tensor:
    """Return gradients at the output, [R, N, O, H, W], as [N, groups, R, O / groups, T]."""
    count, samples = d.shape[:2]
    return d.reshape(count, samples, conv.groups, -1, d[0, 0, 0].numel()).permute(1, 2, 0, 3, 4)


def _weight_and_bias(
    weight: Tensor, bias: Tensor | None, columns: Tensor, rows: Tensor, masks: Masks
) -> dict[int, Tensor]:
    """Return the squares of a weight [O, I, ..] and a bias [O] from their two factors.

    Args:
        weight: The weight.
        bias: The bias, if there is one.
        columns: [N, G, I, T].
        rows: [N, G, R, O / G, T].
        masks: As `LayerRule.squares` takes them.
    """
    found = {}
    n, groups, count, outs, places = rows.shape
    if id(weight) in masks:
        flat = rows.reshape(n, groups, count * outs, places)
        mask = masks[id(weight)]
        inner = columns.shape[2]
        if mask is None and places * (count * outs + inner) < count * outs * inner:
            products = (flat.transpose(2, 3) @ flat) * (columns.transpose(2, 3) @ columns)
            found[id(weight)] = products.sum((1, 2, 3))
        else:
            formed = flat @ columns.transpose(2, 3)
            if mask is not None:
                formed = formed.view(n, groups, count, outs, inner)
                formed = formed * mask.reshape(1, groups, 1, outs, inner)
            found[id(weight)] = formed.flatten(1).square().sum(1)
    if bias is not None and id(bias) in masks:
        found[id(bias)] = _masked_squares(rows.sum(4).transpose(1, 2), masks[id(bias)])
    return found


def _scale_and_shift(
    layer: nn.BatchNorm2d, normalised: Tensor, d: Tensor, masks: Masks
) -> dict[int, Tensor]:
    """Return the squares of a norm's gamma and beta."""
    found = {}
    if layer.weight is not None and id(layer.weight) in masks:
        gamma = (d * normalised).flatten(3).sum(3) if d.ndim > 3 else d * normalised
        found[id(layer.weight)] = _masked_squares(gamma.transpose(0, 1), masks[id(layer.weight)])
    if layer.bias is not None and id(layer.bias) in masks:
        beta = d.flatten(3).sum(3) if d.ndim > 3 else d
        found[id(layer.bias)] = _masked_squares(beta.transpose(0, 1), masks[id(layer.bias)])
    return found


def _masked_squares(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the squared norm of each sample's values [N, R, ...], masked entries left out."""
    values = values.reshape(len(values), values.shape[1], -1)
    return (values if mask is None else values * mask.reshape(-1)).square().sum((1, 2))
