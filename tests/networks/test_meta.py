"""Networks without numbers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import prune

from trainscope.networks.meta import meta_copy, weights_on_meta


def test_weights_take_no_memory_and_constants_keep_their_values():
    with weights_on_meta():
        net = nn.Sequential(nn.Conv2d(3, 10**6, 3), nn.BatchNorm2d(10**6), nn.Linear(10**5, 10**5))
        steps = torch.arange(5) * 2
        nn.init.trunc_normal_(net[2].weight)
    assert {tensor.device.type for tensor in net.parameters()} == {"meta"}
    assert steps.tolist() == [0, 2, 4, 6, 8]
    assert all(weight.requires_grad for weight in net.parameters())


def test_building_without_numbers_draws_no_random_numbers():
    state = torch.get_rng_state()
    with weights_on_meta():
        nn.Linear(4, 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_copy_is_in_eval_mode_without_hooks_and_the_module_is_not_touched():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3)).train()
    net[2].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    net[0].register_forward_hook(lambda *_: None)
    prune.identity(net[2], "bias")
    net(torch.zeros(1, 3))  # leaves a computed bias, which deepcopy would refuse
    twin = meta_copy(net)
    assert twin[2].weight is twin[0].weight
    assert twin[0].weight is not net[0].weight
    assert not twin[0].bias.requires_grad
    assert not twin[0]._forward_hooks
    assert not twin.training
    assert net.training
    assert len(net[0]._forward_hooks) == 1
    assert net[0].weight.device.type == "cpu"
