"""The main flow: a network, measured; the sparsifying action; the network, measured again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar, cast

from torch import nn

from trainscope.data import Dataset, RandomInputs
from trainscope.diagnosis.budget import Measuring
from trainscope.diagnosis.context import DiagnosisContext
from trainscope.diagnosis.inputs import default_samples, pin_inputs
from trainscope.diagnosis.measuring import columns_of
from trainscope.diagnosis.opening import Subject
from trainscope.diagnosis.request import DiagnoseRequest, MeasureRequest
from trainscope.errors import NoOpError
from trainscope.networks import Network, flops
from trainscope.networks.device import find_device
from trainscope.networks.origin import ZERO_THROUGHOUT
from trainscope.networks.precision import without_autocast
from trainscope.networks.threads import suited_threads
from trainscope.probes.processes.joining import joined
from trainscope.probes.processes.shards import whole
from trainscope.probes.subject.behaviour import checked_once
from trainscope.probes.subject.wrappers import unwrap
from trainscope.records import Diagnosis
from trainscope.sparsify import Action, Sparsified, given_action, sparsify, unchanged

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Outcome:
    """A Diagnosis and the networks that it is about.

    Attributes:
        diagnosis: What was measured.
        base: The network before the action.
        pruned: The network after it; None where there was no action.
        interrupted: Ctrl-C ended it before everything was measured.
    """

    diagnosis: Diagnosis
    base: Network
    pruned: Network | None
    interrupted: bool = False


def run(request: MeasureRequest) -> Outcome:
    """Open a network and measure it; after an action, measure again and say what that did.

    All processes that torchrun, or accelerate, started go through it together.

    Args:
        request: A `DiagnoseRequest` where there is an action.

    Raises:
        TrainscopeError: The checkpoint, the data or the action is at fault.
    """
    with joined() as ranks, ranks.together(), without_autocast():
        return _run(request)


def _run(request: MeasureRequest) -> Outcome:
    network = _held_here(request.network)
    request.tell("opening the checkpoint")
    base, source = request.opening.network_and_data(network, request.data)
    where = find_device(request.device or _device_of(network))
    done = _pruned(request, base, source) if isinstance(request, DiagnoseRequest) else None
    cost = flops(base.module, base.inputs)
    with suited_threads(cost):
        count = request.samples or default_samples(cost, base, budget=request.seconds)
        pinned, extra = pin_inputs(source, base, count, request.batch_size, request.seed, cost)
        pinned = pinned.to(where)
        modules = columns_of(base.module, None if done is None else done.module, extra, where)
        context = DiagnosisContext.of(base, done, source, pinned, cost, where, request.seed)
        work = Measuring(
            request.chosen_probes,
            modules,
            pinned,
            cost,
            request.seconds,
            request.tell,
            fixed=request.samples is not None,
        )
        update = request.update
        if update is not None:
            work.update = lambda measured: update(context.diagnosis(work, measured))
        with checked_once():
            work.run()
    return Outcome(
        context.diagnosis(work, work.measured),
        base,
        None if done is None else replace(base, module=done.module),
        interrupted=work.stopped,
    )


def _pruned(
    request: DiagnoseRequest, base: Network, source: Dataset | RandomInputs
) -> Sparsified | None:
    """Return the pruned network, by an action or as somebody else pruned it; None for none."""
    if request.after is not None:
        request.tell("comparing the pruned network with the dense one")
        pruned = request.opening.network(_held_here(request.after), like=base, data=source)
        done = given_action(base.module, pruned.module, base.inputs)
        return replace(done, notes=(*_of_pruned(base, pruned), *done.notes))
    if request.action is None and request.ratio is None:
        return None
    request.tell("applying the sparsifying action")
    action = request.action or Action(ratio=request.ratio, seed=request.seed)
    return _sparsified(base, action, source)


def _of_pruned(base: Network, pruned: Network) -> tuple[str, ...]:
    """Return what is to be said of the second file alone; what came pruned the action says."""
    told = (note for note in pruned.notes if note not in base.notes)
    said = [note for note in told if not note.startswith(("It came pruned", "It is a pruned "))]
    said = [note for note in said if ZERO_THROUGHOUT not in note]  # the action took it
    return tuple(f"Of the pruned network: {note[0].lower()}{note[1:]}" for note in said)


def _held_here(given: Kept) -> Kept:
    """Return a module without wrappers and shards of several processes; anything else as it is."""
    if not isinstance(given, nn.Module):
        return given
    return cast("Kept", whole(unwrap(given)))


def _device_of(given: Subject) -> str:
    """Return where a network is measured by default: a module where it is, a file on the CPU."""
    if not isinstance(given, nn.Module):
        return "cpu"
    first = next(iter((*given.parameters(), *given.buffers())), None)
    return "cpu" if first is None else str(first.device)


def _sparsified(base: Network, action: Action, source: Dataset | RandomInputs) -> Sparsified:
    """Apply the action; where the network came with all of it at zero, nothing, which is said.

    Raises:
        ActionError: The action cannot be done, or masks of the network's own hold it already.
    """
    try:
        data = source if isinstance(source, Dataset) else None  # no training samples are drawn
        return sparsify(base.module, action, base.inputs, data=data)
    except NoOpError as error:
        if not any(each.how == "zeros" for each in base.before):
            raise
        return unchanged(base.module, action, base.inputs, error)
