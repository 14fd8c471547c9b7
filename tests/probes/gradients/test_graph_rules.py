"""Weights that no layer's rule covers: samples' gradients from the graph, against plain ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import seeded
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.gradients.sample_gradients import SampleGradients
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.sparsify.masks import set_masks

WORDS, WIDTH, LENGTH, OUT = 7, 4, 5, 3
pytestmark = pytest.mark.usefixtures("one_thread")


class Body(nn.Module):
    """Something in the middle of a small network on [N, LENGTH, WIDTH]."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.own = nn.ParameterList([torch.randn(shape) for shape in shapes])
        self.head = nn.Linear(WIDTH, OUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x, *self.own)).mean(1))

    def body(self, x: Tensor, *own: Tensor) -> Tensor:
        raise NotImplementedError


def body(change: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Callable[[], nn.Module]:
    return lambda: type("Body", (Body,), {"body": staticmethod(change)})(*shapes)


class Words(nn.Module):
    """Token ids, with positions from a table, and a head that shares the embedding's weight."""

    def __init__(self, padding: int | None = None, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH, padding_idx=padding)
        self.place = nn.Embedding(LENGTH + 1, WIDTH, padding_idx=padding)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        return self.head(torch.tanh(self.norm(self.embed(ids) + self.place(places)))).mean(1)


class Tokens(nn.Module):
    """A vision transformer's parts: class token, sliced positions, attention, a layer's scale."""

    def __init__(self, first: bool = True) -> None:
        super().__init__()
        self.first = first
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, LENGTH + 4, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=first)
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, OUT)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = self.norm(x + self.places[:, : x.shape[1]])
        y = x if self.first else x.transpose(0, 1)
        y = self.attention(y, y, y, need_weights=False)[0]
        x = x + self.scale * (y if self.first else y.transpose(0, 1))
        return self.head(x[:, 0])


class Grouped(nn.Module):
    """Convolutions on lines, their groups of channels normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.GroupNorm(2, WIDTH), nn.GroupNorm(1, OUT)
        self.conv = nn.Linear(WIDTH, OUT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.transpose(1, 2)).tanh()
        return self.last(self.conv(x.transpose(1, 2)).transpose(1, 2)).sum(2)


class Convolving(nn.Module):
    """Convolutions on lines, there and back, the last on two parts of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Conv1d(WIDTH, 6, 3, stride=2, padding=2, groups=2)
        self.back = nn.ConvTranspose1d(6, 4, 2, stride=2, output_padding=1, dilation=2)
        self.last = nn.Conv3d(2, OUT, (1, 2, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.back(torch.tanh(self.there(x.transpose(1, 2))))
        x = self.last(torch.tanh(x).reshape(2 * len(x), 2, 1, x.shape[2], 1))
        return x.reshape(-1, 2, *x.shape[1:]).sum((1, 3, 4, 5))


class Twice(nn.Module):
    """One layer, called twice, the second time with samples behind."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(torch.tanh(self.one(x)).transpose(0, 1).contiguous()).mean(0)


class Windows(nn.Module):
    """Parts of a sample beside each other on the axis of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.own = nn.LayerNorm(WIDTH), nn.Parameter(torch.randn(1, WIDTH, WIDTH))
        self.one = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(-1, WIDTH, WIDTH)  # LENGTH of them in a sample of LENGTH * WIDTH places
        parts = self.one(self.norm(parts + self.own)).tanh()
        return parts.reshape(len(x), -1, WIDTH).mean(1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "shared by embedding and head": (Words, (LENGTH,)),
    "padding": (lambda: Words(padding=2, tied=False), (LENGTH,)),
    "padding and shared": (lambda: Words(padding=2), (LENGTH,)),
    "attention": (Tokens, (LENGTH, WIDTH)),
    "attention, samples second": (lambda: Tokens(first=False), (LENGTH, WIDTH)),
    "groups": (Grouped, (LENGTH, WIDTH)),
    "convolutions": (Convolving, (LENGTH, WIDTH)),
    "twice": (Twice, (LENGTH, WIDTH)),
    "windows": (Windows, (LENGTH * WIDTH, WIDTH)),
    "product": (body(lambda x, w, b: x @ w + b, (WIDTH, WIDTH), (WIDTH,)), (LENGTH, WIDTH)),
    "addmm": (
        body(
            lambda x, w, b: torch.addmm(b, x.reshape(-1, WIDTH), w).view(x.shape),
            (WIDTH, WIDTH),
            (WIDTH,),
        ),
        (LENGTH, WIDTH),
    ),
    "rms norm": (
        body(lambda x, w: w * x * x.square().mean(-1, keepdim=True).rsqrt(), (WIDTH,)),
        (LENGTH, WIDTH),
    ),
    "turned": (
        body(
            lambda x, w: (x.transpose(0, 1) @ w.permute(1, 0).clone()).transpose(0, 1),
            (WIDTH, WIDTH),
        ),
        (LENGTH, WIDTH),
    ),
    "steps": (
        body(
            lambda x, a, b, c: x * a[1:8:2].unsqueeze(0) + b.expand(LENGTH, -1) + c[-1, :, 1],
            (9,),
            (1, WIDTH),
            (2, WIDTH, 3),
        ),
        (LENGTH, WIDTH),
    ),
    "one number": (body(lambda x, a, b: x * a + b, (), (1,)), (LENGTH, WIDTH)),
    "parts": (
        body(
            lambda x, w, b: (
                torch.cat([x @ part for part in w.split([3, 1], 1)], 2) * b.chunk(2)[1]
                + b.split(WIDTH)[0]
            ),
            (WIDTH, WIDTH),
            (2 * WIDTH,),
        ),
        (LENGTH, WIDTH),
    ),
    "looked up": (
        body(
            lambda x, w: x + w[torch.tensor([[0, -1], [1, 0]])].permute(2, 0, 1).reshape(-1, WIDTH),
            (3, LENGTH),
        ),
        (LENGTH, WIDTH),
    ),
    "axes": (
        body(lambda x, w: x + w.transpose(0, 2).reshape(LENGTH, WIDTH), (2, LENGTH, 2)),
        (LENGTH, WIDTH),
    ),
}


def built(name: str, samples: int) -> tuple[nn.Module, ProbeData]:
    build, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build().double().eval()
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    if isinstance(network, Words):
        inputs = torch.randint(WORDS, (samples, *shape), generator=seeded(1))
    else:
        inputs = torch.randn(samples, *shape, generator=seeded(1), dtype=torch.float64)
    with torch.no_grad():
        outs = network(inputs).shape[1]
    labels = torch.randint(outs, (samples,), generator=seeded(2))
    return network, ProbeData(name, inputs, labels)


def pair(logits: Tensor, _: object = None) -> list[list[Tensor]]:
    return [[logits.detach().softmax(1)], [logits.detach().cos()]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("samples", [1, 3, LENGTH, 2 * LENGTH])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_from_the_graph_are_the_plain_ones(name: str, samples: int, masked: bool) -> None:
    network, data = built(name, samples)
    if masked:
        named = network.named_parameters()
        set_masks(network, {n: torch.rand(p.shape, generator=seeded(5)) > 0.4 for n, p in named})
    weights = measured(network)
    along = weights.keep(
        [torch.randn(t.shape, generator=seeded(3), dtype=t.dtype) for t in weights.tensors]
    )
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, weights, None)
        assert gradients.method == "layer rules" or samples == 1  # a copy for one is none
        assert gradients.by_rules.graph.weights
        got = gradients(lent.batch, pair, along)
        first = lambda z, _=None: pair(z)[:1]  # noqa: E731
        whole = gradients.with_mean(lent.batch, first)
        assert whole is not None
        gradients.method = "one by one"
        expected = gradients(lent.batch, pair, along)
        outputs = lent.outputs(lent.batch)
        mean = weights.keep(
            torch.autograd.grad(outputs, weights.tensors, outputs.detach().softmax(1) / samples)
        )
        alone = gradients(lent.batch, first, mean)
    for one, other in ((got, expected), (whole[:2], alone)):
        assert torch.allclose(one[0], other[0], rtol=1e-10, atol=1e-13)
        assert torch.allclose(one[1], other[1], rtol=1e-10, atol=1e-12)
    for one, other in zip(whole[2], mean, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-13)


UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "a function of the weight": body(lambda x, w: x * w.exp(), (WIDTH,)),
    "a product of weights": body(lambda x, a, b: x * (a * b), (WIDTH,), (WIDTH,)),
    "a sum with a factor": body(lambda x, w: torch.add(x, w, alpha=2), (WIDTH,)),
    "a mask": body(lambda x, w: x * w[torch.arange(8) > 3], (8,)),
    "an operation": body(lambda x, w: F.bilinear(x, x, w), (WIDTH, WIDTH, WIDTH)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_uses_are_left_to_vmap(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNKNOWN[name]().double()
    inputs = torch.randn(4, LENGTH, WIDTH, generator=seeded(1), dtype=torch.float64)
    data = ProbeData("", inputs, torch.tensor([0, 1, 2, 0]))
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), None)
        assert gradients.method == "vectorised"
        got, _ = gradients(lent.batch, pair)
        gradients.method = "one by one"
        expected, _ = gradients(lent.batch, pair)
    assert torch.allclose(got, expected, rtol=1e-10)


def test_large_and_narrow_weights_are_not_left_to_the_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, data = built("attention", 3)
    with evaluation(network, data) as lent:
        room = SampleGradients(lent, measured(network), None).by_rules.formed
        assert room == 3 * 8 * 3 * WIDTH * WIDTH  # the attention's weight, float64
    for budget, method in ((room, "layer rules"), (room - 1, "vectorised")):
        for module in ("rule", "sample"):
            monkeypatch.setattr(f"trainscope.probes.gradients.{module}_gradients.BUDGET", budget)
        with evaluation(network, data) as lent:
            gradients = SampleGradients(lent, measured(network), 1)
            assert gradients.method in (method, "one by one")
            assert (gradients.method == "layer rules") == (method == "layer rules")
    monkeypatch.undo()
    with evaluation(network.bfloat16(), data) as lent:
        assert SampleGradients(lent, measured(network), None).method != "layer rules"


@pytest.mark.parametrize("second", [False, True])
def test_of_axes_of_one_size_the_first_samples_tell_which_is_theirs(second: bool) -> None:
    def change(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return (x.transpose(0, 1) @ w + b).transpose(0, 1) if second else x @ w + b

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = body(change, (WIDTH, WIDTH), (WIDTH,))().double()
    inputs = torch.randn(6, 2, WIDTH, generator=seeded(1), dtype=torch.float64)
    with evaluation(network, ProbeData("", inputs, torch.arange(6) % OUT)) as lent:
        gradients = SampleGradients(lent, measured(network), None)
        assert gradients.method == "layer rules"
        assert set(gradients.by_rules.graph.axes.values()) == {(int(second),)}
        got, _ = gradients(lent.batch, pair)
        gradients.method = "one by one"
        expected, _ = gradients(lent.batch, pair)
    assert torch.allclose(got, expected, rtol=1e-10)


def test_what_hooks_change_is_in_the_graph() -> None:
    network, data = built("windows", 3)
    network.one.register_forward_hook(lambda _, __, out: out * 2 + out.sin())
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), None)
        assert (gradients.method, gradients.by_rules.rules) == ("layer rules", {})
        got, _ = gradients(lent.batch, pair)
        gradients.method = "one by one"
        expected, _ = gradients(lent.batch, pair)
    assert torch.allclose(got, expected, rtol=1e-10)
