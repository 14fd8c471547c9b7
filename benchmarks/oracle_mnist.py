"""The exact oracle of Feng et al. (2024) on MNIST, small: data and a base model for the command.

    python benchmarks/oracle_mnist.py ROOT FOLDER

ROOT is what torchvision's MNIST loader takes. Writes 600 training and 1,000 test images into FOLDER
as such a ROOT, trains a LeNet-5 of ten filters a layer on them, and prints the command that tries
all 45 pairs of filters of its first convolution and retrains each with three seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainscope.data.split import TensorSplit
from trainscope.data.torchvision_sets import load
from trainscope.networks import Network, Remembered, save_checkpoint
from trainscope.training.loop import train
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings

TRAINED, TESTED = 600, 1000
SCHEDULE, EPOCHS = "0:5e-2,20:5e-3", 30
FACTORY = "benchmarks.oracle_mnist:network"
RECIPE = "F6,1e-2"


class LeNetMini(nn.Module):
    """Three convolutions and two linear layers, ten units each: [N, 1, 28, 28] to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 10, 5)
        self.conv3 = nn.Conv2d(10, 10, 4)
        self.fc1, self.fc2 = nn.Linear(10, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x)).flatten(1)
        logits: Tensor = self.fc2(F.relu(self.fc1(x)))
        return logits


def network() -> nn.Module:
    """Return the network with random weights."""
    return LeNetMini()


def write_part(root: str, folder: Path) -> None:
    """Write part of MNIST as torchvision's loader takes it."""
    whole, raw = load("mnist", Path(root)), folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for split, count, name in ((whole.train, TRAINED, "train"), (whole.test, TESTED, "t10k")):
        assert isinstance(split, TensorSplit)
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count]
        for values, kind in (
            (split.inputs[order].squeeze(1), "images-idx3"),
            (split.labels[order], "labels-idx1"),
        ):
            found = values.to(torch.uint8).numpy()
            head = np.array([0x800 + found.ndim, *found.shape], ">i4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + found.tobytes())


def main(root: str, folder: Path) -> None:
    write_part(root, folder)
    data = load("mnist", folder)
    torch.manual_seed(0)
    module = network()
    settings = Settings(batch_size=50, augment=False)
    assert data.train is not None
    records = train(module, data.train, data.test, parse_schedule(SCHEDULE, EPOCHS), settings)
    accuracy = records[-1].test_accuracy
    print(f"dense: {accuracy:.2f} % on {TESTED:,} test images")
    made = Network(
        module.eval(),
        FACTORY,
        (1, 28, 28),
        10,
        remembered=Remembered(data.name, SCHEDULE, EPOCHS, 0, accuracy),
    )
    save_checkpoint(folder / "checkpoint.pt", made)
    print(
        f"trainscope oracle {folder}/checkpoint.pt --model {FACTORY} --layer conv1 --keep 2 "
        f"--retrain 3 --recipe {RECIPE} --batch-size 50 --no-augment --output {folder}/oracle"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
