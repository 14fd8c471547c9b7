"""Finding things in images, as torchvision's detectors do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainscope.errors import TaskError
from trainscope.records.metric import HIGHER, Metric
from trainscope.task.average_precision import average_precision, can_measure, with_each_left_out
from trainscope.task.batches import Batch, beside, described, mapped
from trainscope.task.modes import eval_mode, kept_modes
from trainscope.task.task import Amount, Outputs

Target = Mapping[str, Any]
"""Of one image: `boxes` [n, 4] as x0, y0, x1, y1 in pixels, `labels` [n], and others."""


@dataclass(frozen=True)
class Detection:
    """The losses of a detector in training mode, and the mAP of what it finds in eval mode.

    The network is called as torchvision's are: with a list of images [C, H, W] and a list of
    targets in training mode, where it returns a dictionary of losses; with the images alone in eval
    mode, where it returns a dictionary of `boxes`, `scores` and `labels` for each. Batches are
    pairs (images, targets) of lists, images of any sizes, or tensors of images of one size.

    A training step takes the whole batch, as the network's own code does. Measured, each image is
    put forward alone, so that neither the padding nor a loss that is divided by what a batch holds
    ties it to others: the loss is the mean over images of their own. Batch norm then takes its
    running statistics, dropout is off, and where a detector samples proposals (Faster R-CNN), it
    draws the same ones each time.

    Attributes:
        weights: Of the losses by name; 1 of those that are not there.
    """

    weights: Mapping[str, float] = field(default_factory=dict, hash=False)

    ragged: ClassVar[bool] = True
    note: ClassVar[str] = (
        "the losses of training mode, batch norm and dropout held as in eval mode, each image put "
        "forward alone; their mean is over images"
    )
    no_signal: ClassVar[str] = (
        "a detector returns as many boxes as it finds, and no row of outputs that every image has"
    )

    @property
    def metric(self) -> Metric:
        """Return the mean average precision over IoU thresholds from 0.5 to 0.95, as COCO's."""
        return Metric("mAP", "%", HIGHER)

    def ready(self) -> None:
        """Check that the metric can be computed here.

        Raises:
            TaskError: torchmetrics or pycocotools is not installed.
        """
        can_measure()

    def size(self, batch: Batch) -> int:
        """Return the number of images."""
        return len(parted(batch)[0])

    def select(self, batch: Batch, indices: Tensor) -> Batch:
        """Return some of the images, with their targets."""
        images, targets = parted(batch)
        places = indices.tolist()
        return tuple(images[i] for i in places), tuple(targets[i] for i in places)

    def join(self, batches: Sequence[Batch]) -> Batch:
        """Return batches as one."""
        halves = [parted(batch) for batch in batches]
        return (
            tuple(image for images, _ in halves for image in images),
            tuple(target for _, targets in halves for target in targets),
        )

    def collate(self, samples: Sequence[tuple[Any, Any]]) -> Batch:
        """Return a batch of pairs (image, target), as a data set gives them."""
        return tuple(zip(*samples, strict=True))

    def call(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return what one call with all images returns: what is found where it is in eval mode."""
        return model([image.clone() for image in parted(batch)[0]])

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the losses by name, [N] each; in training mode those of the batch, [] each."""
        images, targets = _copied(batch)
        if model.training:
            return _losses(model(images, targets))
        with held(model):
            rows = [
                _losses(model([image], [target]))
                for image, target in zip(images, targets, strict=True)
            ]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the weighted sum of the losses, one an image; of a training step one in all."""
        unknown = next((name for name in self.weights if name not in outputs), None)
        if unknown is not None:
            raise TaskError(
                f"a weight is given for the loss '{unknown}', and the network's are "
                f"{', '.join(outputs)}"
            )
        parts = [self.weights.get(name, 1.0) * value for name, value in outputs.items()]
        return torch.stack(parts).sum(0).reshape(-1)

    def predictions(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return what the network finds in each image, in eval mode."""
        images = _copied(batch)[0]
        found: dict[int, Any] = {}
        with torch.no_grad(), eval_mode(model):
            for places in _alike(images):
                answer = model([images[place] for place in places])
                if not isinstance(answer, list | tuple) or not _names_boxes(answer, len(places)):
                    raise TaskError(
                        f"in eval mode the network returns {described(answer)}, and not a "
                        "dictionary of boxes, scores and labels for each image: wrap it in a "
                        "module that does"
                    )
                found |= zip(places, answer, strict=True)
        names = ("boxes", "scores", "labels")
        return tuple({name: found[i][name] for name in names} for i in range(len(images)))

    def score(self, outputs: Outputs, batch: Batch) -> tuple[Amount, Amount]:
        """Return what was found and what there is, a pair an image, and the number of images."""
        targets = parted(batch)[1]
        pairs = tuple(
            (_plain(found), _plain({k: target[k] for k in (*_WANTED, *_OPTIONAL) if k in target}))
            for found, target in zip(outputs, targets, strict=True)
        )
        return pairs, float(len(pairs))

    def value(self, total: Amount, count: Amount) -> float:
        """Return the mAP over all images, percent; NaN where they hold no box."""
        assert isinstance(total, tuple)
        return average_precision(total)

    def without(self, totals: Sequence[Amount]) -> list[float]:
        """Return the mAP without each of several groups of images, percent."""
        groups = [total for total in totals if isinstance(total, tuple)]
        return with_each_left_out(groups)

    def signal(self, outputs: Outputs) -> Tensor | None:
        """Return None: see `no_signal`."""
        return None


_WANTED = ("boxes", "labels")
_OPTIONAL = ("iscrowd", "area")
_SEED = 0


def parted(batch: Batch) -> tuple[tuple[Tensor, ...], tuple[Target, ...]]:
    """Return the images and the targets of a batch, one each.

    Raises:
        TaskError: It holds no such things.
    """
    if isinstance(batch, Mapping) and {"images", "targets"} <= set(batch):
        batch = (batch["images"], batch["targets"])
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TaskError(
            f"a batch is {described(batch)}: give pairs (images, targets), lists of images "
            "[C, H, W] and of dictionaries with 'boxes' and 'labels' (collate_fn=lambda batch: "
            "tuple(zip(*batch)))"
        )
    images, targets = batch
    if isinstance(targets, Mapping):  # stacked by torch's own collate function
        targets = [{k: v[i] for k, v in targets.items()} for i in range(len(images))]
    images, targets = tuple(images), tuple(targets)
    if len(images) != len(targets):
        raise TaskError(
            f"a batch has {len(images)} images and {len(targets)} targets: give as many"
        )
    for image, target in zip(images, targets, strict=True):
        _check(image, target)
    return images, targets


def _check(image: Any, target: Any) -> None:
    """Refuse an image or a target of another form.

    Raises:
        TaskError: It is one.
    """
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
        raise TaskError(
            f"an image is {described(image)}: give floating-point tensors [C, H, W], for "
            "torchvision's detectors from 0 to 1"
        )
    if not isinstance(target, Mapping) or not all(
        isinstance(target.get(name), Tensor) for name in _WANTED
    ):
        raise TaskError(
            f"a target is {described(target)}: give dictionaries with 'boxes' [n, 4] and "
            "'labels' [n]"
        )
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise TaskError(
            f"a target has boxes of shape {tuple(boxes.shape)} and labels of shape "
            f"{tuple(labels.shape)}: give [n, 4] and [n], also where n is 0"
        )
    if bool((boxes[:, 2:] <= boxes[:, :2]).any()):
        raise TaskError(
            f"a box is {boxes[(boxes[:, 2:] <= boxes[:, :2]).any(1)][0].tolist()}: give boxes as "
            "x0, y0, x1, y1 with x0 < x1 and y0 < y1"
        )


def _copied(batch: Batch) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Return copies, into which a network may write."""
    images, targets = mapped(torch.clone, tuple(map(tuple, parted(batch))))
    return list(images), [dict(target) for target in targets]


def _losses(returned: Any) -> dict[str, Tensor]:
    """Return the losses that a network returned, by name.

    Raises:
        TaskError: It returned none.
    """
    if isinstance(returned, tuple | list) and returned and isinstance(returned[0], Mapping):
        returned = returned[0]  # with what it found beside them
    if isinstance(returned, Tensor) and returned.numel() == 1:
        returned = {"loss": returned}
    losses = {}
    if isinstance(returned, Mapping):
        losses = {k: v.reshape(()) for k, v in returned.items() if _is_number(v)}
    if not losses or len(losses) < len(returned):
        raise TaskError(
            f"in training mode the network returns {described(returned)}, and not a dictionary of "
            "losses: wrap it in a module that does, or give a loss of your own"
        )
    return losses


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()


def _names_boxes(answer: Sequence[Any], count: int) -> bool:
    wanted = {"boxes", "scores", "labels"}
    return len(answer) == count and all(isinstance(x, Mapping) and wanted <= set(x) for x in answer)


def _alike(images: Sequence[Tensor]) -> list[list[int]]:
    """Return the places of images of one size together: these are not padded to each other's."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(tuple(image.shape), []).append(place)
    return list(places.values())


def _plain(things: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU, numbers in float32."""
    found: dict[str, Tensor] = beside({k: v.detach() for k, v in things.items()}, torch.empty(0))
    return found


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Let a network in eval mode return its losses, its norms, dropout and sampling held.

    Only modules that are made of others are in training mode, for they choose what is returned;
    torch's own, and whatever has no parts, stay as they are.
    """
    samplers: list[tuple[nn.Module, Any]] = []
    with kept_modes(model):
        for module in model.modules():
            own = not type(module).__module__.startswith("torch.") and any(module.children())
            module.training = own or module is model
            sampler = getattr(module, "fg_bg_sampler", None)
            if sampler is not None:
                samplers.append((module, sampler))
        try:
            for module, sampler in samplers:
                module.fg_bg_sampler = _Same(sampler)  # type: ignore[assignment]
            yield
        finally:
            for module, sampler in samplers:
                module.fg_bg_sampler = sampler


class _Same:
    """A sampler of proposals that draws the same ones each time, and moves no random state."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __call__(self, labels: list[Tensor]) -> Any:
        cuda = [label.device for label in labels[:1] if label.device.type == "cuda"]
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(_SEED)
            return self.sampler(labels)
