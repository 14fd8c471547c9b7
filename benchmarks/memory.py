"""Peak memory of the probes on a random GPT, and what bfloat16 does to their numbers.

    python benchmarks/memory.py                      # 350 M weights in bfloat16, one sequence
    python benchmarks/memory.py --width 256 --layers 4 --vocabulary 1000 --dtype float32
    python benchmarks/memory.py --errors             # a small GPT: bfloat16 against float64

Each measurement runs in a process of its own, whose peak resident memory (`ru_maxrss`) is held
against that of the process with torch and trainscope imported and nothing else. A multiple is that
less the graph, in units of the parameters' bytes. The graph is what autograd saves in the forward
pass, for products with the Hessian in the backward pass too; it is counted on the meta device.

Freed tensors of a megabyte and more go back to the system at once (MALLOC_MMAP_THRESHOLD_): glibc
would keep some of them, and the peak be that of its heap.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from trainscope.data import ProbeData
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.records import Measurement
from trainscope.task import LanguageModelling

PROBES: dict[str, Any] = {
    "gradient": Gradient(),
    "top eigenvalue": Curvature(top=1, density_vectors=0, tolerance=0.1, lean=True),
}
"""Ten per cent is more than bfloat16 rounds, and some twenty products of a large network."""


class Layer(nn.Module):
    """Attention and a feed-forward part, each on a norm of what it adds to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width]."""
        count, length, width = x.shape
        parts = self.qkv(self.first(x)).view(count, length, 3, self.heads, -1).transpose(1, 3)
        q, k, v = parts.unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(count, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class GPT(nn.Module):
    """A GPT-2 with random weights; the output layer shares the embedding's."""

    def __init__(self, width: int, layers: int, vocabulary: int, context: int = 1024) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.layers = nn.Sequential(*(Layer(width, max(1, width // 64)) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor) -> Any:
        """Return an object with the logits, [N, T, vocabulary]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        h = self.norm(self.layers(self.embed(input_ids) + self.place(places)))
        return SimpleNamespace(logits=h @ self.embed.weight.T)


@torch.no_grad()
def random_gpt(options: argparse.Namespace) -> GPT:
    """Return the network; its weights never exist in another dtype."""
    with torch.device("meta"):
        made = GPT(options.width, options.layers, options.vocabulary)
    made = made.to(getattr(torch, options.dtype)).to_empty(device="cpu")
    drawn = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.02, generator=drawn)
        else:
            parameter.fill_(
                1.0 if name.endswith(("first.weight", "second.weight", "norm.weight")) else 0.0
            )
    return made.eval()


def sequences(options: argparse.Namespace) -> ProbeData:
    """Return random tokens, one sequence at a time."""
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(0, options.vocabulary, (options.samples, options.tokens), generator=drawn)
    return ProbeData("random", batch={"input_ids": ids}, task=LanguageModelling(), batch_size=1)


def graph_bytes(options: argparse.Namespace, *, twice: bool) -> int:
    """Return the bytes that autograd keeps for one sequence's gradient, or Hessian products."""
    with torch.device("meta"):
        network = GPT(options.width, options.layers, options.vocabulary)
        network = network.to(getattr(torch, options.dtype))
        ids = torch.zeros(1, options.tokens, dtype=torch.int64)
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    own = {p.untyped_storage()._cdata for p in network.parameters()}
    with (
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
        saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        out = functional_call(network, dict(network.named_parameters()), (ids,))
        loss = nn.functional.cross_entropy(out.logits[0, :-1].float(), ids[0, 1:])
        if twice:
            torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


def peak() -> int:
    """Return the largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one probe in this process."""
    torch.set_num_threads(1)
    before = peak()
    network, data = random_gpt(options), sequences(options)
    size = sum(p.nbytes for p in network.parameters())
    built = peak() - before
    start = time.process_time()
    probe = PROBES[options.probe]
    if options.products and isinstance(probe, Curvature):
        probe = replace(probe, most_products=options.products)
    found: Measurement = probe.measure(network, data)
    scalars = {n: (s.value, s.stderr) for n, s in found.scalars.items() if s.value is not None}
    return {
        "parameters": size,
        "weights": sum(p.numel() for p in network.parameters()),
        "built": built,
        "peak": peak() - before,
        "graph": graph_bytes(options, twice=options.probe != "gradient"),
        "seconds": time.process_time() - start,
        "status": found.status.value + (f": {found.reason}" if found.reason else ""),
        "scalars": scalars,
    }


def show(name: str, row: dict[str, Any]) -> None:
    """Print one measurement."""
    size, mib = row["parameters"], 2**20
    print(
        f"{name}: {row['weights'] / 1e6:.0f} M weights, {size / mib:,.0f} MiB; "
        f"peak over baseline {row['peak'] / mib:,.0f} MiB = {row['peak'] / size:.2f} x parameters; "
        f"graph {row['graph'] / mib:,.0f} MiB; "
        f"without it {(row['peak'] - row['graph']) / size:.2f} x; {row['seconds']:.0f} s; "
        f"{row['status']}"
    )
    for scalar, (value, stderr) in row["scalars"].items():
        print(f"  {scalar} {value:.5g}" + ("" if stderr is None else f" +- {stderr:.2g}"))


def errors(options: argparse.Namespace) -> None:
    """Hold numbers in bfloat16 and float32 against float64, on the same rounded weights."""
    data, values = sequences(options), {}
    options.dtype = "bfloat16"
    network = random_gpt(options)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for name, probe in PROBES.items():
            found = probe.measure(network.to(dtype), data)
            scalars = found.scalars
            key = "norm" if name == "gradient" else "top_eigenvalue"
            values[name, dtype] = scalars[key].value, scalars[key].stderr
            exact = values[name, torch.float64][0]
            value, stderr = values[name, dtype]
            print(
                f"{name} {str(dtype).removeprefix('torch.')}: {value:.6g}, relative error "
                f"{value / exact - 1:.1e}, stated {(stderr or 0) / exact:.1e} ({found.status})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--products", type=int, help="Give the eigenvalue up after so many.")
    parser.add_argument("--probe", choices=list(PROBES))
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measured(options)))
        return
    if options.errors:
        errors(options)
        return
    for probe in [options.probe] if options.probe else PROBES:
        command = [sys.executable, __file__, *sys.argv[1:], "--inside", "--probe", probe]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        show(probe, json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
