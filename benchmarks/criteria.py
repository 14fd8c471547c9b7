"""All criteria on one network: the same weights or FLOPs go, and what is left is retrained alike.

    python benchmarks/criteria.py [--folder runs/criteria] [--seeds 3] [--table criteria.md]

A convolutional network is trained on scikit-learn's digits; every criterion then prunes it, single
weights at one sparsity and filters at one ratio in each layer (so at equal FLOPs), and each pruned
network is retrained under one LR schedule with some seeds, which draw the criterion's samples too.
Every retraining is a run folder, so that an interrupted call goes on where it stopped. The test is
the verdict's: Welch's, two-sided, against `l1`, at a level of 5 %.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from trainscope.comparison.significance import welch
from trainscope.criteria import CRITERIA
from trainscope.data import Dataset, load
from trainscope.errors import ActionError
from trainscope.networks import Network
from trainscope.networks.given import given_network
from trainscope.records import Kind
from trainscope.sparsify import Action
from trainscope.training.job import Job
from trainscope.training.jobs import retraining_job
from trainscope.training.runner import run_job
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings

PRETRAINING = parse_schedule("0:5e-2,10:5e-3", 15)
RETRAINING = parse_schedule("0:1e-2,7:1e-3", 10)
CASES = {
    "95 % of the weights": Action("unstructured", ratio=0.95),
    "80 % of the filters": Action(ratio=0.8),
}


def network() -> nn.Module:
    """Return the untrained network: four convolutions with batch norm, 50,000 weights."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        width = 1
        for outputs in (16, 32, 48, 64):
            layers += [
                nn.Conv2d(width, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            width = outputs
        layers.insert(6, nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def base_network(folder: Path, data: Dataset) -> Network:
    """Return the trained network."""
    start = given_network(network(), data.first_batch, data.task)
    run_job(Job(Kind.TRAIN, start, data, PRETRAINING, Settings()), folder)
    module = network()
    module.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["state_dict"])
    return given_network(module.eval(), data.first_batch, data.task)


@torch.no_grad()
def accuracy(module: nn.Module, data: Dataset) -> float:
    """Return the test accuracy in percent."""
    inputs, labels = data.test.batch(torch.arange(len(data.test)))
    return 100 * float((module.eval()(inputs).argmax(1) == labels).double().mean())


def rows(base: Network, data: Dataset, folder: Path, case: str, seeds: int) -> list[str]:
    """Return the table's rows of one case."""
    asked, found = CASES[case], {}
    for name in CRITERIA:
        ends, starts, jobs = [], [], []
        for seed in range(seeds):
            try:
                action = Action(asked.structure, asked.ratio, criterion=name, seed=seed)
            except ActionError:  # it does not rank those
                break
            job, done = retraining_job(base, data, action, RETRAINING, Settings(seed=seed))
            assert done is not None
            run = run_job(job, folder / case.split()[-1] / f"{name}-{seed}")
            jobs.append(done.record)
            starts.append(accuracy(done.module, data))
            ends.append(run.final_accuracy or 0.0)
            print(f"{case}  {name}  seed {seed}  {starts[-1]:.2f} -> {ends[-1]:.2f}", flush=True)
        if ends:
            found[name] = (ends, starts, jobs)
    lines = []
    for name, (ends, starts, jobs) in found.items():
        gap = welch(ends, found["l1"][0])
        against = "-" if name == "l1" else f"{gap.value:+.2f} (p = {gap.p:.2g})"
        verdict = ""
        if name != "l1":
            verdict = ("better" if gap.value > 0 else "worse") if gap.significant else "level"
        lines.append(
            f"| `{name}` | {100 * statistics.fmean(j.reached or 0 for j in jobs):.1f} % "
            f"| {statistics.fmean(j.speedup for j in jobs):.2f}x | {statistics.fmean(starts):.1f} "
            f"| {statistics.fmean(ends):.2f} ± {statistics.stdev(ends):.2f} "
            f"| {against} | {verdict} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/criteria"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load("digits", (1, 8, 8))
    base = base_network(options.folder / "base", data)
    text = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()} {platform.system()}, one CPU thread, "
        f"torch {torch.__version__}. Base model: {accuracy(base.module, data):.2f} %; pretraining "
        f"{PRETRAINING}, {PRETRAINING.total} epochs; retraining {RETRAINING}, {RETRAINING.total} "
        f"epochs, {options.seeds} seeds.",
    ]
    head = "| criterion | gone | speedup | pruned | retrained | against `l1` | |"
    for case in CASES:
        text += ["", f"**{case}** (scope inner)", "", head, "|---|---|---|---|---|---|---|"]
        text += rows(base, data, options.folder, case, options.seeds)
    print("\n".join(text))
    if options.table is not None:
        options.table.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
