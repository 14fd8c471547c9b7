"""Each layer's rule against the plain gradient of one sample after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import seeded
from torch import Tensor, nn

from trainscope.probes.gradients.layer_rules import rule_for
from trainscope.probes.subject.folding import ConvNorm

WIDE = (5, 4, 7, 6)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "3x3": (lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(1, 2)), WIDE),
    "dilated": (lambda: nn.Conv2d(4, 6, (2, 3), dilation=(3, 2), bias=False), WIDE),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding="same"), WIDE),
    "reflected": (
        lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect", stride=(1, 3)),
        WIDE,
    ),
    "1x1": (lambda: nn.Conv2d(4, 6, 1, stride=(3, 2)), WIDE),
    "1x3": (lambda: nn.Conv2d(4, 6, (1, 3)), WIDE),
    "few places": (lambda: nn.Conv2d(4, 6, (7, 6)), WIDE),
    "linear": (lambda: nn.Linear(4, 6), (5, 4)),
    "linear on places": (lambda: nn.Linear(4, 6), (5, 3, 4)),
    "norm": (lambda: normed(nn.BatchNorm2d(4)), WIDE),
    "flat norm": (lambda: normed(nn.BatchNorm1d(4)), (5, 4)),
    "folded": (lambda: ConvNorm(nn.Conv2d(4, 6, 3, stride=2), normed(nn.BatchNorm2d(6))), WIDE),
    "folded, no bias": (
        lambda: ConvNorm(nn.Conv2d(4, 6, 3, bias=False), normed(nn.BatchNorm2d(6))),
        WIDE,
    ),
    "folded, few places": (
        lambda: ConvNorm(nn.Conv2d(4, 6, (7, 6), bias=False), normed(nn.BatchNorm2d(6))),
        WIDE,
    ),
    "folded, no affine": (
        lambda: ConvNorm(nn.Conv2d(4, 6, 3), normed(nn.BatchNorm2d(6, affine=False))),
        WIDE,
    ),
}


def normed(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> nn.Module:
    """Give a batch norm statistics and an eps that matter."""
    norm.eps = 0.5
    with torch.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=seeded(len(tensor))))
    return norm


def built(name: str) -> tuple[nn.Module, Tensor]:
    build, shape = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = build().double().eval()
    return layer, torch.randn(shape, generator=seeded(2), dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_squares_are_those_of_the_plain_gradients(name: str, masked: bool) -> None:
    layer, x = built(name)
    out = layer(x)
    d = torch.randn((2, *out.shape), generator=seeded(3), dtype=torch.float64)
    rule = rule_for(layer)
    assert rule is not None
    owned = rule.owned()
    assert {id(p) for p in owned} == {id(p) for p in layer.parameters()}
    masks: dict[int, Tensor | None] = {id(p): None for p in owned}
    if masked:
        masks = {id(p): torch.rand(p.shape, generator=seeded(p.numel())) > 0.4 for p in owned}
    found = rule.squares(x, d, masks)
    assert found.keys() == masks.keys()
    for i in range(len(x)):
        expected = dict.fromkeys(masks, 0.0)
        for r in d:
            grads = torch.autograd.grad(layer(x[i : i + 1]), owned, r[i : i + 1])
            for p, g in zip(owned, grads, strict=True):
                kept = g if masks[id(p)] is None else g * masks[id(p)]
                expected[id(p)] += float(kept.square().sum())
        for key, value in expected.items():
            assert float(found[key][i]) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_formed_one_by_one_or_summed(name: str, masked: bool) -> None:
    layer, x = built(name)
    d = torch.randn(layer(x).shape, generator=seeded(3), dtype=torch.float64)
    rule = rule_for(layer)
    assert rule is not None
    owned = rule.owned()
    masks = {id(p): torch.ones(p.shape, dtype=torch.bool) if masked else None for p in owned}
    formed = rule.formed(x, d, masks, 0)
    left = masks.keys() - formed.keys()
    summed = rule.summed(x, d, masks) if left else {}
    assert left <= summed.keys()
    assert bool(left) == (not masked and name in ("few places", "folded, few places", "linear"))
    rows = [torch.autograd.grad(layer(x[i : i + 1]), owned, d[i : i + 1]) for i in range(len(x))]
    for p, grads in zip(owned, zip(*rows, strict=True), strict=True):
        expected = torch.stack(grads)
        if id(p) in formed:
            assert torch.allclose(formed[id(p)].view_as(expected), expected, rtol=1e-10, atol=1e-12)
        else:
            total = summed[id(p)].view_as(p)
            assert torch.allclose(total, expected.sum(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_response_is_the_derivative_along_a_direction(name: str) -> None:
    layer, x = built(name)
    rule = rule_for(layer)
    named = dict(layer.named_parameters())
    moved = {n: torch.randn(p.shape, generator=seeded(4), dtype=p.dtype) for n, p in named.items()}
    for chosen in (list(named), list(named)[:1]):
        sides = []
        for t in (0.5, -0.5):  # outputs are quadratic in the weights: this difference is exact
            weights = {n: p + t * moved[n] if n in chosen else p for n, p in named.items()}
            sides.append(torch.func.functional_call(layer, weights, (x,)))
        got = rule.response(x, {id(named[n]): moved[n] for n in chosen})
        assert torch.allclose(got, sides[0] - sides[1], rtol=1e-10, atol=1e-12)


def test_a_folded_layer_keeps_nothing_of_another_input() -> None:
    layer, x = built("folded")
    rule = rule_for(layer)
    masks = {id(p): None for p in rule.owned()}
    d = torch.ones((1, *layer(x).shape), dtype=torch.float64)
    rule.squares(x, d, masks)
    again, fresh = rule.squares(x + 1, d, masks), rule_for(layer).squares(x + 1, d, masks)
    assert all(torch.equal(again[key], fresh[key]) for key in masks)


def test_layers_without_a_rule() -> None:
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda *_: None)
    before = nn.Linear(3, 3)
    before.register_forward_pre_hook(lambda *_: None)
    of_batch = nn.BatchNorm2d(3, track_running_stats=False)
    line = ConvNorm(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2))
    for layer in (
        hooked,
        before,
        of_batch,
        line,
        nn.LayerNorm(3),
        type("L", (nn.Linear,), {})(3, 3),
    ):
        assert rule_for(layer) is None


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_that_are_not_asked_for_are_left_out(name: str) -> None:
    layer, x = built(name)
    rule = rule_for(layer)
    d = torch.randn((1, *layer(x).shape), generator=seeded(3), dtype=torch.float64)
    every = rule.squares(x, d, {id(p): None for p in rule.owned()})
    for p in rule.owned():
        found = rule.squares(x, d, {id(p): None})
        assert found.keys() == {id(p)}
        assert torch.equal(found[id(p)], every[id(p)])
