"""The columns of a diagnosis: the networks before, after and recalibrated, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.diagnosis.opening import Progress
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Example
from trainscope.probes import Probe, attempt, lacking
from trainscope.probes.probe import Need
from trainscope.records import Columns, Cost, Measurement
from trainscope.sparsify import has_batch_norm, recalibrate_batch_norm


def columns_of(
    base: nn.Module, pruned: nn.Module | None, extra: list[Example], device: torch.device
) -> dict[str, nn.Module | None]:
    """Return the network of each column, on the device; those given stay where they are."""
    if pruned is None:
        return {"before": _on(base, device), "after": None, "recalibrated": None}
    after = _on(pruned, device)
    recalibrated = None
    if has_batch_norm(after):
        recalibrated = recalibrate_batch_norm(after, extra)
    return {"before": _on(base, device), "after": after, "recalibrated": recalibrated}


def _on(network: nn.Module, device: torch.device) -> nn.Module:
    there = all(parameter.device == device for parameter in network.parameters())
    return network if there else whole_copy(network).to(device)


def measure_all(
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
