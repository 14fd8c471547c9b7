"""Folders of images as they lie about: hidden and empty folders, odd modes, wide inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from trainscope.data import load
from trainscope.data.folder import IMAGENET_MEAN, IMAGENET_STD
from trainscope.errors import DataError


def drawn(height=30, width=40, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    for half in ("train", "val"):
        for k, name in enumerate(("cat", "dog")):
            (tmp_path / half / name).mkdir(parents=True)
            Image.fromarray(drawn(seed=k)).save(tmp_path / half / name / "0.png")
    return tmp_path


def test_hidden_folders_without_images_are_no_classes(root):
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "notes.txt").write_text("a file")
    data = load(f"imagefolder:{root}", (3, 32, 32))
    assert data.classes == ("cat", "dog")
    assert data.train.batch(torch.tensor([0, 1]))[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("train", "test"), [("train", "valid"), ("Training", "Testing"), ("train", "validation")]
)
def test_halves_under_other_names_are_no_classes(root, train, test):
    """A network of two classes was measured on "train" against "valid", without a word."""
    (root / "train").rename(root / "a")
    (root / "a").rename(root / train)
    (root / "val").rename(root / test)
    data = load(f"imagefolder:{root}", (3, 32, 32))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (2, 2)


def test_a_training_half_alone_asks_for_the_other(root):
    (root / "val" / "cat" / "0.png").unlink()
    for folder in (root / "val" / "cat", root / "val" / "dog" / "0.png", root / "val" / "dog"):
        folder.rmdir() if folder.is_dir() else folder.unlink()
    (root / "val").rmdir()
    with pytest.raises(DataError, match=r"train has no test half beside it: put one there"):
        load(f"imagefolder:{root}", (3, 32, 32))
    alone = load(f"imagefolder:{root / 'train'}", (3, 32, 32))
    assert alone.classes == ("cat", "dog")
    assert alone.train is None


def test_a_class_may_be_called_train(root):
    vehicles = root / "vehicles"
    for name in ("bus", "train"):
        (vehicles / name).mkdir(parents=True)
        Image.fromarray(drawn()).save(vehicles / name / "0.png")
    (vehicles / "train" / ".ipynb_checkpoints").mkdir()
    assert load(f"imagefolder:{vehicles}", (3, 32, 32)).classes == ("bus", "train")


def test_a_class_without_images_is_named(root):
    (root / "train" / "eel").mkdir()
    (root / "val" / "eel").mkdir()
    with pytest.raises(DataError, match=r"no images in .*eel, which is a class of its own"):
        load(f"imagefolder:{root}", (3, 32, 32))


@pytest.mark.parametrize("shape", [(3, 96, 192), (3, 192, 96), (3, 72, 288)])
@pytest.mark.parametrize("size", [(30, 40), (200, 90), (90, 200)])
def test_a_wide_input_is_filled_by_the_image(root, shape, size):
    """What is outside of an image would be drawn black; these have no black pixel."""
    bright = np.maximum(drawn(*size), 60)
    Image.fromarray(bright).save(root / "val" / "cat" / "0.png")
    data = load(f"imagefolder:{root}", shape)
    inputs, _ = data.test.batch(torch.tensor([0]))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    assert inputs.shape == (1, *shape)
    assert float((inputs[0] * std + mean).min()) > 50 / 255


def test_sixteen_bits_keep_their_upper_eight(root):
    values = np.random.default_rng(3).integers(0, 65536, (32, 32)).astype(np.uint16)
    Image.fromarray(values).save(root / "val" / "cat" / "0.png")
    found, _ = load(f"imagefolder:{root}", (1, 32, 32)).test.batch(torch.tensor([0]))
    expected = torch.tensor((values >> 8).astype(np.float32)) / 255
    assert torch.allclose(found[0, 0] * 0.5 + 0.5, expected, atol=1e-6)


def test_numbers_of_thirty_two_bits_are_refused(root):
    Image.fromarray(np.random.default_rng(3).random((32, 32), dtype=np.float32)).save(
        root / "val" / "cat" / "1.tiff"
    )
    data = load(f"imagefolder:{root}", (3, 32, 32))
    with pytest.raises(DataError, match=r"1\.tiff has numbers of 32 bits"):
        data.test.batch(torch.tensor([1]))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_other_modes_are_read_in_colour(root, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    image = Image.fromarray(drawn(32, 32)).convert(mode)
    image.save(root / "val" / "cat" / f"1.{ending}")
    found, _ = load(f"imagefolder:{root}", (3, 32, 32)).test.batch(torch.tensor([1]))
    with Image.open(root / "val" / "cat" / f"1.{ending}") as read:
        expected = torch.tensor(np.asarray(read.convert("RGB"))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(found[0] * std + mean, expected, atol=1e-5)
