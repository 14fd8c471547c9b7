"""The curvature of the loss: top eigenvalues, trace, spectral density, largest stable LR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.pace import CUT, INTERRUPTIONS, cut_short, was_cut_short
from trainscope.probes.hessian.affine import custom_functions, not_affine, not_affine_anywhere
from trainscope.probes.hessian.blocks import BlocksWanted, blocks_of, with_blocks
from trainscope.probes.hessian.few_vectors import LeanWanted, lean_spectrum
from trainscope.probes.hessian.lanczos import vector_dtype
from trainscope.probes.hessian.preconditioned import warmup_cost
from trainscope.probes.hessian.report import (
    LEFT_OUT,
    SCALED,
    UNIT,
    report,
    with_adaptive,
    without_adaptive,
)
from trainscope.probes.hessian.spectrum import NoMatrixError, Spectrum, Wanted, find_spectrum
from trainscope.probes.hessian.streamed_products import StreamedProduct
from trainscope.probes.hessian.trace import Trace, trace_of
from trainscope.probes.probe import Need
from trainscope.probes.rounding import rounding_note
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.subject.evaluation import run
from trainscope.probes.subject.footprint import Footprint, footprint
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.output_space import OutputSpace
from trainscope.probes.subject.parameters import Measured, measured
from trainscope.probes.subject.passes import NotDifferentiableError
from trainscope.records import Cost, Measurement
from trainscope.task.batches import tensors
from trainscope.training.settings import Settings, suited

ROUGH = 1e-2
"""The relative tolerance of a first look at the top eigenvalue."""
FEW_STEPS = 20
"""Vectors of a basis that holds the top eigenvalues, about."""
LEAN = (
    "two at a time and no basis, Lanczos without reorthogonalisation: the top eigenvalue alone is "
    "told; lean=False holds a basis"
)
_NO_COPY = "differences of gradients need a copy of the network in float64: give lean=False for it"
_NO_ADAPTIVE = (
    "it needs a basis, which the memory for is not taken of a network of this size: give lean=False"
)
_NOT_SHARED = (
    "two vectors in the place of a basis (lean=True), and blocks, are measured by one process "
    "alone: leave them out, or start one process"
)


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues, trace and spectral density of the Hessian of the task's mean loss.

    The matrix is P H P, P onto the surviving trainable weights that the loss uses, in eval mode.

    - `top_eigenvalue`: the largest; its stderr is half of a bound that holds for 95 % of random
      starts at the least (see `eigenvalues`), and at most `tolerance` times it;
    - `smallest_eigenvalue`: the smallest, where it is known to `tolerance` of the larger end;
    - `trace`: exact where the loss is one softmax cross-entropy a sample and every logit is affine
      in each single weight, else estimated; the note "trace" says which and why. `layer_traces`
      where the method gives them;
    - `max_stable_lr`: 2 / top_eigenvalue, the largest LR at which plain gradient descent does not
      grow along that eigenvector; null where the eigenvalue is not positive;
    - with `settings` of an adaptive optimizer, `preconditioned_eigenvalue`, that of
      P^-1/2 H P^-1/2 with P = diag(sqrt(v) + eps) of Adam after a warm-up at LR 0, and
      `max_stable_lr_adam`, 2 (1 + beta1) / (1 - beta1) over it; their standard error is over the
      minibatches of the warm-up (see `preconditioned`);
    - the density, smoothed by a Gaussian of 1 % of the range: `density_x`, `density_y` and, from
      two vectors on, `density_stderr` where the last two Lanczos steps moved less than 2 % of it;
      `density_nodes`, `density_weights` unsmoothed.

    Products come from double backward. Where torch has none, or where its products are not
    symmetric (<u, Hv> is not <v, Hu>), they are differences of gradients in float64, with their
    error in the note "products"; where those are not symmetric either, the probe is skipped.

    Arrays: `eigenvalues`, largest first, `eigenvalue_errors`; `settings`, as they were given.

    Attributes:
        top: How many of the largest eigenvalues.
        tolerance: Their relative tolerance.
        most_products: Products after which the eigenvalues are given up as not converged.
        density_vectors: Random vectors for the density; 0 leaves the density out.
        density_steps: Lanczos steps for each.
        trace_vectors: Random vectors where the trace is estimated; 0 leaves the trace out.
        exact_classes: With more classes than this an exact trace costs too much; it is estimated.
        ggn: Measure the generalised Gauss-Newton matrix instead of the Hessian.
        memory: Bytes of graphs of several batches kept between products; larger ones are built
            again each time.
        settings: The optimizer that is to retrain: of Adam and AdamW the stable LR is measured
            too. None, and SGD, leave that out.
        warmup: Minibatches of that warm-up; by default 4 to 64.
        lean: Hold two vectors of the weights' size and no basis (see `few_vectors`): the top
            eigenvalue alone, and a sampled trace. By default where a basis of `FEW_STEPS` vectors
            would take more than `basis`.
        basis: Bytes.
        blocks: Measure blocks of the matrix too: top eigenvalue and trace of its restriction to
            some of the parameters (see `blocks`). True for each block of the network, or
            patterns of parameter names like "layers.0.*,layers.11.*", each of which is one block.
            Arrays: `blocks`, `block_weights`, `block_eigenvalues`, `block_eigenvalue_errors`,
            `block_traces`, `block_trace_errors`.
    """

    top: int = 3
    tolerance: float = 1e-3
    most_products: int = 100
    density_vectors: int = 2
    density_steps: int = 12
    trace_vectors: int = 16
    exact_classes: int = 32
    ggn: bool = False
    memory: int = 2**30
    settings: Settings | None = None
    warmup: int | None = None
    lean: bool | None = None
    basis: int = 2**33
    blocks: bool | str = False

    name: ClassVar[str] = "curvature"
    title: ClassVar[str] = "Loss curvature"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("top_eigenvalue", "top Hessian eigenvalue", UNIT, drawn="log"),
        ScalarSpec("smallest_eigenvalue", "smallest Hessian eigenvalue", UNIT),
        ScalarSpec("trace", "Hessian trace", UNIT, drawn="log"),
        ScalarSpec("max_stable_lr", "largest stable LR, 2/λmax", "LR", "higher"),
        ScalarSpec(
            "preconditioned_eigenvalue", "top eigenvalue, preconditioned", SCALED, drawn="log"
        ),
        ScalarSpec("max_stable_lr_adam", "largest stable LR of Adam", "LR", "higher"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS, Need.LABELS})
    tells_parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        least = {"top": 1, "most_products": 1, "density_vectors": 0, "density_steps": 1}
        least |= {"trace_vectors": 2 if self.trace_vectors else 0, "exact_classes": 0}
        for option, bound in least.items():
            if getattr(self, option) < bound:
                raise ProbeError(
                    f"curvature: {option} is {getattr(self, option)}; give at least {bound}"
                )
        if self.warmup is not None and self.warmup < 2:
            raise ProbeError(f"curvature: warmup is {self.warmup}; give at least 2")
        if not 0 < self.tolerance < 1:
            raise ProbeError(f"curvature: tolerance is {self.tolerance}; give one between 0 and 1")

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        Status `skipped` where there are no labels, no weight to measure, a constant loss or no
        symmetric matrix, `not converged` where `most_products` was not enough, `non-finite values`
        where a weight, an input, a logit or a product is NaN or infinite.

        Raises:
            ProbeError: The network's outputs do not fit the task, or the labels do not fit them.
        """
        if not data.labelled:
            return Measurement.skipped(self.name, "there are no labels; give labelled data")
        size, suiting = footprint(network, data), self._suited(data)
        return run(self.name, network, data, lambda lent: suiting._measure(lent, data, size))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network.

        The number of products until the eigenvalues converge is a guess: 6 for each, at least 8.
        """
        size = footprint(network, data)
        count, classes = len(data), size.classes or self.exact_classes
        first = max(8, 6 * self.top, self.density_steps if self.density_vectors else 0)
        products = first + max(0, self.density_vectors - 1) * self.density_steps
        passes = self.trace_vectors
        if passes and classes <= self.exact_classes:
            passes = classes
        weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
        like = next((p for p in network.parameters() if p.is_floating_point()), None)
        dtype = torch.float32 if like is None else like.dtype
        lean = self._is_lean(weights, dtype)
        keep = self._keeps(size, count) or (not lean and count <= data.batch_size)
        forward = count * (2 if keep else 1 + products)
        backward = count * (2 * products + passes + (1 if keep else products))
        memory = None
        if size.graph is not None:
            held = count if keep else min(count, data.batch_size)
            memory = 3 * held * size.graph
            memory += 2 * dtype.itemsize * weights if lean else 8 * weights * (first + 4)
        settings = self._suited(data).settings
        if settings is not None and settings.adaptive and settings.lora is None:
            extra = warmup_cost(count, settings, self.warmup)
            forward, backward = forward + extra, backward + extra + 20 * count
        return Cost(forward=forward, backward=backward, memory=memory)

    def lighter(self, network: nn.Module, data: ProbeData) -> Iterator[tuple[Curvature, str]]:
        """Yield a first look: the top eigenvalue alone, roughly, and a sampled trace; and words."""
        tolerance = max(self.tolerance, ROUGH)
        yield (
            replace(
                self,
                top=1,
                density_vectors=0,
                tolerance=tolerance,
                trace_vectors=min(self.trace_vectors, 4),
                exact_classes=min(self.exact_classes, 4),
            ),
            f"the top eigenvalue alone, to {100 * tolerance:g} %, and no density",
        )

    def _suited(self, data: ProbeData) -> Curvature:
        """Return the probe with the batch size that retraining has by default for the task."""
        if self.settings is None:
            return self
        return replace(self, settings=suited(self.settings, data.task))

    def _keeps(self, size: Footprint, samples: int) -> bool:
        return size.graph is not None and 3 * size.graph * samples <= self.memory

    def _measure(self, lent: Lent, data: ProbeData, size: Footprint) -> Measurement:
        outputs = lent.outputs(lent.look)
        terms = lent.losses(outputs, lent.look)
        weights = lent.used(measured(lent.network), terms)
        if not weights.survivors:
            return Measurement.skipped(
                self.name, "no weight is trainable, unmasked and used by the loss"
            )
        why_not = lent.behaviour.coupled
        if why_not is None and not lent.softmax:
            why_not = "the loss is not one softmax cross-entropy a sample"
        if why_not is None and not self.ggn:
            why_not = not_affine(tensors(outputs)[0])
        if self.ggn and OutputSpace(lent, outputs, lent.look).linear:
            return Measurement.skipped(
                self.name,
                "the loss is linear in what the network returns, so that its Gauss-Newton matrix "
                "is 0: measure the Hessian (ggn=False)",
            )
        custom = custom_functions(terms)
        del outputs, terms
        blocks = blocks_of(weights.names, self.blocks) if self.blocks else {}
        if blocks and not self.trace_vectors:
            raise ProbeError("curvature: blocks have a trace; give at least 2 trace_vectors")
        of_blocks = BlocksWanted(
            LeanWanted(self.tolerance, self.most_products, 0, 1),
            ggn=self.ggn,
            keep=self._keeps(size, len(lent)) or len(lent) <= 1,
            trace_vectors=self.trace_vectors,
        )
        shared = lent.ranks.count > 1 or lent.spread
        if shared and (self.lean or blocks):
            return Measurement.skipped(self.name, _NOT_SHARED)
        if not shared and self._is_lean(weights.survivors, lent.weight.dtype):
            measurement = self._lean(lent, weights, data, size)
            return with_blocks(measurement, lent, weights, blocks, of_blocks, data.generator())
        wanted = Wanted(
            ggn=self.ggn,
            # The graph of a single batch is there with each product in any case.
            keep=self._keeps(size, len(lent)) or len(lent) <= lent.batch_size,
            top=self.top,
            tolerance=self.tolerance,
            most_products=self.most_products,
            density_vectors=self.density_vectors,
            density_steps=self.density_steps,
        )
        if why_not is None and not self.ggn and self.trace_vectors:
            why_not = not_affine_anywhere(lent)
        try:
            spectrum = find_spectrum(lent, weights, data, wanted, custom)
        except NoMatrixError as error:
            return Measurement.skipped(self.name, str(error))
        trace = self._trace(lent, weights, size, spectrum, affine=why_not is None)
        measurement = report(
            lent,
            weights,
            spectrum,
            trace,
            why_not,
            ggn=self.ggn,
            tolerance=self.tolerance,
            no_trace=CUT if self.trace_vectors else LEFT_OUT,
        )
        measurement = with_blocks(measurement, lent, weights, blocks, of_blocks, data.generator())
        return self._with_settings(measurement, lent, weights, data, spectrum)

    def _trace(
        self, lent: Lent, weights: Measured, size: Footprint, spectrum: Spectrum, *, affine: bool
    ) -> Trace | None:
        """Return the trace; None where it is left out, or there is no time for it."""
        if not self.trace_vectors or was_cut_short():
            return None
        try:
            return trace_of(
                lent,
                weights,
                spectrum,
                size.graph,
                affine=affine,
                vectors=self.trace_vectors,
                exact_classes=self.exact_classes,
            )
        except INTERRUPTIONS as error:
            cut_short(error)
            return None

    def _is_lean(self, weights: int, dtype: torch.dtype) -> bool:
        """Tell whether no basis is to be held of vectors of so many weights."""
        if self.lean is not None:
            return self.lean
        return weights * vector_dtype(weights, dtype).itemsize * FEW_STEPS > self.basis

    def _lean(self, lent: Lent, weights: Measured, data: ProbeData, size: Footprint) -> Measurement:
        """Measure with two vectors in the place of a basis."""
        keep = self._keeps(size, len(lent)) or len(lent) <= 1
        product = StreamedProduct(lent, weights, ggn=self.ggn, keep=keep)
        wanted = LeanWanted(
            self.tolerance, self.most_products, self.density_vectors, self.density_steps
        )
        try:
            spectrum, trace = lean_spectrum(product, data.generator(), wanted)
        except NotDifferentiableError as error:
            reason = f"the gradient cannot be differentiated once more ({error}), and {_NO_COPY}"
            return Measurement.skipped(self.name, reason)
        except NoMatrixError as error:
            return Measurement.skipped(self.name, str(error))
        measurement = report(
            lent, weights, spectrum, trace, None, ggn=self.ggn, tolerance=self.tolerance
        )
        notes = {**measurement.notes, "vectors": LEAN, **rounding_note(lent.weight.dtype)}
        measurement = replace(measurement, notes=notes)
        if self.settings is not None and self.settings.adaptive:
            return without_adaptive(measurement, _NO_ADAPTIVE)
        return self._with_settings(measurement, lent, weights, data, spectrum)

    def _with_settings(
        self,
        measurement: Measurement,
        lent: Lent,
        weights: Measured,
        data: ProbeData,
        spectrum: Spectrum,
    ) -> Measurement:
        """Add the stable LR of the optimizer that is to retrain, where one is named."""
        if self.settings is None:
            return measurement
        return with_adaptive(
            measurement,
            self.settings,
            lent,
            weights,
            data,
            spectrum,
            warmup=self.warmup,
            tolerance=self.tolerance,
            most_products=self.most_products,
        )
