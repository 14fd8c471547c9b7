"""Which parameters are measured, and what is said of the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainscope.probes.subject.parameters import measured
from trainscope.sparsify.masks import set_masks


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.spare, self.extra = nn.Linear(2, 2), nn.Linear(2, 1), nn.Linear(1, 1)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.shift = nn.Parameter(torch.tensor(0.5))
        self.first.bias.requires_grad_(False)
        set_masks(self, {"first.weight": torch.tensor([[True, False], [True, True]])})

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.scale + self.shift


def test_what_is_left_out_is_named_and_counted() -> None:
    network = Odd()
    everything = measured(network)
    assert everything.frozen == ("first.bias",)
    assert everything.counts == [1, 1, 3, 2, 1, 1, 1]
    found = everything.used_by(network(torch.ones(1, 2)).sum())
    assert found.names == ("scale", "shift", "first.weight")
    assert found.unused == ("spare.weight", "spare.bias", "extra.weight", "extra.bias")
    assert found.survivors == 5
    assert found.layers == {"scale": [0], "shift": [1], "first": [2]}
    assert found.notes() == {
        "frozen": "left out, for they are frozen: first.bias",
        "unused": "left out, for the loss does not use them: " + ", ".join(found.unused),
        "masked": "1 masked weights, left out; 5 survive",
    }
    # What was found unused before is not forgotten.
    again = found.used_by(network.scale * 1)
    assert again.names == ("scale",)
    assert again.unused == (*found.unused, "shift", "first.weight")


def test_masked_entries_are_zero_and_missing_from_the_flat_vector() -> None:
    network = Odd()
    found = measured(network).used_by(network(torch.ones(1, 2)).sum())
    values = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor([[3.0, 4.0], [5.0, 6.0]])]
    assert found.keep(values)[2].tolist() == [[3.0, 0.0], [5.0, 6.0]]
    flat = found.flatten(values)
    assert flat.tolist() == [1.0, 2.0, 3.0, 5.0, 6.0]
    back = found.unflatten(flat.double())
    assert [each.tolist() for each in back] == [1.0, 2.0, [[3.0, 0.0], [5.0, 6.0]]]
    assert {each.dtype for each in back} == {torch.float32}


def test_nothing_used_is_nothing_measured() -> None:
    found = measured(Odd()).used_by(torch.ones(1, requires_grad=True) * 1)
    assert (found.names, found.survivors, found.layers) == ((), 0, {})
