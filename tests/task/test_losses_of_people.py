"""Losses that weight samples by class, leave some out, or take no labels: the right values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import trainscope
from trainscope.data import halves
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.when import at_steps
from trainscope.task import FromLoss

PROBES = ("gradient", "curvature")


def network(classes=2, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, classes))


def dense(module, loss):
    """Return the loss, the norm of its gradient and its top eigenvalue in float64 by autograd."""
    module = module.double()
    weights = list(module.parameters())
    value = loss(module)
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(value, weights, create_graph=True)])
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x, weights, retain_graph=True)])
        for x in flat
    ]
    return {
        "loss": value.item(),
        "norm": flat.norm().item(),
        "top_eigenvalue": float(torch.linalg.eigvalsh(torch.stack(rows))[-1]),
    }


def agrees(module, data, loss, right, **options):
    """Measure, hold the numbers against dense ones, and return what was measured."""
    task = {"task": loss} if isinstance(loss, FromLoss) else {"loss": loss}
    found = trainscope.measure(
        module, data=data, samples=64, budget=None, probes=PROBES, **task, **options
    )
    want = dense(module, right)
    assert found["gradient"].value("loss") == pytest.approx(want["loss"], rel=1e-4)
    assert found["gradient"].value("norm") == pytest.approx(want["norm"], rel=1e-3)
    top = found["curvature"].value("top_eigenvalue")
    assert top == pytest.approx(want["top_eigenvalue"], rel=1e-3)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch_size", [16, 128])
def test_weights_of_classes_that_are_rare(seed, batch_size):
    """Among the first samples all may be of one class, for which weighting changes nothing."""
    torch.manual_seed(seed)
    inputs, labels = torch.randn(64, 6), torch.zeros(64, dtype=torch.long)
    labels[torch.randperm(64)[:2]] = 1
    weight = torch.tensor([1.0, 20.0])

    def right(module):
        return functional.cross_entropy(module(inputs.double()), labels, weight=weight.double())

    data = DataLoader(TensorDataset(inputs, labels), 8)
    loss = nn.CrossEntropyLoss(weight=weight)
    found = agrees(network(), data, loss, right, seed=seed, batch_size=batch_size)
    assert "not the mean of its samples' losses" in found["gradient"].notes["batch"]
    assert found["gradient"].scalars["snr"].value is None


def test_one_sample_whose_labels_are_all_left_out():
    torch.manual_seed(0)
    inputs, labels = torch.randn(64, 7, 6), torch.randint(3, (64, 7))
    labels[41] = -100

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network(3)

        def forward(self, x):
            return self.inner(x).transpose(1, 2)

    def right(module):
        return functional.cross_entropy(module(inputs.double()), labels)

    data = DataLoader(TensorDataset(inputs, labels), 8)
    agrees(Tagger(), data, nn.CrossEntropyLoss(), right)


def test_targets_that_are_missing_are_the_loss_s_own_affair():
    torch.manual_seed(0)
    inputs, targets = torch.randn(64, 6), torch.randn(64, 2)
    targets[torch.rand(64, 2) < 0.3] = torch.nan

    def loss(outputs, wanted):
        there = ~wanted.isnan()
        return functional.mse_loss(outputs[there], wanted[there])

    data = DataLoader(TensorDataset(inputs, targets), 8)
    agrees(network(), data, loss, lambda m: loss(m(inputs.double()), targets.double()))
    found = trainscope.measure(network(), data=data, task="regression", probes=["gradient"])
    assert found["gradient"].reason == "the targets hold NaN or infinite values"


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network(3)

    def forward(self, one, two):
        return self.inner(one), self.inner(two)


def contrast(outputs, *_):
    one, two = (functional.normalize(x, dim=1) for x in outputs)
    return functional.cross_entropy(one @ two.T / 0.5, torch.arange(len(one)))


@pytest.mark.parametrize("how", ["one argument", "two arguments", "said"])
def test_two_views_of_a_sample_and_no_labels(how):
    """Forward takes all entries of a batch, so none of them is a label."""
    torch.manual_seed(0)
    one = torch.randn(64, 6)
    two = one + 0.1 * torch.randn(64, 6)
    loss = {
        "one argument": lambda outputs: contrast(outputs),
        "two arguments": lambda outputs, batch: contrast(outputs, batch),
        "said": FromLoss(lambda outputs: contrast(outputs), inputs=2),
    }[how]
    data = DataLoader(TensorDataset(one, two), 8)
    agrees(Pair(), data, loss, lambda m: contrast(m(one.double(), two.double())))


def test_three_entries_that_are_all_inputs():
    torch.manual_seed(0)
    rows = [torch.randn(64, 6) for _ in range(3)]

    class Three(Pair):
        def forward(self, one, two, three):
            return self.inner(one), self.inner(two), self.inner(three)

    def loss(outputs):
        return functional.triplet_margin_loss(*outputs)

    data = DataLoader(TensorDataset(*rows), 8)
    agrees(Three(), data, loss, lambda m: loss(m(*(row.double() for row in rows))))


def test_a_number_of_a_batch_that_changes_from_batch_to_batch_is_refused():
    """As mixup's is: joined, the samples of all batches would get the first one's."""
    torch.manual_seed(0)
    inputs, labels, others = torch.randn(16, 6), torch.randint(2, (16,)), torch.randint(2, (16,))

    def loss(outputs, targets):
        one, two, share = targets
        return share * functional.cross_entropy(outputs, one) + (
            1 - share
        ) * functional.cross_entropy(outputs, two)

    def batches(*shares):
        cut = (slice(0, 8), slice(8, 16))
        return [(inputs[k], (labels[k], others[k], s)) for k, s in zip(cut, shares, strict=True)]

    with pytest.raises(trainscope.TrainscopeError, match=r"0\.3 in one and 0\.6 in another"):
        trainscope.measure(network(), data=batches(0.3, 0.6), loss=loss, probes=["gradient"])
    found = trainscope.measure(network(), data=batches(0.3, 0.3), loss=loss, probes=["gradient"])
    whole = loss(network()(inputs), (labels, others, 0.3))
    assert found["gradient"].value("loss") == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("where", ["around a probe", "around a hook"])
def test_autocast_around_a_measurement_rounds_nothing(where):
    torch.manual_seed(0)
    inputs, labels = torch.randn(64, 6), torch.randint(2, (64,))
    data = DataLoader(TensorDataset(inputs, labels), 8)
    module = network()
    with torch.autocast("cpu", torch.bfloat16):
        if where == "around a probe":
            found = trainscope.measure(
                module, data=data, samples=64, budget=None, probes=["gradient", "jacobian"]
            )
        else:
            hook = ProbeHook(["gradient", "jacobian"], when=at_steps(0), data=data)
            hook.attach(module, torch.optim.SGD(module.parameters(), 0.1))
            found = {taken.measurement.probe: taken.measurement for taken in hook.taken}
    jacobians = torch.func.vmap(torch.func.jacrev(module))(inputs)
    values = torch.linalg.svdvals(jacobians.detach().double())
    assert found["jacobian"].value("mean_jsv") == pytest.approx(values.mean().item(), rel=1e-5)
    want = dense(module, lambda m: functional.cross_entropy(m(inputs.double()), labels))
    assert found["gradient"].value("loss") == pytest.approx(want["loss"], rel=1e-6)
    assert found["gradient"].value("norm") == pytest.approx(want["norm"], rel=1e-5)


def test_outputs_without_a_row_for_each_sample_have_no_jacobian_and_say_so():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network(3)

        def forward(self, x):
            out = self.inner(x)
            return out, out.softmax(1).mean(0)

    def loss(outputs, labels):
        return functional.cross_entropy(outputs[0], labels) + (outputs[1] ** 2).sum()

    torch.manual_seed(0)
    data = (torch.randn(32, 6), torch.randint(3, (32,)))
    found = trainscope.measure(Gated(), data=data, loss=loss, probes=["jacobian"])["jacobian"]
    assert found.reason.startswith("not every tensor of the network's outputs has a row for each")


class Endless(IterableDataset):
    def __iter__(self):
        place = 0
        while True:
            yield torch.full((6,), place % 7 / 7), place % 2
            place += 1


@pytest.mark.parametrize("form", ["loader", "generator"])
def test_data_without_an_end_are_read_so_far_and_that_is_said(monkeypatch, form):
    monkeypatch.setattr(halves, "MOST_SAMPLES", 96)
    loader = DataLoader(Endless(), 8)
    data = loader if form == "loader" else (batch for batch in loader)
    found = trainscope.diagnose(network(), data=data, probes=["gradient"], ratio=None)
    assert any("the first 96 samples were read" in note for note in found.notes)


def neighbours(outputs, labels):
    """Draw samples 0 and 1, 2 and 3, ... together."""
    each = functional.normalize(outputs, dim=1)
    near = each @ each.T - 1e9 * torch.eye(len(each))
    return functional.cross_entropy(near, torch.arange(len(each)) ^ 1)


def test_a_loss_of_neighbouring_pairs_is_said_to_change_with_the_order():
    """Samples are drawn in an order of their own, so that the pairs are other ones."""
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(64, 6), torch.randint(2, (64,))), 8)
    found = trainscope.measure(
        network(), data=data, loss=neighbours, probes=PROBES, samples=16, budget=None
    )
    for probe in PROBES:
        assert "and changes with their order, which is drawn here" in found[probe].notes["batch"]


def test_a_loss_of_pairs_in_any_order_is_measured():
    torch.manual_seed(0)
    inputs, labels = torch.randn(64, 6), torch.randint(2, (64,))

    def pairs(outputs, labels):
        same = labels[:, None] == labels
        near = outputs @ outputs.T
        return (functional.softplus(near) - same * near).mean()

    def right(module):
        return pairs(module(inputs.double()), labels)

    data = DataLoader(TensorDataset(inputs, labels), 8)
    found = agrees(network(), data, pairs, right)
    assert "their order" not in found["gradient"].notes["batch"]
