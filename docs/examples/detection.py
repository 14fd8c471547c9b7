"""A detector, pruned: boxes drawn on noise, torchvision's ssdlite, mAP before, after and along.

Takes about four minutes on one slow core. Needs `pip install 'trainscope-pruning[detection]'`.

    python docs/examples/detection.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import trainscope
from trainscope.data import given_data
from trainscope.diagnosis import examine
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.report.files import write_outcome
from trainscope.task import Detection
from trainscope.training.loop import Settings, train
from trainscope.training.schedule import parse_schedule

SIDE = 64
KINDS = ("rectangle", "ellipse")


class Drawn(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """One or two bright rectangles and ellipses on noise, always the same at a place."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    def __getitem__(self, place: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image [3, SIDE, SIDE] and its boxes and labels."""
        if place >= self.count:
            raise IndexError(place)
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + place)
        image = 0.2 * torch.rand(3, SIDE, SIDE, generator=draw)
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        boxes, labels = [], []
        for _ in range(int(torch.randint(1, 3, (), generator=draw))):
            width, height = torch.randint(20, 41, (2,), generator=draw).tolist()
            left = int(torch.randint(0, SIDE - width, (), generator=draw))
            top = int(torch.randint(0, SIDE - height, (), generator=draw))
            kind = int(torch.randint(0, len(KINDS), (), generator=draw))
            u, v = (x - left) / width * 2 - 1, (y - top) / height * 2 - 1
            inside = (u.abs() < 1) & (v.abs() < 1) if kind == 0 else u**2 + v**2 < 1
            image[:, inside] = 0.5 + 0.5 * torch.rand(3, 1, generator=draw)
            boxes.append([left, top, left + width, top + height])
            labels.append(kind + 1)  # 0 is the background
        return image, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


def collate(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[object, ...]:
    """Return a batch, as torchvision's references make it."""
    return tuple(zip(*samples, strict=True))


def detector() -> nn.Module:
    """Return ssdlite at a quarter of its width, for images of SIDE, with random weights."""
    network = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(KINDS) + 1, width_mult=0.25
    )
    network.transform = GeneralizedRCNNTransform(
        SIDE, SIDE, [0.5] * 3, [0.25] * 3, size_divisible=1, fixed_size=(SIDE, SIDE)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # 0.03 is for long trainings
    return network


def loaders() -> tuple[DataLoader[object], DataLoader[object]]:
    """Return the loaders of the two halves; `--data detection:loaders` takes them too."""
    return (
        DataLoader(Drawn(576, 1), 24, shuffle=True, collate_fn=collate),
        DataLoader(Drawn(32, 2), 16, collate_fn=collate),
    )


def main(folder: Path) -> None:
    """Train, prune, measure, and write the page into a folder."""
    torch.manual_seed(0)
    network, (training, testing) = detector(), loaders()
    data = given_data((training, testing), "drawn boxes", Detection())
    settings = Settings(optimizer="adamw", batch_size=24)
    assert data.train is not None
    train(
        network,
        data.train,
        data.test,
        parse_schedule("0:5e-3,6:1e-3,8:1e-4", 9),
        settings,
        task=data.task,
        on_epoch=lambda epoch, _: print(f"epoch {epoch.epoch}: mAP {epoch.test_metric:.1f} %"),
    )
    outcome = examine(
        network,
        action=trainscope.Action(structure="unstructured", ratio=0.7),
        data=(training, testing),
        task="detection",
        samples=8,
        probes=[
            TrainabilityAccuracy(lrs=(2e-3, 2e-4), steps=24, settings=settings),
            "gradient",
            "jacobian",
        ],
    )
    print("\n".join(outcome.diagnosis.verdict))
    for file in write_outcome(outcome, folder):
        print(file)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "detection"))
