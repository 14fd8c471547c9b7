"""What every numerical probe shares: the network in eval mode, the pinned samples, the cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.networks.copies import with_dense_gradients
from trainscope.networks.given import refuse_uninitialised
from trainscope.networks.precision import without_autocast
from trainscope.probes.processes.ranks import present
from trainscope.probes.processes.shards import parted, parts_of
from trainscope.probes.subject.alike import alike
from trainscope.probes.subject.behaviour import behaviour_of
from trainscope.probes.subject.folding import folded
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.probes.subject.untouched import untouched
from trainscope.probes.subject.wrappers import refuse_flat, unwrap
from trainscope.records import Cost, Measurement, Status
from trainscope.sparsify import has_batch_norm
from trainscope.task import (
    Batch,
    Classification,
    LanguageModelling,
    MultiLabel,
    Task,
)
from trainscope.task.batches import given_to, mapped, tensors


class RandomNetworkError(ProbeError):
    """A network whose outputs are other ones in every pass; its message is the reason."""


@contextmanager
def evaluation(network: nn.Module, data: ProbeData) -> Iterator[Lent]:
    """Lend a network in eval mode, untouched afterwards, with all that a probe needs of it.

    Attention takes its math kernel and recurrent layers their plain one, since the fused ones have
    no second derivative. What the probes rely on is looked at first: see `behaviour`.

    In a job of several processes all of them call it. Buffers and samples are those of the first,
    as DDP has it too; a network whose parameters are spread is seen through (`shards`).

    Raises:
        ProbeError: There are no samples, or the network's outputs do not fit the task.
        RandomNetworkError: Two passes over the same samples give different outputs.
        NonFiniteError: A weight, a buffer or an input is NaN or infinite.
    """
    if not len(data):
        raise ProbeError(f"the data '{data.name}' has no samples; give at least one")
    started, ranks = time.perf_counter(), present()
    network = unwrap(network)
    refuse_flat(network)
    refuse_uninitialised(network)
    network = parted(network)
    with ExitStack() as inside:
        inside.enter_context(untouched(network))
        data = alike(network, data, ranks)
        inside.enter_context(torch.enable_grad())
        inside.enter_context(without_autocast())
        inside.enter_context(sdpa_kernel(SDPBackend.MATH))
        with_dense_gradients(network)  # `untouched` puts back what they had
        if any(isinstance(module, nn.RNNBase) for module in network.modules()):
            inside.enter_context(_plain_kernels())
        _check_finite(network, data)
        batch = taken_batch(network, data)
        behaviour = behaviour_of(network, batch, data)
        if behaviour.random is not None:
            raise RandomNetworkError(behaviour.random)
        count = data.task.size(batch)
        whole = behaviour.coupled is not None
        held = count if whole else min(count, max(1, data.batch_size))
        few = batch if whole else data.task.select(batch, torch.arange(min(2, count)))
        yield Lent(
            network=network,
            model=network if parts_of(network) else folded(network, data.task, few, held),
            task=data.task,
            batch=batch,
            labelled=data.labelled,
            batch_size=count if whole else max(1, data.batch_size),
            behaviour=behaviour,
            ranks=ranks,
            spread=bool(parts_of(network)),
            started=started,
        )


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Turn off the libraries whose recurrent layers have no backward pass in eval mode, or one."""
    libraries: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.mkldnn)
    were = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        yield
    finally:
        for library, was in zip(libraries, were, strict=True):
            library.enabled = was


def taken_batch(network: nn.Module, data: ProbeData) -> Batch:
    """Return the pinned samples on a network's device, floating-point ones in its dtype."""
    like = next((p for p in network.parameters() if p.is_floating_point()), None)

    def moved(leaf: Tensor) -> Tensor:
        leaf = leaf.detach()
        if like is not None:
            dtype = like.dtype if leaf.is_floating_point() else leaf.dtype
            leaf = leaf.to(device=like.device, dtype=dtype)
        return leaf.clone() if leaf.is_inference() else leaf  # autograd must be able to save it

    return mapped(moved, data.batch)


def run(
    name: str,
    network: nn.Module,
    data: ProbeData,
    body: Callable[[Lent], Measurement],
    *,
    loss: bool = True,
) -> Measurement:
    """Run the body of a probe; add what all probes say: cost, batch norm, label source.

    NaN or infinity on the way, or in what was found, becomes the status `non-finite values` with
    its reason. A network that is random in eval mode is skipped, and one whose loss is unfit
    too where the probe is about the `loss`.
    """
    started = time.perf_counter()
    try:
        with present().together(), evaluation(network, data) as lent:
            unfit = lent.behaviour.unfit_loss if loss else None
            found = Measurement.skipped(name, unfit) if unfit else body(lent)
            found = _in_units_of(lent.task, found)
            cost = lent.cost()
        _check_arrays(found)
    except NonFiniteError as error:
        cost = Cost(time.perf_counter() - started)
        return Measurement(name, Status.NONFINITE, str(error), cost=cost)
    except RandomNetworkError as error:
        return replace(
            Measurement.skipped(name, str(error)), cost=Cost(time.perf_counter() - started)
        )
    mode = "eval mode"
    if has_batch_norm(network):
        mode += "; batch norm uses its running statistics"
    if lent.behaviour.coupled is not None:
        mode = "eval mode; a sample's outputs depend on the others in its batch"
    notes = {"mode": mode, **found.notes, **lent.behaviour.notes(len(lent))}
    if data.labels is not None:
        source = {"true": "true labels", "predicted": "drawn from the base network's softmax"}
        notes["labels"] = source.get(data.label_source, data.label_source)
    if not lent.softmax:
        said = getattr(data.task, "note", "")
        notes["task"] = f"{type(data.task).__name__}, metric {data.task.metric.label}" + (
            f"; {said}" if said else ""
        )
    return replace(found, cost=cost, notes=notes)


def loss_unit(task: Task) -> str:
    """Return the unit of a task's loss: nats of a cross-entropy, none of any other."""
    return "nats" if isinstance(task, Classification | LanguageModelling | MultiLabel) else ""


def _in_units_of(task: Task, found: Measurement) -> Measurement:
    """Return a Measurement in units of the loss, where that is not told in nats."""
    if loss_unit(task):
        return found
    scalars = {
        name: replace(scalar, unit=scalar.unit.replace("nats", "loss"))
        for name, scalar in found.scalars.items()
    }
    return replace(found, scalars=scalars)


def _check_arrays(found: Measurement) -> None:
    """Refuse arrays with NaN or infinity: numbers that were too large on the way."""
    for name, values in found.arrays.items():
        if not _finite(values):
            raise NonFiniteError(f"the values of '{name}' overflow to NaN or infinity")


def _finite(values: Any) -> bool:
    if isinstance(values, list):
        if all(type(value) is float for value in values):
            return bool(np.isfinite(values).all())
        return all(map(_finite, values))
    return not isinstance(values, float) or bool(np.isfinite(values))


def _check_finite(network: nn.Module, data: ProbeData) -> None:
    """Refuse a network or data with NaN or infinity, and name the place."""
    given = given_to(network, data.batch, getattr(data.task, "inputs", None))
    inputs = {id(leaf) for leaf in tensors(given)}
    for leaf in tensors(data.batch):
        if not leaf.is_floating_point() or bool(torch.isfinite(leaf).all()):
            continue
        if id(leaf) in inputs:
            raise NonFiniteError("the inputs hold NaN or infinite values")
        if not getattr(data.task, "unlabelled", False):  # a loss may leave out what is missing
            raise NonFiniteError("the targets hold NaN or infinite values")
    named: list[tuple[str, str, Tensor]] = [("buffer", *row) for row in network.named_buffers()]
    named += [("parameter", *row) for row in network.named_parameters()]
    for kind, name, tensor in named:
        if not tensor.is_floating_point():
            continue
        values = tensor if tensor.layout is torch.strided else tensor.to_dense()
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteError(f"the {kind} '{name}' holds NaN or infinite values")
