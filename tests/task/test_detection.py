"""Detectors: their losses with batch norm held, their gradient and Hessian, and mAP."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable

import pytest
import torch
from reference.detectors import collate, faster_rcnn, loader, pictures, ssdlite, tiny
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader

import trainscope
from trainscope.data import ProbeData, given_data
from trainscope.errors import CheckpointError, TaskError, TrainscopeError
from trainscope.probes import Curvature, Gradient, Jacobian
from trainscope.probes.subject.evaluation import evaluation
from trainscope.task import Detection, find_task, mean_loss
from trainscope.task.detection import held
from trainscope.task.task import answers
from trainscope.training.evaluation import evaluate


def pinned(count: int = 5, batch_size: int = 2) -> ProbeData:
    batch = collate(pictures(count))
    return ProbeData("", batch=batch, task=Detection(), batch_size=batch_size)


def alone(network: nn.Module, image: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Return one image's loss: everything in training mode but batch norm and dropout."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    like = next(network.parameters())
    target = {**target, "boxes": target["boxes"].to(like)}
    return sum(network([image.to(like)], [target]).values())


def state_of(network: nn.Module) -> list[object]:
    held = [t.clone() for t in (*network.parameters(), *network.buffers())]
    return [held, [m.training for m in network.modules()], torch.get_rng_state()]


def same_state(one: list[object], two: list[object]) -> bool:
    pairs = zip(one[0], two[0], strict=True)
    return (
        all(torch.equal(a, b) for a, b in pairs)
        and one[1] == two[1]
        and bool(torch.equal(one[2], two[2]))
    )


@pytest.mark.parametrize(("build", "count"), [(tiny, 5), (ssdlite, 2)])
def test_the_gradient_is_that_of_the_mean_of_the_images_losses(build: Callable, count: int) -> None:
    network = build().double().train()
    before = state_of(network)
    found = Gradient().measure(network, pinned(count))
    assert same_state(before, state_of(network))
    plain = copy.deepcopy(network)
    rows, losses = [], []
    for image, target in pictures(count):
        loss = alone(plain, image, target)
        used = torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in used if g is not None]))
        losses.append(float(loss.detach()))
    each = torch.stack(rows)
    assert found.value("norm") == pytest.approx(float(each.mean(0).norm()), rel=1e-10)
    assert found.value("loss") == pytest.approx(sum(losses) / count, rel=1e-10)
    assert found.arrays["sample_norms"] == pytest.approx(each.norm(dim=1).tolist(), rel=1e-10)
    noise = (each - each.mean(0)).square().sum() / (count - 1)
    signal = each.mean(0).square().sum() - noise / count
    if count > 2:  # the noise of two samples says nothing of its own
        assert found.value("snr") == pytest.approx(float(signal / noise), rel=1e-8)
    else:
        assert found.value("snr") is None


def test_the_hessian() -> None:
    network = tiny().double()
    options = {"top": 2, "density_vectors": 0, "trace_vectors": 2, "tolerance": 1e-9}
    found = Curvature(**options).measure(network, pinned(3))
    plain = copy.deepcopy(network)
    alone(plain, *pictures(1)[0])  # its modes
    named = dict(plain.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def loss_at(vector: Tensor) -> Tensor:
        pieces = zip(named.items(), vector.split(sizes), strict=True)
        weights = {name: piece.view(p.shape) for (name, p), piece in pieces}
        losses = []
        for image, target in pictures(3):
            target = {**target, "boxes": target["boxes"].double()}
            out = functional_call(plain, weights, ([image.double()], [target]))
            losses.append(sum(out.values()))
        return sum(losses) / 3

    point = torch.cat([p.detach().flatten() for p in named.values()])
    matrix = torch.autograd.functional.hessian(loss_at, point)
    expected = torch.linalg.eigvalsh(matrix)
    assert found.status == "ok"
    top = list(expected.flip(0)[:2])
    assert found.arrays["eigenvalues"] == pytest.approx([float(v) for v in top], rel=1e-6)


def test_a_loss_that_is_linear_in_what_is_returned_has_no_gauss_newton_matrix() -> None:
    found = Curvature(ggn=True, density_vectors=0, trace_vectors=2).measure(tiny(), pinned(3))
    assert found.status == "skipped"
    assert "linear in what the network returns" in found.reason


def test_no_image_depends_on_its_neighbours_or_on_the_draw() -> None:
    """What a batch is padded to and divided by, and the proposals of Faster R-CNN, are held."""
    for network in (tiny(), faster_rcnn()):
        data, task = pinned(), Detection()
        random.seed(1)
        with evaluation(network, data) as lent:
            assert lent.behaviour.random is None
            assert lent.behaviour.coupled is None
            torch.manual_seed(5)
            whole = task.losses(lent.outputs(lent.batch), lent.batch)
            torch.manual_seed(6)
            single = task.losses(lent.outputs(lent.some(3, 4)), lent.some(3, 4))
        assert torch.equal(whole[3:4], single)


def test_the_same_proposals_are_drawn_and_nothing_stays_changed() -> None:
    network = faster_rcnn().train()
    samplers = [network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler]
    before = state_of(network)
    found = [Gradient().measure(network, pinned()) for _ in range(2)]
    assert same_state(before, state_of(network))
    assert samplers == [network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler]
    assert found[0].status == "ok"
    assert found[0].value("norm") == found[1].value("norm")
    network.eval()
    with pytest.raises(RuntimeError, match="stop"), held(network):
        raise RuntimeError("stop")
    assert not any(module.training for module in network.modules())
    assert samplers[0] is network.rpn.fg_bg_sampler


def test_a_detector_that_draws_for_itself_is_refused_by_name() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.inside(x), 0.5, self.training)

    network = tiny()
    network.inner = Noisy()
    found = Gradient().measure(network, pinned())
    assert found.status == "skipped"
    assert "the layer 'inner' (Noisy) draws random numbers" in found.reason


def test_a_training_step_is_the_networks_own() -> None:
    network, task = tiny(), Detection(weights={"kind": 2.0})
    images, targets = collate(pictures(4))
    network.train()
    plain = copy.deepcopy(network)
    torch.manual_seed(0)
    loss = mean_loss(task, task.outputs(network, (images, targets)), (images, targets))
    torch.manual_seed(0)
    found = plain(list(images), list(targets))
    expected = (found["place"] + 2 * found["kind"]).detach()
    assert float(loss.detach()) == pytest.approx(float(expected))
    assert int(network.body[1].num_batches_tracked) == 1  # batch norm trains
    with pytest.raises(TaskError, match="a weight is given for the loss 'colour'"):
        Detection(weights={"colour": 1.0}).losses(found, (images, targets))


def test_the_jacobian_is_skipped_with_the_reason() -> None:
    found = Jacobian().measure(tiny(), pinned())
    assert "as many boxes as it finds" in found.reason


FORMS = {
    "a loader": lambda: loader(6),
    "a data set": lambda: _Set(pictures(6)),
    "batches of uneven lengths": lambda: [collate(pictures(4)), collate(pictures(2, 4))],
    "one batch": lambda: collate(pictures(6)),
    "lists": lambda: [list(map(list, collate(pictures(6))))],
    "names": lambda: [dict(zip(("images", "targets"), collate(pictures(6)), strict=True))],
}


class _Set(torch.utils.data.Dataset):
    def __init__(self, rows: list) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> object:
        return self.rows[place]


@pytest.mark.parametrize("form", FORMS)
def test_batches_come_in_many_forms(form: str) -> None:
    data = given_data(FORMS[form](), task=Detection())
    assert len(data.test) == 6
    assert data.input_shape == (3, 24, 32)
    images, targets = data.test.batch(torch.tensor([1, 4]))
    assert [tuple(image.shape) for image in images] == [(3, 32, 32), (3, 32, 32)]
    assert [len(target["labels"]) for target in targets] == [2, 2]


def test_stacked_batches() -> None:
    """What torch's own collate function makes of images of one size with as many boxes."""
    rows = [pictures(1, 1)[0], pictures(1, 4)[0]]
    data = given_data(DataLoader(rows, 2), task=Detection())
    images, targets = data.test.batch(torch.tensor([0, 1]))
    assert Detection().size((images, targets)) == 2
    one = Detection().select((images, targets), torch.tensor([1]))
    assert torch.equal(one[0][0], rows[1][0])
    assert torch.equal(one[1][0]["boxes"], rows[1][1]["boxes"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, t: (x, t["boxes"]), "a target is a tensor"),
        (lambda x, t: ((255 * x).byte(), t), "give floating-point tensors"),
        (lambda x, t: (x, {**t, "boxes": t["boxes"][:, :3]}), r"boxes of shape \(2, 3\)"),
        (lambda x, t: (x, {**t, "boxes": t["boxes"][:, [2, 1, 0, 3]]}), "x0 < x1"),
        (lambda x, t: (x, {"boxes": t["boxes"]}), "'labels'"),
    ],
)
def test_what_is_no_image_or_target_is_refused(change: Callable, sentence: str) -> None:
    rows = [change(*pictures(1, 1)[0])]
    with pytest.raises(TrainscopeError, match=sentence):
        trainscope.measure(tiny(), data=[collate(rows)], task="detection", probes=["gradient"])


def test_a_network_that_is_no_detector_is_refused() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, images: list[Tensor], targets: object = None) -> Tensor:
            return torch.stack([self.conv(x[None]).mean((0, 2, 3)) for x in images])

    with pytest.raises(CheckpointError, match="and not a dictionary of losses"):
        trainscope.measure(Classifier(), data=loader(4), task="detection", probes=["gradient"])


def perfect(count: int) -> tuple[list[dict[str, Tensor]], tuple]:
    images, targets = collate(pictures(count))
    found = [
        {"boxes": t["boxes"], "labels": t["labels"], "scores": torch.ones(len(t["labels"]))}
        for t in targets
    ]
    return found, (images, targets)


def test_map_by_hand() -> None:
    """All right: 100. One of the two classes never found: 50. Boxes too high by 3 of 16."""
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    task = Detection()
    found, batch = perfect(5)
    assert task.value(*task.score(found, batch)) == pytest.approx(100)
    some = [{name: value[f["labels"] == 1] for name, value in f.items()} for f in found]
    assert task.value(*task.score(some, batch)) == pytest.approx(50)
    moved = [{**f, "boxes": f["boxes"] + torch.tensor([0, 0, 0, 3.0])} for f in found]
    # Of height 16: IoU 16 / 19 = 0.84 passes 0.5 .. 0.8, 7 of the 10 thresholds.
    assert task.value(*task.score(moved, batch)) == pytest.approx(70)
    empty = [{name: value[:0] for name, value in f.items()} for f in found]
    assert task.value(*task.score(empty, batch)) == pytest.approx(0)


def test_map_is_of_the_test_half_not_a_mean_of_batches() -> None:
    metrics = pytest.importorskip("torchmetrics.detection")
    pytest.importorskip("pycocotools")
    network = tiny()
    with torch.no_grad():  # boxes about where some are
        network.head.place.bias.copy_(torch.tensor([0.2, 0.2, 0.6, 0.7]))
        network.head.place.weight.zero_()
    data = given_data(loader(12), task=Detection())
    whole = evaluate(network, data.test, Detection())
    parts = evaluate(network, data.test, Detection(), batch_size=5)
    plain = metrics.MeanAveragePrecision(iou_type="bbox")
    network.eval()
    with torch.no_grad():
        for image, target in pictures(12):
            plain.update(network([image]), [target])
    expected = 100 * float(plain.compute()["map"])
    assert 0 < expected < 100
    assert whole.metric == pytest.approx(expected)
    assert parts.metric == pytest.approx(expected)


def test_map_without_some_images_is_that_of_the_others() -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    draw, task, parts = torch.Generator().manual_seed(0), Detection(), []
    for image, target in pictures(24):
        more = 40 * torch.rand(120, 4, generator=draw).sort(1).values
        boxes = torch.cat([target["boxes"] + torch.rand(1, 4, generator=draw), more])
        labels = torch.randint(1, 4, (len(boxes),), generator=draw)  # of 3 there is no box
        scores = torch.rand(len(boxes), generator=draw)
        crowd = {**target, "iscrowd": (target["labels"] == 2).long() * (len(parts) % 2)}
        found = ({"boxes": boxes, "labels": labels, "scores": scores},)
        parts.append(task.score(found, ((image,), (crowd,))))
    groups = [sum((total for total, _ in parts[i : i + 7]), ()) for i in range(0, 24, 7)]
    for i, found in enumerate(task.without(groups)):
        rest = [*groups[:i], *groups[i + 1 :]]
        assert found == pytest.approx(task.value(sum(rest, ()), 0), rel=1e-6)
        assert found > 0
    alone = task.without([groups[0], ()])
    assert alone[0] != alone[0], "nothing is left"
    assert alone[1] == pytest.approx(task.value(groups[0], 0), rel=1e-6)


def test_what_map_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.detection", None)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    found = trainscope.measure(
        tiny(), data=(loader(6), loader(4)), task="detection", samples=4, retrain_epochs=1
    )
    assert "pip install 'trainscope-pruning[detection]'" in found["trainability_accuracy"].reason
    assert found["gradient"].status == found["curvature"].status == "ok"
    assert answers(Detection(), tiny().eval(), collate(pictures(2)), None)[0]["boxes"].shape[1] == 4


def test_the_name() -> None:
    assert find_task("detection") == Detection()
    with pytest.raises(TaskError, match="detection"):
        find_task("detection:weights=1")
