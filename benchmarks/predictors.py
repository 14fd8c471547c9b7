"""Which number, known before retraining, goes with what retraining ends at? On small networks.

    python benchmarks/predictors.py FOLDER --mnist ROOT --fashion ROOT [--candidates N]

Prunes small networks by random choices and by every criterion that there is, one ratio a structure,
measures them, retrains each for 20 epochs, every tenth with three seeds, and appends one line a
retraining to FOLDER/results.jsonl. Stop it whenever you like: begun again, it goes on. The table of
docs/predictors.md is what `trainscope correlate FOLDER/results.csv` then says of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainscope.data import Dataset, pin
from trainscope.data.embedded import digits
from trainscope.data.split import TensorSplit
from trainscope.data.torchvision_sets import load
from trainscope.diagnosis.measuring import measured
from trainscope.diagnosis.options import as_probe
from trainscope.errors import TrainscopeError
from trainscope.records import Measurement
from trainscope.sparsify import Action, recalibrate_batch_norm, sparsify
from trainscope.sparsify.criteria import CRITERIA
from trainscope.training.evaluation import evaluate
from trainscope.training.loop import train
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings

TRAINED, TESTED = 1000, 2000
"""Images of the parts of MNIST and Fashion-MNIST, at 7 x 7 pixels; the digits are whole, 8 x 8."""
PRETRAINING = ("0:1e-1,20:1e-2", 30)
RETRAINING = ("0:5e-2,10:5e-3,15:5e-4", 20)
STRUCTURES = {
    "filter": {"ratio": 0.6},
    "unstructured": {"ratio": 0.8, "structure": "unstructured", "scope": "all"},
}
"""One ratio each: of the filters of the inner convolutions, and of all weights."""
STEPS = 10
"""Of an epoch."""
SEEDS, EVERY = 3, 10
"""Every tenth candidate is retrained with so many seeds."""
SAMPLES = 128
PROBES: dict[str, tuple[str, ...]] = {
    "gradient": ("norm", "snr"),
    "jacobian": ("mean_jsv", "max_jsv"),
    "curvature": ("top_eigenvalue", "trace"),
    "ntk": (),
    "activity": (),
}
"""Which numbers of a probe are columns; all of one that names none. One that is not there is left
out."""
Row = dict[str, Any]


class Small(nn.Module):
    """Three convolutions with batch norm and one linear layer: [N, 1, H, W] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, 2, padding=1), nn.BatchNorm2d(12)
        self.conv3, self.norm3 = nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.relu(self.norm3(self.conv3(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Candidate:
    """One pruned network of the study."""

    data: str
    structure: str
    criterion: str
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.data}/{self.structure}/{self.criterion}/{self.seed}"

    @property
    def action(self) -> Action:
        asked: dict[str, Any] = STRUCTURES[self.structure]
        return Action(criterion=self.criterion, seed=self.seed, **asked)


class Study:
    """The data and the base model of one data set."""

    def __init__(self, dataset: Dataset, folder: Path):
        self.dataset = dataset
        assert dataset.train is not None
        self.settings = Settings(batch_size=-(-len(dataset.train) // STEPS), augment=False)
        self.network = Small()
        file = folder / f"base-{dataset.name}.pt"
        if not file.exists():
            torch.manual_seed(0)
            self.network = Small()
            self.train(self.network, PRETRAINING, 0)
            torch.save(self.network.state_dict(), file)
        self.network.load_state_dict(torch.load(file, weights_only=True))
        self.network.eval()
        self.pinned = pin(dataset, SAMPLES, batch_size=SAMPLES)

    def train(self, network: nn.Module, schedule: tuple[str, int], seed: int) -> list[float]:
        assert self.dataset.train is not None
        settings = replace(self.settings, seed=seed)
        records = train(
            network, self.dataset.train, self.dataset.test, parse_schedule(*schedule), settings
        )
        return [float(each.test_metric or 0.0) for each in records]

    def prune(self, candidate: Candidate) -> nn.Module:
        shape = self.dataset.input_shape
        return sparsify(self.network, candidate.action, shape, data=self.dataset).module

    def known(self, network: nn.Module) -> Row:
        """Return what is known before the first step, and how long each took."""
        assert self.dataset.train is not None
        begun = time.process_time()
        row: Row = {
            "pruned_loss": evaluate(network, self.dataset.train).loss,
            "pruned_accuracy": evaluate(network, self.dataset.test).metric,
        }
        batches = [self.dataset.train.batch(torch.arange(400))[0]]
        calibrated = recalibrate_batch_norm(network, batches)
        row["recalibrated_loss"] = evaluate(calibrated, self.dataset.train).loss
        row["recalibrated_accuracy"] = evaluate(calibrated, self.dataset.test).metric
        for prefix, module in (("", network), ("recalibrated_", calibrated)):
            for name, wanted in PROBES.items():
                if prefix and name not in ("gradient", "jacobian"):
                    continue
                row |= numbers(prefix, self.measure(name, module), wanted)
        row["known_seconds"] = time.process_time() - begun
        return row

    def measure(self, name: str, network: nn.Module) -> Measurement | None:
        try:
            probe = as_probe(name, {"settings": self.settings})
        except TrainscopeError:  # it is not there yet
            return None
        return measured(probe, network, self.pinned)


def numbers(prefix: str, found: Measurement | None, wanted: tuple[str, ...]) -> Row:
    if found is None:
        return {}
    names = wanted or tuple(found.scalars)
    return {
        f"{prefix}{name if wanted else f'{found.probe}_{name}'}": found.scalars[name].value
        for name in names
        if name in found.scalars
    }


def shrunk(kind: str, root: str) -> Dataset:
    """Return part of a set, its images as means over 4 x 4 pixels, always the same ones."""
    whole = load(kind, Path(root))
    halves = []
    for split, count in ((whole.train, TRAINED), (whole.test, TESTED)):
        assert isinstance(split, TensorSplit)
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count]
        images = F.avg_pool2d(split.inputs[order].float() / 255, 4)
        halves.append(TensorSplit(images, split.labels[order], split.mean, split.std))
    return Dataset(kind, halves[0], halves[1], 10, (1, 7, 7))


def candidates(sets: list[str], count: int, first: int = 0) -> Iterator[Candidate]:
    """Yield random candidates of all sets in turn, then those of the criteria."""
    each = count // (len(sets) * len(STRUCTURES))
    for seed in range(first, first + each):
        for data in sets:
            for structure in STRUCTURES:
                yield Candidate(data, structure, "random", seed)
    for criterion in sorted(set(CRITERIA) - {"random"}) if not first else ():
        for data in sets:
            for structure in STRUCTURES:
                yield Candidate(data, structure, criterion)


def finished(file: Path) -> list[Row]:
    """Return the rows written so far; half a line that a kill left is none."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def append(file: Path, row: Row) -> None:
    torn = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    with file.open("a", encoding="utf-8") as out:
        out.write(("\n" if torn else "") + json.dumps(row) + "\n")
        out.flush()
        os.fsync(out.fileno())


def write_table(rows: list[Row], file: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        writer.writerows(rows)


def measure_more(given: argparse.Namespace, study: Callable[[str], Study]) -> None:
    """Measure probes that came later on the networks that are there, into FOLDER/more.jsonl."""
    file = given.folder / "more.jsonl"
    done = {row["candidate"] for row in finished(file)}
    rows = {row["candidate"]: row for row in finished(given.folder / "results.jsonl")}
    for name, row in rows.items():
        if name in done:
            continue
        own = study(row["data"])
        data, structure, criterion, seed = name.split("/")
        pruned = own.prune(Candidate(data, structure, criterion, int(seed)))
        found: Row = {"candidate": name}
        for probe in given.more.split(","):
            found |= numbers("", own.measure(probe, pruned), PROBES[probe])
        append(file, found)


def main(given: argparse.Namespace) -> None:
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file = folder / "results.jsonl"
    rows = finished(file)
    done = {(row["candidate"], row["seed"]) for row in rows}

    @cache
    def study(data: str) -> Study:
        if data == "digits":
            return Study(digits(), folder)
        root = given.mnist if data == "mnist" else given.fashion
        return Study(shrunk({"mnist": "mnist", "fashion": "fashionmnist"}[data], root), folder)

    if given.more:
        measure_more(given, study)
        return
    sets = ["digits"] + ["mnist"] * bool(given.mnist) + ["fashion"] * bool(given.fashion)
    begun, made = time.perf_counter(), 0
    for place, candidate in enumerate(candidates(sets, given.candidates, given.first)):
        seeds = range(SEEDS if place // (len(sets) * len(STRUCTURES)) % EVERY == 0 else 1)
        left = [seed for seed in seeds if (candidate.name, seed) not in done]
        if not left:
            continue
        if given.until and time.time() > given.until:
            break
        own = study(candidate.data)
        try:
            pruned = own.prune(candidate)
        except TrainscopeError as error:
            print(f"{candidate.name} is left out: {error}", file=sys.stderr)
            continue
        known: Row = {
            "candidate": candidate.name,
            "data": candidate.data,
            "structure": candidate.structure,
            "criterion": candidate.criterion,
        }
        earlier = next((row for row in rows if row["candidate"] == candidate.name), None)
        known |= own.known(pruned) if earlier is None else {}
        for seed in left:
            began = time.process_time()
            # Random states are drawn from the seed in the loop; a copy is trained.
            network = own.prune(candidate)
            ends = own.train(network, RETRAINING, seed)
            row = {
                **known,
                "seed": seed,
                "early": ends[0],
                "ta": sum(ends[:10]) / 10,
                "final": ends[-1],
                "retrained_seconds": time.process_time() - began,
            }
            append(file, row)
            rows.append(row)
            made += 1
        if made and made % 20 < len(left):
            spent = time.perf_counter() - begun
            print(f"{len(rows)} retrainings, {spent / made:.1f} s each", flush=True)
    write_table(rows, folder / "results.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mnist", help="what torchvision's MNIST loader takes")
    parser.add_argument("--fashion", help="what torchvision's FashionMNIST loader takes")
    parser.add_argument("--candidates", type=int, default=300, help="drawn at random, in all")
    parser.add_argument("--first", type=int, default=0, help="seed of the first random choice")
    parser.add_argument("--more", help="measure these probes on the networks that are there")
    parser.add_argument("--until", type=float, help="seconds since 1970 at which to stop")
    main(parser.parse_args())
