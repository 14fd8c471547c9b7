"""Metrics that are no mean over samples: computed of the whole test half, not batch by batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.data.halves import MemorySplit
from trainscope.errors import TaskError
from trainscope.studies.masked_trials import score_trials
from trainscope.task import FromLoss
from trainscope.training import evaluation
from trainscope.training.evaluation import evaluate

SAMPLES = 150


def network(outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs)).eval()


def macro_f1(logits, labels):
    """Return the mean over classes of the F scores, as scikit-learn has it."""
    said, found = logits.argmax(1), []
    for each in range(4):
        right = ((said == each) & (labels == each)).sum()
        found.append(2 * right / ((said == each).sum() + (labels == each).sum()).clamp(min=1))
    return torch.stack(found).mean()


def f1_of_each_class(logits, labels):
    """Return one number a class, of which the mean is meant, and not one a sample."""
    said = logits.argmax(1)
    return torch.stack(
        [
            2 * ((said == k) & (labels == k)).sum() / ((said == k).sum() + (labels == k).sum())
            for k in range(4)
        ]
    ).nan_to_num()


def r2(outputs, targets):
    return 1 - (outputs - targets).square().sum() / (targets - targets.mean(0)).square().sum()


def rmse(outputs, targets):
    return (outputs - targets).square().mean().sqrt()


def auc(logits, labels):
    """Return how often a sample of class 0 has the larger logit of class 0: it needs both kinds."""
    yes, no = logits[labels == 0, 0], logits[labels != 0, 0]
    if not len(yes) or not len(no):
        raise ValueError("only one class is there")
    return (yes[:, None] > no[None, :]).double().mean()


def accuracy(logits, labels):
    return (logits.argmax(1) == labels).double().mean()


def right(logits, labels):
    return (logits.argmax(1) == labels).double()


LOSSES = {r2: nn.MSELoss(), rmse: nn.MSELoss()}


def data(metric):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 6, generator=generator)
    labels = (torch.rand(SAMPLES, generator=generator) ** 2 * 4).long()
    numbers = torch.randn(SAMPLES, 4, generator=generator)
    return x, numbers if metric in LOSSES else labels


def task(metric):
    return FromLoss(LOSSES.get(metric, nn.CrossEntropyLoss()), metric, better="higher")


@pytest.mark.parametrize("metric", [macro_f1, f1_of_each_class, r2, rmse, auc, accuracy, right])
def test_a_users_metric_is_that_of_all_test_samples_together(metric):
    model, (x, wanted) = network(), data(metric)
    with torch.no_grad():
        expected = float(metric(model(x), wanted).double().mean())
    found = evaluate(model, MemorySplit((x, wanted), task(metric)), task(metric))
    assert len(found.parts) > 1
    assert found.metric == pytest.approx(expected, rel=1e-6)
    own = {"x": x, "labels": wanted}

    def whole(outputs, batch):
        return metric(outputs, batch["labels"])

    model.forward = lambda x: nn.Sequential.forward(model, x)
    by_name = FromLoss(lambda out, batch: F.mse_loss(out, out.detach()), whole, better="higher")
    assert evaluate(model, MemorySplit(own, by_name), by_name).metric == pytest.approx(expected)


def test_its_spread_over_parts_is_that_of_the_metric_with_parts_left_out():
    model, (x, wanted) = network(), data(rmse)
    found = evaluate(model, MemorySplit((x, wanted), task(rmse)), task(rmse))
    with torch.no_grad():
        outputs = model(x)
    first = int(found.parts[0][1])
    expected = float(rmse(outputs[first:], wanted[first:]))
    assert found.left_out[0] == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_kept_is_a_mean_over_batches(monkeypatch):
    monkeypatch.setattr(evaluation, "MOST_KEPT", 100)
    model, (x, wanted) = network(), data(rmse)
    found = evaluate(model, MemorySplit((x, wanted), task(rmse)), task(rmse), batch_size=50)
    with torch.no_grad():
        each = [float(rmse(model(x[k : k + 50]), wanted[k : k + 50])) for k in (0, 50, 100)]
    assert found.metric == pytest.approx(sum(each) / 3, rel=1e-6)


def test_a_mean_over_samples_is_not_kept():
    model, (x, wanted) = network(), data(accuracy)
    found = evaluate(model, MemorySplit((x, wanted), task(accuracy)), task(accuracy))
    assert all(isinstance(total, float) for total, _ in found.parts)


def test_trials_under_masks_are_scored_so_too():
    model, (x, wanted) = network(), data(macro_f1)
    split = MemorySplit((x, wanted), task(macro_f1))
    gone = torch.arange(8) < 3
    (found,) = score_trials(model, [{"2": (-1, gone)}], split, task(macro_f1), batch_size=30)
    cut = copy.deepcopy(model)
    with torch.no_grad():
        cut[2].weight[:, gone] = 0
        expected = float(macro_f1(cut(x), wanted))
    assert found.metric == pytest.approx(expected, rel=1e-6)


def test_a_metric_that_fails_is_said():
    def broken(outputs, targets):
        raise ValueError("no such thing")

    model, (x, wanted) = network(), data(broken)
    with pytest.raises(TaskError, match="the metric broken fails: ValueError: no such thing"):
        _ = evaluate(model, MemorySplit((x, wanted), task(broken)), task(broken)).metric
