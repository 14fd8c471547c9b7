"""Squared norms of every sample's own gradient, per parameter, and their parts along a direction.

Layers with a rule (linear, 2-d convolution, batch norm) take it, other weights what the graph of a
pass says of them (`graph_rules`), and the outcome is checked on the first sample against its plain
gradient. Any other network is differentiated sample by sample, vectorised where PyTorch can.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.probes.first_look import Look, Watching, first_look, rules_of
from trainscope.probes.folding import folded
from trainscope.probes.footprint import Forward
from trainscope.probes.graph_operations import NoGraphRuleError
from trainscope.probes.graph_rules import GraphRules, Operation
from trainscope.probes.layer_rules import Masks
from trainscope.probes.lent import Lent
from trainscope.probes.output_space import with_samples
from trainscope.probes.parameters import Measured
from trainscope.probes.passes import NotDifferentiableError, derivative
from trainscope.probes.room import room
from trainscope.probes.sample_moments import SampleMoments, moments_of
from trainscope.probes.shards import whole
from trainscope.probes.step_norms import NARROW
from trainscope.probes.streamed import dot, squared, stream_gradient
from trainscope.task import Batch, Outputs
from trainscope.task.batches import tensors
from trainscope.task.task import is_ragged
from trainscope.task.trees import flattened

Cotangents = Callable[[Outputs, Batch], Sequence[Sequence[Tensor]]]
"""From outputs to R gradients at those of their tensors that count, [N, ...] each."""

Loss = Callable[[Outputs, Batch], tuple[Tensor, Tensor]]
"""From outputs and batch to the sum of the terms of the loss and their number."""

_BUDGET = 2**28  # bytes of activations and per-sample gradients held at once
_AT_ONCE = 2**31  # the same where one pass is to do all, as the mean's gradient holds a batch's

_CACHED = 2**26  # bytes of activations that a CPU works on at once, if it has the choice
_TRIES = 8  # checks of the rules, each with some weights told apart in another way

# An operation that vmap does not know, or the network's own code at shapes that it does not expect.
_VMAP_FAILS = (RuntimeError, TypeError, ValueError, LookupError)


class SampleGradients:
    """Per-sample gradients of scalars <r, outputs> of one network.

    Attributes:
        method: "layer rules", "vectorised" or "one by one".
        losses: The samples' sums and numbers of terms of the loss, two tensors a chunk, where
            `with_mean` differentiated them.
    """

    def __init__(
        self,
        lent: Lent,
        measured: Measured,
        graph_bytes: int | None,
        places: Sequence[int] = (0,),
        look: Look | None = None,
    ) -> None:
        """Choose the method.

        Args:
            lent: The network and data.
            measured: The parameters; all used by the loss.
            graph_bytes: Bytes of one sample's graph, None where unknown.
            places: Which of the outputs' tensors count.
            look: A pass over the first samples, if there was one; by default one is made.
        """
        self.lent, self.measured, self.places = lent, measured, tuple(places)
        self.graph_bytes = graph_bytes
        self.losses: list[tuple[Tensor, Tensor]] = []
        self._left: set[int] = set()  # ids of the weights that the graph is asked for
        self.rules = rules_of(lent.model, measured)
        self._leave_to_graph(set())
        self.method = "layer rules" if self._small() else "vectorised"
        if is_ragged(lent.task):
            self.method = "one by one"
        if self.method == "layer rules":
            look = first_look(lent, measured) if look is None else look
            if not self._agrees(look):
                self.method = "vectorised"
        if graph_bytes is None and look is not None:
            self.graph_bytes = look.graph
        if self.method == "vectorised" and self.chunk(1) == 1:
            self.method = "one by one"  # which holds one tensor's gradient at a time

    def chunk(self, count: int) -> int:
        """Return how many samples to take at once for R = `count` cotangents."""
        if self.method == "one by one":
            return self.lent.batch_size
        each = (self.graph_bytes or 2**23) * (4 + (count if self.method == "layer rules" else 1))
        if self.method == "vectorised":
            each += 2 * sum(t.nbytes for t in self.measured.tensors)
        else:
            each += self._formed
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
        try:
            if self.method == "layer rules":
                return self._by_rules(batch, cotangents, along)
            if self.method == "vectorised":
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
            return most // (2 * (self.graph_bytes or 2**23) + self._formed)
        return most // (2 * sum(t.nbytes for t in self.measured.tensors))

    def _means_by_rules(
        self, batch: Batch, cotangents: Cotangents
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        count = self.lent.task.size(batch)
        chunk = self._few(count)
        found = SampleMoments(self._zeros(count), -(-count // chunk))
        for start in range(0, count, chunk):
            some = torch.arange(start, min(start + chunk, count))
            part = batch if chunk >= count else self.lent.task.select(batch, some)
            with self._quick_attention():
                seen, (deltas,) = self._deltas(part, cotangents)
            self._collect(found, start, seen, deltas)
            del seen, deltas
        if found.mixed:  # a network that cuts its samples shorter in some chunks
            raise _NoRuleError
        with torch.no_grad():
            found.finish()
        means = [found.means[id(t)] for t in self.measured.tensors]
        return self._stacked(found), found.dots, means

    def _collect(
        self, found: SampleMoments, start: int, seen: _Seen, deltas: Sequence[Tensor]
    ) -> None:
        """Add the gradients of a chunk of samples, whose first is at `start`."""
        most = room(self.lent.weight.device, _BUDGET) // len(self.lent)
        with torch.no_grad():
            for (module, x), d in zip(seen.layers, deltas, strict=False):
                rule, masks = self.rules[module], self._asked[module]
                formed = rule.formed(x, d, masks, most)
                for key, each in formed.items():
                    mask = masks[key]
                    found.add(key, each if mask is None else each * mask)
                missing = {key: masks[key] for key in masks.keys() - formed.keys()}
                if missing:
                    found.leave(rule, missing, start, x, d)
            for key, each in self._by_graph(seen, deltas):
                found.add(key, each)

    def _stacked(self, found: SampleMoments) -> Tensor:
        """Return the squares that were found, [parameters, N]."""
        rows = (found.squares[id(tensor)] for tensor in self.measured.tensors)
        return torch.stack([torch.cat(row).double() for row in rows])

    def _quick_attention(self) -> AbstractContextManager[None]:
        """Allow the CPU's fused attention, which has a first derivative, the only one that counts.

        That of a GPU adds up in another order each time.
        """
        if self.lent.weight.device.type != "cpu":
            return nullcontext()
        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])

    def _few(self, count: int) -> int:
        """Return how many of so many samples rules take at once where the mean is taken too.

        Few on a CPU, whose caches then hold most of what layers give to the next; all where their
        gradients together would take too much.
        """
        device = self.lent.weight.device
        held = count * sum(t.nbytes for t in self.measured.tensors)
        if device.type != "cpu" or held > _AT_ONCE // 4:
            return count
        chunks = -(-count * (self.graph_bytes or 2**23) // _CACHED)
        return -(-count // chunks)

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
            mean, square, along = moments_of(parts)
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
        return self._squares(seen, deltas, along)

    def _squares(
        self, seen: _Seen, deltas: Sequence[Sequence[Tensor]], along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return squares and dots from the gradients behind layers and operations."""
        tensors, count = self.measured.tensors, seen.count
        moved = {} if along is None else {id(t): a for t, a in zip(tensors, along, strict=True)}
        squares: dict[int, Tensor] = {}
        dots = self._zeros(count)
        with torch.no_grad():
            for position, (module, x) in enumerate(seen.layers):
                d, masks = (
                    torch.stack([delta[position] for delta in deltas]),
                    self._asked[module],
                )
                squares.update(self.rules[module].squares(x, d, masks))
                own = {key: moved[key] for key in masks.keys() & moved.keys()}
                if own:
                    products = d.sum(0) * self.rules[module].response(x, own)
                    dots += products.flatten(1).sum(1)
            for delta in deltas:
                for key, each in self._by_graph(seen, delta):
                    rows = each.reshape(count, -1)
                    squares[key] = squares.get(key, 0) + rows.square().sum(1)
                    if moved:
                        dots += rows @ moved[key].reshape(-1)
        return torch.stack([squares[id(t)].double() for t in tensors]), dots

    def _by_graph(self, seen: _Seen, deltas: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield each weight that is left to the graph, and its samples' gradients, masked."""
        rest = iter(deltas[len(seen.layers) :])
        for key, operations in seen.operations.items():
            own = list(islice(rest, len(operations)))
            try:
                each = self.graph.gradients(key, operations, own, seen.count)
            except NoGraphRuleError as error:
                raise _NoRuleError from error
            mask = self._masks[key]
            yield key, each if mask is None else each * mask

    def _deltas(self, batch: Batch, cotangents: Cotangents) -> tuple[_Seen, list[Sequence[Tensor]]]:
        """Return what a pass was seen to do, and for each cotangent the gradients behind it.

        These are behind the layers first, then behind the operations of the graph.
        """
        watching = Watching(self.lent, self.rules, batch)
        seen, leaves = self._seen(watching), self._counted(watching.outputs)
        wanted = cotangents(watching.outputs, batch)
        deltas: list[Sequence[Tensor]] = [
            derivative(leaves, seen.edges, r, retain_graph=r is not wanted[-1]) for r in wanted
        ]
        self.lent.passes.add(backward=len(wanted) * seen.count)
        return seen, deltas

    def _seen(self, watching: Watching) -> _Seen:
        """Return what a pass was seen to do with the measured weights."""
        count, taken = self.lent.task.size(watching.batch), watching.taken
        odd = [
            module
            for module in self.rules
            if watching.calls[module] != 1 or module not in taken or len(taken[module][0]) != count
        ]
        if odd:
            raise _NoRuleError(odd)
        try:
            leaves = self._counted(watching.outputs)
            operations = self.graph.find(leaves, count) if self.graph.weights else {}
        except NoGraphRuleError as error:
            raise _NoRuleError from error
        layers = [(module, taken[module][0]) for module in self.rules]
        edges = [taken[module][1] for module in self.rules]
        edges += [each.edge for several in operations.values() for each in several]
        return _Seen(count, layers, operations, edges)

    @cached_property
    def _masks(self) -> Masks:
        rows = zip(self.measured.tensors, self.measured.masks, strict=True)
        return {id(tensor): mask for tensor, mask in rows}

    def _leave_to_graph(self, keys: set[int]) -> None:
        """Ask the graph, and no layer, for some weights, and for all that no layer has a rule for.

        A weight that several layers have is one of these.
        """
        shares = Counter(id(p) for rule in self.rules.values() for p in rule.owned())
        self._left = {key for key in self._masks if shares[key] != 1} | keys | self._left
        self._asked: dict[nn.Module, Masks] = {}  # the masks of what each layer's rule is asked for
        for module, rule in self.rules.items():
            own = {id(p) for p in rule.owned()} & self._masks.keys() - self._left
            if own:
                self._asked[module] = {key: self._masks[key] for key in own}
        self.rules = {module: self.rules[module] for module in self._asked}
        self.graph = GraphRules([t for t in self.measured.tensors if id(t) in self._left])

    @property
    def _formed(self) -> int:
        """Return the bytes that it takes to form one sample's gradients by the graph."""
        return 3 * max((weight.nbytes for weight in self.graph.weights), default=0)

    def _small(self) -> bool:
        """Tell whether the gradients that the graph is asked for may be held, precisely enough."""
        narrow = any(weight.dtype in NARROW for weight in self.graph.weights)
        return bool(self.measured.tensors) and self._formed <= _BUDGET and not narrow

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
                grad_and_value(lambda w, m: loss(*outputs(w, m)), has_aux=True), in_dims=(None, 0)
            )
            try:
                found, (sums, counts) = _vmapped(of_loss, named, mine)
            except _VMAP_FAILS:  # the loss looks at values
                pass
            else:
                self.losses.append((sums.detach().double(), counts.detach()))
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

    def _agrees(self, look: Look) -> bool:
        """Check the rules on the first sample: they miss weights used outside their layer.

        Nothing of it may be taken for the second's. A weight of which a layer's rule is wrong is
        left to the graph, and one of which the graph is, told apart by another axis.
        """
        leaves = self._counted(look.watching.outputs)
        ramps = [_ramp(leaf) for leaf in leaves]
        expected = self._zeros(len(self.measured.names), len(ramps[0]))
        plain = False

        def take(place: int, slope: Tensor) -> None:
            mask = self.measured.masks[place]
            expected[place, 0] += squared(slope if mask is None else slope * mask)

        for _ in range(_TRIES):
            try:
                seen = self._seen(look.watching)
                if plain:
                    deltas = derivative(leaves, seen.edges, ramps, retain_graph=True)
                else:  # both from one backward pass
                    given = leaves, self.measured.tensors, take, ramps
                    deltas = stream_gradient(*given, retain_graph=True, also=seen.edges)
                    plain = True
                self.lent.passes.add(backward=seen.count)
                apart = [m for (m, _), d in zip(seen.layers, deltas, strict=False) if d is None]
                if apart:  # what they return is differentiated on the way, not here
                    raise _NoRuleError(apart)
                found = SampleMoments(self._zeros(seen.count), alone=True)
                self._collect(found, 0, seen, deltas)
                got = self._stacked(found)
                close = (got - expected).abs() <= 1e-2 * expected + 1e-6 * expected.max()
                wrong = {
                    id(tensor)
                    for tensor, fits in zip(self.measured.tensors, close.all(1), strict=True)
                    if not bool(fits)
                }
                for key in wrong & self._left:
                    self.graph.turn(key)
            except _NoRuleError as error:
                wrong = {id(p) for module in error.modules for p in self.rules[module].owned()}
                if not wrong:
                    return False
            except (NoGraphRuleError, NotDifferentiableError, RuntimeError):
                return False
            if not wrong:
                return True
            if wrong - self._left:
                self._leave_to_graph(wrong)
                if not self._small():
                    return False
        return False


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


def _ramp(leaf: Tensor) -> Tensor:
    """Return for the first sample numbers from 1 to 2, shaped like an output; zeros for others."""
    found = torch.zeros_like(leaf)
    found[0] = torch.linspace(1, 2, found[0].numel(), device=leaf.device).view(leaf.shape[1:])
    return found


@dataclass(frozen=True)
class _Seen:
    """What a forward pass was seen to do with the measured weights.

    Attributes:
        count: The number of samples.
        layers: Those with a rule, with their inputs.
        operations: By the id of each weight that is left to the graph, those that take it.
        edges: Where the gradients at the outputs of both are found, in this order.
    """

    count: int
    layers: list[tuple[nn.Module, Tensor]]
    operations: dict[int, list[Operation]]
    edges: list[GradientEdge]


class _NoRuleError(Exception):
    """The network uses a layer in a way that its rule does not know.

    Attributes:
        modules: The layers, where it is known which.
    """

    def __init__(self, modules: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.modules = tuple(modules)
