"""Tasks, losses, batches and outputs that do not fit are refused before any work, in a sentence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trainscope import measure
from trainscope.errors import TrainscopeError
from trainscope.probes import Gradient
from trainscope.records.metric import LOWER, Metric
from trainscope.task import FromLoss
from trainscope.task.task import Common

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 2)
IMAGES = torch.zeros(8, 1, 6, 6)
CLASSES = torch.zeros(8, dtype=torch.long)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def _pixels() -> nn.Module:
    return nn.Conv2d(1, 3, 3, padding=1)


def _raises(outputs, targets):
    raise KeyError("height")


@dataclass(frozen=True)
class Own(Common):
    """A task whose methods return what they are told to."""

    losses_: object = None
    score_: object = (0.0, 8.0)
    signal_: object = None

    metric = Metric("error", "", LOWER)

    def losses(self, outputs, batch):
        return (outputs - batch[1]).square().mean(1) if self.losses_ is None else self.losses_

    def score(self, outputs, batch):
        return self.score_

    def signal(self, outputs):
        return self.signal_


class NoWork(Gradient):
    """A probe that must not come to measure."""

    def measure(self, network, data):
        raise AssertionError("work was begun")


def refused(module: nn.Module, data: object, **options: object) -> str:
    with pytest.raises(TrainscopeError) as error:
        measure(module, data=data, samples=8, probes=[NoWork()], **options)
    said = str(error.value)
    assert "\n" not in said
    return said


REFUSED = {
    "loss raises": (_mlp, (X, Y), {"loss": _raises}, "the loss _raises fails: KeyError: 'height'"),
    "loss says text": (_mlp, (X, Y), {"loss": lambda o, t: "3"}, "returns a str"),
    "metric raises": (
        _mlp,
        (X, Y),
        {"loss": nn.functional.mse_loss, "metric": _raises},
        "the metric _raises fails",
    ),
    "no task": (_mlp, (X, Y), {"task": object()}, "object without metric, size, select"),
    "unknown task": (_mlp, (X, Y), {"task": "regresion"}, "no task is named 'regresion'"),
    "no targets": (_mlp, [X], {"task": "regression"}, "without targets"),
    "no labels": (_pixels, [{"input": IMAGES}], {"task": "segmentation"}, "without labels"),
    "labels of images": (_pixels, (IMAGES, CLASSES), {"task": "segmentation"}, "for each pixel"),
    "images": (_pixels, (IMAGES, CLASSES), {"task": "regression"}, "give both in one shape"),
    "no classifier": (_pixels, (IMAGES, CLASSES), {}, r"name its task \(task=, --task\)"),
    "no tokens": (_mlp, (X, Y), {"task": "language-modelling"}, "logits of shape"),
    "Gaussian": (_mlp, "random:4", {"task": "regression"}, "has no targets for Regression"),
    "losses of whole": (_mlp, (X, Y), {"task": Own(losses_=torch.tensor(1.0))}, r"losses\(\) of"),
    "losses of int": (_mlp, (X, Y), {"task": Own(losses_=CLASSES)}, "floating-point number a term"),
    "one score": (_mlp, (X, Y), {"task": Own(score_=0.5)}, r"score\(\) of the task Own returns"),
    "flat signal": (_mlp, (X, Y), {"task": Own(signal_=torch.zeros(6))}, r"signal\(\) of the task"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_any_work(name):
    make, data, options, message = REFUSED[name]
    said = refused(make(), data, **options)
    assert re.search(message, said), said


def test_what_fits_is_measured():
    found = measure(_mlp(), data=(X, Y), samples=8, probes=["gradient"], task=Own())
    assert math.isfinite(found["gradient"].value("norm"))


def test_a_loss_that_draws_leaves_the_random_state():
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs + torch.randn(()) - targets).square().mean()

    module, state = _mlp(), torch.get_rng_state()
    measure(module, data=(X, Y), samples=8, probes=[], task=FromLoss(loss))
    assert torch.equal(torch.get_rng_state(), state)
