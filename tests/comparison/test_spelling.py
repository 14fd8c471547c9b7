"""Names of one thing, as logs and run cards of several people write them."""

from __future__ import annotations

import pytest

from trainscope.comparison.comparison import compare
from trainscope.comparison.reading import read
from trainscope.comparison.spelling import folded

SETTINGS = '{ optimizer = "sgd", momentum = 0.9, weight_decay = 1e-4, batch_size = 256 }'
ROW = {
    "data": '"cifar10"',
    "architecture": '"resnet56"',
    "structure": '"filter"',
    "speedup": "2.31",
    "base": '"torchvision V1"',
    "stage_epochs": "0",
    "epochs": "40",
    "schedule": '"0:1e-2,30:1e-3"',
    "settings": SETTINGS,
    "accuracy": "93.1",
}


def judged(tmp_path, **other):
    path = tmp_path / "card.toml"
    rows = ({**ROW, "method": '"a"'}, {**ROW, **other, "method": '"b"'})
    path.write_text(
        "\n".join("[[run]]\n" + "\n".join(f"{k} = {v}" for k, v in row.items()) for row in rows)
    )
    return compare(read([str(path)]).runs, [])


@pytest.mark.parametrize(
    "other",
    [
        {"data": '"CIFAR-10"'},
        {"data": '"cifar10:/somewhere/else"'},
        {"architecture": '"ResNet-56"'},
        {"architecture": '"resnet_56"', "data": '"CIFAR 10"'},
        {"base": '"Torchvision v1"'},
    ],
)
def test_two_spellings_are_one_thing(tmp_path, other):
    assert judged(tmp_path, **other).fairness.strictest == "S4.2"


@pytest.mark.parametrize(
    ("other", "strictest"),
    [
        ({"data": '"cifar100"'}, None),
        ({"architecture": '"resnet110"'}, None),
        ({"data": '"imagefolder:/data/cifar10"'}, None),
        ({"base": '"torchvision V2"'}, "S1"),
    ],
)
def test_two_things_stay_two(tmp_path, other, strictest):
    assert judged(tmp_path, **other).fairness.strictest == strictest


def test_what_most_write_is_what_is_told(tmp_path):
    groups = judged(tmp_path, data='"CIFAR-10"').groups
    assert {item.first.data for item in groups} == {"cifar10"}


def test_names_of_one_image_net():
    assert len({folded(name) for name in ("ImageNet", "imagenet-1k", "ILSVRC2012")}) == 1
    assert folded("imagefolder:/a/B") == "imagefolder:/a/B"
