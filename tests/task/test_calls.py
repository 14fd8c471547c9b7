"""Hooks on calls of modules: what they see, what they may change, and that they go again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.task.calls import ModuleCall, hooked


class Named(nn.Module):
    def forward(self, x, scale=1.0):
        return x * scale


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_both_ends_of_a_call_are_seen_with_its_key():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    seen = []
    x = torch.ones(1, 2)
    with hooked(
        network.named_modules(),
        before=lambda call: seen.append(("in", call.key, call.out)),
        after=lambda call: seen.append(("out", call.key, tuple(call.out.shape))),
    ):
        network(x)
    network(x)  # no longer watched
    ends = [(end, key) for end, key, _ in seen]
    assert ends == [("in", ""), ("in", "0"), ("out", "0"), ("in", "1"), ("out", "1"), ("out", "")]
    assert [out for end, _, out in seen if end == "in"] == [None] * 3
    assert [out for end, _, out in seen if end == "out"] == [(1, 3)] * 3
    assert hooks_of(network) == 0


def test_what_they_return_takes_the_place_of_arguments_and_output():
    def doubled(call: ModuleCall[int]) -> tuple[tuple, dict]:
        return (call.args[0] + 1,), {**call.kwargs, "scale": 2 * call.kwargs["scale"]}

    module, x = Named(), torch.tensor([1.0])
    with hooked([(0, module)], before=doubled, after=lambda call: call.out - call.key):
        assert module(x, scale=3.0) == 12.0  # (1 + 1) * (2 * 3) - 0
    with hooked([(5, module)], after=lambda call: call.out - call.key):
        assert module(x, scale=3.0) == -2.0
    assert module(x, scale=3.0) == 3.0


def test_hooks_go_when_the_block_raises():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))  # the second takes another width
    ended = []
    with (
        pytest.raises(RuntimeError),
        hooked(network.named_modules(), after=lambda call: ended.append(call.key), always=True),
    ):
        network(torch.ones(1, 2))
    assert ended == ["0", "1", ""]
    assert hooks_of(network) == 0


def test_hooks_go_when_a_module_takes_none():
    first = nn.Linear(2, 2)

    class Closed(nn.Linear):
        def register_forward_pre_hook(self, *_, **__):
            raise RuntimeError("register_forward_pre_hook is not supported on ScriptModules")

    with (
        pytest.raises(RuntimeError, match="not supported"),
        hooked([(0, first), (1, Closed(2, 2))], before=lambda _: None),
    ):
        pass
    assert hooks_of(first) == 0
