"""Per-sample gradients: how many samples at once, and the method's choice where rules mislead."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.probes.gradient import Gradient
from trainscope.probes.gradients import mean_gradient as mean_gradients
from trainscope.probes.gradients.mean_gradient import find_gradients
from trainscope.probes.gradients.sample_gradients import SampleGradients
from trainscope.probes.gradients.single_samples import NoRuleError
from trainscope.probes.gradients.vectorised_gradients import Vectorised
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.sparsify.masks import set_masks
from trainscope.task import (
    Classification,
    FromLoss,
    LanguageModelling,
    MaskedLanguageModelling,
    Regression,
    Task,
)

INPUTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network_of(*layers: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(*layers).double().eval()
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def pair(logits: Tensor, _: object = None) -> list[list[Tensor]]:
    return [[logits.detach().softmax(1)], [logits.detach().cos()]]


def by_hand(network: nn.Module, along: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return squares [parameters, N] and dots [N] from one backward pass each."""
    weights = measured(network)
    squares = torch.zeros(len(weights.names), len(INPUTS), dtype=torch.float64)
    dots = torch.zeros(len(INPUTS), dtype=torch.float64)
    for i in range(len(INPUTS)):
        logits = network(INPUTS[i : i + 1])
        for (r,) in pair(logits):
            grads = torch.autograd.grad(logits, weights.tensors, r, retain_graph=True)
            for k, g in enumerate(weights.keep(grads)):
                squares[k, i] += g.square().sum()
                dots[i] += (g * along[k]).sum()
    return squares, dots


@pytest.mark.parametrize("method", ["layer rules", "vectorised", "one by one"])
def test_masks_samples_and_cotangents_are_told_apart(method: str) -> None:
    network = network_of(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    keep = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    set_masks(network, {"0.weight": keep})
    weights = measured(network)
    generator = torch.Generator().manual_seed(2)
    along = weights.keep(
        [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in weights.tensors]
    )
    data = ProbeData("s", INPUTS, torch.zeros(6, dtype=torch.int64))
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, weights, None)
        assert gradients.method == "layer rules"
        gradients.method = method
        squares, dots = gradients(lent.batch, pair, along)
        alone, zeros = gradients(lent.batch, pair)
        apart = gradients.apart(lent.batch, pair, 2)
        second, _ = gradients(lent.batch, lambda logits, _: pair(logits)[1:])
    expected = by_hand(network, along)
    assert torch.allclose(apart.sum(0), expected[0], rtol=1e-11, atol=1e-14)
    assert torch.allclose(apart[1], second, rtol=1e-11, atol=1e-14)
    assert torch.allclose(squares, expected[0], rtol=1e-11, atol=1e-14)
    assert torch.allclose(dots, expected[1], rtol=1e-11, atol=1e-13)
    assert torch.equal(alone, squares)
    assert not zeros.any()


class Shared(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(torch.tanh(self.one(x)))


class Folding(nn.Module):
    """Samples turned into twice as many rows, which a layer's rule cannot tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.stack([x, 2 * x], 1).view(-1, 3)
        return self.one(rows).view(len(x), 2, 3).sum(1)


class Behind(nn.Module):
    """A parameter of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) * self.scale


class Leaking(nn.Module):
    """A little of a weight's gradient passes the layer by."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + 0.2 * self.one.bias


@pytest.mark.parametrize("build", [Shared, Folding, Behind, Leaking])
def test_layers_rules_that_would_be_wrong_are_not_taken(build: type[nn.Module]) -> None:
    network = network_of(build())
    weights = measured(network)
    along = [torch.ones_like(t) for t in weights.tensors]
    data = ProbeData("s", INPUTS, torch.zeros(6, dtype=torch.int64))
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, weights, None)
        kept = {
            key for module in gradients.by_rules.rules for key in gradients.by_rules._asked[module]
        }
        assert gradients.method == ("vectorised" if build is Leaking else "layer rules")
        assert build is Behind or id(network[0].one.bias) not in kept
        squares, dots = gradients(lent.batch, pair, along)
    expected = by_hand(network, along)
    assert torch.allclose(squares, expected[0], rtol=1e-11)
    assert torch.allclose(dots, expected[1], rtol=1e-11, atol=1e-13)


def test_fewer_samples_at_once_where_each_takes_more_memory() -> None:
    network = network_of(nn.Linear(3, 3))
    data = ProbeData("s", INPUTS, torch.zeros(6, dtype=torch.int64), batch_size=4)
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), 2**20)
        assert gradients.chunk(4) == 2**28 // (2**20 * 8)
        assert gradients.chunk(60) == 4
        assert gradients.chunk(10**6) == 1
        gradients.method = "vectorised"
        gradients.graph_bytes = 2**8  # beside the gradients of nine weights and three biases, twice
        assert gradients.chunk(60) == 2**28 // (2**8 * 5 + 2 * 8 * 12)
        gradients.method = "one by one"
        assert gradients.chunk(60) == 4


def test_one_pass_is_not_taken_where_it_would_hold_too_much() -> None:
    network = network_of(nn.Linear(3, 3))
    data = ProbeData("s", INPUTS, torch.zeros(6, dtype=torch.int64))
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), 2**28)

        def one(logits: Tensor, _: object) -> list[list[Tensor]]:
            return [[logits.detach().cos()]]

        assert gradients.with_mean(lent.batch, one) is None
        gradients.graph_bytes = 2**20
        assert gradients.with_mean(lent.batch, one) is not None
        gradients.method = "one by one"
        assert gradients.with_mean(lent.batch, one) is None


class Choosing(nn.Module):
    """A layer that only samples with a large input use."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.rare = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.one(x)
        large = x[:, :1] > 100
        return torch.where(large, self.rare(x / 100), out) if bool(large.any()) else out


def test_weights_that_only_a_late_sample_uses_are_measured() -> None:
    network = network_of(Choosing())
    inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs[-1] *= 1000
    inputs[-1, 0] = 1000
    data = ProbeData("s", inputs, torch.zeros(12, dtype=torch.int64))
    found = Gradient().measure(network, data)
    loss = nn.functional.cross_entropy(network(inputs), data.labels)
    gradient = torch.autograd.grad(loss, list(network.parameters()))
    norm = float(torch.cat([g.flatten() for g in gradient]).norm())
    assert found.value("norm") == pytest.approx(norm, rel=1e-12)
    assert any("rare" in name for name in found.arrays["layers"])


class Squared(nn.Module):
    """A network whose weights no rule covers, on token ids or numbers."""

    def __init__(self, ids: bool, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3) if ids else nn.Identity()
        self.weight, self.head = nn.Parameter(torch.ones(3)), nn.Linear(3, outputs)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(input_ids) * self.weight.square()))


def ids_and_labels(kind: str) -> Any:
    ids = torch.randint(7, (6, 5), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(5) < torch.tensor([5, 4, 5, 3, 2, 5]).unsqueeze(1)
    if kind == "moved":
        return ids, ids.roll(-1, 1).masked_fill(torch.arange(5) == 4, -100)
    if kind == "masked":
        return {"input_ids": ids, "labels": ids.masked_fill(ids > 3, -100)}
    return {"input_ids": ids, "attention_mask": mask.long()}


def by_value(out: Tensor, wanted: Tensor) -> Tensor:
    return (out - wanted).abs().mean() if float(out.detach().sum()) < 1e9 else out.mean()


LOSSES: dict[str, tuple[Task, Any, bool]] = {
    "classification": (Classification(), (INPUTS, torch.arange(6) % 4), True),
    "regression": (Regression(), (INPUTS, torch.cat([INPUTS, INPUTS[:, :1]], 1)), True),
    "huber": (Regression(loss_name="huber"), (INPUTS, torch.ones(6, 4, dtype=torch.float64)), True),
    "own": (FromLoss(nn.functional.mse_loss), (INPUTS, torch.ones(6, 4).double()), True),
    "by value": (FromLoss(by_value), (INPUTS, torch.ones(6, 4).double()), False),
    "next tokens": (LanguageModelling(), ids_and_labels("next"), True),
    "next tokens, moved": (LanguageModelling(), ids_and_labels("moved"), True),
    "masked tokens": (MaskedLanguageModelling(), ids_and_labels("masked"), True),
}


def refused(*_: object) -> None:
    """Stand for a way that does not follow the network."""
    raise NoRuleError


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_differentiated_with_the_forward_pass_where_vmap_follows_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, batch, follows = LOSSES[name]
    (network,) = network_of(Squared("tokens" in name, 7 if "tokens" in name else 4))
    data = ProbeData("", batch=batch, task=task, batch_size=6)
    with evaluation(network, data) as lent:
        every = measured(network)
        found = find_gradients(lent, None)
        forward = lent.passes.forward
        monkeypatch.setattr(
            "trainscope.probes.gradients.mean_gradient._in_one_pass", lambda *_: (None, None)
        )
        plain = find_gradients(lent, None)
        counts = plain.mean.counts
        monkeypatch.setattr(Vectorised, "squares", refused)
        again = find_gradients(lent, None)
    assert found.method == "vectorised"
    assert (forward <= 2 + 6 + 1) == follows  # the look at the first two, and each sample once
    assert torch.equal(found.mean.counts, counts)
    assert found.squares == pytest.approx(again.squares, rel=1e-10)
    assert found.dots == pytest.approx(again.dots, rel=1e-10, abs=1e-14)
    assert torch.allclose(found.mean.sums, plain.mean.sums, rtol=1e-12)
    for one, other in zip(found.mean.values, plain.mean.values, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)
    assert len(found.mean.values) == len(every.names)


class Force(nn.Module):
    """An energy's slope, which torch.func takes within the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda place: torch.tanh(self.one(place)).square().sum())(x)


def test_networks_that_differentiate_are_measured() -> None:
    network = network_of(Force())
    data = ProbeData("", INPUTS, torch.arange(6) % 3)
    found = Gradient().measure(network, data)
    loss = nn.functional.cross_entropy(network(INPUTS), data.labels)
    gradient = torch.autograd.grad(loss, list(network.parameters()))
    norm = float(torch.cat([g.flatten() for g in gradient]).norm())
    assert found.value("norm") == pytest.approx(norm, rel=1e-10)


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Identity])
def test_the_first_look_is_let_go_of_before_the_work(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(nn.Linear(3, 4), kind(), nn.Linear(4, 3))
    looks: list[weakref.ref[Any]] = []
    alive: list[object] = []
    look, work = mean_gradients.first_look, SampleGradients.with_mean

    def noted(*given: Any) -> Any:
        found = look(*given)
        looks.append(weakref.ref(found.watching.outputs))
        return found

    def worked(self: SampleGradients, *given: Any) -> Any:
        alive.extend(each() for each in looks)
        return work(self, *given)

    monkeypatch.setattr(mean_gradients, "first_look", noted)
    monkeypatch.setattr(SampleGradients, "with_mean", worked)
    Gradient().measure(network, ProbeData("", INPUTS, torch.arange(6) % 3))
    assert alive == [None]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear layer on one place is left unformed, so that its products wait for the mean."""
    network = network_of(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 3))
    data = ProbeData("", INPUTS, torch.arange(6) % 3)
    whole = Gradient().measure(network, data)
    monkeypatch.setattr("trainscope.probes.gradients.rule_gradients.CACHED", 2**9)
    sizes: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    parts = Gradient().measure(network, data)
    handle.remove()
    assert sizes[-2:] == [3, 3]
    for name in ("norm", "loss", "snr"):
        assert parts.value(name) == pytest.approx(whole.value(name), rel=1e-10)
    assert parts.arrays["sample_norms"] == pytest.approx(whole.arrays["sample_norms"], rel=1e-10)
    held = 6 * sum(p.nbytes for p in network.parameters())
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), 2**7)
        for most, chunk in ((4 * held, 3), (4 * held - 1, 6)):
            monkeypatch.setattr("trainscope.probes.gradients.rule_gradients.AT_ONCE", most)
            assert gradients.by_rules._few(6, 2**7) == chunk


class Trimmed(nn.Module):
    """Leaves out the places that are zero in all samples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        last = int((x != 0).any(2).any(0).nonzero().max())
        return self.two(torch.tanh(self.one(x[:, : last + 1])).sum(1))


def test_chunks_of_other_lengths_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(Trimmed())
    inputs = torch.randn(6, 6, 3, generator=torch.Generator().manual_seed(4)).double()
    inputs[:3, 1:] = 0
    data = ProbeData("", inputs, torch.arange(6) % 3)
    monkeypatch.setattr("trainscope.probes.gradients.rule_gradients.CACHED", 2**7)
    found = Gradient().measure(network, data)
    with evaluation(network, data) as lent:
        gradients = SampleGradients(lent, measured(network), None)
        gradients.method = "one by one"
        squares, _ = gradients(lent.batch, lambda z, _: [[slope(z, data.labels)]])
    norms = squares.sum(0).sqrt().tolist()
    assert found.arrays["sample_norms"] == pytest.approx(norms, rel=1e-10)


def slope(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.detach().softmax(1) - nn.functional.one_hot(labels, 3)
