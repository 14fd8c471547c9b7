"""Whether two standard errors hold what they say of the values that come first.

    python benchmarks/honest_errors.py --seeds 200

Within a budget of time a probe first looks at a few samples, with fewer random vectors. Each seed
draws other samples and vectors, and what is said is held against the truth: that of all samples for
means over samples, that of the same samples for the trace and the top eigenvalue. The table has the
share of seeds in which the truth lay within two standard errors (or a bound); where errors are
honest it is between .9 and .99, and 1 for bounds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from trainscope.data import ProbeData
from trainscope.probes import Curvature, Gradient, Jacobian, Probe

POPULATION = 500
SAMPLES = (2, 4, 8, 32)
BOUNDS = frozenset({"top_eigenvalue"})


def networks() -> dict[str, nn.Module]:
    """Return tiny networks: one whose trace is sampled over classes, one over weights."""
    torch.manual_seed(0)
    return {
        "ReLU, 4 classes": nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).double(),
        "GELU, 4 classes": nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 4)).double(),
        "ReLU, 70 classes": nn.Sequential(nn.Linear(72, 72), nn.ReLU(), nn.Linear(72, 70)).double(),
    }


def looks(name: str) -> Iterator[tuple[str, Probe, tuple[str, ...]]]:
    """Yield what is measured: how it is called, the probe, and its values."""
    if "70" in name:
        yield "8 combinations", Jacobian(sketch=8), ("rms_jsv",)
        yield "32 combinations", Jacobian(), ("rms_jsv",)
        return
    yield "", Gradient(), ("norm_unbiased", "loss")
    yield "", Jacobian(), ("mean_jsv", "rms_jsv", "std_over_mean")
    for vectors in (4, 16):
        probe = Curvature(
            top=1, density_vectors=0, tolerance=1e-2, trace_vectors=vectors, exact_classes=0
        )
        yield f"{vectors} vectors", probe, ("trace", "top_eigenvalue")


def truths(name: str, network: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the values of the whole population."""
    everything = ProbeData("all", inputs, labels, batch_size=POPULATION)
    found: dict[str, float] = {}
    for probe in (Gradient(), Jacobian(exact=True)):
        measured = probe.measure(network, everything)
        found |= {key: scalar.value for key, scalar in measured.scalars.items()}  # type: ignore[misc]
    found["norm_unbiased"] = found["norm"]
    return found


def hessian_of(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the dense Hessian of the mean cross-entropy, [P, P]."""
    named = dict(network.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, sizes)
        rows = zip(named.items(), parts, strict=True)
        weights = {name: part.view(p.shape) for (name, p), part in rows}
        return cross_entropy(functional_call(network, weights, (inputs,)), labels)

    return hessian(loss)(torch.cat([p.detach().reshape(-1) for p in named.values()]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    held: dict[tuple[str, str, str, int], list[bool]] = defaultdict(list)
    for name, network in networks().items():
        width = network[0].in_features  # type: ignore[index,union-attr]
        drawn = torch.Generator().manual_seed(1)
        inputs = torch.randn(POPULATION, width, generator=drawn, dtype=torch.float64)  # type: ignore[arg-type]
        labels = torch.randint(0, 4, (POPULATION,), generator=drawn)
        known = truths(name, network, inputs, labels)
        for seed in range(seeds):
            order = torch.randperm(POPULATION, generator=torch.Generator().manual_seed(seed))
            for count in SAMPLES:
                chosen = order[:count]
                data = ProbeData("some", inputs[chosen], labels[chosen], seed=seed)
                exact = {}
                if "70" not in name:
                    matrix = hessian_of(network, inputs[chosen], labels[chosen])
                    top = float(torch.linalg.eigvalsh(matrix)[-1])
                    exact = {"trace": float(matrix.trace()), "top_eigenvalue": top}
                for how, probe, values in looks(name):
                    found = probe.measure(network, data)
                    for value in values:
                        scalar, truth = found.scalars[value], (known | exact)[value]
                        if scalar.value is None or scalar.stderr is None or truth is None:
                            continue
                        times = 1 if value in BOUNDS else 2
                        said = abs(scalar.value - truth) <= times * scalar.stderr
                        held[name, value, how, count].append(said)
    print(f"| network | value | samples: {' | '.join(map(str, SAMPLES))} |")
    print("|---" * (2 + len(SAMPLES)) + "|")
    rows = dict.fromkeys((name, value, how) for name, value, how, _ in held)
    for name, value, how in rows:
        cells = []
        for count in SAMPLES:
            outcomes = held.get((name, value, how, count))
            cells.append("-" if not outcomes else f"{sum(outcomes) / len(outcomes):.2f}")
        print(f"| {name} | {value}{', ' if how else ''}{how} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
