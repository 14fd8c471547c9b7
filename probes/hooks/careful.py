"""A probe that is run inside a training, which goes on whatever the probe does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import TrainscopeError
from trainscope.probes.probe import Need, Probe, lacking, measured_or_skipped
from trainscope.probes.processes.ranks import present
from trainscope.probes.processes.shards import parted
from trainscope.probes.subject.untouched import untouched
from trainscope.probes.subject.wrappers import waits_for_ranks
from trainscope.records import Measurement

log = logging.getLogger(__name__)


class FailureLog:
    """Says why something was not measured: returns it each time, and logs it once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, type[Exception]]] = set()

    def __call__(self, what: str, error: Exception) -> str:
        """Return the reason that an error is."""
        lines = str(error).strip().splitlines()
        said = lines[0] if lines else "no reason given"
        reason = said if isinstance(error, TrainscopeError) else f"{type(error).__name__}: {said}"
        if (what, type(error)) not in self._told:
            self._told.add((what, type(error)))
            log.warning("%s was not measured, and the training goes on: %s", what, reason)
            log.debug("the error in full:", exc_info=error)
        return reason


def measured(
    probe: Probe, network: nn.Module, data: ProbeData, tell: Callable[[str, Exception], str]
) -> Measurement:
    """Return what a probe finds, or, where it raises, a skipped measurement with the reason.

    Args:
        probe: Anybody's.
        network: Left as it was, bit for bit. Where its parameters are spread over processes, the
            probe gets it as a plain one (`shards`).
        data: Moved to the network's device.
        tell: Gets the probe's name and the error, and returns the reason.
    """
    need = lacking(probe, data)
    if need is not None:
        return Measurement.skipped(probe.name, f"needs {need}")
    if Need.TRAINING in probe.needs and present().count == 1 and waits_for_ranks(network):
        return Measurement.skipped(
            probe.name, "SyncBatchNorm waits for the other ranks when the network trains"
        )
    device = next((p.device for p in network.parameters()), torch.device("cpu"))

    def measure() -> Measurement:
        # The probe itself leaves no trace; one of a third party may.
        with (
            present().together(),
            untouched(plain := parted(network)),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            torch.compiler.set_stance("force_eager"),  # compiled code has no second derivatives
        ):
            return probe.measure(plain, data.to(device))

    found: object = measured_or_skipped(probe.name, measure, partial(tell, probe.name))
    if not isinstance(found, Measurement):
        return Measurement.skipped(probe.name, f"it returned a {type(found).__name__}")
    return found
