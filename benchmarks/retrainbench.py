"""Make RetrainBench: curves of pruned networks under many learning rates and schedules.

    python benchmarks/retrainbench.py OUT --mnist FOLDER --fashion FOLDER [--minutes 75]

FOLDER holds the four idx files of MNIST (`MNIST/raw` of torchvision's) and of Fashion-MNIST (those
of Debian's package dataset-fashion-mnist). A family is one problem, network, optimizer, action and
seed. Its network is trained once and shared (OUT/stems), pruned by the package's own action, and
retrained at five constant LRs (0.4 and 0.6 decades apart, so that pairs are 2.5, 4 and 10 apart);
from four lengths of each the LR is decayed, in steps and, from the longer three, in a line; and
three runs have a cosine. OUT/NAME.jsonl has a line for each curve of a family. Families go round
over the problems, so that what there is at any moment is balanced; a script that was stopped goes
on where it was, and several may work in one OUT. `benchmarks/retrainbench_pack.py` makes the table.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from retrainbench_data import Data, load
from retrainbench_networks import build
from retrainbench_training import (
    Curve,
    Rate,
    Trainee,
    advance,
    constant,
    cooldown,
    cosine,
    steps_after,
    test,
    trainee,
)
from torch import nn

from trainscope.networks.cost import parameters
from trainscope.sparsify import Action, sparsify

KINDS = (
    ("digits", "mlp"),
    ("mnist", "lenet"),
    ("fashion-mnist", "resnet"),
    ("code-text", "gpt"),
    ("code-classes", "character-cnn"),
    ("digits", "resnet"),
    ("fashion-mnist", "lenet"),
    ("digits", "vit"),
    ("mnist", "vgg"),
    ("code-classes", "character-mlp"),
    ("fashion-mnist", "mlp"),
    ("code-text", "lstm"),
    ("mnist", "mlp"),
    ("digits", "vgg"),
    ("fashion-mnist", "vit"),
)
OPTIMIZERS = ("momentum", "adamw", "sgd")
ACTIONS = (
    ("filter", 0.75),
    ("unstructured", 0.95),
    ("2:4", 0.5),
    ("unstructured", 0.98),
    ("filter", 0.5),
    ("unstructured", 0.9),
)
SETTINGS = len(OPTIMIZERS) * len(ACTIONS)
QUICK = ("mlp", "character-mlp")
PUT_ASIDE = ("gpt", "lstm", "vit")
"""Networks that nobody may tune on, which are also the slowest: they sit one round in four out."""
TOP = {
    "mlp": (0.05, 5e-3, 0.25),
    "lenet": (0.025, 4e-3, 0.1),
    "vgg": (0.05, 1e-2, 0.3),
    "resnet": (0.05, 1e-2, 0.3),
    "vit": (0.025, 5e-3, 0.1),
    "gpt": (0.1, 1e-2, 0.6),
    "lstm": (0.6, 2e-2, 4.0),
    "character-cnn": (0.04, 5e-3, 0.2),
    "character-mlp": (0.05, 5e-3, 0.25),
}
"""The largest LR of a network, by optimizer."""
RULER = (0, 2, 5, 7, 10)
"""Fifths of a decade below the largest LR."""
LENGTH = 50
"""Records of a constant run."""
STAGES = (6, 12, 25, 50)
"""Records of a constant run after which a copy of it is decayed."""
DROPS = ((0, 0.1), (6, 0.01))
STEP_TAIL = 10


@dataclass(frozen=True)
class Family:
    """What the curves of one file share."""

    problem: str
    network: str
    optimizer: str
    structure: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its file."""
        what = f"{self.structure.replace(':', '-')}-{self.ratio:g}"
        return f"{self.problem}_{self.network}_{self.optimizer}_{what}_{self.seed}"


def families() -> Iterator[Family]:
    """Yield the grid: every optimizer and action of every kind, one of each kind at a time.

    Between the second and third setting of three the first comes again with another seed. Quick
    networks have two settings at a time.
    """
    seen = set()
    for block in range(6):
        for place in (0, 1, -1, 2):
            round_setting, seed = (3 * block + place, 0) if place >= 0 else (3 * block, 1)
            for offset, (problem, network) in enumerate(KINDS):
                if place == 1 and network in PUT_ASIDE:
                    continue
                for more in (0, 10) if network in QUICK else (0,):
                    setting = (round_setting + more) % SETTINGS
                    optimizer = OPTIMIZERS[(setting + offset) % 3]
                    structure, ratio = ACTIONS[(setting + setting // 6 + offset // 2) % 6]
                    if network == "lstm" and structure == "filter":  # its units cannot be cut
                        structure = "unstructured"
                    family = Family(problem, network, optimizer, structure, ratio, seed)
                    if family not in seen:
                        seen.add(family)
                        yield family


def steps_of(family: Family) -> int:
    """Return the steps of a record: a tenth to a fifth of an epoch."""
    quick = family.network in ("mlp", "character-mlp") and family.problem != "digits"
    return 12 if quick else 8 if family.network in ("lenet", "character-cnn", "lstm") else 6


def stem(family: Family, data: Data, out: Path) -> tuple[nn.Module, float]:
    """Return the network before pruning, trained where it is missing, and its accuracy."""
    path = out / "stems" / f"{family.problem}_{family.network}.pt"
    torch.manual_seed(zlib.crc32(path.stem.encode()))
    network = build(family.network, data)
    with _lock(path):
        if not path.exists():
            transformer = family.network in ("vit", "gpt", "lstm")
            kind, lr = ("adamw", 5e-3) if transformer else ("momentum", 0.05)
            length = 150 if data.text else 75
            one = trainee(network, kind)
            advance(one, data, 10_000, length, 12, cosine(lr, length, 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(one.network.state_dict(), path)
    network.load_state_dict(torch.load(path))
    return network, test(network, data)[0]


def make(family: Family, data: Data, out: Path) -> list[dict[str, object]]:
    """Return the curves of one family."""
    dense, accuracy = stem(family, data, out)
    ratio = None if family.structure == "2:4" else family.ratio
    pruned = sparsify(
        dense, Action(structure=family.structure, ratio=ratio), (data.x_test[:2],)
    ).module
    remaining = _remaining(pruned)
    steps, seed = steps_of(family), family.seed
    top = TOP[family.network][OPTIMIZERS.index(family.optimizer)]
    lines: list[dict[str, object]] = []

    def note(schedule: str, lr: float, first: int, curve: Curve) -> None:
        lines.append(
            {
                "problem": family.problem,
                "network": family.network,
                "optimizer": family.optimizer,
                "structure": family.structure,
                "ratio": family.ratio,
                "seed": seed,
                "schedule": schedule,
                "peak_lr": float(f"{lr:.6g}"),
                "first": first,
                "steps": steps,
                "parameters": parameters(dense),
                "remaining": remaining,
                "dense_accuracy": accuracy,
                "accuracy": curve.accuracy,
                "test_loss": curve.test_loss,
                "train_loss": curve.train_loss,
                "lr": curve.lr,
            }
        )

    def whole(schedule: str, lr: float, length: int, rate: Rate) -> None:
        one = trainee(pruned, family.optimizer)
        advance(one, data, seed, length, steps, rate)
        note(schedule, lr, 0, one.curve)

    def tail(one: Trainee, schedule: str, lr: float, first: int, length: int, rate: Rate) -> None:
        one = one.copy()
        advance(one, data, seed, length, steps, rate)
        note(schedule, lr, first, one.curve)

    for fifths in RULER:
        lr = top * 10 ** (-fifths / 5)
        one, at = trainee(pruned, family.optimizer), 0
        for stage in STAGES:
            advance(one, data, seed, stage - at, steps, constant(lr))
            at = stage
            if one.diverged:
                break
            tail(one, "steps", lr, stage, STEP_TAIL, steps_after(lr, stage, DROPS))
            if stage > STAGES[0]:
                length = stage // 4
                tail(one, "wsd", lr, stage, length, cooldown(lr, stage, length))
        note("constant", lr, at, one.curve)
    for fifths, length in ((0, LENGTH), (0, LENGTH // 2), (5, LENGTH)):
        lr = top * 10 ** (-fifths / 5)
        warmup = 3 if family.network in ("vit", "gpt") else 0
        whole("cosine", lr, length, cosine(lr, length, warmup))
    return lines


def _remaining(network: nn.Module) -> int:
    """Return how many weights are left."""
    return sum(int((p != 0).sum()) for p in network.parameters())


def _lock(path: Path) -> _Lock:
    return _Lock(path.with_suffix(".lock"))


class _Lock:
    """Held by one process at a time, and let go when it ends, however it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")

    def __enter__(self) -> _Lock:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def taken(self) -> bool:
        """Try to take it; return whether another has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _rounded(value: object) -> object:
    """Return what a line holds: null for NaN, losses and LRs to six digits."""
    if isinstance(value, list):
        return [None if math.isnan(x) else float(f"{x:.6g}") for x in value]
    return value


def main() -> None:
    """Make what is missing until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--minutes", type=float, default=75.0)
    parser.add_argument("--only", default="", help="families whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun, known = time.monotonic(), {}
    for family in families():
        path = args.out / f"{family.name}.jsonl"
        if args.only not in family.name or path.exists():
            continue
        if time.monotonic() - begun > 60 * args.minutes:
            return
        lock = _lock(path)
        if lock.taken():
            continue
        with lock:
            if path.exists():
                continue
            pool = family.network != "mlp"
            if (key := (family.problem, pool)) not in known:
                known[key] = load(*key, args.mnist, args.fashion)
            start = time.monotonic()
            lines = make(family, known[key], args.out)
            text = "".join(
                json.dumps({k: _rounded(v) for k, v in line.items()}) + "\n" for line in lines
            )
            path.with_suffix(".part").write_text(text, "utf-8")
            path.with_suffix(".part").rename(path)
            took = time.monotonic() - start
            print(f"{family.name}: {len(lines)} curves in {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
