"""The curvature of the loss: top eigenvalues, trace, spectral density, largest stable LR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.affine import not_affine
from trainscope.probes.density import spectral_density
from trainscope.probes.eigenvalues import Eigenvalues, largest_eigenvalues
from trainscope.probes.evaluation import Evaluation, run
from trainscope.probes.footprint import Footprint, footprint
from trainscope.probes.lanczos import Lanczos, Ritz
from trainscope.probes.parameters import Measured, measured
from trainscope.probes.probe import Need
from trainscope.probes.products import MatrixProduct
from trainscope.probes.sample_gradients import SampleGradients
from trainscope.probes.trace import (
    Trace,
    deflated_hutchinson,
    exact_gauss_newton,
    sampled_gauss_newton,
)
from trainscope.records import Cost, Measurement, Scalar, Status

_UNIT = "loss/param²"


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues, trace and spectral density of the Hessian of the mean cross-entropy.

    The matrix is P H P, P onto the surviving trainable weights that the loss uses, in eval mode.

    - `top_eigenvalue`: the largest; its stderr is a bound on its error (the smaller of the residual
      and residual^2 / gap), at most `tolerance` times it;
    - `smallest_eigenvalue`: the smallest, where it is known to `tolerance` of the larger end;
    - `trace`: exact where every logit is affine in each single weight, else estimated; the note
      "trace" says which and why. `layer_traces` where the method gives them;
    - `max_stable_lr`: 2 / top_eigenvalue, the largest LR at which plain gradient descent does not
      grow along that eigenvector; null where the eigenvalue is not positive;
    - the density, smoothed by a Gaussian of 1 % of the range: `density_x`, `density_y` and, from
      two vectors on, `density_stderr`; `density_nodes`, `density_weights` unsmoothed.

    Arrays: `eigenvalues`, largest first, `eigenvalue_errors`.

    Attributes:
        top: How many of the largest eigenvalues.
        tolerance: Their relative tolerance.
        most_products: Products after which the eigenvalues are given up as not converged.
        density_vectors: Random vectors for the density; 0 leaves the density out.
        density_steps: Lanczos steps for each.
        trace_vectors: Random vectors where the trace is estimated.
        exact_classes: With more classes than this an exact trace costs too much; it is estimated.
        ggn: Measure the generalised Gauss-Newton matrix instead of the Hessian.
        memory: Bytes of graphs kept between products; larger ones are built again each time.
    """

    top: int = 3
    tolerance: float = 1e-3
    most_products: int = 100
    density_vectors: int = 2
    density_steps: int = 12
    trace_vectors: int = 16
    exact_classes: int = 128
    ggn: bool = False
    memory: int = 2**30

    name: ClassVar[str] = "curvature"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS, Need.LABELS})

    def __post_init__(self) -> None:
        """Check the options."""
        least = {"top": 1, "most_products": 1, "density_vectors": 0, "density_steps": 1}
        least |= {"trace_vectors": 2, "exact_classes": 0}
        for option, bound in least.items():
            if getattr(self, option) < bound:
                raise ProbeError(
                    f"curvature: {option} is {getattr(self, option)}; give at least {bound}"
                )
        if not 0 < self.tolerance < 1:
            raise ProbeError(f"curvature: tolerance is {self.tolerance}; give one between 0 and 1")

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        Status `skipped` where there are no labels or no weight to measure, `not converged` where
        `most_products` was not enough, `non-finite values` where a weight, an input, a logit or a
        product is NaN or infinite.

        Raises:
            ProbeError: The network does not return logits, or the labels do not fit them.
        """
        if data.labels is None:
            return Measurement.skipped(self.name, "there are no labels; give labelled data")
        found = footprint(network, data.inputs)
        return run(self.name, network, data, lambda lent: self._measure(lent, data, found))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network.

        The number of products until the eigenvalues converge is a guess: 6 for each, at least 8.
        """
        found = footprint(network, data.inputs)
        count, classes = len(data.inputs), found.classes or self.exact_classes
        first = max(8, 6 * self.top, self.density_steps if self.density_vectors else 0)
        products = first + max(0, self.density_vectors - 1) * self.density_steps
        passes = classes if classes <= self.exact_classes else self.trace_vectors
        keep = self._keeps(found, count)
        forward = count * (2 if keep else 1 + products)
        backward = count * (2 * products + passes + (1 if keep else products))
        weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
        memory = None
        if found.graph is not None:
            held = count if keep else min(count, data.batch_size)
            memory = 3 * held * found.graph + 8 * weights * (first + 4)
        return Cost(forward=forward, backward=backward, memory=memory)

    def _keeps(self, found: Footprint, samples: int) -> bool:
        return found.graph is not None and 3 * found.graph * samples <= self.memory

    def _measure(self, lent: Evaluation, data: ProbeData, found: Footprint) -> Measurement:
        logits = lent.logits(lent.inputs[:1])
        weights = measured(lent.network).used_by(logits)
        if not weights.survivors:
            return Measurement.skipped(
                self.name, "no weight is trainable, unmasked and used by the loss"
            )
        why_not = None if self.ggn else not_affine(logits)
        classes = logits.shape[1]
        del logits
        generator = data.generator()
        keep = self._keeps(found, len(lent)) or len(lent) <= 1
        product = MatrixProduct(lent, weights, ggn=self.ggn, keep=keep)
        top, runs = self._spectrum(product, lent, generator)
        gradients = SampleGradients(lent, weights, found.graph)
        if why_not is None and classes <= self.exact_classes:
            trace = exact_gauss_newton(lent, gradients, classes)
        elif why_not is None:
            trace = sampled_gauss_newton(lent, gradients, self.trace_vectors, generator)
        else:
            trace = deflated_hutchinson(product, top.krylov, self.trace_vectors, generator)
        return self._report(weights, product, top, runs, trace, why_not)

    def _spectrum(
        self, product: MatrixProduct, lent: Evaluation, generator: torch.Generator
    ) -> tuple[Eigenvalues, list[Ritz]]:
        """Return the eigenvalues and the density's runs; the last run serves both."""

        def start() -> torch.Tensor:
            drawn = torch.randn(product.size, generator=generator, dtype=torch.float64)
            return drawn.to(lent.inputs.device)

        runs = []
        for _ in range(self.density_vectors - 1):
            krylov = Lanczos(product, start(), generator, lent.inputs.dtype)
            while krylov.steps < self.density_steps and not krylov.exhausted:
                krylov.grow()
            runs.append(krylov.ritz())
        first = start()
        if not self.density_vectors:
            # The gradient lies mostly along the top eigenvectors; the random part sees the rest.
            gradient = product.gradient()
            if size := float(gradient.norm()):
                first = gradient / size + first / first.norm()
        top = largest_eigenvalues(
            product,
            first,
            self.top,
            tolerance=self.tolerance,
            generator=generator,
            dtype=lent.inputs.dtype,
            most_steps=self.most_products,
            least_steps=self.density_steps if self.density_vectors else 1,
            at_least=runs[0].values[::-1].tolist() if runs else None,
        )
        if self.density_vectors:
            runs.append(top.krylov.ritz())
        return top, runs

    def _report(
        self,
        weights: Measured,
        product: MatrixProduct,
        top: Eigenvalues,
        runs: list[Ritz],
        trace: Trace,
        why_not: str | None,
    ) -> Measurement:
        value, error = float(top.values[0]), float(top.errors[0])
        scale = max(abs(value), abs(top.smallest))
        lr = 2 / value if value > 0 else math.nan
        smallest_known = top.smallest_error <= self.tolerance * scale
        scalars = {
            "top_eigenvalue": Scalar.of(value, _UNIT, error),
            "smallest_eigenvalue": Scalar.of(
                top.smallest if smallest_known else math.nan,
                _UNIT,
                top.smallest_error,
                reason=f"not converged; it is at most {top.smallest:.3g}",
            ),
            "trace": Scalar.of(trace.value, _UNIT, trace.stderr),
            "max_stable_lr": Scalar.of(
                lr,
                "LR",
                lr * error / value if value > 0 else None,
                reason="the largest eigenvalue is not positive: no LR is unstable",
            ),
        }
        arrays = {
            "eigenvalues": top.values.tolist(),
            "eigenvalue_errors": top.errors.tolist(),
        }
        if trace.parameters is not None:
            layers = weights.layers
            arrays["layers"] = list(layers)
            arrays["layer_traces"] = [float(trace.parameters[i].sum()) for i in layers.values()]
        if runs:
            density = spectral_density(runs)
            arrays |= {"density_x": density.x.tolist(), "density_y": density.y.tolist()}
            if density.stderr is not None:
                arrays["density_stderr"] = density.stderr.tolist()
            arrays["density_nodes"] = [run.values.tolist() for run in runs]
            arrays["density_weights"] = [run.weights.tolist() for run in runs]
        matrix = "generalised Gauss-Newton matrix" if self.ggn else "Hessian"
        notes = {
            **weights.notes(),
            "matrix": f"{matrix} of the mean cross-entropy over {product.size} weights",
            "eigenvalues": (
                f"Lanczos, {top.krylov.steps} products; errors are bounds, "
                f"at most {float(top.errors.max()):.2g}"
            ),
            "trace": trace.method + (f"; not exact because {why_not}" if why_not else ""),
        }
        status, reason = Status.OK, None
        if not top.converged:
            status = Status.NOT_CONVERGED
            reason = (
                f"after {top.krylov.steps} products an eigenvalue is still uncertain by "
                f"{float(top.errors.max()):.2g}; ask for fewer with --top, or allow more products"
            )
        return Measurement("curvature", status, reason, scalars, arrays, notes=notes)
