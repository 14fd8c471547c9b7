"""What every numerical probe shares: the network in eval mode, the pinned samples, the cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.behaviour import Behaviour, behaviour_of
from trainscope.probes.folding import folded
from trainscope.probes.passes import NonFiniteError, logits_of
from trainscope.probes.untouched import untouched
from trainscope.records import Cost, Measurement, Status


class RandomNetworkError(ProbeError):
    """A network whose outputs are other ones in every pass; its message is the reason."""


@dataclass
class Evaluation:
    """A network lent for measuring, with the pinned samples in its own dtype and device.

    Attributes:
        network: The network as given, in eval mode.
        model: The same function, eval batch norm folded into its convolution where that can be.
        inputs: [N, ...], in the network's dtype.
        labels: [N], int64; empty where there are none.
        batch_size: Samples held at once; all N where a sample's outputs depend on its batch.
        behaviour: What was found out about the network before.
        forward: Samples put forward so far.
        backward: Samples put backward so far.
    """

    network: nn.Module
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    batch_size: int
    behaviour: Behaviour
    forward: int = 0
    backward: int = 0
    started: float = field(default_factory=time.perf_counter)

    def __len__(self) -> int:
        """Return the number of pinned samples."""
        return len(self.inputs)

    def batches(self, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels in order, at most `size` (default `batch_size`) at a time."""
        size = max(1, min(size or self.batch_size, self.batch_size))
        yield from zip(torch.split(self.inputs, size), torch.split(self.labels, size), strict=False)

    @property
    def look(self) -> Tensor:
        """Return inputs that show what the network's graph is: the first, or all as one batch."""
        return self.inputs if self.behaviour.coupled else self.inputs[:1]

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the network's logits [N, C] for a copy of the inputs, checked.

        Raises:
            ProbeError: The network fails, does not return logits, or has fewer outputs than labels.
            NonFiniteError: A logit is NaN or infinite.
        """
        out = logits_of(self.model, inputs)
        self.forward += len(inputs)
        if len(self.labels) and int(self.labels.max()) >= out.shape[1]:
            raise ProbeError(
                f"the data has a label {int(self.labels.max())} but the network only "
                f"{out.shape[1]} outputs; choose data with that many classes"
            )
        if not bool(torch.isfinite(out).all()):
            raise NonFiniteError("the network's logits hold NaN or infinite values")
        return out

    def cost(self) -> Cost:
        """Return what was spent so far."""
        return Cost(time.perf_counter() - self.started, self.forward, self.backward)


@contextmanager
def evaluation(network: nn.Module, data: ProbeData) -> Iterator[Evaluation]:
    """Lend a network in eval mode, untouched afterwards, with all that a probe needs of it.

    Attention takes its math kernel and recurrent layers their plain one, since the fused ones have
    no second derivative. What the probes rely on is looked at first: see `behaviour`.

    Raises:
        ProbeError: There are no samples, or the network does not return logits.
        RandomNetworkError: Two passes over the same samples give different outputs.
        NonFiniteError: A weight, a buffer or an input is NaN or infinite.
    """
    if not len(data.inputs):
        raise ProbeError(f"the data '{data.name}' has no samples; give at least one")
    started = time.perf_counter()
    with ExitStack() as inside:
        inside.enter_context(untouched(network))
        inside.enter_context(torch.enable_grad())
        inside.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in network.modules()):
            inside.enter_context(_plain_kernels())
        _check_finite(network, data)
        inputs = taken_inputs(network, data)
        behaviour = behaviour_of(network, inputs, data.inputs)
        if behaviour.random is not None:
            raise RandomNetworkError(behaviour.random)
        labels = torch.empty(0, dtype=torch.int64) if data.labels is None else data.labels
        yield Evaluation(
            network=network,
            model=folded(network, inputs if behaviour.coupled else inputs[:2]),
            inputs=inputs,
            labels=_usable(labels.to(inputs.device)),
            batch_size=len(inputs) if behaviour.coupled else max(1, data.batch_size),
            behaviour=behaviour,
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


def taken_inputs(network: nn.Module, data: ProbeData) -> Tensor:
    """Return the pinned inputs on a network's device and in its dtype."""
    like = next((p for p in network.parameters() if p.is_floating_point()), data.inputs)
    return _usable(data.inputs.detach().to(device=like.device, dtype=like.dtype))


def _usable(values: Tensor) -> Tensor:
    """Return values that autograd can save, also where they were made under inference mode."""
    return values.clone() if values.is_inference() else values


def run(
    name: str,
    network: nn.Module,
    data: ProbeData,
    body: Callable[[Evaluation], Measurement],
    *,
    loss: bool = True,
) -> Measurement:
    """Run the body of a probe; add what all probes say: cost, batch norm, label source.

    NaN or infinity on the way, or in what was found, becomes the status `non-finite values` with
    its reason. A network that is random in eval mode is skipped, and one whose loss is constant
    too where the probe is about the `loss`.
    """
    started = time.perf_counter()
    try:
        with evaluation(network, data) as lent:
            constant = lent.behaviour.constant_loss if loss else None
            found = Measurement.skipped(name, constant) if constant else body(lent)
            cost = lent.cost()
        _check_arrays(found)
    except NonFiniteError as error:
        cost = Cost(time.perf_counter() - started)
        return Measurement(name, Status.NONFINITE, str(error), cost=cost)
    except RandomNetworkError as error:
        return replace(
            Measurement.skipped(name, str(error)), cost=Cost(time.perf_counter() - started)
        )
    mode = "eval mode; batch norm uses its running statistics"
    if lent.behaviour.coupled is not None:
        mode = "eval mode; a sample's outputs depend on the others in its batch"
    notes = {"mode": mode, **found.notes, **lent.behaviour.notes(len(lent))}
    if data.labels is not None:
        source = {"true": "true labels", "predicted": "drawn from the base network's softmax"}
        notes["labels"] = source.get(data.label_source, data.label_source)
    return replace(found, cost=cost, notes=notes)


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
    if not bool(torch.isfinite(data.inputs).all()):
        raise NonFiniteError("the inputs hold NaN or infinite values")
    named: list[tuple[str, str, Tensor]] = [("buffer", *row) for row in network.named_buffers()]
    named += [("parameter", *row) for row in network.named_parameters()]
    for kind, name, tensor in named:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"the {kind} '{name}' holds NaN or infinite values")
