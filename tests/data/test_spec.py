from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainscope.data import Dataset, RandomInputs, load, pin, pin_random
from trainscope.errors import DataError

MNIST = Path(__file__).parents[3] / "shared/data/mnist"


def write_images(root: Path, halves=("train", "val"), classes=("cat", "dog"), size=(40, 30)):
    numbers = np.random.default_rng(0)
    for half in halves:
        for label in classes:
            folder = root / half / label
            folder.mkdir(parents=True)
            for index in range(3):
                pixels = numbers.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")


def test_digits_are_the_published_split():
    data = load("digits", (1, 8, 8))
    assert isinstance(data, Dataset)
    assert (len(data.train), len(data.test), data.num_classes) == (1437, 360, 10)
    inputs, labels = data.train.batch(torch.arange(1437))
    assert inputs.shape == (1437, 1, 8, 8)
    assert abs(float(inputs.mean())) < 1e-3
    assert abs(float(inputs.std()) - 1) < 1e-3
    assert sorted(set(labels.tolist())) == list(range(10))


def test_digits_are_those_of_scikit_learn_as_it_divides_them():
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import train_test_split

    images, labels = datasets.load_digits(return_X_y=True)
    halves = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    data = load("digits", (1, 8, 8))
    for split, pixels, targets in zip((data.train, data.test), halves[:2], halves[2:], strict=True):
        assert torch.equal(split.inputs.double().flatten(1), torch.from_numpy(pixels) / 16)
        assert torch.equal(split.labels, torch.from_numpy(targets))


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST beside the repository")
def test_mnist_is_read_and_normalised():
    data = load(f"mnist:{MNIST}", (1, 28, 28))
    assert (len(data.train), len(data.test), data.input_shape) == (60000, 10000, (1, 28, 28))
    inputs, _ = data.train.batch(torch.arange(60000))
    assert abs(float(inputs.mean())) < 1e-3
    assert abs(float(inputs.std()) - 1) < 1e-3


def test_image_folder_has_the_networks_shape(tmp_path):
    write_images(tmp_path)
    for shape in ((3, 32, 32), (1, 28, 28), (3, 96, 96)):
        data = load(f"imagefolder:{tmp_path}", shape)
        inputs, labels = data.train.batch(torch.tensor([5, 0]))
        assert inputs.shape == (2, *shape)
        assert labels.tolist() == [1, 0]
        assert inputs.isfinite().all()


def test_image_folder_of_classes_alone_cannot_train(tmp_path):
    write_images(tmp_path, halves=("",))
    data = load(f"imagefolder:{tmp_path}", (3, 32, 32))
    assert data.train is None
    assert pin(data, 4).train is None


def test_a_damaged_image_is_named(tmp_path):
    write_images(tmp_path)
    bad = tmp_path / "train" / "cat" / "0.png"
    bad.write_bytes(b"no image")
    data = load(f"imagefolder:{tmp_path}", (3, 32, 32))
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        data.train.batch(torch.tensor([0]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "no data is named 'digit'"),
        ("mnist", "no data is named 'mnist'"),
        ("mnist:", "no data is named"),
        ("mnist:/nowhere", "no MNIST at /nowhere"),
        ("cifar10:/nowhere", "no CIFAR10 at /nowhere: .* --download"),
        ("imagefolder:/nowhere", "no folder at /nowhere"),
        ("random:3x0x2", "not of the form random:CxHxW"),
        ("random:", "not of the form"),
    ],
)
def test_bad_specs_are_one_sentence(spec, message):
    with pytest.raises(DataError, match=message) as caught:
        load(spec, (3, 32, 32))
    assert "\n" not in str(caught.value)


def test_folders_that_differ_in_classes_are_refused(tmp_path):
    write_images(tmp_path)
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "fox")
    with pytest.raises(DataError, match="same folders of classes"):
        load(f"imagefolder:{tmp_path}", (3, 32, 32))


def test_pinned_samples_depend_on_the_seed_alone():
    data = load("digits", (1, 8, 8))
    one, two, other = pin(data, 32, seed=1), pin(data, 32, seed=1), pin(data, 32, seed=2)
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.labels, two.labels)
    assert not torch.equal(one.inputs, other.inputs)


def test_random_inputs_have_labels_of_the_networks_own():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.Dropout())
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    state = torch.get_rng_state()
    data = pin_random(RandomInputs((3, 2, 2)), network, 64)
    assert data.label_source == "predicted"
    assert data.labels.tolist() == [0] * 64  # the only class with any odds
    assert network.training
    assert network[2].training
    assert torch.equal(state, torch.get_rng_state())


def test_random_inputs_that_do_not_fit_are_one_sentence():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    with pytest.raises(DataError, match="does not take inputs random:3x3x3"):
        pin_random(RandomInputs((3, 3, 3)), network, 4)


def test_what_cannot_be_fetched_is_told_with_what_to_do(tmp_path, monkeypatch):
    def offline(root, train, download):
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    with pytest.raises(DataError, match=r"where there is a network, or put the files .* not known"):
        load(f"mnist:{tmp_path}", (1, 28, 28), download=True)
