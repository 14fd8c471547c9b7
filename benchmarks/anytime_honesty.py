"""How often a value of few samples is within two of its standard errors of the truth.

    python benchmarks/anytime_honesty.py runs/honesty [--seeds 24] [--networks mlp,transformer]

Four small networks on scikit-learn's digits (a trained convnet, the same with half the filters of
every layer gone, an MLP, a transformer over an image's rows) are measured on 2, 4, 8 and 16
samples, drawn anew for every seed. The truth of what any number of samples estimates is its value
on all 1,797 images. What depends on the number of samples (the gradient's norm, which holds their
noise; the kernel's spectrum; ranks; dead units) is held against the mean over all seeds at that
number, and that of a trace, which is estimated from so many random vectors, against the dense
Hessian in float64. Every measurement is a line in a file of the folder, so that a run which is
started again goes on where it ended. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.probes.activity import Activity
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.tangent_kernel import TangentKernel
from trainscope.sparsify import Action, recalibrate_batch_norm, sparsify

SAMPLES = (2, 4, 8, 16)
PROBES = (Gradient(), Jacobian(), TangentKernel(), Activity())
FOUND_ON_ALL = frozenset(
    {
        *(f"gradient/{name}" for name in ("loss", "snr", "norm_unbiased", "noise_scale")),
        *(f"jacobian/{name}" for name in ("mean_jsv", "rms_jsv", "std_over_mean")),
        *(f"jacobian/{name}" for name in ("condition_number", "share_below_1e-3")),
    }
)
"""What does not depend on the number of samples."""
BY_FACTORS = frozenset(
    f"ntk/{name}" for name in ("condition_number", "stable_steps", "steps@0.01", "steps@0.001")
)
"""Whose errors are those of their logarithms, and so is the mean."""
TRACE = "curvature/trace"

Values = dict[str, tuple[float, float | None]]


class Rows(nn.Module):
    """A transformer over the eight rows of an image."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(8, width), nn.Parameter(torch.zeros(8, width))
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [N, 10]."""
        x = self.embed(images.squeeze(1)) + self.places
        q, k, v = (part.unsqueeze(1) for part in self.qkv(self.first(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        x = x + self.down(F.gelu(self.up(self.second(x))))
        logits: Tensor = self.head(x.mean(1))
        return logits


def convnet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10)),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()),
        nn.Linear(32, 10),
    )


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return images, torch.tensor(found.target)


def trained(make: Callable[[], nn.Module], steps: int = 300) -> nn.Module:
    """Return a network after some steps on every other image."""
    torch.manual_seed(0)
    network, (images, labels) = make(), digits()
    images, labels = images[::2], labels[::2]
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(steps):
        some = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(network(images[some]), labels[some]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval()


def pruned() -> nn.Module:
    images, _ = digits()
    network = sparsify(trained(convnet), Action("filter", ratio=0.5), images.shape[1:]).module
    return recalibrate_batch_norm(network, images[:512].split(128)).eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convnet": lambda: trained(convnet),
    "pruned": pruned,
    "mlp": lambda: trained(mlp),
    "transformer": lambda: trained(Rows),
}


def drawn(count: int, seed: int) -> ProbeData:
    """Return so many of the images, each seed's own."""
    images, labels = digits()
    some = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return ProbeData("digits", images[some], labels[some], batch_size=max(1, min(count, 256)))


def values_of(network: nn.Module, data: ProbeData, probes: Any) -> Values:
    return {
        f"{probe.name}/{name}": (scalar.value, scalar.stderr)
        for probe in probes
        for name, scalar in probe.measure(network, data).scalars.items()
        if scalar.value is not None
    }


def traces(network: nn.Module, vectors: int, seed: int) -> Values:
    """Return the trace on the first 32 images from so many random vectors."""
    images, labels = digits()
    data = ProbeData("digits", images[:32], labels[:32], seed=seed)
    probe = Curvature(
        top=1, density_vectors=0, trace_vectors=vectors, exact_classes=0, tolerance=0.1
    )
    found = values_of(network, data, [probe])
    return {TRACE: found[TRACE]}


def dense_trace(network: nn.Module) -> float:
    """Return the trace of the Hessian on the first 32 images, a column at a time, in float64."""
    network, (images, labels) = network.double(), digits()
    weights = {name: p.detach() for name, p in network.named_parameters()}
    sizes = [p.numel() for p in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(weights.items(), flat.split(sizes), strict=True)
        named = {name: part.view(p.shape) for (name, p), part in parts}
        return F.cross_entropy(
            functional_call(network, named, (images[:32].double(),)), labels[:32]
        )

    at = torch.cat([p.flatten() for p in weights.values()])

    def diagonal(unit: Tensor) -> Tensor:
        return jvp(grad(loss), (at,), (unit,))[1] @ unit

    with sdpa_kernel(SDPBackend.MATH):  # which alone has derivatives of derivatives
        found = vmap(diagonal, chunk_size=64)(torch.eye(len(at), dtype=at.dtype))
    network.float()
    return float(found.sum())


def rows_of(folder: Path, name: str, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a network's measurements, made now unless the folder has them."""
    path = folder / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["samples"], row["seed"]) for row in rows}
    yield from rows
    if (0, 0) in known and all((n, seed) in known for n in SAMPLES for seed in range(seeds)):
        return
    network = NETWORKS[name]()
    folder.mkdir(parents=True, exist_ok=True)

    def kept(samples: int, seed: int, values: Values) -> dict[str, Any]:
        row = {"samples": samples, "seed": seed, "values": values}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row

    if (0, 0) not in known:
        truth = values_of(network, drawn(10**6, 0), PROBES[:2])
        if name == "transformer":
            truth[TRACE] = dense_trace(network), None
        yield kept(0, 0, truth)
    for samples in SAMPLES:
        for seed in range(seeds):
            if (samples, seed) not in known:
                found = values_of(network, drawn(samples, seed), PROBES)
                if name == "transformer":
                    found |= traces(network, samples, seed)
                yield kept(samples, seed, found)


def shares(rows: list[dict[str, Any]], seeds: int) -> dict[str, dict[int, tuple[int, int]]]:
    """Return how many values are within two errors, of how many with an error, by name and count.

    Names with fewer than half the values are left out at that count.
    """
    whole = next(row["values"] for row in rows if not row["samples"])
    groups: dict[tuple[str, int], list[tuple[float, float | None]]] = defaultdict(list)
    for row in rows:
        if row["samples"] and row["seed"] < seeds:
            for name, pair in row["values"].items():
                groups[name, row["samples"]].append(pair)
    means = [value for n in SAMPLES for value, _ in groups["ntk/trace", n]]
    found: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for (name, samples), pairs in groups.items():
        errors = [(value, error) for value, error in pairs if error is not None]
        if len(errors) * 2 < seeds:
            continue
        values = np.array([value for value, _ in pairs])
        truth = float(np.exp(np.log(values).mean()) if name in BY_FACTORS else values.mean())
        if name in FOUND_ON_ALL or name == TRACE:
            truth = whole[name][0]
        elif name == "ntk/trace":
            truth = float(np.mean(means))
        room = 1e-9 * abs(truth)
        held = sum(abs(value - truth) <= 2 * error + room for value, error in errors)
        found[name][samples] = held, len(errors)
    return found


def table(found: dict[str, dict[str, dict[int, tuple[int, int]]]]) -> str:
    """Return all shares, over the networks too, and which network is worst."""
    lines = [
        f"| value | {' | '.join(f'{n} samples' for n in SAMPLES)} | worst network |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted({name for each in found.values() for name in each}):
        cells, worst = [], (2.0, "")
        for samples in SAMPLES:
            pairs = {n: each[name][samples] for n, each in found.items() if samples in each[name]}
            held, total = (sum(pair[i] for pair in pairs.values()) for i in (0, 1))
            cells.append(f"{held / total:.2f}" if total else "-")
            of_each = [(h / c, f"{net}, {samples}") for net, (h, c) in pairs.items()]
            worst = min(worst, *of_each, worst)
        lines.append(f"| `{name}` | {' | '.join(cells)} | {worst[0]:.2f} ({worst[1]}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in options.networks.split(","):
        found[name] = shares(list(rows_of(options.folder, name, options.seeds)), options.seeds)
    print(table(found))


if __name__ == "__main__":
    main()
