"""What every numerical probe shares: the network in eval mode, the pinned samples, the cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.folding import folded
from trainscope.probes.untouched import untouched
from trainscope.records import Cost, Measurement, Status


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity where there must be a number; its message is the reason."""


@dataclass
class Evaluation:
    """A network lent for measuring, with the pinned samples in its own dtype and device.

    Attributes:
        network: The network as given, in eval mode.
        model: The same function, eval batch norm folded into its convolution where that can be.
        inputs: [N, ...], in the network's dtype.
        labels: [N], int64; empty where there are none.
        batch_size: Samples held at once.
        forward: Samples put forward so far.
        backward: Samples put backward so far.
    """

    network: nn.Module
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    batch_size: int
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

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the network's logits [N, C], checked.

        Raises:
            ProbeError: The network does not return logits, or has fewer outputs than labels.
            NonFiniteError: A logit is NaN or infinite.
        """
        out = self.model(inputs)
        self.forward += len(inputs)
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(inputs):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ProbeError(
                f"the network returns {shape} for {len(inputs)} inputs, not logits of shape "
                "[samples, classes]; wrap it so that it does"
            )
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

    Attention takes its math kernel, since the fused ones have no second derivative.

    Raises:
        ProbeError: There are no samples.
        NonFiniteError: A weight, a buffer or an input is NaN or infinite.
    """
    if not len(data.inputs):
        raise ProbeError(f"the data '{data.name}' has no samples; give at least one")
    started = time.perf_counter()
    with untouched(network), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        _check_finite(network, data)
        like = next((p for p in network.parameters() if p.is_floating_point()), data.inputs)
        inputs = _usable(data.inputs.detach().to(device=like.device, dtype=like.dtype))
        labels = torch.empty(0, dtype=torch.int64) if data.labels is None else data.labels
        yield Evaluation(
            network=network,
            model=folded(network, inputs[:2]),
            inputs=inputs,
            labels=_usable(labels.to(like.device)),
            batch_size=max(1, data.batch_size),
            started=started,
        )


def _usable(values: Tensor) -> Tensor:
    """Return values that autograd can save, also where they were made under inference mode."""
    return values.clone() if values.is_inference() else values


def run(
    name: str, network: nn.Module, data: ProbeData, body: Callable[[Evaluation], Measurement]
) -> Measurement:
    """Run the body of a probe; add what all probes say: cost, batch norm, label source.

    NaN or infinity on the way becomes the status `non-finite values` with its reason.
    """
    started = time.perf_counter()
    try:
        with evaluation(network, data) as lent:
            found = body(lent)
            cost = lent.cost()
    except NonFiniteError as error:
        cost = Cost(time.perf_counter() - started)
        return Measurement(name, Status.NONFINITE, str(error), cost=cost)
    notes = {"mode": "eval mode; batch norm uses its running statistics", **found.notes}
    if data.labels is not None:
        source = {"true": "true labels", "predicted": "drawn from the base network's softmax"}
        notes["labels"] = source.get(data.label_source, data.label_source)
    return replace(found, cost=cost, notes=notes)


def _check_finite(network: nn.Module, data: ProbeData) -> None:
    """Refuse a network or data with NaN or infinity, and name the place."""
    if not bool(torch.isfinite(data.inputs).all()):
        raise NonFiniteError("the inputs hold NaN or infinite values")
    named: list[tuple[str, str, Tensor]] = [("buffer", *row) for row in network.named_buffers()]
    named += [("parameter", *row) for row in network.named_parameters()]
    for kind, name, tensor in named:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"the {kind} '{name}' holds NaN or infinite values")
