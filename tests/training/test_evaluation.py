"""How a network is tested: how many samples at once, which changes no number."""

import pytest
import torch
from torch import nn

from trainscope.data import TensorSplit
from trainscope.task import Classification, Regression
from trainscope.training import evaluation
from trainscope.training.evaluation import evaluate, evaluated_at_once


def split(count, *shape):
    """Return images and labels of three classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, *shape, generator=generator)
    return TensorSplit(images, torch.arange(count) % 3, (0.0,) * 3, (1.0,) * 3)


def network(**options):
    """Return a small network with a batch norm."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **options), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(("side", "size"), [(8, 512), (32, 512), (64, 130), (224, 10), (1024, 1)])
def test_large_images_are_tested_few_at_once(side, size):
    assert evaluated_at_once(network(), split(2, 3, side, side), Classification()) == size


def test_what_depends_on_the_batch_keeps_its_size():
    images = split(2, 3, 224, 224)
    assert evaluated_at_once(network(track_running_stats=False), images, Classification()) == 512
    assert evaluated_at_once(network(), split(640, 3, 8, 8), Regression()) == 20


def test_the_size_changes_no_number(monkeypatch):
    images, model = split(50, 3, 8, 8), network()
    whole = evaluate(model, images)
    monkeypatch.setattr(evaluation, "NUMBERS", 7 * 3 * 8 * 8)
    parts = evaluate(model, images)
    assert [count for _, count in parts.parts] == [7] * 6 + [8]
    assert torch.equal(whole.correct, parts.correct)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.metric == whole.metric
