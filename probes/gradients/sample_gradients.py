"""Squared norms of every sample's own gradient, per parameter, and their parts along a direction.

Layers with a rule (linear, 2-d convolution, batch norm) take it, other weights what the graph of a
pass says of them (`rule_gradients`). Any other network is differentiated sample by sample,
vectorised where PyTorch can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainscope.probes.gradients.first_look import Look, first_look
from trainscope.probes.gradients.rule_gradients import AT_ONCE, BUDGET, ByRules
from trainscope.probes.gradients.single_samples import (
    Cotangents,
    Loss,
    Moments,
    NoRuleError,
    Samples,
)
from trainscope.probes.gradients.vectorised_gradients import Vectorised
from trainscope.probes.processes.shards import whole
from trainscope.probes.subject.folding import folded
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.room import room
from trainscope.probes.subject.streamed import dot, squared, stream_gradient
from trainscope.task import Batch
from trainscope.task.task import is_ragged


class SampleGradients(Samples):
    """Per-sample gradients of scalars <r, outputs> of one network.

    Attributes:
        method: "layer rules", "vectorised" or "one by one".
        by_rules, vectorised: The first two ways.
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
        super().__init__(lent, measured, places)
        self.graph_bytes = graph_bytes
        self.by_rules = ByRules(lent, measured, places)
        self.vectorised = Vectorised(lent, measured, places)
        self.method = "layer rules" if self.by_rules.small else "vectorised"
        if is_ragged(lent.task):
            self.method = "one by one"
        if self.method == "layer rules":
            look = first_look(lent, measured) if look is None else look
            if not self.by_rules.agree(look):
                self.method = "vectorised"
        if graph_bytes is None and look is not None:
            self.graph_bytes = look.graph
        if self.method == "vectorised" and self.chunk(1) == 1:
            self.method = "one by one"  # which holds one tensor's gradient at a time

    @property
    def losses(self) -> list[tuple[Tensor, Tensor]]:
        """The samples' sums and numbers of terms of the loss, two tensors a chunk.

        Empty but where `with_mean` differentiated the loss itself.
        """
        return self.vectorised.losses

    def chunk(self, count: int) -> int:
        """Return how many samples to take at once for R = `count` cotangents."""
        if self.method == "one by one":
            return self.lent.batch_size
        each = (self.graph_bytes or 2**23) * (4 + (count if self.method == "layer rules" else 1))
        if self.method == "vectorised":
            each += 2 * sum(t.nbytes for t in self.measured.tensors)
        else:
            each += self.by_rules.formed
        return max(1, room(self.lent.weight.device, BUDGET) // each)

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
                return self.by_rules.squares(batch, cotangents, along)
            if self.method == "vectorised":
                return self.vectorised.squares(batch, cotangents, along)
        except NoRuleError:
            self.method = "one by one"
        return self._one_by_one(batch, cotangents, along)

    def apart(self, batch: Batch, cotangents: Cotangents, count: int) -> Tensor:
        """Return |g|^2 for each of R = `count` cotangents, [R, parameters, N], as a call would.

        Layer rules take one forward pass for all of them.
        """
        if self.method == "layer rules":
            try:
                return self.by_rules.apart(batch, cotangents)
            except NoRuleError:
                self.method = "one by one"

        def alone(place: int) -> Tensor:
            return self(batch, lambda outputs, of: [cotangents(outputs, of)[place]])[0]

        return torch.stack([alone(place) for place in range(count)])

    def with_mean(
        self, batch: Batch, cotangents: Cotangents, loss: Loss | None = None
    ) -> Moments | None:
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
                return self.by_rules.means(batch, cotangents, self.graph_bytes or 2**23)
            if self.method == "vectorised":
                return self.vectorised.means(batch, cotangents, loss, 2 * self.chunk(1))
        except NoRuleError:
            self.method = "one by one"
        return None

    def _most_at_once(self) -> int:
        """Return how many samples `with_mean` can take within its memory."""
        most = room(self.lent.weight.device, AT_ONCE)
        if self.method == "layer rules":
            return most // (2 * (self.graph_bytes or 2**23) + self.by_rules.formed)
        return most // (2 * sum(t.nbytes for t in self.measured.tensors))

    def _one_by_one(
        self, batch: Batch, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = cotangents(self.lent.outputs(batch), batch)
        columns, dots = [], []
        for i in range(self.lent.task.size(batch)):
            leaves = self.counted(
                self.lent.outputs(self.lent.task.select(batch, torch.tensor([i])))
            )
            squares, total = self.zeros(len(self.measured.names)), self.zeros()

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
