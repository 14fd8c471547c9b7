"""Squared norms of every sample's own gradient, per parameter, and their parts along a direction.

Layers with a rule (linear, 2-d convolution, batch norm) take it, and the outcome is checked on the
first sample against its plain gradient. Any other network is differentiated sample by sample,
vectorised where PyTorch can.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, grad_and_value, vmap

from trainscope.probes.folding import ConvNorm, folded, laid
from trainscope.probes.footprint import Forward
from trainscope.probes.layer_rules import LayerRule, rule_for
from trainscope.probes.lent import Lent
from trainscope.probes.output_space import with_samples
from trainscope.probes.parameters import Measured
from trainscope.probes.passes import NotDifferentiableError, derivative, watched
from trainscope.probes.room import room
from trainscope.probes.shards import whole
from trainscope.probes.step_norms import NARROW
from trainscope.probes.streamed import dot, squared, stream_gradient
from trainscope.task import Batch, Outputs
from trainscope.task.batches import tensors
from trainscope.task.task import is_ragged
from trainscope.task.trees import flattened

Cotangents = Callable[[Outputs, Batch], Sequence[Sequence[Tensor]]]
"""From outputs to R gradients at those of their tensors that count, [N, ...] each."""

Loss = Callable[[Outputs, Batch], Tensor]
"""From outputs and batch to the terms of the loss."""

_BUDGET = 2**28  # bytes of activations and per-sample gradients held at once
_AT_ONCE = 2**31  # the same where one pass is to do all, as the mean's gradient holds a batch's

# An operation that vmap does not know, or the network's own code at shapes that it does not expect.
_VMAP_FAILS = (RuntimeError, TypeError, ValueError, LookupError)


class SampleGradients:
    """Per-sample gradients of scalars <r, outputs> of one network.

    Attributes:
        method: "layer rules", "vectorised" or "one by one".
        losses: The samples' losses, a tensor a chunk, where `with_mean` differentiated them.
    """

    def __init__(
        self,
        lent: Lent,
        measured: Measured,
        graph_bytes: int | None,
        places: Sequence[int] = (0,),
    ) -> None:
        """Choose the method.

        Args:
            lent: The network and data.
            measured: The parameters; all used by the loss.
            graph_bytes: Bytes of one sample's graph, None where unknown.
            places: Which of the outputs' tensors count.
        """
        self.lent, self.measured, self.places = lent, measured, tuple(places)
        self.graph_bytes = graph_bytes
        self.losses: list[Tensor] = []
        self.rules = _rules(lent.model, measured)
        self.method = "layer rules" if self.rules else "vectorised"
        if is_ragged(lent.task):
            self.rules, self.method = {}, "one by one"
        if self.rules and not self._agrees():
            self.method = "vectorised"
        if self.method == "vectorised" and self.chunk(1) == 1:
            self.method = "one by one"  # which holds one tensor's gradient at a time

    def chunk(self, count: int) -> int:
        """Return how many samples to take at once for R = `count` cotangents."""
        if self.method == "one by one":
            return self.lent.batch_size
        each = (self.graph_bytes or 2**23) * (4 + (count if self.method == "layer rules" else 1))
        if self.method == "vectorised":
            each += 2 * sum(t.numel() * t.element_size() for t in self.measured.tensors)
        return max(1, room(self.lent.weight.device, _BUDGET) // each)

    def __call__(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return squares and dots of the samples' gradients, masked weights left out.

        Args:
            batch: N samples; at most `chunk` of them keep the memory bounded.
            cotangents: The gradients at the outputs, R for each sample.
            along: A masked direction shaped like the parameters.

        Returns:
            |g|^2 summed over cotangents, [parameters, N]; and <g, along> summed over cotangents,
            [N] (zeros without a direction).
        """
        if self.method == "layer rules":
            return self._by_rules(batch, cotangents, along)
        if self.method == "vectorised":
            try:
                return self._vectorised(batch, cotangents, along)
            except _NoRuleError:
                self.method = "one by one"
        return self._one_by_one(batch, cotangents, along)

    def with_mean(
        self, batch: Batch, cotangents: Cotangents, loss: Loss | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]] | None:
        """Return squares, dots with the mean, and the mean of the samples' gradients, in one pass.

        Args:
            batch: All samples.
            cotangents: The gradient at the outputs, one for each sample.
            loss: What it is the gradient of, where that is a loss of each sample: it is
                differentiated in the place of `cotangents` where that saves a forward pass, and
                `losses` are then its values.

        Returns:
            |g|^2, [parameters, N]; <g, mean>, [N]; and the mean, masked and shaped like the
            parameters. None where the method, or the memory, does not allow it: take
            the mean's gradient first then, and its dots after it.
        """
        count = self.lent.task.size(batch)
        if count > min(self.lent.batch_size, self._most_at_once()):
            return None
        try:
            if self.method == "layer rules":
                return self._means_by_rules(batch, cotangents)
            if self.method == "vectorised":
                return self._means_vectorised(batch, cotangents, loss)
        except _NoRuleError:
            self.method = "one by one"
        return None

    def _most_at_once(self) -> int:
        """Return how many samples `with_mean` can take within its memory."""
        most = room(self.lent.weight.device, _AT_ONCE)
        if self.method == "layer rules":
            return most // (2 * (self.graph_bytes or 2**23))
        return most // (2 * sum(t.numel() * t.element_size() for t in self.measured.tensors))

    def _means_by_rules(
        self, batch: Batch, cotangents: Cotangents
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        seen, (deltas,) = self._deltas(batch, cotangents)
        count, (tensors, masks) = len(deltas[0]), (self.measured.tensors, self.measured.masks)
        by_id = {id(t): mask for t, mask in zip(tensors, masks, strict=True)}
        squares: dict[int, Tensor] = {}
        means: dict[int, Tensor] = {}
        dots = self._zeros(count)
        with torch.no_grad():
            for (module, x), d in zip(seen, deltas, strict=True):
                if len(d) != len(x) or len(x) != count or d.dtype != x.dtype:
                    raise _NoRuleError
                rule = self.rules[module]
                for key, each in rule.formed(x, d, by_id).items():
                    mask = by_id[key]
                    each = each if mask is None else each * mask
                    means[key], squares[key], along = _moments([each])
                    dots += along
                left = {id(p) for p in rule.owned()} & by_id.keys() - means.keys()
                if left:
                    missing = {key: by_id[key] for key in left}
                    squares.update(rule.squares(x, d.unsqueeze(0), missing))
                    sums = rule.summed(x, d, missing)
                    moved = {key: sums[key] / count for key in left}
                    means.update(moved)
                    dots += (d * rule.response(x, moved)).flatten(1).sum(1)
        found = torch.stack([squares[id(t)].double() for t in tensors])
        return found, dots, [means[id(t)] for t in tensors]

    def _means_vectorised(
        self, batch: Batch, cotangents: Cotangents, loss: Loss | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        held: list[list[Tensor]] = []
        size, chunk = self.lent.task.size(batch), 2 * self.chunk(1)
        for start in range(0, size, chunk):
            some = torch.arange(start, min(start + chunk, size))
            part = batch if chunk >= size else self.lent.task.select(batch, some)
            held += self._per_sample(part, cotangents, loss)
        dots, squares, means = self._zeros(size), [], []
        for k, parts in enumerate(zip(*held, strict=True)):
            mean, square, along = _moments(parts)
            dots += along
            squares.append(square.double())
            means.append(mean)
            for row in held:  # no longer needed: its memory is the largest part
                row[k] = mean
        return torch.stack(squares), dots, means

    def _by_rules(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        seen, deltas = self._deltas(batch, cotangents)
        count = self.lent.task.size(batch)
        tensors, masks = self.measured.tensors, self.measured.masks
        by_id = {id(t): mask for t, mask in zip(tensors, masks, strict=True)}
        moved = {} if along is None else {id(t): a for t, a in zip(tensors, along, strict=True)}
        squares: dict[int, Tensor] = {}
        dots = self._zeros(count)
        with torch.no_grad():
            for position, (module, x) in enumerate(seen):
                d = torch.stack([delta[position] for delta in deltas])
                if d.shape[1] != len(x) or len(x) != count or d.dtype != x.dtype:
                    raise _NoRuleError
                squares.update(self.rules[module].squares(x, d, by_id))
                if moved:
                    products = d.sum(0) * self.rules[module].response(x, moved)
                    dots += products.flatten(1).sum(1)
        return torch.stack([squares[id(t)].double() for t in tensors]), dots

    def _deltas(
        self, batch: Batch, cotangents: Cotangents
    ) -> tuple[list[tuple[nn.Module, Tensor]], list[Sequence[Tensor]]]:
        """Return the layers with their inputs, and for each cotangent the gradients behind them."""
        seen: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
        calls: list[nn.Module] = []

        def remember(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            calls.append(module)
            seen[module] = (args[0].detach(), get_gradient_edge(out))

        # Samples are taken as groups of channels, which lie apart in memory with channels last.
        with watched(self.rules, remember), laid(self.rules, torch.contiguous_format):
            outputs = self.lent.outputs(batch)
        if len(seen) != len(self.rules) or len(calls) != len(seen):
            raise _NoRuleError
        wanted = cotangents(outputs, batch)
        count, leaves = self.lent.task.size(batch), self._counted(outputs)
        edges = [edge for _, edge in seen.values()]
        deltas: list[Sequence[Tensor]] = [
            derivative(leaves, edges, r, retain_graph=r is not wanted[-1]) for r in wanted
        ]
        self.lent.passes.add(backward=len(wanted) * count)
        return [(module, x) for module, (x, _) in seen.items()], deltas

    def _vectorised(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        count = self.lent.task.size(batch)
        squares, dots = self._zeros(len(self.measured.names), count), self._zeros(count)
        for gradients in self._per_sample(batch, cotangents):
            squares += torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients])
            for g, a in zip(gradients, along or (), strict=along is not None):
                dots += (g * a).reshape(len(g), -1).sum(1)
        return squares, dots

    def _per_sample(
        self, batch: Batch, cotangents: Cotangents, loss: Loss | None = None
    ) -> Iterator[list[Tensor]]:
        """Yield for each cotangent, or of the loss, the samples' gradients, masked, [N, ...]."""
        named = {
            f"network.{name}": tensor.detach()
            for name, tensor in zip(self.measured.names, self.measured.tensors, strict=True)
        }
        forward = Forward(self.lent.task, self.lent.network)
        count = self.lent.task.size(batch)
        leaves, structure = flattened(batch)
        rows = [isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in leaves]

        def outputs(weights: dict[str, Tensor], mine: list[Tensor]) -> tuple[Outputs, Batch]:
            own = iter(mine)
            sample = structure.holding(
                [
                    next(own).unsqueeze(0) if row else leaf
                    for leaf, row in zip(leaves, rows, strict=True)
                ]
            )
            return functional_call(forward, weights, (sample,)), sample

        def score(weights: dict[str, Tensor], mine: list[Tensor], r: list[Tensor]) -> Tensor:
            dots = [
                (leaf.reshape(part.shape) * part).sum()
                for leaf, part in zip(self._counted(outputs(weights, mine)[0]), r, strict=True)
            ]
            return torch.stack(dots).sum()

        mine = [leaf for leaf, row in zip(leaves, rows, strict=True) if row]
        if loss is not None:
            of_loss = vmap(
                grad_and_value(lambda w, m: loss(*outputs(w, m)).sum()), in_dims=(None, 0)
            )
            try:
                found, values = _vmapped(of_loss, named, mine)
            except _VMAP_FAILS:  # the loss looks at values
                pass
            else:
                self.losses.append(values.detach())
                self.lent.passes.add(forward=count, backward=count)
                yield self.measured.keep(list(found.values()))
                return
        per_sample = vmap(grad(score), in_dims=(None, 0, 0))
        wanted = cotangents(self.lent.outputs(batch), batch)
        for r in wanted:
            try:
                found = _vmapped(per_sample, named, mine, [part.detach() for part in r])
            except _VMAP_FAILS as error:
                raise _NoRuleError from error
            self.lent.passes.add(forward=count)
            self.lent.passes.add(backward=count)
            yield self.measured.keep(list(found.values()))

    def _one_by_one(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = cotangents(self.lent.outputs(batch), batch)
        columns, dots = [], []
        for i in range(self.lent.task.size(batch)):
            leaves = self._counted(
                self.lent.outputs(self.lent.task.select(batch, torch.tensor([i])))
            )
            squares, total = self._zeros(len(self.measured.names)), self._zeros()

            def take(
                place: int, slope: Tensor, squares: Tensor = squares, total: Tensor = total
            ) -> None:
                mask = self.measured.masks[place]
                squares[place] += squared(slope if mask is None else slope * mask)
                if along is not None:
                    total += dot(slope, along[place])

            for position, r in enumerate(wanted):
                mine = [part[i : i + 1].view_as(leaf) for leaf, part in zip(leaves, r, strict=True)]
                last = position == len(wanted) - 1
                stream_gradient(leaves, self.measured.tensors, take, mine, retain_graph=not last)
                self.lent.passes.add(backward=1)
            columns.append(squares)
            dots.append(total)
        return torch.stack(columns, 1), torch.stack(dots)

    def _counted(self, outputs: Outputs) -> list[Tensor]:
        """Return the tensors of the outputs that count, with an axis of samples."""
        found = tensors(outputs)
        return [with_samples(found[place]) for place in self.places]

    def _zeros(self, *shape: int) -> Tensor:
        return self.lent.weight.new_zeros(shape, dtype=torch.float64)

    def _agrees(self) -> bool:
        """Check the rules on the first sample: they miss weights used outside their layer."""

        def one(outputs: Outputs, _: Batch) -> list[list[Tensor]]:
            return [[_ramp(leaf) for leaf in self._counted(outputs)]]

        two, first = self.lent.some(0, 2), self.lent.some(0, 1)
        try:
            got, _ = self._by_rules(two, one, None)
        except (_NoRuleError, NotDifferentiableError, RuntimeError):
            return False
        expected, _ = self._one_by_one(first, one, None)
        close = (got[:, :1] - expected).abs() <= 1e-2 * expected + 1e-6 * expected.max()
        return bool(close.all())


def wholly(lent: Lent, measured: Measured) -> tuple[Lent, Measured]:
    """Return a network and its parameters whole in this process, as samples' gradients need them.

    Nothing is changed where they are not spread over processes.
    """
    if not lent.spread:
        return lent, measured
    network = whole(lent.network)
    named = dict(network.named_parameters())
    masks = [
        None if mask is None else part.whole(mask.to(torch.uint8)).bool()
        for part, mask in zip(measured.parts, measured.masks, strict=True)
    ]
    held = replace(
        measured,
        tensors=tuple(named[name] for name in measured.names),
        masks=tuple(masks),
        parts=(),
        survived=(),
    )
    few = lent.task.select(lent.batch, torch.arange(min(2, len(lent))))
    model = folded(network, lent.task, few)
    return replace(lent, network=network, model=model, spread=False), held


def _vmapped(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function makes, without vmap's warning of an operation taken in a loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule")
        return function(*arguments)


def _moments(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of samples' gradients, their squares and their dots with it, [N] each.

    Args:
        parts: The gradients, [n, ...] each.
    """
    rows = [part.reshape(len(part), -1) for part in parts]
    if rows[0].dtype in NARROW:  # a sum of squares would be rounded to three digits
        rows = [row.float() for row in rows]
    mean = torch.stack([row.sum(0) for row in rows]).sum(0) / sum(map(len, rows))
    squares = torch.cat([torch.linalg.vecdot(row, row) for row in rows])
    return mean.view(parts[0].shape[1:]), squares, torch.cat([row @ mean for row in rows])


def _ramp(leaf: Tensor) -> Tensor:
    """Return for every sample the same numbers from 1 to 2, shaped like an output."""
    size = leaf[0].numel()
    values = torch.linspace(1, 2, size, device=leaf.device).to(leaf)
    return values.reshape(leaf.shape[1:]).expand(leaf.shape)


class _NoRuleError(Exception):
    """The network uses a layer in a way that its rule does not know."""


def _rules(model: nn.Module, measured: Measured) -> dict[nn.Module, LayerRule]:
    """Return a rule for each layer with measured parameters; none unless they cover them all."""
    wanted = {id(tensor) for tensor in measured.tensors}
    found: dict[nn.Module, LayerRule] = {}
    covered: list[int] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module in inside:
            continue
        if isinstance(module, ConvNorm):
            inside.update(module.modules())
        rule = rule_for(module)
        owned = [] if rule is None else [id(p) for p in rule.owned() if id(p) in wanted]
        if rule is not None and owned:
            found[module] = rule
            covered += owned
    return found if sorted(covered) == sorted(wanted) else {}
