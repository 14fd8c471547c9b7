"""Tensors are given back, and large ones are copied only when they are written to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainscope.networks import undo
from trainscope.networks.cost import flops
from trainscope.networks.undo import UndoLog, UnseenWriteError, given_back, written_arguments

WRITES: dict[str, Callable[[nn.Linear], object]] = {
    "in place": lambda layer: layer.weight.mul_(2),
    "an entry": lambda layer: layer.weight.view(-1)[3:4].fill_(torch.nan),
    "data": lambda layer: layer.weight.data.add_(1),
    "a transposed view": lambda layer: layer.weight.T.copy_(torch.ones(3, 4)),
    "other memory": lambda layer: setattr(layer.weight, "data", torch.zeros(4, 3)),
    "out": lambda layer: torch.add(torch.ones(4, 3), 1, out=layer.weight.data),
    "many at once": lambda layer: torch._foreach_mul_([layer.weight, layer.bias], 3.0),
    "an index": lambda layer: layer.weight.data.index_add_(0, torch.tensor([1]), torch.ones(1, 3)),
    "zero times twice": lambda layer: (layer.weight.zero_(), layer.bias.fill_(7)),
}


def held(layer: nn.Module) -> list[tuple[int, int, bytes]]:
    """Return the identity, the memory and the bits of every tensor."""
    return [
        (id(t), t.data_ptr(), t.detach().numpy().tobytes())
        for t in (*layer.parameters(), *layer.buffers())
    ]


@pytest.mark.parametrize("large", [0, 2**40], ids=["watched", "copied"])
@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
@torch.no_grad()
def test_every_write_is_undone(write: Callable[[nn.Linear], object], large: int) -> None:
    layer = nn.Linear(3, 4)
    before = held(layer)
    with contextlib.suppress(ZeroDivisionError), given_back(layer.parameters(), large):
        write(layer)
        assert held(layer) != before
        raise ZeroDivisionError
    assert held(layer) == before


@torch.no_grad()
def test_only_what_is_written_to_is_copied() -> None:
    whole = torch.arange(12.0)
    first, second = whole[:6], whole[6:]
    log = UndoLog([first, second])
    with log:
        _ = second * 2  # reading copies nothing
        assert log.kept(first) is None
        assert log.kept(second) is None
        second[2:3].zero_()
        second.zero_()
    assert log.kept(first) is None
    assert torch.equal(log.kept(second), torch.arange(6.0, 12.0))


@torch.no_grad()
def test_a_write_past_torch_is_told() -> None:
    weight = torch.ones(5)
    shared = weight.numpy()
    with pytest.raises(UnseenWriteError, match="no operation of torch's"), given_back([weight], 0):
        shared[2] = 4.0
    with given_back([weight], 2**40):
        shared[2] = 8.0
    assert weight[2] == 4.0


def test_operators_that_write_are_told_from_those_that_do_not() -> None:
    aten = torch.ops.aten
    assert written_arguments(aten.mul_.Tensor) == ((0, "self"),)
    assert written_arguments(aten.mul.Tensor) == ()
    assert [name for _, name in written_arguments(aten.add.out)] == ["out"]


class LooksAtValues(nn.Module):
    """A network that cannot run without numbers, and writes to its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2, bias=False)
        self.register_buffer("seen", torch.zeros(1))
        self.last = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return what depends on values."""
        self.seen += 1
        self.last += 1
        if float(x.sum()) > 1e9:
            return x
        out: Tensor = self.layer(x)
        self.layer.weight.data.zero_()
        return out


@pytest.mark.parametrize("large", [0, 2**40], ids=["watched", "copied"])
def test_counting_flops_copies_no_large_network(
    monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(undo, "LARGE", large)
    network = LooksAtValues()
    before = held(network), float(network.last)
    assert flops(network, (6,)) == 12
    assert (held(network), float(network.last)) == before
