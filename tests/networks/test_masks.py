"""Where masks live, and how they are found."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from trainscope.networks.masks import apply_masks, masks_of, set_masks


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))


MASK = torch.tensor([[True, False, True], [False, True, True]])


def test_masks_zero_and_are_copied_and_saved_with_the_network():
    net = _net()
    set_masks(net, {"0.weight": MASK})
    assert torch.equal(net[0].weight == 0, ~MASK)
    assert "0.weight_mask" in net.state_dict()
    assert torch.equal(masks_of(copy.deepcopy(net))["0.weight"], MASK)
    nn.init.ones_(net[0].weight)
    apply_masks(net)
    assert torch.equal(net[0].weight, MASK.float())


def test_masks_of_torch_prune_are_found_by_the_parameter_they_mask():
    net = _net()
    prune.custom_from_mask(net[0], "weight", MASK)
    assert masks_of(net).keys() == {"0.weight_orig"}
    assert torch.equal(masks_of(net)["0.weight_orig"], MASK)


def test_a_mask_on_the_network_itself():
    net = nn.Linear(3, 2)
    set_masks(net, {"weight": MASK})
    assert masks_of(net).keys() == {"weight"}


def test_a_buffer_that_happens_to_be_called_so_is_no_mask():
    net = _net()
    net.register_buffer("attention_mask", torch.ones(2))
    net[0].register_buffer("weight_mask", torch.ones(1))
    assert masks_of(net) == {}


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the mask of 0\.weight is"):
        set_masks(_net(), {"0.weight": torch.ones(3)})
