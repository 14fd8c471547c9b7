"""The main flow: a network, measured; the sparsifying action; the network, measured again."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from trainscope.data import Dataset, ProbeData, RandomInputs, load, pin, pin_random
from trainscope.errors import DataError, ProbeError
from trainscope.networks import (
    Network,
    check_classes,
    digest,
    flops,
    open_checkpoint,
    parameters,
)
from trainscope.networks.threads import suited_threads
from trainscope.outlook import outlook
from trainscope.probes import Probe, find, lacking
from trainscope.probes.probe import Need
from trainscope.records import Columns, Cost, DataRecord, Diagnosis, Measurement, NetworkRecord
from trainscope.sparsify import Action, has_batch_norm, recalibrate_batch_norm, sparsify
from trainscope.verdict import verdict

PROBES = ("trainability_accuracy", "gradient", "jacobian", "curvature")
MOST_SAMPLES = 256
SAMPLE_FLOPS = 8e9
"""Pinned samples are at most so many that one forward pass over all stays under this."""
RECALIBRATION_SAMPLES = 2048
RECALIBRATION_FLOPS = 256e9

Progress = Callable[[str], None]
"""Told, in a few words, what is being done next."""


@dataclass(frozen=True)
class Outcome:
    """A Diagnosis and the networks that it is about.

    Attributes:
        diagnosis: What was measured.
        base: The network before the action.
        pruned: The network after it.
    """

    diagnosis: Diagnosis
    base: Network
    pruned: Network


def diagnose(checkpoint: str | Path | Network, **options: object) -> Diagnosis:
    """Measure a network before and after a sparsifying action; see `examine` for the options.

    >>> diagnose("checkpoint.pt", ratio=0.9).to_json()  # doctest: +SKIP
    """
    return examine(checkpoint, **options).diagnosis  # type: ignore[arg-type]


def examine(
    checkpoint: str | Path | Network,
    *,
    ratio: float | None = None,
    action: Action | None = None,
    data: str | None = None,
    probes: Sequence[str | Probe] = PROBES,
    samples: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "cpu",
    arch: str | None = None,
    model: str | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Open a network, measure it, apply the action, measure again, and say what it did.

    Args:
        checkpoint: A checkpoint file, or an opened network.
        ratio: The ratio of the default action (filters of the inner convolutions, by L1).
        action: Any other action, in the place of `ratio`.
        data: As `--data` takes it; by default what the checkpoint remembers, else Gaussian inputs.
        probes: Names, or probes with options.
        samples: How many pinned samples; by default 256, fewer for a costly network.
        batch_size: How many samples a probe may hold at once.
        seed: Of every random choice.
        device: Where to measure, as torch names it.
        arch: The architecture's name, where it cannot be recognised.
        model: Or its factory, "package.module:factory".
        download: Fetch what torchvision can fetch.
        progress: Told what is done next.

    Raises:
        TrainscopeError: The checkpoint, the data, the action or an option is at fault.
    """
    tell = progress or (lambda _: None)
    chosen = [_as_probe(probe) for probe in probes]
    where = find_device(device)
    tell("opening the checkpoint")
    base = (
        checkpoint
        if isinstance(checkpoint, Network)
        else open_checkpoint(Path(checkpoint), arch=arch, model=model)
    )
    if action is None:
        action = Action(ratio=ratio, seed=seed)
    tell("applying the sparsifying action")
    done = sparsify(base.module, action, base.input_shape)
    cost = flops(base.module, base.input_shape)
    tell("reading the data")
    source = open_data(base, data, download=download)
    with suited_threads(cost):
        count = samples or default_samples(cost)
        pinned, extra = _pin(source, base, count, batch_size, seed, cost)
        pinned = pinned.to(where)
        modules = _columns(base.module, done.module, extra, where)
        measured = _measure_all(chosen, modules, pinned, tell)
    network = NetworkRecord(
        architecture=base.architecture,
        parameters=parameters(base.module),
        flops=cost,
        digest=digest(base.module),
        input_shape=tuple(base.input_shape),
        num_classes=base.num_classes,
        recognised=base.recognised,
        format=base.format,
    )
    retrained = measured.get("trainability_accuracy")
    estimates = () if retrained is None else outlook(retrained)
    diagnosis = Diagnosis(
        network=network,
        action=done.record,
        data=DataRecord(pinned.name, len(pinned.inputs), pinned.label_source),
        probes=measured,
        verdict=verdict(network, done.record, measured, estimates),
        environment=_environment(where),
        seed=seed,
        notes=(*base.notes, *done.notes, *_data_notes(pinned)),
        estimates=estimates,
    )
    return Outcome(diagnosis, base, replace(base, module=done.module))


def find_device(name: str) -> torch.device:
    """Return a device that is there.

    Raises:
        ProbeError: Torch does not know the device, or this machine does not have it.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ProbeError(f"the device '{name}' cannot be used here: {first}") from error
    return device


def open_data(
    network: Network, spec: str | None, *, download: bool = False
) -> Dataset | RandomInputs:
    """Return the data that is asked for, else what the network remembers, else Gaussian inputs.

    Raises:
        DataError: The data is not there or does not fit the network.
    """
    if spec is None:
        spec = network.remembered.data or RandomInputs(tuple(network.input_shape)).name
    data = load(spec, tuple(network.input_shape), download=download)
    if isinstance(data, RandomInputs):
        return data
    check_classes(network, data.num_classes, spec)
    if data.input_shape != tuple(network.input_shape):
        raise DataError(
            f"{spec} has inputs {_by(data.input_shape)} and {network.architecture} takes "
            f"{_by(network.input_shape)}: give the data that it was trained on with --data"
        )
    return data


def default_samples(cost: int) -> int:
    """Return how many samples are pinned by default, from the multiply-adds of one."""
    samples = MOST_SAMPLES
    while samples > 2 and samples * cost > SAMPLE_FLOPS:
        samples //= 2
    return samples


def _as_probe(probe: str | Probe) -> Probe:
    return find(probe)() if isinstance(probe, str) else probe


def _pin(
    source: Dataset | RandomInputs,
    base: Network,
    count: int,
    batch_size: int,
    seed: int,
    cost: int,
) -> tuple[ProbeData, list[Tensor]]:
    """Return the pinned samples, and others to recalibrate batch norm on."""
    more = int(min(RECALIBRATION_SAMPLES, max(64, RECALIBRATION_FLOPS // max(cost, 1))))
    if isinstance(source, RandomInputs):
        pinned = pin_random(source, base.module, count, batch_size=batch_size, seed=seed)
        other = torch.Generator().manual_seed(seed + 1)
        inputs = torch.randn(more, *source.shape, generator=other)
        return pinned, list(torch.split(inputs, batch_size))
    pinned = pin(source, count, batch_size=batch_size, seed=seed)
    if not has_batch_norm(base.module):
        return pinned, []
    return pinned, list(torch.split(pin(source, more, seed=seed + 1).inputs, batch_size))


def _columns(
    base: nn.Module, pruned: nn.Module, extra: list[Tensor], device: torch.device
) -> dict[str, nn.Module | None]:
    """Return the network of each column, on the device; those given stay where they are."""
    after = _on(pruned, device)
    recalibrated = None
    if has_batch_norm(after):
        recalibrated = recalibrate_batch_norm(after, [part.to(device) for part in extra])
    return {"before": _on(base, device), "after": after, "recalibrated": recalibrated}


def _on(network: nn.Module, device: torch.device) -> nn.Module:
    there = all(parameter.device == device for parameter in network.parameters())
    return network if there else copy.deepcopy(network).to(device)


def _measure_all(
    probes: Sequence[Probe],
    modules: Mapping[str, nn.Module | None],
    data: ProbeData,
    tell: Progress,
) -> dict[str, Columns]:
    """Tell what every probe will cost, then measure every column."""
    base = modules["before"]
    assert base is not None
    for probe in probes:
        if lacking(probe, data) is None:
            cost = expected(probe.estimate(base, data))
            tell(f"{probe.name} will cost {cost} a column")
    found = {}
    for probe in probes:
        before, after, recalibrated = (
            None if module is None else _measure(probe, module, data, column, tell)
            for column, module in modules.items()
        )
        assert before is not None
        assert after is not None
        found[probe.name] = Columns(before, after, recalibrated)
    return found


def _measure(
    probe: Probe, network: nn.Module, data: ProbeData, column: str, tell: Progress
) -> Measurement:
    need = lacking(probe, data)
    if need is not None:
        hint = {
            Need.TRAINING: "add --data with a labelled set, like --data cifar10:ROOT",
            Need.LABELS: "add --data with labels",
            Need.INPUTS: "add --data",
        }[need]
        return Measurement.skipped(probe.name, f"needs {need}: {hint}")
    tell(f"{probe.name}, {column}")
    return probe.measure(network, data)


def expected(cost: Cost) -> str:
    """Write an expected cost in words."""
    memory = "" if cost.memory is None else f", about {cost.memory / 2**20:,.0f} MiB"
    return f"{cost.forward:,} forward and {cost.backward:,} backward sample passes{memory}"


def _data_notes(data: ProbeData) -> list[str]:
    if data.label_source == "true":
        return []
    return [
        "Measured on Gaussian inputs, with labels drawn from the network's own predictions, since "
        "no data was given: add --data to measure on its own."
    ]


def _environment(device: torch.device) -> dict[str, str]:
    return {
        "trainscope": version("trainscope-pruning"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "threads": str(torch.get_num_threads()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
