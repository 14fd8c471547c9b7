"""Train the small runs that the convergence estimator is calibrated on, beside the public ones.

    python benchmarks/calibration_runs.py OUT [--mnist ROOT] [--only NAME]

Fifteen constant learning rates (0.2 decades apart) of one setting are trained at once, as one
batched network; so are the decays, which start from several epochs of the constant runs. Every
setting is written to OUT/NAME.npz: `lr` [K], `accuracy` [K, E+1] (percent, test set, epoch 0
first), `loss` [K, E+1] (nats, training set), `chance`, and for settings with decays `stages` [S],
`decay_lr` [D], and `final` [K, S] (accuracy after decays that start at that epoch) with the
per-epoch `decay_accuracy` [K, S, D]. One core, about 15 minutes.
"""

from __future__ import annotations

import argparse
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from calibration_data import Data, load
from calibration_network import Batched, Setting

SETTINGS = {
    "digits-sgd": Setting("digits", "sgd", 1.0, 150),
    "digits-adam": Setting("digits", "adam", 1e-1, 100, norm=True),
    "digits-pruned": Setting(
        "digits",
        "momentum",
        1e-1,
        160,
        norm=True,
        prune=0.9,
        stages=(10, 15, 20, 30, 40, 60, 90, 130, 160),
    ),
    "digits-noisy": Setting("digits-noisy", "momentum", 1e-1, 120, hidden=(128,)),
    "teacher-sgd": Setting("teacher", "sgd", 1.0, 120),
    "teacher-adam": Setting("teacher", "adam", 2.5e-2, 120),
    "teacher-momentum": Setting("teacher", "momentum", 4e-1, 200, decay=1e-3, norm=True),
    "spectrum-sgd": Setting("spectrum", "sgd", 4.0, 150, hidden=()),
    "spectrum-momentum": Setting("spectrum", "heavy", 1e-1, 100, hidden=(50,)),
    "chain-adam": Setting("chain", "adam", 4e-2, 150, hidden=(64,)),
    "chain-momentum": Setting("chain", "momentum", 1.0, 200, hidden=(64,), dropout=0.2),
    "chain-three-adam": Setting(
        "chain-three", "adam", 2.5e-2, 160, hidden=(100,), batch=100, dropout=0.1
    ),
    "chain-three-momentum": Setting(
        "chain-three", "momentum", 1.0, 200, hidden=(80,), batch=100, decay=1e-4
    ),
    "teacher-deep-sgd": Setting("teacher-deep", "sgd", 1.0, 200, hidden=(100,)),
    "teacher-deep-momentum": Setting(
        "teacher-deep", "momentum", 2.5e-1, 200, hidden=(80, 60), dropout=0.2
    ),
    "blobs-adam": Setting("blobs", "adam", 2.5e-2, 150, decay=1e-3, norm=True),
    "blobs-heavy": Setting("blobs", "heavy", 1e-1, 200, hidden=(100,)),
    "modular-adam": Setting("modular", "adam", 2.5e-2, 200, hidden=(96,), decay=1e-3),
    "text-sgd": Setting("text", "sgd", 1.0, 100, hidden=(96,), batch=100),
    "text-adam": Setting("text", "adam", 2.5e-2, 60, hidden=(96, 64), batch=100, norm=True),
    "text-heavy": Setting("text", "heavy", 1e-2, 100, hidden=(96,), batch=100, dropout=0.1),
    "text-pruned": Setting(
        "text",
        "momentum",
        1e-1,
        60,
        hidden=(96, 64),
        batch=100,
        norm=True,
        prune=0.75,
        stages=(5, 8, 13, 20, 32, 48),
        count=12,
    ),
    "pairs-sgd": Setting("mnist-pairs", "sgd", 1.0, 150, hidden=(100,), norm=True),
    "pairs-momentum": Setting("mnist-pairs", "momentum", 1e-1, 100, hidden=(100, 80), dropout=0.1),
    "pairs-adam": Setting("mnist-pairs", "adam", 2.5e-2, 60, hidden=(80,), decay=1e-3),
    "pairs-pruned": Setting(
        "mnist-pairs",
        "momentum",
        1e-1,
        60,
        hidden=(160, 120),
        norm=True,
        prune=0.75,
        stages=(5, 8, 13, 20, 32, 48),
        count=12,
    ),
    "mnist-sgd": Setting("mnist", "sgd", 1.0, 100),
    "mnist-deep-sgd": Setting("mnist", "sgd", 1.0, 250, hidden=(40, 40, 40), norm=True, decay=1e-3),
    "mnist-heavy": Setting("mnist", "heavy", 1e-2, 60, dropout=0.3),
    "mnist-adam-noisy": Setting("mnist-noisy", "adam", 2.5e-2, 80, norm=True, decay=1e-3),
    "mnist-pruned": Setting(
        "mnist",
        "momentum",
        2.5e-1,
        120,
        norm=True,
        prune=0.95,
        stages=(8, 12, 18, 27, 40, 60, 90, 120),
    ),
    "mnist-conv-momentum": Setting("mnist-image", "momentum", 1e-1, 70, conv=True, count=12),
    "mnist-conv-pruned": Setting(
        "mnist-image",
        "sgd",
        4e-1,
        70,
        conv=True,
        prune=0.75,
        stages=(6, 9, 14, 21, 32, 48, 70),
        count=12,
    ),
}
DECAY = (0.1,) * 8 + (0.01,) * 4
"""The LR of each epoch after the first stage, as a share of it."""


def train(name: str, setting: Setting, data: Data) -> dict[str, np.ndarray]:
    """Train every LR of a setting, and the decays from its stages."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    k = setting.count
    lr = setting.top_lr * 10 ** (-0.2 * torch.arange(k - 1, -1, -1.0))
    net = Batched(setting, data, k, generator)
    if setting.prune:
        rate = {"sgd": 0.1, "momentum": 0.02, "heavy": 0.002, "adam": 2e-3}[setting.optimizer]
        for epoch in range(20):
            net.epoch(data, torch.full((k,), rate * (0.1 if epoch > 14 else 1.0)))
        for group in (net.p, net.stats):
            for key in group:
                group[key] = group[key][:1].detach().repeat(k, *[1] * (group[key].dim() - 1))
        net.prune(setting.prune)
        net.reset()
    first = net.score(data)
    accuracy, loss = [first[0]], [first[1]]
    finals, decays = [], []
    for epoch in range(1, setting.epochs + 1):
        net.epoch(data, lr)
        a, b = net.score(data)
        accuracy.append(a)
        loss.append(b)
        if epoch in setting.stages:
            kept, steps = net.copy_state(), net.steps
            tail = []
            for share in DECAY:
                net.epoch(data, lr * share)
                tail.append(net.score(data)[0])
            decays.append(np.stack(tail, 1))
            finals.append(np.mean(tail[-3:], axis=0))
            (net.p, net.stats, net.m, net.s), net.steps = kept, steps
    out = {
        "lr": lr.numpy(),
        "accuracy": np.stack(accuracy, 1),
        "loss": np.stack(loss, 1),
        "chance": np.array(100 / data.classes),
    }
    if setting.stages:
        out |= {
            "stages": np.array(setting.stages),
            "decay_lr": np.array(DECAY),
            "final": np.stack(finals, 1),
            "decay_accuracy": np.stack(decays, 1),
        }
    return out


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mnist", default="", help="root of torchvision's MNIST; else skipped")
    parser.add_argument("--only", default="", help="settings whose name starts so")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, setting in SETTINGS.items():
        path = args.out / f"{name}.npz"
        if path.exists() or not name.startswith(args.only):
            continue
        if setting.data.startswith("mnist") and not args.mnist:
            print(f"{name}: skipped, no --mnist ROOT")
            continue
        start = time.perf_counter()
        out = train(name, setting, load(setting.data, args.mnist))
        np.savez_compressed(path, **{key: np.asarray(v, np.float32) for key, v in out.items()})
        best = np.nanmax(out["accuracy"], 1).round(1)
        print(f"{name}: {time.perf_counter() - start:.0f} s, best accuracies {best}", flush=True)


if __name__ == "__main__":
    main()
