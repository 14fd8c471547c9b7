"""LeNet-5 on MNIST, from training to the Diagnosis: the main job on real images.

    python benchmarks/mnist.py ROOT [FOLDER]

ROOT is what torchvision's MNIST loader takes. Trains two epochs, saves FOLDER/checkpoint.pt, probes
it at 0.9 as the command does, and writes everything into FOLDER (default: build/mnist).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from trainscope.cli.probe import measure_and_write, show
from trainscope.data import load
from trainscope.networks import Network, Remembered, build, save_checkpoint
from trainscope.networks.registry import input_shape
from trainscope.training.loop import train
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings

ARCHITECTURE, SCHEDULE, EPOCHS, RATIO = "lenet5", "0:5e-2,1:5e-3", 2, 0.9


def main(root: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = input_shape(ARCHITECTURE)
    data = load(f"mnist:{root}", shape)
    torch.manual_seed(0)
    module = build(ARCHITECTURE, 10)
    begun = time.perf_counter()
    records = train(
        module, data.train, data.test, parse_schedule(SCHEDULE, EPOCHS), Settings(batch_size=128)
    )
    accuracy = records[-1].test_accuracy
    print(f"trained in {time.perf_counter() - begun:.0f} s: {accuracy:.2f} % on 10,000 test images")
    network = Network(
        module.eval(),
        ARCHITECTURE,
        shape,
        10,
        remembered=Remembered(data.name, SCHEDULE, EPOCHS, 0, accuracy),
    )
    save_checkpoint(folder / "checkpoint.pt", network)
    begun = time.perf_counter()
    outcome, paths = measure_and_write(folder / "checkpoint.pt", folder, ratio=RATIO)
    show(outcome)
    print(f"probed in {time.perf_counter() - begun:.0f} s")
    for path in paths:
        print(f"wrote {path}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) == 3 else "build/mnist"))
