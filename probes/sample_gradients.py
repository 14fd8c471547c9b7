"""Squared norms of every sample's own gradient, per parameter, and their parts along a direction.

Layers with a rule (linear, 2-d convolution, batch norm) take it, and the outcome is checked on the
first sample against its plain gradient. Any other network is differentiated sample by sample,
vectorised where PyTorch can.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap

from trainscope.probes.evaluation import Evaluation
from trainscope.probes.folding import ConvNorm
from trainscope.probes.layer_rules import LayerRule, rule_for
from trainscope.probes.parameters import Measured
from trainscope.probes.passes import NotDifferentiableError, derivative

Cotangents = Callable[[Tensor], Tensor]
"""From logits [N, C] to R gradients at the logits, [R, N, C]."""

_BUDGET = 2**28  # bytes of activations and per-sample gradients held at once

# An operation that vmap does not know, or the network's own code at shapes that it does not expect.
_VMAP_FAILS = (RuntimeError, TypeError, ValueError, LookupError)


class SampleGradients:
    """Per-sample gradients of scalars <r, logits> of one network.

    Attributes:
        method: "layer rules", "vectorised" or "one by one".
    """

    def __init__(self, lent: Evaluation, measured: Measured, graph_bytes: int | None) -> None:
        """Choose the method.

        Args:
            lent: The network and data.
            measured: The parameters; all used by the loss.
            graph_bytes: Bytes of one sample's graph, None where unknown.
        """
        self.lent, self.measured = lent, measured
        self.graph_bytes = graph_bytes
        self.rules = _rules(lent.model, measured)
        self.method = "layer rules" if self.rules else "vectorised"
        if self.rules and not self._agrees():
            self.method = "vectorised"

    def chunk(self, count: int) -> int:
        """Return how many samples to take at once for R = `count` cotangents."""
        if self.method == "one by one":
            return self.lent.batch_size
        each = (self.graph_bytes or 2**23) * (4 + (count if self.method == "layer rules" else 1))
        if self.method == "vectorised":
            each += 2 * sum(t.numel() * t.element_size() for t in self.measured.tensors)
        return max(1, _BUDGET // each)

    def __call__(
        self, inputs: Tensor, cotangents: Cotangents, along: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return squares and dots of the samples' gradients, masked weights left out.

        Args:
            inputs: [N, ...]; at most `chunk` of them keep the memory bounded.
            cotangents: The gradients at the logits, R for each sample.
            along: A masked direction shaped like the parameters.

        Returns:
            |g|^2 summed over cotangents, [parameters, N]; and <g, along> summed over cotangents,
            [N] (zeros without a direction).
        """
        if self.method == "layer rules":
            return self._by_rules(inputs, cotangents, along)
        if self.method == "vectorised":
            try:
                return self._vectorised(inputs, cotangents, along)
            except _NoRuleError:
                self.method = "one by one"
        return self._one_by_one(inputs, cotangents, along)

    def _by_rules(
        self, inputs: Tensor, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        seen: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
        calls: list[nn.Module] = []

        def remember(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            calls.append(module)
            seen[module] = (args[0].detach(), get_gradient_edge(out))

        handles = [module.register_forward_hook(remember) for module in self.rules]
        try:
            logits = self.lent.logits(inputs)
        finally:
            for handle in handles:
                handle.remove()
        if len(seen) != len(self.rules) or len(calls) != len(seen):
            raise _NoRuleError
        wanted = cotangents(logits.detach())
        edges = [edge for _, edge in seen.values()]
        deltas = [derivative(logits, edges, r, retain_graph=True) for r in wanted]
        self.lent.backward += len(wanted) * len(inputs)
        tensors, masks = self.measured.tensors, self.measured.masks
        by_id = {id(t): mask for t, mask in zip(tensors, masks, strict=True)}
        moved = {} if along is None else {id(t): a for t, a in zip(tensors, along, strict=True)}
        squares: dict[int, Tensor] = {}
        dots = inputs.new_zeros(len(inputs), dtype=torch.float64)
        with torch.no_grad():
            for position, (module, (x, _)) in enumerate(seen.items()):
                d = torch.stack([delta[position] for delta in deltas])
                if d.shape[1] != len(x) or len(x) != len(inputs):
                    raise _NoRuleError
                squares.update(self.rules[module].squares(x, d, by_id))
                if moved:
                    products = d.sum(0) * self.rules[module].response(x, moved)
                    dots += products.flatten(1).sum(1)
        return torch.stack([squares[id(t)].double() for t in tensors]), dots

    def _vectorised(
        self, inputs: Tensor, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        named = dict(zip(self.measured.names, self.measured.tensors, strict=True))
        network = self.lent.network

        def score(weights: dict[str, Tensor], x: Tensor, r: Tensor) -> Tensor:
            out: Tensor = functional_call(network, weights, (x.unsqueeze(0).clone(),))
            return (out.reshape(r.shape) * r).sum()

        per_sample = vmap(grad(score), in_dims=(None, 0, 0))
        with torch.no_grad():
            wanted = cotangents(self.lent.logits(inputs))
        weights = {name: tensor.detach() for name, tensor in named.items()}
        squares = inputs.new_zeros(len(named), len(inputs), dtype=torch.float64)
        dots = inputs.new_zeros(len(inputs), dtype=torch.float64)
        for r in wanted:
            try:
                with warnings.catch_warnings():  # vmap's, of an operation that it takes in a loop
                    warnings.filterwarnings("ignore", message=".*batching rule")
                    found = per_sample(weights, inputs, r)
            except _VMAP_FAILS as error:
                raise _NoRuleError from error
            self.lent.forward += len(inputs)
            self.lent.backward += len(inputs)
            gradients = self.measured.keep([found[name] for name in named])
            squares += torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients])
            for g, a in zip(gradients, along or (), strict=along is not None):
                dots += (g * a).reshape(len(g), -1).sum(1)
        return squares, dots

    def _one_by_one(
        self, inputs: Tensor, cotangents: Cotangents, along: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = cotangents(self.lent.logits(inputs))
        columns, dots = [], []
        for i, x in enumerate(torch.split(inputs, 1)):
            logits = self.lent.logits(x)
            squares = inputs.new_zeros(len(self.measured.names), dtype=torch.float64)
            dot = inputs.new_zeros((), dtype=torch.float64)
            for r in wanted[:, i : i + 1]:
                found = derivative(
                    logits, self.measured.tensors, r, retain_graph=True, materialize_grads=True
                )
                self.lent.backward += 1
                gradients = self.measured.keep(found)
                squares += torch.stack([g.square().sum() for g in gradients])
                for g, a in zip(gradients, along or (), strict=along is not None):
                    dot += (g * a).sum()
            columns.append(squares)
            dots.append(dot)
        return torch.stack(columns, 1), torch.stack(dots)

    def _agrees(self) -> bool:
        """Check the rules on the first sample: they miss weights used outside their layer."""

        def one(logits: Tensor) -> Tensor:
            return (
                torch.linspace(1, 2, logits.shape[1], device=logits.device)
                .to(logits)
                .expand(1, *logits.shape)
            )

        inputs = self.lent.inputs[:2]
        try:
            got, _ = self._by_rules(inputs, one, None)
        except (_NoRuleError, NotDifferentiableError, RuntimeError):
            return False
        expected, _ = self._one_by_one(inputs[:1], one, None)
        close = (got[:, :1] - expected).abs() <= 1e-2 * expected + 1e-6 * expected.max()
        return bool(close.all())


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
