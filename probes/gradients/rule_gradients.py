"""Samples' gradients by rules: a layer's own, and what the graph of a pass says of other weights.

The rules are checked on the first sample against its plain gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.probes.gradients.first_look import Look, Watching, rules_of
from trainscope.probes.gradients.graph_operations import NoGraphRuleError
from trainscope.probes.gradients.graph_rules import GraphRules, Operation
from trainscope.probes.gradients.layer_rules import Masks
from trainscope.probes.gradients.sample_moments import SampleMoments
from trainscope.probes.gradients.single_samples import Cotangents, Moments, NoRuleError, Samples
from trainscope.probes.rounding import NARROW
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NotDifferentiableError, derivative
from trainscope.probes.subject.room import room
from trainscope.probes.subject.streamed import squared, stream_gradient
from trainscope.task import Batch

BUDGET = 2**28
"""Bytes of activations and per-sample gradients held at once."""
AT_ONCE = 2**31
"""The same where one pass is to do all, as the mean's gradient holds a batch's."""
CACHED = 2**26
"""Bytes of activations that a CPU works on at once, if it has the choice."""
_TRIES = 8  # checks of the rules, each with some weights told apart in another way


class ByRules(Samples):
    """Gradients of samples from one pass over all of them.

    Attributes:
        rules: Of the layers that are asked.
        graph: What is asked for the weights that no layer has a rule for.
    """

    def __init__(self, lent: Lent, measured: Measured, places: Sequence[int] = (0,)) -> None:
        super().__init__(lent, measured, places)
        self._left: set[int] = set()  # ids of the weights that the graph is asked for
        self.rules = rules_of(lent.model, measured)
        self._leave_to_graph(set())

    @property
    def small(self) -> bool:
        """Tell whether the gradients that the graph is asked for may be held, precisely enough."""
        narrow = any(weight.dtype in NARROW for weight in self.graph.weights)
        return bool(self.measured.tensors) and self.formed <= BUDGET and not narrow

    @property
    def formed(self) -> int:
        """Return the bytes that it takes to form one sample's gradients by the graph."""
        return 3 * max((weight.nbytes for weight in self.graph.weights), default=0)

    def agree(self, look: Look) -> bool:
        """Check the rules on the first sample: they miss weights used outside their layer.

        Nothing of it may be taken for the second's. A weight of which a layer's rule is wrong is
        left to the graph, and one of which the graph is, told apart by another axis.
        """
        leaves = self.counted(look.watching.outputs)
        ramps = [_ramp(leaf) for leaf in leaves]
        expected = self.zeros(len(self.measured.names), len(ramps[0]))
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
                apart = _apart(seen, deltas)
                if apart:  # what they return is differentiated on the way, not here
                    raise NoRuleError(apart)
                found = SampleMoments(self.zeros(seen.count), alone=True)
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
            except NoRuleError as error:
                wrong = {id(p) for module in error.modules for p in self.rules[module].owned()}
                if not wrong:
                    return False
            except (NoGraphRuleError, NotDifferentiableError, RuntimeError):
                return False
            if not wrong:
                return True
            if wrong - self._left:
                self._leave_to_graph(wrong)
                if not self.small:
                    return False
        return False

    def squares(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return squares and dots, as `SampleGradients` does."""
        seen, deltas = self._deltas(batch, cotangents)
        return self._squares(seen, deltas, along)

    def apart(self, batch: Batch, cotangents: Cotangents) -> Tensor:
        """Return the squares for each cotangent, [R, parameters, N]."""
        seen, leaves, wanted = self._watched(batch, cotangents)
        found = []
        for r in wanted:  # one after the other: what is behind all of them may be large
            delta = self._behind(seen, leaves, r, last=r is wanted[-1])
            found.append(self._squares(seen, [delta], None)[0])
        return torch.stack(found)

    def means(self, batch: Batch, cotangents: Cotangents, graph: int) -> Moments:
        """Return squares, dots with the mean and the mean.

        Args:
            batch: All samples.
            cotangents: The gradient at the outputs, one for each sample.
            graph: Bytes of one sample's graph.
        """
        count = self.lent.task.size(batch)
        chunk = self._few(count, graph)
        found = SampleMoments(self.zeros(count), -(-count // chunk))
        for start in range(0, count, chunk):
            some = torch.arange(start, min(start + chunk, count))
            part = batch if chunk >= count else self.lent.task.select(batch, some)
            with self._quick_attention():
                seen, (deltas,) = self._deltas(part, cotangents)
            self._collect(found, start, seen, deltas)
            del seen, deltas
        if found.mixed:  # a network that cuts its samples shorter in some chunks
            raise NoRuleError
        with torch.no_grad():
            found.finish()
        means = [found.means[id(t)] for t in self.measured.tensors]
        return self._stacked(found), found.dots, means

    def _collect(
        self, found: SampleMoments, start: int, seen: _Seen, deltas: Sequence[Tensor]
    ) -> None:
        """Add the gradients of a chunk of samples, whose first is at `start`."""
        most = room(self.lent.weight.device, BUDGET) // len(self.lent)
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

    def _few(self, count: int, graph: int) -> int:
        """Return how many of so many samples rules take at once where the mean is taken too.

        Few on a CPU, whose caches then hold most of what layers give to the next; all where their
        gradients together would take too much.
        """
        device = self.lent.weight.device
        held = count * sum(t.nbytes for t in self.measured.tensors)
        if device.type != "cpu" or held > AT_ONCE // 4:
            return count
        chunks = -(-count * graph // CACHED)
        return -(-count // chunks)

    def _squares(
        self, seen: _Seen, deltas: Sequence[Sequence[Tensor]], along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return squares and dots from the gradients behind layers and operations."""
        tensors, count = self.measured.tensors, seen.count
        moved = {} if along is None else {id(t): a for t, a in zip(tensors, along, strict=True)}
        squares: dict[int, Tensor] = {}
        dots = self.zeros(count)
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
                raise NoRuleError from error
            mask = self._masks[key]
            yield key, each if mask is None else each * mask

    def _deltas(self, batch: Batch, cotangents: Cotangents) -> tuple[_Seen, list[Sequence[Tensor]]]:
        """Return what a pass was seen to do, and for each cotangent the gradients behind it.

        These are behind the layers first, then behind the operations of the graph.
        """
        seen, leaves, wanted = self._watched(batch, cotangents)
        return seen, [self._behind(seen, leaves, r, last=r is wanted[-1]) for r in wanted]

    def _watched(
        self, batch: Batch, cotangents: Cotangents
    ) -> tuple[_Seen, list[Tensor], Sequence[Sequence[Tensor]]]:
        """Return what a pass was seen to do, its outputs that count, and their cotangents."""
        watching = Watching(self.lent, self.rules, batch)
        seen, leaves = self._seen(watching), self.counted(watching.outputs)
        return seen, leaves, cotangents(watching.outputs, batch)

    def _behind(
        self, seen: _Seen, leaves: list[Tensor], r: Sequence[Tensor], *, last: bool
    ) -> Sequence[Tensor]:
        """Return the gradients behind one cotangent, and let go of the graph after the last."""
        delta = derivative(leaves, seen.edges, r, retain_graph=not last)
        self.lent.passes.add(backward=seen.count)
        if apart := _apart(seen, delta):
            raise NoRuleError(apart)
        return delta

    def _seen(self, watching: Watching) -> _Seen:
        """Return what a pass was seen to do with the measured weights."""
        count, taken = self.lent.task.size(watching.batch), watching.taken
        odd = [
            module
            for module in self.rules
            if watching.calls[module] != 1 or module not in taken or len(taken[module][0]) != count
        ]
        if odd:
            raise NoRuleError(odd)
        try:
            leaves = self.counted(watching.outputs)
            operations = self.graph.find(leaves, count) if self.graph.weights else {}
        except NoGraphRuleError as error:
            raise NoRuleError from error
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


def _apart(seen: _Seen, deltas: Sequence[Tensor | None]) -> list[nn.Module]:
    """Return the layers whose outputs have no gradient here, or one of another dtype (autocast)."""
    rows = zip(seen.layers, deltas, strict=False)
    return [module for (module, x), d in rows if d is None or d.dtype != x.dtype]


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
