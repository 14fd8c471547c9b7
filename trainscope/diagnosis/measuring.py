"""The columns of a diagnosis: the networks before, after and recalibrated, and their numbers."""

from __future__ import annotations

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Example
from trainscope.probes import Probe, TwinProbe, attempt, lacking
from trainscope.probes.probe import Need
from trainscope.records import Cost, Measurement
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


def measured(probe: Probe, network: nn.Module, data: ProbeData) -> Measurement:
    """Measure a network; where the data lacks what the probe needs, it is skipped with a hint."""
    need = lacking(probe, data)
    if need is None:
        return attempt(probe, network, data)
    if need is Need.LABELS and data.label_source == "predicted":
        return Measurement.skipped(
            probe.name,
            "the base network's logits hold NaN or infinite values, so no labels can be drawn "
            "from its predictions: give data with labels (--data, data=), or look at its weights",
        )
    hint = {
        Need.TRAINING: "give one with --data, like --data cifar10:ROOT, or a pair of loaders, "
        "train and test, with data=",
        Need.LABELS: "give data with labels (--data, data=)",
        Need.INPUTS: "give some with --data, or data=",
    }[need]
    return Measurement.skipped(probe.name, f"needs {need}: {hint}")


def measured_both(
    probe: Probe, after: nn.Module, recalibrated: nn.Module, data: ProbeData
) -> tuple[Measurement, Measurement] | None:
    """Measure the network after the action and recalibrated in one go, where the probe can."""
    if not isinstance(probe, TwinProbe) or lacking(probe, data) is not None:
        return None
    try:
        return probe.measure_both(after, recalibrated, data)
    except Exception:  # said by each of them, measured by itself
        return None


def expected(cost: Cost) -> str:
    """Write an expected cost in words."""
    memory = "" if cost.memory is None else f", about {cost.memory / 2**20:,.0f} MiB"
    return f"{cost.forward:,} forward and {cost.backward:,} backward sample passes{memory}"
