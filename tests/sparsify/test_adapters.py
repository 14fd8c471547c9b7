"""peft's adapters beside layers: no structure prunes them, and the reason says what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.errors import ActionError
from trainscope.networks.masks import masks_of
from trainscope.sparsify import Action, sparsify


class Adapted(nn.Module):
    """A linear layer with two matrices of low rank beside it, named as peft names them."""

    def __init__(self, inputs: int, outputs: int, rank: int = 4) -> None:
        super().__init__()
        self.base_layer = nn.Linear(inputs, outputs)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(inputs, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, outputs, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def network(adapted: bool = True) -> nn.Module:
    torch.manual_seed(0)
    made = Adapted if adapted else nn.Linear
    layers = nn.Linear(6, 16), nn.ReLU(), made(16, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(12, 4))


INPUTS = torch.zeros(2, 6)


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_the_weights_of_the_layers_are_masked_and_those_of_adapters_are_not(structure):
    ratio = 0.5 if structure == "unstructured" else None
    done = sparsify(network(), Action(structure=structure, ratio=ratio, scope="all"), INPUTS)
    assert "2.base_layer.weight" in masks_of(done.module)
    assert not any("lora" in name for name in masks_of(done.module))
    reasons = {each.name: each.reason for each in done.record.left_alone}
    assert reasons.keys() >= {"2.lora_A.default", "2.lora_B.default"}
    assert "merge_and_unload()" in reasons["2.lora_A.default"]
    assert any(
        "left alone: 2.lora_A.default, 2.lora_B.default (an adapter" in n for n in done.notes
    )


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_the_rank_of_an_adapter_is_no_hidden_width(scope):
    done = sparsify(network(), Action(ratio=0.5, scope=scope), INPUTS)
    assert not any("lora" in layer.name for layer in done.record.layers)
    assert done.module[2].lora_A["default"].out_features == 4
    plain = sparsify(network(adapted=False), Action(ratio=0.5, scope=scope), INPUTS)
    kept = {layer.name: layer.after for layer in done.record.layers}
    if scope == "inner":  # the layer with an adapter meets an addition, so the last one alone
        assert kept == {"4": 6}
        assert {layer.name: layer.after for layer in plain.record.layers} == {
            "0": 8,
            "2": 8,
            "4": 6,
        }


def test_a_network_of_adapted_layers_alone_is_told_to_merge_them():
    alone = nn.Sequential(Adapted(6, 16), nn.ReLU(), Adapted(16, 4))
    with pytest.raises(ActionError, match=r"nothing can be pruned: .*merge_and_unload\(\)"):
        sparsify(alone, Action(ratio=0.5), INPUTS)
