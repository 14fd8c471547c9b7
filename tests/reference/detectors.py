"""Small detectors with torchvision's interface, and pictures for them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class Head(nn.Module):
    """Reads its mode, as heads of detectors do: losses in training mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.kind = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, features: Tensor, targets: list[dict[str, Tensor]] | None) -> Any:
        place, kind = self.place(features), self.kind(features)
        if not self.training:
            return place, kind
        assert targets is not None
        rows = [i for i, target in enumerate(targets) for _ in target["labels"]]
        boxes = torch.cat([target["boxes"] for target in targets]) / 20
        labels = torch.cat([target["labels"] for target in targets])
        count = max(1, len(rows))  # of the batch: what ties images to each other
        return {
            "place": F.smooth_l1_loss(place[rows], boxes, reduction="sum") / count,
            "kind": F.cross_entropy(kind[rows], labels, reduction="sum") / count
            + kind.square().mean(),
        }


class Tiny(nn.Module):
    """One box an image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5))
        self.inner = nn.Conv2d(4, 4, 1)
        self.head = Head()

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        high, wide = (max(image.shape[side] for image in images) for side in (1, 2))
        padded = [F.pad(x, (0, wide - x.shape[2], 0, high - x.shape[1])) for x in images]
        features = torch.tanh(self.inner(self.body(torch.stack(padded)))).mean((2, 3))
        found = self.head(features, targets)
        if self.training:
            return found
        place, kind = found
        corner = place[:, :2].abs() * 20
        boxes = torch.cat([corner, corner + 1 + place[:, 2:].abs() * 20], 1)
        scores, labels = kind.softmax(1)[:, 1:].max(1)
        return [
            {
                "boxes": boxes[i : i + 1],
                "scores": scores[i : i + 1],
                "labels": labels[i : i + 1] + 1,
            }
            for i in range(len(images))
        ]


def tiny() -> Tiny:
    torch.manual_seed(0)
    network = Tiny()
    with torch.no_grad():
        network.body[1].running_mean.normal_(0, 0.1)
        network.body[1].running_var.uniform_(0.5, 1.5)
    return network


def ssdlite(side: int = 64) -> nn.Module:
    """Return torchvision's, thin and for small images."""
    torch.manual_seed(0)
    network = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, width_mult=0.1
    )
    network.transform = GeneralizedRCNNTransform(
        side, side, [0.5] * 3, [0.25] * 3, size_divisible=1, fixed_size=(side, side)
    )
    return network


class Backbone(nn.Sequential):
    out_channels = 8


def faster_rcnn() -> nn.Module:
    """Return torchvision's with a backbone of two convolutions; it samples proposals."""
    torch.manual_seed(0)
    backbone = Backbone(
        nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 1)
    )
    return FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=AnchorGenerator(((8, 16),), ((1.0,),)),
        min_size=48,
        max_size=64,
        rpn_batch_size_per_image=16,
        box_batch_size_per_image=16,
        box_detections_per_img=5,
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=50,
    )


def picture(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an image of one of three sizes, with none to two boxes."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(3, 24 + 8 * (seed % 3), 32, generator=draw)
    boxes = torch.tensor([[2.0, 3, 14, 19], [10, 4, 30, 20]])[: (seed + 1) % 3]
    return image, {"boxes": boxes, "labels": torch.tensor([1, 2])[: len(boxes)]}


def pictures(count: int, seed: int = 0) -> list[tuple[Tensor, dict[str, Tensor]]]:
    return [picture(seed + i) for i in range(count)]


def collate(samples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples, strict=True))


def loader(count: int, seed: int = 0, size: int = 4) -> DataLoader[Any]:
    return DataLoader(pictures(count, seed), size, collate_fn=collate)
