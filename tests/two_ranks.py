"""A job of two processes, for `test_ranks`: what it measures and says, as JSON on stdout.

One start of Python serves both; the second is forked off. What one process measures alone, without
a job, is measured first.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from trainscope import measure
from trainscope.data import ProbeData
from trainscope.data.split import TensorSplit
from trainscope.errors import ProbeError
from trainscope.pace import OverTimeError, tick
from trainscope.probes import find
from trainscope.probes.curvature import Curvature
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.processes import ranks
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.probes.when import every
from trainscope.records import Measurement
from trainscope.sparsify.masks import set_masks
from trainscope.task import LanguageModelling
from trainscope.training.settings import Settings

DOUBLE = torch.float64
ADAM = Settings(optimizer="adamw", batch_size=4, clip=1.0)
PROBES = {
    "gradient": find("gradient")(),
    "jacobian": find("jacobian")(),
    "curvature": Curvature(top=1, tolerance=0.02, density_steps=4, settings=ADAM, warmup=3),
    "sampled": Curvature(top=1, density_vectors=0, exact_classes=0, trace_vectors=2),
    "ggn": Curvature(top=1, tolerance=0.02, density_vectors=0, trace_vectors=3, ggn=True),
}


NAN = "the network's logits hold NaN or infinite values"


class Doubles(nn.Module):
    """Makes too large what is large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class Averages(nn.Module):
    """Takes the mean of its batch away, so that samples depend on each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class Recurs(nn.Module):
    """Classifies what an LSTM ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.recur, self.out = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.recur(x.unflatten(1, (2, 2)))[0][:, -1])


class Attends(nn.Module):
    """A language model of one block, whose head shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        x = self.norm(self.embed(input_ids))
        return self.head(x + self.attend(x, x, x, need_weights=False)[0])


def perceptron(*extra: nn.Module, width: int = 5) -> nn.Sequential:
    """Return a small classifier with a masked layer."""
    torch.manual_seed(0)
    middle, last = nn.Linear(width, 5), nn.Linear(5, 3)
    network = nn.Sequential(nn.Linear(4, width), nn.Tanh(), *extra, middle, nn.ReLU(), last)
    network.double()
    name = next(name for name, module in network.named_modules() if module is middle)
    set_masks(network, {f"{name}.weight": torch.rand(5, width) > 0.4})
    return network


def convolutional() -> nn.Sequential:
    """Return a small classifier of images with batch norm."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )
    network[1].running_var.uniform_(0.5, 2)
    return network.double()


def recurrent() -> nn.Module:
    """Return a small recurrent classifier."""
    torch.manual_seed(8)
    return Recurs().double()


def vectors(count: int, **more: Any) -> ProbeData:
    """Return samples for the perceptron."""
    torch.manual_seed(2)
    x, y = torch.randn(count, 4, dtype=DOUBLE), torch.randint(3, (count,))
    return ProbeData("random:4", x, y, **more)


def overflowing() -> nn.Module:
    """Return a network whose logits are infinite for large inputs."""
    torch.manual_seed(7)
    return nn.Sequential(Doubles(), Doubles(), nn.Linear(4, 3)).double()


def images(count: int) -> ProbeData:
    """Return samples for the convolutions."""
    torch.manual_seed(3)
    x, y = torch.randn(count, 1, 6, 6, dtype=DOUBLE), torch.randint(3, (count,))
    return ProbeData("random:1x6x6", x, y)


def texts(count: int) -> ProbeData:
    """Return sequences of different numbers of labels."""
    torch.manual_seed(4)
    ids = torch.randint(7, (count, 5))
    labels = ids.clone()
    labels[::2, :3] = -100
    batch = {"input_ids": ids, "labels": labels}
    return ProbeData("text", batch=batch, task=LanguageModelling())


def language() -> nn.Module:
    """Return a small language model."""
    torch.manual_seed(5)
    return Attends().double()


Made = tuple[Callable[[], nn.Module], Callable[[], ProbeData]]
NETWORKS: dict[str, Made] = {
    "six samples": (perceptron, lambda: vectors(6, batch_size=2)),
    "five samples": (perceptron, lambda: vectors(5, batch_size=1)),
    "one sample": (perceptron, lambda: vectors(1)),
    "batch norm": (convolutional, lambda: images(5)),
    "coupled": (lambda: perceptron(Averages()), lambda: vectors(5)),
    "text": (language, lambda: texts(3)),
    "recurrent": (recurrent, lambda: vectors(3)),
    "no second derivative": (lambda: perceptron(nn.Hardsigmoid()), lambda: vectors(3)),
}


def ddp(network: nn.Module) -> nn.Module:
    """Return a network as DDP wraps it."""
    return nn.parallel.DistributedDataParallel(network)


def fsdp(network: nn.Module) -> nn.Module:
    """Return a network sharded by FSDP2, layer by layer."""
    from torch.distributed.fsdp import fully_shard

    for child in network.children():
        if len(list(child.parameters())) and not isinstance(network, Attends):
            fully_shard(child)
    return fully_shard(network)


def hybrid(network: nn.Module) -> nn.Module:
    """Every parameter in both processes, as DTensors of a mesh of two axes."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "shards"))
    return fully_shard(network, mesh=mesh)


def tensor_parallel(network: nn.Module) -> nn.Module:
    """Return a perceptron cut by columns and rows; its last layer is held whole."""
    from torch.distributed.tensor import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return parallelize_module(network, init_device_mesh("cpu", (2,)), plan)


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "copies": lambda network: network,
    "ddp": ddp,
    "fsdp": fsdp,
    "hybrid": hybrid,
    "tensor parallel": tensor_parallel,
}
CASES = {
    **{f"copies, {name}": ("copies", name, tuple(PROBES)) for name in ("six samples", "text")},
    **{
        f"copies, {name}": ("copies", name, ("gradient", "jacobian", "ggn"))
        for name in ("five samples", "one sample", "batch norm", "coupled")
    },
    "ddp, batch norm": ("ddp", "batch norm", ("gradient", "ggn")),
    "fsdp, six samples": ("fsdp", "six samples", ("gradient", "jacobian", "curvature")),
    "fsdp, five samples": ("fsdp", "five samples", ("gradient", "jacobian", "ggn")),
    "fsdp, one sample": ("fsdp", "one sample", ("gradient", "jacobian", "ggn")),
    "fsdp, batch norm": ("fsdp", "batch norm", ("gradient", "jacobian", "sampled")),
    "fsdp, coupled": ("fsdp", "coupled", ("gradient", "jacobian", "ggn")),
    "fsdp, text": ("fsdp", "text", ("gradient", "jacobian", "ggn")),
    "fsdp, recurrent": ("fsdp", "recurrent", ("gradient", "ggn")),
    "fsdp, no second derivative": ("fsdp", "no second derivative", ("ggn",)),
    "hybrid, five samples": ("hybrid", "five samples", ("gradient", "ggn")),
    "tensor parallel, six samples": ("tensor parallel", "six samples", ("jacobian", "ggn")),
}


def told(found: Measurement) -> dict[str, Any]:
    """Return what a measurement says, as plain values."""
    return {
        "status": str(found.status),
        "reason": found.reason,
        "scalars": {name: [s.value, s.stderr, s.reason] for name, s in found.scalars.items()},
        "arrays": {name: values for name, values in found.arrays.items() if name != "settings"},
        "notes": dict(found.notes),
    }


def trained(network: nn.Module) -> dict[str, Any]:
    """Return trainability accuracies at three learning rates."""
    torch.manual_seed(6)
    x, y = torch.rand(60, 1, 6, 6), torch.randint(3, (60,))
    train, test = (TensorSplit(x[i::3], y[i::3], (0.5,), (0.3,)) for i in (0, 1))
    data = replace(images(6), train=train, test=test)
    probe = TrainabilityAccuracy(lrs=(0.1, 0.01, 0.001), epochs=2)
    return told(probe.measure(network, data))


def caught(does: Callable[[], object]) -> str:
    """Return what is raised, in words."""
    try:
        does()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


class Fails:
    """A probe that fails in one of the processes, after half of its work."""

    name, needs = "fails", frozenset()

    def __init__(self, error: BaseException, rank: int) -> None:
        self.error, self.rank = error, rank

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        here = ranks.present()
        with here.together():
            here.sum(torch.ones(2))
            if here.index == self.rank:
                raise self.error
            here.sum(torch.ones(3))
            here.gather([torch.ones(1)])
        return Measurement(self.name)


def said(rank: int) -> dict[str, Any]:
    """Return what is said where something is wrong."""
    found: dict[str, Any] = {}
    network, data, gradient = perceptron(), vectors(5), PROBES["gradient"]
    for error in (ProbeError("a sentence"), OverTimeError(), KeyboardInterrupt(), ValueError("x")):
        for wrong in (0, 1):
            does = Fails(error, wrong)
            found[f"{type(error).__name__} on {wrong}"] = caught(
                lambda does=does: does.measure(network, data)
            )
    found["after them"] = gradient.measure(network, data).value("loss")
    other = perceptron(nn.ReLU()) if rank else network
    found["another network"] = caught(lambda: gradient.measure(other, data))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].weight += rank
    found["other weights"] = caught(lambda: gradient.measure(other, data))
    found["other samples"] = gradient.measure(network, vectors(5 + rank)).value("loss")
    found["another seed"] = caught(lambda: gradient.measure(network, vectors(5, seed=rank)))
    bad = vectors(5)
    bad.batch[0][4] = torch.finfo(DOUBLE).max  # a sample of the second process
    found["nan on 1"] = told(gradient.measure(overflowing(), bad))["reason"]
    probe, other_probe = PROBES["gradient"], PROBES["jacobian"]
    mixed = other_probe if rank else probe
    found["other probes"] = caught(lambda: mixed.measure(network, data)).partition(" (rank")[0]
    before, ranks.PATIENCE = ranks.PATIENCE, 0.5
    if rank == 0:
        found["on 0 alone"] = caught(lambda: gradient.measure(network, data))
    ranks.PATIENCE = before
    torch.distributed.barrier()
    spread = fsdp(perceptron())
    with ranks.alone():
        found["spread and alone"] = caught(lambda: gradient.measure(spread, data))
    found["a module"] = [
        measure(given, data=vectors(5).batch, probes=["gradient"])["gradient"].value("loss")
        for given in (spread, ddp(perceptron()))
    ]
    with ranks.alone() if rank == 0 else nullcontext():
        if rank == 0:
            found["meant alone"] = gradient.measure(network, data).value("loss")
    found["together again"] = gradient.measure(network, data).value("loss")
    return found


class Counts(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def hooked(way: str, rank: int, *, norms: bool, on: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    """Train two steps, with a hook in some of the processes, and without it."""
    x, y = vectors(8).batch
    own = slice(None) if way == "tensor parallel" else slice(rank, None, 2)
    lines = Counts()
    logging.getLogger("trainscope").addHandler(lines)
    ends, found = [], {}
    for probes in ((), (PROBES["gradient"], PROBES["ggn"])):
        torch.manual_seed(rank)
        model = WAYS[way](perceptron(width=6))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        hook = ProbeHook(probes, when=every(1), data=vectors(5), norms=every(1) if norms else None)
        if probes and rank in on:
            hook.attach(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x[own]), y[own]).backward()
            optimizer.step()
        hook.detach()
        ends.append([whole(p.detach()).tolist() for p in model.parameters()])
        taken = [
            [t.step, t.moment, t.measurement.probe, str(t.measurement.status)] for t in hook.taken
        ]
        values = [
            t.measurement.value("norm") for t in hook.taken if "norm" in t.measurement.scalars
        ]
        last = hook.measure("now") if probes and len(on) == 2 else []
        found = {"taken": taken, "norms": values, "last": [told(each) for each in last]}
    logging.getLogger("trainscope").removeHandler(lines)
    return {**found, "same": ends[0] == ends[1], "end": ends[1], "lines": lines.lines}


def observed(rank: int) -> dict[str, Any]:
    """Train two steps with batch norm in DDP, observed at every moment there is, and without."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    data = ProbeData("random:4", x, y)
    ends = []
    for probes in ((), ("gradient", Curvature(top=1, tolerance=0.1, density_vectors=0))):
        torch.manual_seed(1)
        model = ddp(copy.deepcopy(network))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        hook = ProbeHook(probes, when=every(1), data=data if probes else None)
        if probes:
            hook.attach(model, optimizer)
        for step in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rank::2]), y[rank::2]).backward()
            if probes and step == 1:
                hook.observe("before clipping")
                hook.before_action()
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            optimizer.step()
        hook.detach()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    last = [t.measurement.value("norm") for t in hook.taken if t.moment == "after clipping"][-1:]
    return {
        "same": torch.equal(*ends),
        "taken": [str(t.measurement.status) for t in hook.taken],
        "norm": [abs(value - float(norm)) < 1e-6 for value in last],
    }


def whole(tensor: Any) -> torch.Tensor:
    """Return a DTensor whole."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def job(rank: int) -> dict[str, Any]:
    """Return what one process of the job finds."""
    found: dict[str, Any] = {"rank": rank}
    for name, (way, network, probes) in CASES.items():
        make, data = NETWORKS[network]
        spread = WAYS[way](make())
        found[name] = {p: told(PROBES[p].measure(spread, data())) for p in probes}
    for way in ("copies", "fsdp"):
        found[f"trained, {way}"] = trained(WAYS[way](convolutional()))
    found["said"] = said(rank)
    for way in ("ddp", "fsdp", "tensor parallel"):
        found[f"hook, {way}"] = hooked(way, rank, norms=True)
    found["observed"] = observed(rank)
    before, ranks.PATIENCE = ranks.PATIENCE, 0.5
    found["hook on 0"] = hooked("ddp", rank, norms=True, on=(0,))
    ranks.PATIENCE = before
    return found


def alone() -> dict[str, Any]:
    """Return what one process without a job finds."""
    found: dict[str, Any] = {}
    for name, (make, data) in NETWORKS.items():
        asked = {p for _, network, probes in CASES.values() if network == name for p in probes}
        found[name] = {p: told(PROBES[p].measure(make(), data())) for p in asked}
    found["trained"] = trained(convolutional())
    found["loss"] = PROBES["gradient"].measure(perceptron(), vectors(5)).value("loss")
    return found


def say(found: dict[str, Any]) -> None:
    """Write a line of JSON."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main(store: str) -> None:
    """Print what one process finds, and then what each of two finds together, a line each."""
    say(alone())
    child = os.fork()
    rank = int(child == 0)
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=60),
        )
        found = job(rank)
        torch.distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    if child:
        os.waitpid(child, 0)
    say(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tick()
    main(sys.argv[1])
