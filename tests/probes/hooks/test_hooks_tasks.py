"""Hooks with people's own loaders and tasks: the trajectory, the loader and chance stay as is."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from trainscope.errors import TaskError
from trainscope.probes import Gradient
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.hooks.compact import compact
from trainscope.probes.when import every
from trainscope.records import Status
from trainscope.task import Classification

PROBES = ["gradient", "jacobian", "curvature"]
COUNT = 24


class Tagger(nn.Module):
    """Token ids in a dictionary, outputs in another; dropout draws in training."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop, self.out = nn.Embedding(11, 6), nn.Dropout(0.1), nn.Linear(6, 11)

    def forward(self, input_ids, attention_mask=None, labels=None):
        return {"logits": self.out(self.drop(self.embed(input_ids).cumsum(1)))}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def pairs():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(COUNT, 4, generator=generator())

    def step(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return network, TensorDataset(x, torch.arange(COUNT) % 3), None, step


def regression():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(COUNT, 4, generator=generator())

    def step(model, batch):
        return nn.functional.mse_loss(model(batch["x"]), batch["target"])

    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network

        def forward(self, x):
            return self.net(x)

    return ByName(), [{"x": row, "target": row[:2] ** 2} for row in x], "regression", step


def tokens():
    torch.manual_seed(1)
    ids = torch.randint(11, (COUNT, 7), generator=generator())

    def step(model, batch):
        logits, labels = model(**batch)["logits"], batch["labels"]
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    samples = [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in ids
    ]
    return Tagger(), samples, "language-modelling", step


KINDS = {"tuples": pairs, "dictionaries": regression, "tokens": tokens}
CHANCE = {
    "as it is": lambda model: model,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
}


def train(kind: str, wrap: str = "as it is", *, hooked: bool):
    """Return the final weights, the order of the samples' batches, and what was measured."""
    network, data, task, step = KINDS[kind]()
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    loader = DataLoader(data, 8, shuffle=True)
    model = CHANCE[wrap](network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    hook = ProbeHook(PROBES, when=every(2), data=loader, task=task) if hooked else None
    if hook is not None:
        hook.attach(model, optimizer)
    drawn = []
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            loss = step(model, batch)
            loss.backward()
            optimizer.step()
            drawn.append((loss.item(), random.random(), np.random.rand()))  # noqa: NPY002
    weights = [tensor.clone() for tensor in network.state_dict().values()]
    return weights, drawn, [] if hook is None else hook.taken


@pytest.mark.parametrize("kind", KINDS)
def test_the_trajectory_is_bit_identical_with_a_loader_of_any_task(kind):
    watched, seen, taken = train(kind, hooked=True)
    alone, drawn, _ = train(kind, hooked=False)
    assert seen == drawn
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))
    found = [each for each in taken if each.measurement.probe in PROBES]
    assert [each.step for each in found] == [0] * 3 + [2] * 3 + [4] * 3 + [6] * 3
    assert [each.measurement.reason for each in found] == [None] * len(found)


@pytest.mark.parametrize("wrap", ["compiled", "DataParallel"])
def test_wrapped_networks_are_measured_as_they_are(wrap):
    _, _, bare = train("tokens", hooked=True)
    _, _, wrapped = train("tokens", wrap, hooked=True)
    for one, other in zip(bare, wrapped, strict=True):
        assert one.measurement.scalars == other.measurement.scalars


def test_the_pinned_samples_are_copies():
    x, y = torch.randn(8, 4, generator=generator()), torch.arange(8) % 3
    batches = [(x, y)]
    hook = ProbeHook([Gradient()], data=batches)
    kept = hook.data.batch[0].clone()
    x.zero_()
    y.zero_()
    assert torch.equal(hook.data.batch[0], kept)
    assert hook.data.labels.max() == 2


def test_a_generator_is_gone_through_once_and_a_loader_is_left_alone():
    x, y = torch.randn(16, 4, generator=generator()), torch.arange(16) % 3
    read = []

    def batches():
        for k in range(0, 16, 4):
            read.append(k)
            yield x[k : k + 4], y[k : k + 4]

    given = batches()
    hook = ProbeHook([Gradient()], data=given)
    assert read == [0, 4, 8, 12]
    assert next(given, None) is None
    assert len(hook.data) == 16

    class Watched(DataLoader):
        def __iter__(self):
            raise AssertionError("the loader was gone through")

    chance = torch.Generator().manual_seed(3)
    before = chance.get_state()
    ProbeHook([Gradient()], data=Watched(TensorDataset(x, y), 4, shuffle=True, generator=chance))
    assert torch.equal(chance.get_state(), before)


def test_random_transforms_leave_every_random_state():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, place):
            noise = torch.randn(4) + random.random() + np.random.rand()  # noqa: NPY002
            return noise.float(), place % 3

    torch.manual_seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = ProbeHook([Gradient()], data=DataLoader(Noisy(), 4, shuffle=True))
    second = ProbeHook([Gradient()], data=DataLoader(Noisy(), 4, shuffle=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002
    assert torch.equal(first.data.batch[0], second.data.batch[0])


def test_a_task_that_is_none_is_refused_when_the_hook_is_made():
    with pytest.raises(TaskError, match="no task is named 'regresion'"):
        ProbeHook([Gradient()], data=[(torch.zeros(4, 2), torch.zeros(4, 2))], task="regresion")


def test_batches_of_another_task_do_not_end_a_training():
    network, data, _, step = pairs()
    hook = ProbeHook([Gradient()], when=every(1), data=DataLoader(data, 8), task="regression")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    with hook.attach(network, optimizer):
        step(network, next(iter(DataLoader(data, 8)))).backward()
        optimizer.step()
    found = [taken.measurement for taken in hook.taken if taken.measurement.probe == "gradient"]
    assert [each.status for each in found] == [Status.SKIPPED] * 2
    assert "give both in one shape" in found[0].reason


@pytest.mark.parametrize(
    ("task", "unit"),
    [(None, "nats/weight"), ("regression", "loss/weight"), ("binary", "nats/weight")],
)
def test_the_norms_of_steps_are_in_units_of_the_tasks_loss(task, unit):
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    hook = ProbeHook(norms=every(1), task=task)
    with hook.attach(network, optimizer):
        for _ in range(2):
            network(torch.randn(4, 3)).pow(2).mean().backward()
            optimizer.step()
    assert [each.measurement.scalars["norm"].unit for each in hook.taken] == [unit] * 2
    (whole,) = compact(hook.taken)
    assert {scalar.unit for scalar in whole.measurement.scalars.values()} == {unit}


def test_a_copy_of_a_hook_with_a_loader_can_be_made():
    _, data, _, _ = tokens()
    hook = ProbeHook(["gradient"], data=DataLoader(data, 8), task="language-modelling")
    again = copy.deepcopy(hook)
    assert torch.equal(again.data.batch["input_ids"], hook.data.batch["input_ids"])


class Recurrent(nn.Module):
    """Token ids, and their lengths where they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 6), nn.Linear(6, 9)

    def forward(self, ids, lengths=None):
        steps = self.embed(ids).cumsum(1)
        last = torch.full((len(ids),), ids.shape[1]) if lengths is None else lengths
        return self.out(steps[torch.arange(len(ids)), last - 1])


class Needing(Recurrent):
    def forward(self, ids, lengths):
        return super().forward(ids, lengths)


@pytest.mark.parametrize("kind", [Recurrent, Needing])
def test_lengths_in_the_second_place_are_not_taken_for_labels(kind):
    ids = torch.randint(11, (16, 7), generator=generator())
    lengths, labels = torch.arange(16) % 6 + 1, torch.arange(16) % 9
    loader = DataLoader(TensorDataset(ids, lengths, labels), 4)
    torch.manual_seed(0)
    network = kind()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for given in (loader, list(loader)):
        with pytest.raises(TaskError, match=r"a batch has 3 entries, .* classification:inputs=2"):
            ProbeHook([Gradient()], when=every(1), data=given).attach(network, optimizer)
        hook = ProbeHook([Gradient()], when=every(1), data=given, task=Classification(inputs=2))
        hook.attach(network, optimizer).detach()
        wanted = torch.autograd.grad(
            nn.functional.cross_entropy(network(ids, lengths), labels), list(network.parameters())
        )
        norm = torch.cat([each.flatten() for each in wanted]).norm().item()
        assert hook.taken[0].measurement.value("norm") == pytest.approx(norm, rel=1e-5)


def test_what_follows_the_labels_is_left_out_where_forward_takes_one_thing():
    network, data, _, _ = pairs()
    x, y = data.tensors
    triples = [(x, y, torch.arange(COUNT))]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    found = []
    for given in (triples, [(x, y)]):
        hook = ProbeHook([Gradient()], when=every(1), data=given)
        hook.attach(network, optimizer).detach()
        found.append(hook.taken[0].measurement.value("norm"))
    assert found[0] == found[1]


class Counting(RandomSampler):
    """A sampler that counts its epochs and shuffles by them, as accelerate's does."""

    def __init__(self, source) -> None:
        self.epoch = 0
        super().__init__(source, generator=torch.Generator())

    def __iter__(self):
        self.generator.manual_seed(self.epoch)
        self.epoch += 1
        yield from super().__iter__()


class Streamed(IterableDataset):
    """A stream that jitters its samples by a generator of its own, and by the process's."""

    def __init__(self, data: TensorDataset) -> None:
        self.data, self.chance = data, np.random.default_rng(3)

    def __iter__(self):
        for x, y in self.data:
            yield x + self.chance.normal() + torch.randn(()) + random.random(), y


LOADERS = {
    "a stream": lambda data: DataLoader(Streamed(data), 4),
    "workers that stay": lambda data: DataLoader(
        Streamed(data), 4, num_workers=1, persistent_workers=True
    ),
    "weighted": lambda data: DataLoader(
        data,
        sampler=WeightedRandomSampler([1.0] * COUNT, COUNT, generator=generator()),
        batch_size=4,
    ),
    "batches of a sampler that counts": lambda data: DataLoader(
        data, batch_sampler=BatchSampler(Counting(data), 4, drop_last=False)
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_loader_that_is_gone_through_draws_as_if_it_had_not_been(kind):
    def trained(*, hooked: bool):
        network, data, _, step = pairs()
        loader = LOADERS[kind](data)
        random.seed(2)
        np.random.seed(2)  # noqa: NPY002
        torch.manual_seed(2)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        if hooked:
            ProbeHook([Gradient()], when=every(2), data=loader).attach(network, optimizer)
        for _ in range(2):
            for batch in loader:
                optimizer.zero_grad()
                loss = step(network, batch) + 0.01 * torch.randn(())
                loss.backward()
                optimizer.step()
        return [*network.state_dict().values(), loss]

    for one, other in zip(trained(hooked=True), trained(hooked=False), strict=True):
        assert torch.equal(one, other)
