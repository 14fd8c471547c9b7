"""The input-output Jacobians of samples, row by row, through as few rows as there can be.

Where the signal is what a linear layer W makes of d features, the Jacobian is W times that of the
features, exactly: d backward passes stand for any number of outputs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainscope.errors import ProbeError
from trainscope.probes.jacobians.input_points import embedded, floating, token_ids
from trainscope.probes.processes.shards import plain_type
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import leaves_of
from trainscope.probes.subject.passes import derivative
from trainscope.task import Batch
from trainscope.task.batches import mapped
from trainscope.task.calls import ModuleCall, hooked

MOST_TOGETHER, FEWEST_TOGETHER = 16, 4
"""Rows made in one backward pass, where that is done at all."""
MOST_ROWS = 256
"""Backward passes through a whole batch whose samples depend on each other."""


class NoJacobianError(ProbeError):
    """There is nothing to differentiate, or nothing to differentiate by; its message says which."""


@dataclass(frozen=True)
class Rows:
    """Jacobians as `head @ rows`, of n samples.

    Attributes:
        rows: [n, R, D], in the network's dtype.
        head: [C, R]; None where the rows are the Jacobians.
    """

    rows: Tensor
    head: Tensor | None


@dataclass(frozen=True)
class _Graph:
    """One forward pass: what is differentiated, by what, and how the signal comes from it."""

    outputs: Tensor  # [n, R]
    points: list[Tensor]  # [n, ...] each
    head: Tensor | None


class Jacobians:
    """The Jacobians of one network's samples.

    Args:
        lent: The network and data.
        memory: Bytes of rows held at once; one sample's are the least.
        most_outputs: Outputs up to which all are differentiated; None for all.
        sketch: Random combinations of outputs beyond that.
        graph_bytes: Bytes of one sample's graph, None where unknown.

    Attributes:
        notes: What a reader must know of them, once they were made.
        width: The number of outputs, C, likewise.
        inputs: The number of inputs, D, likewise.
    """

    def __init__(
        self,
        lent: Lent,
        *,
        memory: int,
        most_outputs: int | None,
        sketch: int,
        graph_bytes: int | None = None,
    ) -> None:
        self.lent, self.memory, self.graph_bytes = lent, memory, graph_bytes
        self._alone = False
        self.most_outputs, self.combinations = most_outputs, sketch
        self.notes: dict[str, str] = {}
        self.width = self.inputs = 0
        self._sketch: Tensor | None = None

    @property
    def sketched(self) -> bool:
        """Tell whether random combinations stand for the outputs."""
        return self.most_outputs is not None and self.width > self.most_outputs

    def alone(self, count: int) -> Iterator[Rows]:
        """Yield those of this process's share of the first samples, a chunk at a time.

        In eval mode samples do not mix, so one backward pass of the sum of one output over a chunk
        gives that output's row for every sample in it.
        """
        for batch in self.lent.batches(min(count, self._chunk()), count):
            graph = self._forward(batch)
            rows = self._empty(graph, len(graph.outputs))
            self._fill(rows, graph)
            yield Rows(rows, graph.head)

    def coupled(self, count: int) -> Iterator[Rows]:
        """Yield those of samples' own outputs by their own inputs, in the batch, one at a time.

        Of each process those of its share.

        Each row takes a backward pass of its own through the batch, so there are at most
        `MOST_ROWS` / R samples.
        """
        graph = self._forward(self.lent.batch)
        samples, width = graph.outputs.shape
        self.inputs = sum(point[0].numel() for point in graph.points)
        for i in self.lent.ranks.share(min(samples, count, max(1, MOST_ROWS // width))):
            rows = self._empty(graph, 1)
            for r in range(width):
                rows[0, r] = self._row(graph.outputs[i, r], graph.points)[i]
                self.lent.passes.add(backward=samples)
            yield Rows(rows, graph.head)

    def _chunk(self) -> int:
        """Return how many samples' rows are held at once."""
        graph = self._forward(self.lent.some(0, 1))
        self.inputs = sum(point[0].numel() for point in graph.points)
        each = graph.outputs.shape[1] * sum(p.numel() * p.element_size() for p in graph.points)
        return max(1, min(self.memory // max(each, 1), self.lent.batch_size))

    def _empty(self, graph: _Graph, count: int) -> Tensor:
        return graph.points[0].new_empty(count, graph.outputs.shape[1], self.inputs)

    def _forward(self, batch: Batch) -> _Graph:
        """Put samples forward."""
        task, count = self.lent.task, self.lent.task.size(batch)
        batch = mapped(lambda leaf: leaf.clone(), batch)
        points = [leaf.requires_grad_() for leaf in floating(batch)]
        network = self.lent.network
        with embedded(network, token_ids(batch)) as made, _linear(self.lent.model) as layers:
            signal = task.signal(self.lent.outputs(batch))
        if signal is None or signal.ndim != 2 or len(signal) != count:
            why = f"{type(task).__name__} makes no signal of shape [samples, outputs]"
            raise NoJacobianError(getattr(task, "no_signal", None) or why)
        points += [each for each in made if len(each) == count]
        if not points:
            raise NoJacobianError(
                "no input is a floating-point number, and no embedding layer takes the token ids"
            )
        self.width = signal.shape[1]
        outputs, head = self._fewest(signal, layers)
        reached = leaves_of(outputs) | {id(outputs)}
        if not outputs.requires_grad or reached.isdisjoint(map(id, points)):
            self._check_constant(outputs, batch)
        elif len(points) > 1:
            used = torch.autograd.grad(outputs.sum(), points, retain_graph=True, allow_unused=True)
            kept = [point for point, slope in zip(points, used, strict=True) if slope is not None]
            points = kept or points
        if made and any(point is each for point in points for each in made):
            self.notes["inputs"] = "the embeddings of the token ids"
        return _Graph(outputs, points, head)

    @torch.no_grad()
    def _check_constant(self, outputs: Tensor, batch: Batch) -> None:
        """Refuse outputs that no derivative leads to from the inputs, although they move with them.

        Raises:
            NoJacobianError: They do.
        """
        other = mapped(lambda x: x.neg() + 1 if x.is_floating_point() else x.clone(), batch)
        with _linear(self.lent.model) as layers:
            signal = self.lent.task.signal(self.lent.outputs(other))
        if signal is not None and not torch.equal(self._fewest(signal, layers)[0], outputs):
            raise NoJacobianError(
                "the outputs change with the inputs, and have no derivative by them: a part of the "
                "network runs under torch.no_grad() or detaches what it hands on"
            )

    def _fill(self, rows: Tensor, graph: _Graph) -> None:
        """Make the rows of all samples, several in one backward pass where that is faster."""
        samples, width = graph.outputs.shape
        together = min(self.together(samples), width)
        for start in range(0, width, together):
            stop = min(start + together, width)
            found = self._several(graph, start, stop) if stop - start > 1 else None
            for r in range(start, stop):
                if found is None:
                    row = self._row(graph.outputs[:, r].sum(), graph.points)
                else:
                    row = torch.cat([s[r - start].reshape(samples, -1) for s in found], 1)
                rows[:, r] = row
                self.lent.passes.add(backward=samples)

    def together(self, samples: int) -> int:
        """Return how many rows to make at once, from what a network reads and writes for one.

        A backward pass of few samples is mostly reading weights, which serves many rows alike; one
        of many is not. Measured: of a ResNet-18 with 8 samples of 64 x 64 ten rows at once save a
        sixth, of a ResNet-20 with 64 of 32 x 32 they cost a tenth.
        """
        if self._alone or not self.graph_bytes:
            return 1
        weights = sum(p.numel() * p.element_size() for p in self.lent.network.parameters())
        rows = 4 * weights // (samples * self.graph_bytes)
        return min(MOST_TOGETHER, rows) if rows >= FEWEST_TOGETHER else 1

    def _several(self, graph: _Graph, start: int, stop: int) -> list[Tensor] | None:
        """Return the derivatives of some outputs of all samples, [rows, n, ...] each input's.

        None where an operation's backward pass is not one that PyTorch vectorises.
        """
        if self._alone or not graph.outputs.requires_grad:
            return None
        samples, width = graph.outputs.shape
        picked = torch.zeros(stop - start, samples, width).to(graph.outputs)
        picked[torch.arange(stop - start), :, torch.arange(start, stop)] = 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of an operation that it would take in a loop
                found = torch.autograd.grad(
                    graph.outputs,
                    graph.points,
                    picked,
                    retain_graph=True,
                    is_grads_batched=True,
                    allow_unused=True,
                )
        except (RuntimeError, UserWarning):
            self._alone = True
            return None
        pairs = zip(found, graph.points, strict=True)
        return [
            point.new_zeros(len(picked), *point.shape) if s is None else s for s, point in pairs
        ]

    def _row(self, output: Tensor, points: list[Tensor]) -> Tensor:
        """Return the derivative of one output of each sample, or of one sample's, [n, D]."""
        if not output.requires_grad:
            return torch.cat(
                [torch.zeros_like(point).reshape(len(point), -1) for point in points], 1
            )
        found = derivative(output, points, retain_graph=True, materialize_grads=True)
        return torch.cat([slope.reshape(len(slope), -1) for slope in found], 1)

    def _fewest(self, signal: Tensor, layers: list[_Call]) -> tuple[Tensor, Tensor | None]:
        """Return what to differentiate, [n, R], and the matrix that makes the signal of it."""
        rows = self.combinations if self.sketched else self.width
        last = _last_layer(signal, layers)
        if last is not None and last.features.shape[1] < rows:
            weight = last.weight.detach()
            self.notes["features"] = (
                f"through the {weight.shape[1]} features of the last linear layer, exactly"
            )
            head = self._basis(weight).T @ weight if self.sketched else weight
            return last.features, head
        return (signal @ self._basis(signal) if self.sketched else signal), None

    def _basis(self, like: Tensor) -> Tensor:
        """Return the columns that combine the outputs, [C, k]: drawn once, the same everywhere."""
        rows = self.combinations
        if self._sketch is None:
            drawn = torch.randn(self.width, rows, generator=torch.Generator().manual_seed(0))
            basis = torch.linalg.qr(drawn.double()).Q * math.sqrt(self.width / rows)
            self._sketch = basis.to(like)
            self.notes["sketch"] = (
                f"of {rows} random combinations of the {self.width} outputs, the same for every "
                "network: the rms JSV is that of all outputs in expectation, and other values are "
                "those of the combinations, which compare networks; --exact (exact=True) takes "
                "every output"
            )
        return self._sketch


@dataclass(frozen=True)
class _Call:
    """One call of a linear layer."""

    weight: Tensor
    features: Tensor
    out: Tensor
    version: int


@contextmanager
def _linear(model: nn.Module) -> Iterator[list[_Call]]:
    """Collect the calls of plain linear layers."""
    found: list[_Call] = []

    def remember(call: ModuleCall[int]) -> None:
        weight = call.module.weight  # as it is at this moment: a pass may lend it another
        if len(call.args) == 1 and isinstance(weight, Tensor) and isinstance(call.out, Tensor):
            found.append(_Call(weight, call.args[0], call.out, call.out._version))

    layers = [m for m in model.modules() if plain_type(m) is nn.Linear]
    with hooked(enumerate(layers), after=remember):
        yield found


def _last_layer(signal: Tensor, calls: list[_Call]) -> _Call | None:
    """Return the call whose output is the signal, features [n, d]; None where there is none.

    It is the very tensor, or its last position (of a language model), untouched since.
    """
    for call in reversed(calls):
        if call.out._version != call.version or signal._version != call.version:
            continue
        if signal is call.out and signal.ndim == 2:
            return call
        last = call.out[:, -1] if call.out.ndim == 3 else None
        if last is not None and _same_memory(signal, last) and call.features.ndim == 3:
            return _Call(call.weight, call.features[:, -1], signal, call.version)
    return None


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return (
        a.shape == b.shape
        and a.data_ptr() == b.data_ptr()
        and a.stride() == b.stride()
        and a._is_view()
    )
