"""What tasks say of outputs and batches: losses, scores, and the forms that both come in."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.data.halves import MemorySplit
from trainscope.errors import TaskError
from trainscope.probes import Curvature, Gradient, Jacobian
from trainscope.task import (
    Classification,
    FromLoss,
    LanguageModelling,
    Regression,
    Segmentation,
    mean_loss,
    metric_value,
    per_sample,
)
from trainscope.task.batches import joined, mapped, selected, tensors
from trainscope.training.evaluation import added, evaluate


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(outputs: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs)).double().eval()


X = torch.randn(9, 4, generator=seeded(1), dtype=torch.float64)
Y = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


def summed(out: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(out, wanted, reduction="sum")


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(reduction="none"),
        summed,
        lambda out, wanted: F.nll_loss(out.log_softmax(1), wanted).reshape(1),
    ],
)
def test_a_cross_entropy_of_ones_own_is_classification(loss) -> None:
    ours = ProbeData("", X, Y, batch_size=4)
    task = FromLoss(loss, lambda out, y: 100.0 * (out.argmax(1) == y), better="higher")
    theirs = ProbeData("", batch=(X, Y), task=task, batch_size=4)
    for probe in (
        Gradient(),
        Jacobian(),
        Curvature(top=1, ggn=True, tolerance=1e-9, density_vectors=0),
        Curvature(top=1, tolerance=1e-9, density_vectors=0),
    ):
        one, two = probe.measure(mlp(), ours), probe.measure(mlp(), theirs)
        for name, scalar in one.scalars.items():
            if name != "trace":  # exact for one, estimated for the other
                expected = scalar.value
                close = expected and pytest.approx(expected, rel=1e-11, abs=1e-12)
                assert two.value(name) == close
    split = MemorySplit((X, Y), Classification())
    one, two = evaluate(mlp(), split), evaluate(mlp(), split, task)
    assert two.loss == pytest.approx(one.loss, rel=1e-12)
    assert two.metric == pytest.approx(one.metric, rel=1e-12)
    alone = evaluate(mlp(), split, FromLoss(loss))
    assert alone.metric == pytest.approx(one.loss, rel=1e-12)


def contrastive(out: Tensor) -> Tensor:
    """Every sample against all others."""
    unit = F.normalize(out, dim=1)
    return F.cross_entropy(unit @ unit.T, torch.arange(len(out)))


def test_a_loss_that_mixes_samples_is_told_and_taken_whole() -> None:
    net = mlp()
    data = ProbeData("", batch=(X, Y), task=FromLoss(contrastive), batch_size=2)
    found = Gradient().measure(net, data)
    assert "not the mean of its samples" in found.notes["batch"]
    assert found.value("snr") is None
    loss = contrastive(net(X))
    slopes = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    flat = torch.cat([slope.flatten() for slope in slopes])
    assert found.value("loss") == pytest.approx(float(loss.detach()), rel=1e-12)
    assert found.value("norm") == pytest.approx(float(flat.detach().norm()), rel=1e-10)
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(each, list(net.parameters()), retain_graph=True)
            ]
        )
        for each in flat
    ]
    top = torch.linalg.eigvalsh(torch.stack(rows))[-1]
    curved = Curvature(tolerance=1e-9).measure(net, data)
    assert curved.value("top_eigenvalue") == pytest.approx(float(top), rel=1e-8)
    assert Jacobian().measure(net, data).status == "ok"


def test_a_loss_that_takes_no_batch_of_one_is_taken_whole() -> None:
    def picky(out: Tensor, wanted: Tensor) -> Tensor:
        if len(out) < 2:
            raise ValueError("give two")
        return F.cross_entropy(out, wanted)

    found = Gradient().measure(mlp(), ProbeData("", batch=(X, Y), task=FromLoss(picky)))
    assert "not the mean of its samples" in found.notes["batch"]
    assert found.value("loss") == pytest.approx(
        float(F.cross_entropy(mlp()(X), Y).detach()), rel=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_weights_of_another_dtype_are_no_reason_to_fail(dtype: torch.dtype) -> None:
    loss = nn.CrossEntropyLoss(WEIGHTS, reduction="none")
    net, batch = mlp().to(dtype), (X.to(dtype), Y)
    data = ProbeData("", batch=batch, task=FromLoss(loss))
    out = mlp()(X).detach()
    expected = float(F.cross_entropy(out, Y, WEIGHTS.double(), reduction="none").mean())
    assert Gradient().measure(net, data).value("loss") == pytest.approx(expected, rel=1e-5)
    found = evaluate(net, MemorySplit(batch, data.task), data.task)
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert loss.weight.dtype == torch.float32


def test_mean_iou_over_batches_is_that_of_one_confusion_matrix() -> None:
    logits = torch.randn(40, 4, 3, 3, generator=seeded(2))
    labels = torch.randint(0, 3, (40, 3, 3), generator=seeded(3))  # class 3 is only predicted
    labels[::5, 0] = 255
    task = Segmentation()
    assert metric_value(task, *added([task.score(logits[:8], ((), labels[:8]))])) is not None
    confusion = [[0] * 4 for _ in range(4)]
    for i in range(40):
        for r in range(3):
            for c in range(3):
                if labels[i, r, c] != 255:
                    confusion[int(labels[i, r, c])][int(logits[i, :, r, c].argmax())] += 1
    ious = []
    for k in range(4):
        either = sum(confusion[k]) + sum(row[k] for row in confusion) - confusion[k][k]
        ious += [confusion[k][k] / either] if either else []
    for size in (7, 40):
        found = evaluate(nn.Identity(), MemorySplit((logits, labels), task), task, batch_size=size)
        assert found.metric == pytest.approx(100 * sum(ious) / len(ious), rel=1e-12)


def test_a_class_that_nobody_names_is_no_part_of_the_mean_iou() -> None:
    task, logits = Segmentation(), torch.zeros(1, 5, 2, 2)
    logits[:, 1] = 1.0
    labels = torch.tensor([[[1, 1], [1, 2]]])
    assert task.value(*task.score(logits, (logits, labels))) == pytest.approx(100 * (3 / 4 + 0) / 2)
    nothing = torch.full((1, 2, 2), 255)
    assert metric_value(task, *task.score(logits, (logits, nothing))) is None


def test_perplexity_and_rmse_over_batches_of_other_sizes() -> None:
    ids = torch.randint(0, 5, (11, 6), generator=seeded(4))
    mask = torch.ones(11, 6, dtype=torch.long)
    mask[3, 2:], mask[5, 1:] = 0, 0
    table = torch.randn(5, 5, generator=seeded(5), dtype=torch.float64)
    total, count = 0.0, 0
    for i in range(11):
        for t in range(5):
            if mask[i, t + 1]:
                row = table[ids[i, t]]
                total += float(row.exp().sum().log() - row[ids[i, t + 1]])
                count += 1

    class Bigram(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            return {"logits": table[input_ids]}

    batch, task = {"input_ids": ids, "attention_mask": mask}, LanguageModelling()
    found = evaluate(Bigram(), MemorySplit(batch, task), task, batch_size=4)
    assert found.metric == pytest.approx(math.exp(total / count), rel=1e-12)
    assert found.loss == pytest.approx(total / count, rel=1e-12)
    net, wanted = mlp(1), torch.randn(9, generator=seeded(6), dtype=torch.float64)
    found = evaluate(net, MemorySplit((X, wanted), Regression()), Regression(), batch_size=4)
    squares = [float((net(X[i])[0] - wanted[i]).detach()) ** 2 for i in range(9)]
    assert found.metric == pytest.approx(math.sqrt(sum(squares) / 9), rel=1e-12)


def test_labels_moved_by_their_loader_are_masked_by_what_they_say() -> None:
    ids = torch.tensor([[1, 2, 3, 0], [2, 3, 1, 4]])
    labels = torch.tensor([[2, 3, 0, 0], [3, 1, 4, 2]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    logits = torch.randn(2, 4, 5, generator=seeded(1))
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    got = LanguageModelling().losses(logits, batch)
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    expected = [float(-logits[p].log_softmax(0)[labels[p]]) for p in places]
    assert got.tolist() == pytest.approx(expected, rel=1e-5)


def test_as_many_labels_as_samples_are_not_one_each() -> None:
    logits = torch.randn(3, 2, 4, generator=seeded(1), dtype=torch.float64)
    labels = torch.tensor([[1, 2], [-100, -100], [3, -100]])
    sums, counts = per_sample(Classification(), logits, (logits, labels))
    assert counts.tolist() == [2, 0, 1]
    each = -logits.log_softmax(2)
    expected = [float(each[0, 0, 1] + each[0, 1, 2]), 0.0, float(each[2, 0, 3])]
    assert sums.tolist() == pytest.approx(expected, rel=1e-12)
    found = evaluate(
        nn.Identity(), MemorySplit((logits, labels), Classification()), Classification()
    )
    assert found.correct is None


def test_a_batch_in_which_nothing_counts_teaches_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.full((2, 4, 4), 255)
    loss = mean_loss(Segmentation(), logits, (logits, labels))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(logits.grad.abs().sum()) == 0.0
    ids = torch.zeros(2, 4, dtype=torch.long)
    batch = {"input_ids": ids, "labels": torch.full_like(ids, -100)}
    assert float(mean_loss(LanguageModelling(), torch.randn(2, 4, 5), batch)) == 0.0


def test_losses_of_a_derived_class_are_those_of_training() -> None:
    class Weighted(Classification):
        def losses(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(outputs, batch[1], WEIGHTS.double(), reduction="none")

    out = mlp()(X)
    expected = F.cross_entropy(out, Y, WEIGHTS.double(), reduction="none").mean()
    found = mean_loss(Weighted(), out, (X, Y)).detach()
    assert float(found) == pytest.approx(float(expected.detach()))
    with pytest.raises(TaskError, match="smooth labels there"):
        Weighted().loss(out, (X, Y), 0.1)


def test_one_number_for_one_sample_is_taken() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).squeeze()

    wanted = torch.randn(9, generator=seeded(6), dtype=torch.float64)
    found = Gradient().measure(Squeezed().eval(), ProbeData("", X, wanted, task=Regression()))
    plain = Gradient().measure(mlp(1), ProbeData("", X, wanted, task=Regression()))
    assert found.notes.get("batch") is None
    assert found.value("snr") == pytest.approx(plain.value("snr"), rel=1e-12)


def test_labels_in_a_column_are_labels() -> None:
    batch = {"x": X, "label": Y[:, None]}
    got = Classification().losses(mlp()(X), batch)
    assert got.tolist() == pytest.approx(F.cross_entropy(mlp()(X), Y, reduction="none").tolist())


class Bag(dict):
    """A dictionary of somebody's own."""


@dataclass(slots=True)
class Slots:
    first: Tensor
    rest: list[Tensor]
    name: str = "kept"


@pytest.mark.parametrize(
    "tree",
    [
        Slots(torch.arange(4), [torch.ones(4)]),
        SimpleNamespace(a=torch.arange(4), b=SimpleNamespace(c=torch.ones(4)), d=None),
        Bag(a=torch.arange(4), b=Bag(c=torch.ones(4))),
        OrderedDict(a=torch.arange(4), b=[torch.ones(4), "text"]),
    ],
)
def test_tensors_are_found_in_objects_and_put_back(tree) -> None:
    assert len(tensors(tree)) == 2
    two = selected(tree, slice(0, 2), 4)
    assert type(two) is type(tree)
    assert [len(leaf) for leaf in tensors(two)] == [2, 2]
    assert [len(leaf) for leaf in tensors(tree)] == [4, 4]
    assert [len(leaf) for leaf in tensors(joined([tree, two], "the data"))] == [6, 6]
    same = mapped(lambda leaf: leaf, tree)
    assert same is not tree
    if isinstance(tree, Slots):
        assert same.name == "kept"


def test_an_object_that_holds_itself_is_gone_into_once() -> None:
    thing = SimpleNamespace(values=torch.ones(2))
    thing.me = thing
    assert len(tensors(thing)) == 1


def test_a_loss_that_is_no_cross_entropy_is_not_told_in_nats() -> None:
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    data = ProbeData("line", batch=(x, x[:, 0]), task=Regression())
    network = torch.nn.Linear(3, 1)
    gradient = Gradient().measure(network, data)
    curvature = Curvature(top=1, density_vectors=0).measure(network, data)
    assert {gradient.scalars[n].unit for n in ("norm", "norm_unbiased")} == {"loss/weight"}
    assert gradient.scalars["loss"].unit == ""
    assert curvature.scalars["top_eigenvalue"].unit == "loss/weight²"


def test_where_the_classes_stand_is_said_and_never_guessed() -> None:
    logits = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    batch = (torch.zeros(4), torch.zeros(4, 7, dtype=torch.int64))
    with pytest.raises(TaskError, match="give classes_axis=1"):
        Classification().losses(logits, batch)
    second = Classification(classes_axis=1)
    expected = F.cross_entropy(logits, batch[1], reduction="none")
    assert torch.allclose(second.losses(logits, batch), expected.flatten())
    assert torch.allclose(second.signal(logits), logits.mean(2))
    moved = logits.movedim(1, -1)
    assert torch.allclose(Classification().losses(moved, batch), expected.flatten())
    assert torch.allclose(Classification().signal(moved), logits.mean(2))
    with pytest.raises(TaskError, match="give classes_axis=-1"):
        Segmentation().losses(moved, batch)
    with pytest.raises(TaskError, match="give -1 or 1"):
        Classification(classes_axis=2)
