"""Loops that mask weights by hand, and what a hook makes of masked weights."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.data import ProbeData
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.when import every
from trainscope.sparsify.masks import hold_masks, set_masks


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(32, 6, generator=generator), torch.arange(32) % 3


def masks_for(model):
    found = {}
    for name in ("0.weight", "2.weight"):
        size = model.get_parameter(name).detach().abs()
        found[name] = size > size.flatten().kthvalue(int(0.7 * size.numel())).values
    return found


def surviving_norm(model, masks):
    x, y = data()
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
    kept = [g * masks[n] if n in masks else g for n, g in zip(names, gradients, strict=True)]
    return float(torch.cat([g.flatten() for g in kept]).norm())


def trained(model, masks, *, hook=None, by_hand=True):
    """Train with momentum, which revives masked weights; return norms on the masked network."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    if hook is not None:
        hook.attach(model, optimizer)
    if not by_hand:
        hold_masks(model, optimizer)
    (x, y), norms = data(), []
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(name).mul_(mask)
        norms.append(surviving_norm(model, masks))
    return norms


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_probe_sees_masked_weights_at_zero_whoever_masks_them_and_when(by_hand):
    plain, model = network(), network()
    masks = masks_for(model)
    for each in (plain, model):
        set_masks(each, masks)
    x, y = data()
    hook = ProbeHook(["gradient"], when=every(1), data=ProbeData("t", x, y), norms=None)
    trained(plain, masks, by_hand=by_hand)
    expected = trained(model, masks, hook=hook, by_hand=by_hand)
    found = [t.measurement.value("norm") for t in hook.taken if t.step]
    assert found == pytest.approx(expected, rel=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_the_weights_under_a_mask_are_put_back_bit_for_bit():
    model = network()
    masks = masks_for(model)
    set_masks(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    x, y = data()
    hook = ProbeHook(["gradient"], data=ProbeData("t", x, y)).attach(model, optimizer)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name)[~mask] = 1e-3
    before = {n: (p.detach().clone(), p._version) for n, p in model.named_parameters()}
    (found,) = hook.measure("now")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter._version == before[name][1]
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    assert found.value("norm") == pytest.approx(surviving_norm(model, masks), rel=1e-5)


def test_zeros_that_no_mask_holds_are_told_at_attach(caplog):
    model = network()
    with torch.no_grad():
        for name, mask in masks_for(model).items():
            model.get_parameter(name).mul_(mask)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with caplog.at_level(logging.WARNING, logger="trainscope.probes"):
        ProbeHook().attach(model, optimizer).detach()
    (record,) = caplog.records
    assert "246 weights of Sequential are exactly zero" in record.getMessage()
    caplog.clear()
    set_masks(model, masks_for(network()))
    with caplog.at_level(logging.WARNING, logger="trainscope.probes"):
        ProbeHook().attach(model, optimizer).detach()
        dense = network()
        ProbeHook().attach(dense, torch.optim.SGD(dense.parameters(), lr=0.3)).detach()
    assert not caplog.records
