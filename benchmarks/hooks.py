"""What the hook costs a training step: beside no hook, and beside the naive loop over parameters.

Run: python benchmarks/hooks.py [--network resnet20] [--size 32] [--batch 64] [--steps 20]

Each way trains its own copy of one network on one batch. Rounds of a few steps alternate between
the ways, so that what else the machine does falls on all alike, and the median over rounds of each
way's time, divided by the plain loop's in the same round, is printed with its quartiles. The hook
is timed alone as well (its two calls, without the step): it is far below what the ratio of whole
steps can resolve.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from trainscope.networks import build, set_masks
from trainscope.probes.hooks import ProbeHook

Watch = Callable[[nn.Module, Optimizer], object]


def no_hook(network: nn.Module, optimizer: Optimizer) -> None:
    """Leave the loop as it is."""


def hook(network: nn.Module, optimizer: Optimizer) -> ProbeHook:
    """Keep the norm of every step."""
    return ProbeHook().attach(network, optimizer)


def naive(network: nn.Module, optimizer: Optimizer) -> object:
    """Take every parameter's norm to a number at every step, as most loops do."""
    kept: list[float] = []

    def look(*_: object) -> None:
        norms = [p.grad.norm().item() for p in network.parameters() if p.grad is not None]
        kept.append(sum(norm**2 for norm in norms) ** 0.5)

    return optimizer.register_step_pre_hook(look)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--masked", action="store_true", help="mask 90 % of every weight")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = build(args.network)
    if args.masked:
        weights = {n: p for n, p in base.named_parameters() if p.ndim > 1}
        set_masks(base, {n: torch.rand_like(p) < 0.1 for n, p in weights.items()})
    channels = next(p.shape[1] for p in base.parameters() if p.ndim == 4)
    x = torch.randn(args.batch, channels, args.size, args.size, device=args.device)
    y = torch.randint(10, (args.batch,), device=args.device)
    ways: dict[str, Watch] = {"no hook": no_hook, "hook": hook, "naive .norm().item()": naive}
    steps = {name: stepper(base, watch, x, y, args.device) for name, watch in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for name in ways:
        timed(steps[name], 2)
    for _ in range(args.rounds):
        for name in ways:
            times[name].append(timed(steps[name], args.steps))
    plain = times["no hook"]
    print(f"{args.network}, {args.batch} samples of {args.size}x{args.size}, {args.device}:")
    print(f"  {'no hook':<22} {1e3 * statistics.median(plain) / args.steps:8.2f} ms a step")
    for name in list(ways)[1:]:
        ratios = [a / b for a, b in zip(times[name], plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:<22} {middle:8.4f} x no hook (quartiles {low:.4f} to {high:.4f})")
    step = statistics.median(plain) / args.steps
    for name in list(ways)[1:]:
        cost = alone(base, ways[name], x, y, args.device)
        print(f"  {name:<22} {1e6 * cost:8.1f} us by itself = {100 * cost / step:.3f} % of a step")


def stepper(
    base: nn.Module, watch: Watch, x: torch.Tensor, y: torch.Tensor, device: str
) -> Callable[[], None]:
    """Return one training step of a copy of a network that is watched."""
    network = copy.deepcopy(base).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    held = watch(network, optimizer)

    def step() -> None:
        _ = held  # stays attached
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def alone(base: nn.Module, watch: Watch, x: torch.Tensor, y: torch.Tensor, device: str) -> float:
    """Return the seconds that the step's hooks take: a step that does nothing, with and without."""

    class Nothing(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            return None

    def seconds(watching: Watch) -> float:
        network = copy.deepcopy(base).to(device)
        optimizer = Nothing(network.parameters(), lr=1e-3)
        held = watching(network, optimizer)
        F.cross_entropy(network(x), y).backward()
        timed(optimizer.step, 20)
        found = min(timed(optimizer.step, 128) for _ in range(7)) / 128
        _ = held
        return found

    return seconds(watch) - seconds(no_hook)


def timed(step: Callable[[], object], count: int) -> float:
    """Return the seconds of a number of steps."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
