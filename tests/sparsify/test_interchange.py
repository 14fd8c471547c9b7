"""What the scope `all` cuts are channels that are equals: heads and neighbours stay together."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainscope.sparsify import Action, act, coupled, interchange, sparsify
from trainscope.sparsify.coupled import MIXED, SCALED, TORN
from trainscope.sparsify.interchange import Interchange, Swap, rounds_of

KINDS = ("in a row", "packed", "in turns", "of a size")
"""How heads lie: a number of them one after the other or by turns, or as many as are of a size."""


class Attention(nn.Module):
    """One as people write it: nothing but `h` and the width says how heads lie."""

    def __init__(self, width: int, heads: int, kind: str):
        super().__init__()
        self.h, self.size, self.kind = heads, width // heads, kind
        self.scale = self.size**-0.5
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.qkv = nn.Linear(width, 3 * width) if kind == "packed" else None

    def split(self, x):
        batch, tokens, width = x.shape
        if self.kind == "in turns":  # a head is every h-th channel
            return x.reshape(batch, tokens, width // self.h, self.h).permute(0, 3, 1, 2)
        if self.kind == "of a size":
            return x.view(batch, tokens, -1, self.size).transpose(1, 2)
        return x.reshape(batch, tokens, self.h, width // self.h).transpose(1, 2)

    def forward(self, x):
        if self.qkv is None:
            q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        else:
            batch, tokens, width = x.shape
            packed = self.qkv(x).reshape(batch, tokens, 3, self.h, width // self.h)
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        seen = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        seen = seen.permute(0, 2, 3, 1) if self.kind == "in turns" else seen.transpose(1, 2)
        return self.o(seen.reshape(x.shape))


class Transformer(nn.Module):
    """Without norms, so that the cut network has the outputs of one with zeros."""

    def __init__(self, width=24, heads=4, kind=KINDS[0]):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.attentions = nn.ModuleList(Attention(width, heads, kind) for _ in range(2))
        self.wide, self.narrow = nn.Linear(width, 48), nn.Linear(48, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        for attention in self.attentions:
            x = x + attention(x)
        return self.head((x + self.narrow(F.gelu(self.wide(x)))).mean(1))


class Chain(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between, width=8, after=None):
        super().__init__()
        self.one, self.between = nn.Conv2d(3, width, 3, padding=1), between
        self.two = nn.Conv2d(after or width, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.two(self.between(self.one(x)))
        return self.head(x.relu().mean((2, 3)))


class Moved(nn.Module):
    """Applies a function that tells neighbours apart."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Noise(nn.Module):
    """Dropout that is never off."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


def drawn(network: nn.Module) -> nn.Module:
    """Return a network with larger weights than torch draws, so that everything matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = max(parameter[0].numel(), 1) ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.normal_(0, 1.5 * scale, generator=generator)
    return network.eval()


def zeroed(network: nn.Module, removed: dict[str, tuple[int, ...]]) -> nn.Module:
    """Return the dense network in float64, with the outputs at zero that went."""
    twin = copy.deepcopy(network).double()
    with torch.no_grad():
        for name, places in removed.items():
            for parameter in twin.get_submodule(name).parameters(recurse=False):
                parameter[list(places)] = 0.0
    return twin


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "ratio"), [(2, 0.5), (3, 0.5), (4, 0.5), (4, 0.3)])
def test_heads_that_a_width_is_split_into_are_cut_evenly_or_not_at_all(heads, ratio, kind):
    network, x = drawn(Transformer(heads=heads, kind=kind)), torch.randn(4, 3, 16, 16).double()
    done = sparsify(network, Action(ratio=ratio, scope="all"), (3, 16, 16))
    with torch.no_grad():
        expected, got = zeroed(network, done.removed)(x), done.module.double()(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert SCALED not in done.notes
    if heads == 4 and kind == "in a row":
        gone = torch.tensor(done.removed["attentions.0.q"])
        assert (gone // 6).bincount().tolist() == [len(gone) // 4] * 4


def test_all_tries_of_an_action_settle_it_once(monkeypatch):
    made, plain = [], coupled.Interchange
    monkeypatch.setattr(coupled, "Interchange", lambda *given: made.append(0) or plain(*given))
    tries, cut = [], act.cut_filters
    monkeypatch.setattr(act, "cut_filters", lambda *given: tries.append(0) or cut(*given))
    sparsify(drawn(Transformer(kind="of a size")), Action(ratio=0.3, scope="all"), (3, 16, 16))
    assert (len(made), len(tries) > 1) == (1, True)


def test_heads_are_left_alone_where_the_time_to_try_them_is_up(monkeypatch):
    monkeypatch.setattr(interchange, "SECONDS", -1.0)
    network, x = drawn(Transformer()), torch.randn(4, 3, 16, 16).double()
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 16, 16))
    assert "attentions.0.q" not in done.removed
    with torch.no_grad():
        torch.testing.assert_close(done.module.double()(x), zeroed(network, done.removed)(x))


def test_scores_that_are_divided_by_a_narrower_heads_size_are_told_of(monkeypatch):
    def forward(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        seen = F.scaled_dot_product_attention(q, k, v)
        return self.o(seen.transpose(1, 2).reshape(x.shape))

    monkeypatch.setattr(Attention, "forward", forward)
    done = sparsify(drawn(Transformer()), Action(ratio=0.5, scope="all"), (3, 16, 16))
    assert "attentions.0.q" in done.removed
    assert SCALED in done.notes


@pytest.mark.parametrize("bias", [True, False])
def test_torchs_attention_looks_as_sharply_with_narrower_heads(bias):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(24, 4, batch_first=True, bias=bias)

        def forward(self, x):
            return self.inner(x, x, x, need_weights=False)[0]

    network = Transformer()
    network.attentions = nn.ModuleList([Layer(), Layer()])
    drawn(network)
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 16, 16))
    gone = torch.tensor(done.removed["stem"])
    twin = zeroed(network, done.removed)
    with torch.no_grad():
        for layer in twin.attentions:
            rows = torch.cat([gone + 24 * part for part in range(3)])
            layer.inner.in_proj_weight[rows] = 0.0
            layer.inner.out_proj.weight[gone] = 0.0
            if bias:
                layer.inner.in_proj_bias[rows] = 0.0
                layer.inner.out_proj.bias[gone] = 0.0
        x = torch.randn(4, 3, 16, 16).double()
        torch.testing.assert_close(done.module.double()(x), twin(x), rtol=1e-6, atol=1e-6)
    assert any("queries scaled" in note and "attentions.0.inner" in note for note in done.notes)
    assert not any("left alone" in note for note in done.notes)


@pytest.mark.parametrize(
    ("between", "after", "why"),
    [
        (nn.PixelShuffle(2), 2, "not there"),
        (nn.LocalResponseNorm(3, alpha=1.0), None, "padding"),
        (Moved(lambda x: x.roll(1, 1)), None, MIXED),
        (Moved(lambda x: x.flip(1)), None, TORN),
        (Moved(lambda x: x + x.cumsum(1)), None, MIXED),
    ],
    ids=["pixel shuffle", "norm over neighbours", "rolled", "flipped", "summed up"],
)
def test_channels_that_are_no_equals_are_left_alone_and_named(between, after, why):
    network, x = drawn(Chain(between, after=after)), torch.randn(2, 3, 8, 8).double()
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 8, 8))
    assert set(done.removed) == {"two"}
    assert any("one" in note and why in note for note in done.notes)
    with torch.no_grad():
        expected, got = zeroed(network, done.removed)(x), done.module.double()(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "between",
    [
        nn.GroupNorm(1, 8),
        nn.GroupNorm(4, 8),
        nn.InstanceNorm2d(8),
        Moved(lambda x: x - x.mean(1, keepdim=True)),
        Moved(lambda x: x.softmax(1)),
        Noise(),
        nn.PReLU(8),
    ],
    ids=["layer norm", "group norm", "instance norm", "mean", "softmax", "noise", "PReLU"],
)
def test_equals_are_cut_also_where_they_are_normalised_or_counted(between):
    network = drawn(Chain(between))
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 8, 8))
    assert len(done.removed["one"]) == 4


@pytest.mark.parametrize("heads", [2, 3, 4, 5, 6, 8, 12, 16])
def test_two_channels_are_never_of_one_head(heads):
    for size in range(2, 40):
        ((one, other),), second = rounds_of(heads * size, 1)
        assert one // size != other // size  # heads in a row
        assert one % heads != other % heads  # heads in turns
        assert second == [(one, one + 1)]
    assert rounds_of(heads, heads) == []
    assert rounds_of(2 * heads, heads) == [[(2 * part, 2 * part + 1) for part in range(heads)]]


def test_a_trial_touches_nothing_and_takes_back_what_it_changed():
    network = drawn(Chain(nn.ReLU()))
    before = copy.deepcopy(network.state_dict())
    trial = Interchange(network, (3, 8, 8))
    whole = [Swap("one.weight", 0, (0,), (5,)), Swap("one.bias", 0, (0,), (5,))]
    whole.append(Swap("two.weight", 1, (0,), (5,)))
    for _ in range(2):
        assert not trial.holds(whole[:2])
        assert trial.holds(whole)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
