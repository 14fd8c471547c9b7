"""Yes-or-no tasks: average precision against scikit-learn, forms of targets, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

import trainscope
from trainscope.data.halves import MemorySplit
from trainscope.errors import CheckpointError, TaskError
from trainscope.task import Binary, Classification, MultiLabel, Regression, Segmentation, find_task
from trainscope.task.labels import average_precisions
from trainscope.training.evaluation import evaluate


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, outputs))


X = torch.randn(90, 5, generator=seeded(1))
Y = torch.randint(0, 2, (90, 4), generator=seeded(2))


@pytest.mark.parametrize("levels", [3, 10**6])
def test_average_precision_is_scikit_learns(levels: int) -> None:
    """With three levels most scores are equal."""
    scores = torch.randint(0, levels, (60, 5), generator=seeded(3)).double()
    there = torch.rand(60, 5, generator=seeded(4)) < torch.tensor([0.02, 0.1, 0.5, 0.9, 0.3])
    there[0] = True
    expected = [average_precision_score(there[:, k], scores[:, k]) for k in range(5)]
    assert average_precisions(scores, there).tolist() == pytest.approx(expected, rel=1e-12)


def test_by_hand() -> None:
    """Ranks 1 and 3 of a label's three are right: (1/1 + 2/3) / 2. Nobody has the other one."""
    scores = torch.tensor([[3.0, 1], [2, 1], [1, 1]])
    there = torch.tensor([[True, False], [False, False], [True, False]])
    found = average_precisions(scores, there)
    assert found[0] == pytest.approx(5 / 6)
    assert torch.isnan(found[1])
    pair = MultiLabel().score(scores, (X[:3], there))
    assert MultiLabel().value(*pair) == pytest.approx(100 * 5 / 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_test_half_is_one_ranking_not_a_mean_of_batches(dtype: torch.dtype) -> None:
    net = network(4)
    found = evaluate(net, MemorySplit((X, Y.to(dtype)), MultiLabel()), MultiLabel(), batch_size=12)
    with torch.no_grad():
        scores = net(X).numpy()
    assert found.metric == pytest.approx(100 * average_precision_score(Y.numpy(), scores), rel=1e-6)
    expected = nn.functional.binary_cross_entropy_with_logits(net(X), Y.float())
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-6)
    left = np.delete(np.arange(90), np.arange(12))
    without = 100 * average_precision_score(Y.numpy()[left], scores[left])
    assert found.left_out[0] == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_logit_says_yes_or_no(shape: tuple[int, ...]) -> None:
    labels = Y[:, 0].reshape(shape)
    found = evaluate(network(1), MemorySplit((X, labels), Binary()), Binary())
    right = (network(1)(X)[:, 0] > 0) == (Y[:, 0] == 1)
    assert found.metric == pytest.approx(100 * float(right.double().mean()))


@pytest.mark.parametrize(("task", "labels"), [("multi-label", Y), ("binary", Y[:, 0])])
def test_a_diagnosis_by_name(task: str, labels: torch.Tensor) -> None:
    pairs = [(X[:64], labels[:64])], [(X[64:], labels[64:])]
    found = trainscope.diagnose(
        network(4 if task == "multi-label" else 1),
        action=trainscope.Action(structure="unstructured", ratio=0.5),
        data=pairs,
        task=task,
        samples=16,
        retrain_epochs=1,
    )
    for name, columns in found.probes.items():
        assert columns.before.status == columns.after.status == "ok", (name, columns.before.reason)
    gradient = found.probes["gradient"].before
    assert gradient.scalars["loss"].unit == "nats"
    start = {"multi-label": "start_metric", "binary": "start_accuracy"}[task]
    assert 0 <= found.probes["trainability_accuracy"].after.value(start) <= 100


@pytest.mark.parametrize(
    ("outputs", "task", "targets", "sentence"),
    [
        (3, MultiLabel(), Y, "several labels a sample are logits"),
        (4, MultiLabel(), 2 * Y, "the targets go from 0 to 2"),
        (4, MultiLabel(), Y - 1, "the targets go from -1 to 0"),
        (4, Binary(), Y, "yes or no is one logit"),
        (2, Binary(), Y[:, 0], "yes or no is one logit"),
    ],
)
def test_what_does_not_fit_is_refused(outputs, task, targets, sentence) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        trainscope.measure(network(outputs), data=[(X, targets)], task=task, probes=["gradient"])


def test_what_a_sigmoid_made_is_refused() -> None:
    with_sigmoid = nn.Sequential(network(12), nn.Sigmoid())
    data = [(X, torch.randint(0, 2, (90, 12)).float())]
    with pytest.raises(CheckpointError, match="all 24 outputs lie between 0 and 1"):
        trainscope.measure(with_sigmoid, data=data, task="multi-label", probes=["gradient"])
    found = trainscope.measure(
        with_sigmoid, data=data, loss=nn.BCELoss(), samples=8, probes=["gradient"]
    )
    assert found["gradient"].status == "ok"


def test_one_logit_of_a_classifier_is_told_of_the_task() -> None:
    found = trainscope.measure(network(1), data=[(X, 0 * Y[:, 0])], probes=["gradient"])
    assert "name the task 'binary'" in found["gradient"].reason


def test_fields_follow_a_tasks_name() -> None:
    assert find_task("classification:output=heads.1") == Classification(output="heads.1")
    assert find_task("classification:output=1,classes_axis=1") == Classification(
        output=1, classes_axis=1
    )
    assert find_task("segmentation:ignore=0") == Segmentation(ignore=0)
    assert find_task("regression:loss_name=mae") == Regression(loss_name="mae")
    for text in ("classification:0", "binary:colour=1", "segmentation:ignore=x", "binary:output="):
        with pytest.raises(TaskError, match=r"binary|classification|segmentation"):
            find_task(text)


class Heads(nn.Module):
    """Three heads in training mode, and one tensor in eval mode, as distilled networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = network(3), network(3)

    def forward(self, x: torch.Tensor) -> object:
        both = self.one(x), self.two(x)
        return both if self.training else sum(both) / 2


def test_an_output_is_picked_by_name_or_place() -> None:
    labels = Y.sum(1) % 3
    pairs = [(X[:64], labels[:64])], [(X[64:], labels[64:])]
    one = {"samples": 8, "probes": ["trainability_accuracy"], "retrain_epochs": 1}
    with pytest.raises(TaskError, match="say which is meant by its name or place"):
        Classification().logits(Heads().train()(X))
    found = trainscope.measure(Heads(), data=pairs, task=Classification(output=0), **one)
    assert found["trainability_accuracy"].status == "ok"
    with pytest.raises(TaskError, match="no tensor at '7'"):
        Classification(output=7).logits((X, X))
    with pytest.raises(TaskError, match="no tensor at 'heads'"):
        Regression(output="heads").signal({"heads": [X]})
