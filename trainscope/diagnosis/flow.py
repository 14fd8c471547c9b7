"""The main flow: a network, measured; the sparsifying action; the network, measured again."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.diagnosis.inputs import (
    data_notes,
    default_samples,
    network_notes,
    open_data,
    pin_inputs,
)
from trainscope.diagnosis.outlook import outlook
from trainscope.diagnosis.verdict import verdict
from trainscope.errors import ProbeError
from trainscope.networks import Network, digest, flops, parameters
from trainscope.networks.device import find_device
from trainscope.networks.threads import suited_threads
from trainscope.networks.trusting import open_as_asked
from trainscope.probes import Probe, attempt, find, lacking
from trainscope.probes.behaviour import checked_once
from trainscope.probes.probe import Need
from trainscope.records import Columns, Cost, DataRecord, Diagnosis, Measurement, NetworkRecord
from trainscope.sparsify import Action, has_batch_norm, recalibrate_batch_norm, sparsify
from trainscope.sparsify.copies import whole_copy

PROBES = ("trainability_accuracy", "gradient", "jacobian", "curvature")
MAX_SEED = 2**63 - 2
"""The largest seed: torch takes up to 2^63 - 1, and the next one is used too."""

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
    unsafe_load: bool = False,
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
        unsafe_load: Load a whole pickled network with its own code, which runs it.
        progress: Told what is done next.

    Raises:
        TrainscopeError: The checkpoint, the data, the action or an option is at fault.
    """
    tell = progress or (lambda _: None)
    chosen = [_as_probe(probe) for probe in probes]
    _check(chosen, samples=samples, batch_size=batch_size, seed=seed)
    where = find_device(device)
    tell("opening the checkpoint")
    if isinstance(checkpoint, Network):
        base = checkpoint
    else:
        base = open_as_asked(
            Path(checkpoint), tell, arch=arch, model=model, unsafe_load=unsafe_load
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
        pinned, extra = pin_inputs(source, base, count, batch_size, seed, cost)
        pinned = pinned.to(where)
        modules = _columns(base.module, done.module, extra, where)
        with checked_once():
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
        verdict=verdict(network, done.record, _telling(measured, pinned), estimates),
        environment=_environment(where),
        seed=seed,
        notes=(*base.notes, *done.notes, *data_notes(pinned), *network_notes(measured)),
        estimates=estimates,
    )
    return Outcome(diagnosis, base, replace(base, module=done.module))


def _as_probe(probe: str | Probe) -> Probe:
    return find(probe)() if isinstance(probe, str) else probe


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
    return network if there else whole_copy(network).to(device)


def _check(probes: Sequence[Probe], *, samples: int | None, batch_size: int, seed: int) -> None:
    """Refuse options that no measurement can be made with.

    Raises:
        ProbeError: One of them; the message says which.
    """
    names = [probe.name for probe in probes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProbeError(f"the probe '{twice}' is asked for twice; measure once for each setting")
    if samples is not None and samples < 2:
        raise ProbeError(f"{samples} samples are too few; give at least 2")
    if batch_size < 1:
        raise ProbeError(f"a batch size of {batch_size} holds no sample; give at least 1")
    if not 0 <= seed <= MAX_SEED:
        raise ProbeError(f"the seed {seed} is not from 0 to {MAX_SEED}; give one that is")


def _telling(measured: Mapping[str, Columns], data: ProbeData) -> dict[str, Columns]:
    """Return what a verdict may rest on.

    Statistics recalibrated on Gaussian inputs are of another distribution than those before, so
    that column does not tell the action's damage from theirs.
    """
    if data.label_source == "true":
        return dict(measured)
    return {name: replace(columns, recalibrated=None) for name, columns in measured.items()}


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
        if need is Need.LABELS and data.label_source == "predicted":
            return Measurement.skipped(
                probe.name,
                "the base network's logits hold NaN or infinite values, so no labels can be drawn "
                "from its predictions: add --data with labels, or look at its weights",
            )
        hint = {
            Need.TRAINING: "add --data with a labelled set, like --data cifar10:ROOT",
            Need.LABELS: "add --data with labels",
            Need.INPUTS: "add --data",
        }[need]
        return Measurement.skipped(probe.name, f"needs {need}: {hint}")
    tell(f"{probe.name}, {column}")
    return attempt(probe, network, data)


def expected(cost: Cost) -> str:
    """Write an expected cost in words."""
    memory = "" if cost.memory is None else f", about {cost.memory / 2**20:,.0f} MiB"
    return f"{cost.forward:,} forward and {cost.backward:,} backward sample passes{memory}"


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
