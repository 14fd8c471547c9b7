from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from trainscope.data import load, with_class_index
from trainscope.data.class_index import read_class_index
from trainscope.errors import DataError

FORMS = {
    "imagenet": json.dumps({"0": ["n1", "tench"], "1": ["n2", "dog"], "2": ["n3", "cat"]}),
    "names by index": json.dumps({"0": "tench", "1": "dog", "2": "cat"}),
    "indices by name": json.dumps({"tench": 0, "dog": 1, "cat": 2}),
    "list": json.dumps(["tench", "dog", "cat"]),
    "lines": "tench\ndog\n\ncat\n",
    "index first": "2 cat\n0 tench\n1 dog\n",
    "index last": "cat,2\ntench,0\ndog,1\n",
}


@pytest.fixture
def folder(tmp_path):
    """Two classes, which come in the order cat, dog."""
    for half in ("train", "val"):
        for place, label in enumerate(("cat", "dog")):
            (tmp_path / half / label).mkdir(parents=True)
            pixels = np.full((8, 8, 3), 100 * place, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / half / label / "a.png")
    return load(f"imagefolder:{tmp_path}", (3, 8, 8))


@pytest.mark.parametrize("form", FORMS)
def test_folders_stand_at_the_outputs_that_the_index_names(form, folder, tmp_path):
    path = tmp_path / "index"
    path.write_text(FORMS[form])
    data = with_class_index(folder, path, 5)
    assert data.num_classes == 5
    for half in (data.train, data.test):
        assert half.batch(torch.tensor([0, 1]))[1].tolist() == [2, 1]
    assert folder.test.batch(torch.tensor([0, 1]))[1].tolist() == [0, 1]
    assert data.train.augment is folder.train.augment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tench\ndog\n", "does not name the classes cat$"),
        ('{"cat": 9, "dog": 1}', "puts a class at 9; the network has 5"),
        ('{"cat": 1, "dog": 1}', "puts two of the classes"),
        ('{"0": "cat", "1": "cat", "2": "dog"}', "the class 'cat' at 0 and at 1"),
        ("", "names no class"),
        ("17", "names no class|does not name"),
        ('{"0": {"a": 1}}', "the class 0 has no name"),
        ('{"cat": "dog"}', "cannot have 'cat'"),
        ("true", "names no class"),
        ("[[]]", "the class 0 has no name"),
    ],
)
def test_an_index_that_does_not_fit_is_one_sentence(text, message, folder, tmp_path):
    path = tmp_path / "index"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        with_class_index(folder, path, 5)


def test_an_index_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_class_index(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it is not text"):
        read_class_index(tmp_path / "binary")
    with pytest.raises(DataError, match="no folders of classes"):
        with_class_index(load("digits", (1, 8, 8)), tmp_path / "absent", 10)
