"""trainscope beside its peers: same network, same samples, same dtype, same process, in turns.

    python benchmarks/peers.py --quick --output peers.jsonl          # ten minutes, the main figures
    python benchmarks/peers.py --output peers.jsonl                  # everything; hours
    python benchmarks/peers.py --tasks top,top5 --networks resnet20 --variants masks --threads 1,2
    python benchmarks/peers.py --growth

Finished cells are kept in the JSON lines file, and a run that is started again goes on after them;
references and trained networks are kept in `--cache`. Times are those of the processor, medians of
runs in turns. Peers that are not installed, refuse, or answer wrongly are named with what happened:
pip install pyhessian hessian-eigenthings curvlinops-for-pytorch backpack-for-pytorch opacus.
`--memory` runs every contender once more in a process of its own, for its peak memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peers_curvature
import peers_first_order
import torch
from peers_cases import KINDS, VARIANTS, Case, case
from peers_race import Result, Task, quiet, race
from peers_table import markdown
from torch.nn.attention import SDPBackend, sdpa_kernel

TASKS = {task.name: task for task in [*peers_curvature.TASKS, *peers_first_order.TASKS]}

# Task, network, samples (None: the network's own): the main figures.
QUICK = [
    ("product", "resnet20", 64),
    ("product", "resnet18", 16),
    ("top", "resnet20", 32),
    ("top5", "resnet20", 32),
    ("trace", "resnet20", 32),
    ("trace", "vit", 32),
    ("jacobian", "resnet20", 64),
    ("jacobian", "resnet18", 8),
    ("jacobian", "resnet18-1000", 2),
    ("gradients", "resnet20", 128),
    ("gradients", "resnet18", 32),
    ("gradients", "vit", 64),
    ("hook", "resnet20", 5),
]
QUICK_REPEATS, QUICK_SECONDS = 3, 6.0


@dataclass(frozen=True)
class Cell:
    """One race.

    Attributes:
        task: What for.
        network: One of `KINDS`.
        variant: One of `VARIANTS`.
        threads: Of torch.
        samples: How many; None for the network's own number.
        device: "cpu" or "cuda".
    """

    task: str
    network: str
    variant: str
    threads: int
    samples: int | None
    device: str

    def load(self, cache: Path) -> Case:
        return case(self.network, self.variant, cache, self.device, self.samples)


def chosen(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells that are asked for."""
    if options.quick:
        for task, network, samples in QUICK:
            if task in options.tasks and network in options.networks:
                yield Cell(task, network, "dense", options.threads[0], samples, options.device)
        return
    for network in options.networks:
        for variant in options.variants:
            for task in options.tasks:
                for threads in options.threads:
                    samples = 5 if task == "hook" else options.samples
                    yield Cell(task, network, variant, threads, samples, options.device)


def measure(cell: Cell, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return a finished cell as it is kept; None where the task is not for the network."""
    task, subject = TASKS[cell.task], cell.load(options.cache)
    if task.needs_pixels and not subject.data.inputs.is_floating_point():
        return None
    torch.set_num_threads(cell.threads)
    reference = known(task, subject, options.cache)
    load = os.getloadavg()[0]
    results = race(
        subject,
        task,
        reference,
        repeats=options.repeats or (QUICK_REPEATS if options.quick else 5),
        seconds=options.seconds or (QUICK_SECONDS if options.quick else 20.0),
        slow=not options.quick,
    )
    if options.memory:
        for each in results:
            each.megabytes = peak(cell, each, options)
    return {
        **asdict(cell),
        "samples": len(subject.data),
        "asked_samples": cell.samples,
        "title": task.title,
        "accepted": task.accepted,
        "machine": machine(cell.device),
        "torch": torch.__version__,
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "load": load,
        "weights": sum(p.numel() for p in subject.parameters),
        "results": [asdict(result) for result in results],
    }


def known(task: Task, subject: Case, cache: Path) -> Any:
    """Return the right answer, computed once."""
    name = task.reference_name or task.name
    where = f"{name}-{subject.name}-{subject.variant}-{len(subject.data)}-{subject.device.type}.pt"
    path = cache / where
    if path.is_file():
        return torch.load(path, weights_only=False)  # written below
    with quiet():
        found = task.reference(subject)
    subject.clean()
    torch.save(found, path)
    return found


def peak(cell: Cell, result: Result, options: argparse.Namespace) -> float | None:
    """Return the megabytes that a contender takes beyond the network and samples."""
    if result.problem:
        return None
    asked = json.dumps({**asdict(cell), "who": result.who})
    command = [sys.executable, __file__, "--alone", asked, "--cache", str(options.cache)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(found.stdout.split()[-1]) if found.returncode == 0 else None


def alone(asked: dict[str, Any], cache: Path) -> None:
    """Run one contender once and print its peak memory beyond what was there before, MB."""
    who, cell = asked.pop("who"), Cell(**asked)
    subject = cell.load(cache)
    torch.set_num_threads(cell.threads)
    subject.loss().backward()  # what a first backward pass takes for good
    subject.clean()
    before = memory(cell.device)
    race(subject, TASKS[cell.task], None, repeats=1, seconds=0.0, only=[who])
    print(memory(cell.device) - before)


def memory(device: str) -> float:
    """Return the peak so far, MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = named[0].partition(":")[2].strip() if named else name
    return f"{name}, {os.cpu_count()} cores"


def finished(path: Path | None) -> list[dict[str, Any]]:
    """Return the cells that a file holds; a last line that was cut off is none."""
    if path is None or not path.is_file():
        return []
    found = []
    for line in path.read_text("utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def key(kept: dict[str, Any]) -> Cell:
    names = ("task", "network", "variant", "threads", "device")
    return Cell(samples=kept["asked_samples"], **{name: kept[name] for name in names})


def listed(choices: Any) -> Any:
    def parse(value: str) -> list[str]:
        found = value.split(",")
        if unknown := [each for each in found if each not in choices]:
            raise argparse.ArgumentTypeError(
                f"'{unknown[0]}' is none of {', '.join(choices)}; give some of them with commas"
            )
        return found

    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=listed(TASKS), default=list(TASKS))
    parser.add_argument("--networks", type=listed(KINDS), default=list(KINDS))
    parser.add_argument("--variants", type=listed(VARIANTS), default=list(VARIANTS))
    parser.add_argument(
        "--threads", type=lambda v: [int(each) for each in v.split(",")], default=[1], help="1,2"
    )
    parser.add_argument("--samples", type=int, help="by default each network's own number")
    parser.add_argument("--repeats", type=int, help="default 5, 3 of the quick selection")
    parser.add_argument(
        "--seconds", type=float, help="of each contender's runs; default 20, 6 of the quick one's"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="the main figures, in ten minutes")
    parser.add_argument("--memory", action="store_true", help="peak memory too")
    parser.add_argument("--growth", action="store_true", help="exponents in the place of a table")
    parser.add_argument("--output", type=Path, help="JSON lines; a run goes on where it ends")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "trainscope-peers"
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; leave --device out")
    return options


def main() -> None:
    options = arguments()
    options.cache.mkdir(parents=True, exist_ok=True)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        if options.alone:
            alone(json.loads(options.alone), options.cache)
            return
        if options.growth:
            from peers_growth import growth

            print(growth(options.threads[0]))
            return
        cells = finished(options.output)
        done = {key(kept) for kept in cells}
        for cell in chosen(options):
            if cell in done:
                continue
            found = measure(cell, options)
            if found is None:
                continue
            cells.append(found)
            if options.output:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
            print(markdown([found]).partition("\n")[2], flush=True)
    print("\n" + markdown(cells))


if __name__ == "__main__":
    main()
