from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from trainscope.data import given_data, halves, load
from trainscope.diagnosis.inputs import suited
from trainscope.errors import DataError, TaskError
from trainscope.task import Classification, Detection, Regression

INPUTS = torch.arange(40.0).view(10, 1, 2, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


class Noisy(Dataset):
    """Samples with an augmentation that draws from every generator there is."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int):
        noise = torch.rand(1) + random.random() + np.random.rand()  # noqa: NPY002
        return INPUTS[index] + noise, int(LABELS[index])


class Listed:
    """No data set of torch's, with its methods."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int):
        return INPUTS[index], LABELS[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(INPUTS[:6], LABELS[:6]), (INPUTS[6:], LABELS[6:])])


FORMS = {
    "loader": lambda: DataLoader(TensorDataset(INPUTS, LABELS), 4),
    "shuffled": lambda: DataLoader(TensorDataset(INPUTS, LABELS), 4, shuffle=True),
    "data set": lambda: TensorDataset(INPUTS, LABELS),
    "list of batches": lambda: [(INPUTS[:6], LABELS[:6]), [INPUTS[6:], LABELS[6:]]],
    "generator": lambda: (pair for pair in [(INPUTS[:6], LABELS[:6]), (INPUTS[6:], LABELS[6:])]),
    "two tensors": lambda: (INPUTS, LABELS),
    "stream": lambda: DataLoader(Stream(), batch_size=None),
    "column of labels": lambda: [(INPUTS, LABELS.view(-1, 1).int())],
    "two arrays": lambda: (INPUTS.numpy(), LABELS.numpy()),
    "list of batches of arrays": lambda: [
        (INPUTS[:6].numpy(), LABELS[:6].numpy()),
        (INPUTS[6:].numpy(), LABELS[6:].numpy()),
    ],
    "list of samples": lambda: [(INPUTS[k], int(LABELS[k])) for k in range(10)],
    "what is like a data set": Listed,
    "batches of three parts": lambda: [(INPUTS, LABELS, torch.zeros(10))],
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_holds_batches_is_a_test_half(form):
    data = given_data(FORMS[form]())
    assert data.train is None
    assert data.input_shape == (1, 2, 2)
    inputs, labels = data.test.batch(torch.arange(10))
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(labels, LABELS)
    assert labels.dtype == torch.int64
    inputs, labels = data.test.batch(torch.tensor([7, 1]))
    assert torch.equal(inputs, INPUTS[[7, 1]])
    assert labels.tolist() == [1, 1]


def test_a_pair_is_train_and_test():
    loader = DataLoader(TensorDataset(INPUTS, LABELS), 4, shuffle=True)
    data = given_data((loader, [(INPUTS[:3], LABELS[:3])]))
    assert (len(data.train), len(data.test)) == (10, 3)
    assert data.name == "TensorDataset"


@pytest.mark.parametrize("task", [Classification(), Regression(), Detection()])
def test_a_tuple_of_two_batches_is_train_and_test_and_a_list_of_them_one_half(task):
    one, two = (INPUTS[:7], LABELS[:7]), (INPUTS[7:], LABELS[7:])
    if isinstance(task, Detection):
        target = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([1])}
        one, two = (([torch.rand(3, 4, 4)] * n, [target] * n) for n in (7, 3))
    data = given_data((one, two), task=task)
    assert (len(data.train), len(data.test)) == (7, 3)
    assert "training half, 7 samples, and the test half, 3" in data.notes[0]
    data = given_data([one, two], task=task)
    assert (data.train, len(data.test)) == (None, 10)
    assert "one half of 10 samples, without a training half" in data.notes[0]
    assert given_data((one, two)[:1], task=task).notes == ()


def test_a_tuple_of_two_dictionaries_is_train_and_test():
    data = given_data(tuple({"x": INPUTS[:n], "labels": LABELS[:n]} for n in (7, 3)))
    assert (len(data.train), len(data.test)) == (7, 3)


def test_a_sampler_of_a_subset_is_respected():
    sampler = torch.utils.data.SubsetRandomSampler([8, 2, 5])
    sampled = given_data(DataLoader(TensorDataset(INPUTS, LABELS), 2, sampler=sampler))
    subset = given_data(DataLoader(Subset(TensorDataset(INPUTS, LABELS), [8, 2, 5]), 2))
    for data in (sampled, subset):
        assert torch.equal(data.test.batch(torch.arange(3))[0], INPUTS[[8, 2, 5]])


def test_a_sampler_of_fewer_samples_than_the_data_set_has_is_respected():
    few = SequentialSampler(range(4))
    data = given_data(DataLoader(TensorDataset(INPUTS, LABELS), 2, sampler=few))
    assert len(data.test) == 4
    drawn = RandomSampler(range(3))
    data = given_data(DataLoader(TensorDataset(INPUTS, LABELS), 2, sampler=drawn))
    assert torch.equal(data.test.batch(torch.arange(len(data.test)))[0], INPUTS[:3])


def test_one_tensor_or_array_is_one_batch_of_inputs():
    for given_one in (INPUTS, INPUTS.numpy()):
        data = given_data(given_one, task=Regression())
        assert len(data.test) == 10
        assert data.input_shape == (1, 2, 2)


class Optional(nn.Module):
    def forward(self, x, lengths=None):
        return x.flatten(1)


class Options(nn.Module):
    def forward(self, x, return_features=False):
        return x.flatten(1)


@pytest.mark.parametrize("labels", [LABELS, LABELS.float()])
def test_a_network_that_may_take_the_second_entry_is_asked_how_many_it_takes(labels):
    batches = [(INPUTS, labels, torch.ones(10).long())]
    data = given_data(batches)
    with pytest.raises(TaskError, match=r"takes 1 of them or more \('lengths' too\): say how"):
        suited(data, Optional())
    assert suited(given_data(batches, task=Classification(inputs=2)), Optional()).task.inputs == 2
    suited(data, Options())
    suited(data, nn.Flatten())


def test_a_weighted_sampler_is_read_as_it_draws():
    sampler = torch.utils.data.WeightedRandomSampler([0.0] * 9 + [1.0], 5)
    data = given_data(DataLoader(TensorDataset(INPUTS, LABELS), 2, sampler=sampler))
    assert torch.equal(data.test.batch(torch.arange(5))[0], INPUTS[[9] * 5])


def test_an_augmentation_is_drawn_from_the_order_and_leaves_no_trace():
    split = given_data(DataLoader(Noisy(), 4)).test
    torch.manual_seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (
        split.batch(torch.tensor(order))[0] for order in ([4, 1], [4, 1], [1, 4])
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other.flip(0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def test_an_endless_stream_is_cut_and_said(monkeypatch):
    monkeypatch.setattr(halves, "MOST_BYTES", 2 * INPUTS.numel() * 4)

    def endless():
        while True:
            yield INPUTS, LABELS

    data = given_data(endless())
    assert len(data.test) == 20
    assert len(data.notes) == 1
    assert "were read" in data.notes[0]


def fails():
    yield INPUTS, LABELS
    raise OSError("the disk is gone")


class Broken(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int):
        raise KeyError("no such image")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "an? int, which cannot be gone through"),
        ([], "has no batches"),
        ((TensorDataset(INPUTS[:0], LABELS[:0]), [(INPUTS, LABELS)]), "train half .* no samples"),
        ([torch.zeros(3)], "a batch of .* is a tensor of shape"),
        ([{"x": INPUTS, "y": LABELS}], "a batch of .* is a dictionary of 'x', 'y', without labels"),
        ([(INPUTS,)], "a batch of .* is a tensor of shape"),
        ([("text", LABELS)], "inputs .* are a str"),
        ([(INPUTS, torch.full((8, 3), 1 / 3))], "probabilities, loss=torch.nn.CrossEntropyLoss"),
        ([(INPUTS, LABELS.float())], "give one class index a sample"),
        (zip(INPUTS, LABELS, strict=True), "holds single samples in the place of batches"),
        ([(INPUTS, LABELS[:4])], r"shape \(4,\)"),
        ([(INPUTS, LABELS - 1)], "a label -1"),
        ([(INPUTS, LABELS), (INPUTS[:, :, :1], LABELS)], "change their shape"),
        (fails(), "cannot be read: OSError: the disk is gone"),
        (DataLoader(Broken(), 2), "cannot be read: KeyError"),
    ],
)
def test_what_is_no_labelled_data_is_one_sentence(data, message):
    with pytest.raises(DataError, match=message):
        given_data(data)


def test_a_factory_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given_by_name.py").write_text(
        "import torch\n"
        "def loaders():\n"
        "    x, y = torch.ones(6, 3), torch.arange(6)\n"
        "    return [(x, y)], [(x[:2], y[:2])]\n"
        "def fails():\n"
        "    raise RuntimeError('no data here')\n"
    )
    data = load("given_by_name:loaders", (3,))
    assert (len(data.train), len(data.test), data.input_shape) == (6, 2, (3,))
    assert data.name == "given_by_name:loaders"
    assert data.num_classes is None
    with pytest.raises(DataError, match=r"fails failed: RuntimeError: no data here"):
        load("given_by_name:fails", (3,))
    with pytest.raises(DataError, match=r"has no 'absent'"):
        load("given_by_name:absent", (3,))
    with pytest.raises(DataError, match=r"no module 'not_there'"):
        load("not_there:loaders", (3,))


def test_a_dictionary_of_loaders_is_train_and_test():
    loader, other = DataLoader(TensorDataset(INPUTS, LABELS), 4), TensorDataset(INPUTS, LABELS)
    data = given_data({"train": loader, "val": other, "test": loader})
    assert (len(data.train), len(data.test)) == (10, 10)
    assert data.notes == ("Of 'train', 'val', 'test' these were taken: 'train', 'test'.",)
    assert given_data({"train": loader, "valid": other}).notes == ()
    assert given_data({"val": loader}).train is None
    with pytest.raises(DataError, match="none of them called test or val: give a pair"):
        given_data({"a": loader, "b": loader})
    with pytest.raises(DataError, match="holds 3 loaders or data sets: give a pair"):
        given_data((loader, loader, other))
