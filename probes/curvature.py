"""The curvature of the loss: top eigenvalues, trace, spectral density, largest stable LR."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.affine import custom_functions, not_affine
from trainscope.probes.blocks import arrays_of, blocks_of, measure_blocks
from trainscope.probes.density import RESOLVED, spectral_density
from trainscope.probes.evaluation import Lent, loss_unit, run
from trainscope.probes.few_vectors import LeanWanted, lean_spectrum
from trainscope.probes.footprint import Footprint, footprint
from trainscope.probes.lanczos import vector_dtype
from trainscope.probes.output_space import OutputSpace
from trainscope.probes.parameters import Measured, measured
from trainscope.probes.passes import NonFiniteError, NotDifferentiableError
from trainscope.probes.preconditioned import NotKnownError, preconditioned_eigenvalue, warmup_cost
from trainscope.probes.probe import Need
from trainscope.probes.rounding import rounding_note
from trainscope.probes.sample_gradients import SampleGradients, wholly
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.spectrum import NoMatrixError, Spectrum, Wanted, find_spectrum
from trainscope.probes.streamed_products import StreamedProduct
from trainscope.probes.trace import (
    Trace,
    deflated_hutchinson,
    exact_gauss_newton,
    sampled_gauss_newton,
)
from trainscope.records import Cost, Measurement, Scalar, Status
from trainscope.records.stability import ema_factor
from trainscope.task.batches import tensors
from trainscope.training.settings import Settings, suited

_UNIT = "nats/weight²"
ROUGH = 1e-2
"""The relative tolerance of a first look at the top eigenvalue."""
_SCALED = "1/weight"
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
_NO_LORA = (
    "LoRA trains low-rank factors, one of which starts at zero, where no gradient reaches the "
    "other: this limit says nothing of them"
)


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues, trace and spectral density of the Hessian of the task's mean loss.

    The matrix is P H P, P onto the surviving trainable weights that the loss uses, in eval mode.

    - `top_eigenvalue`: the largest; its stderr is a bound on its error (see `eigenvalues`), at most
      `tolerance` times it;
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
        trace_vectors: Random vectors where the trace is estimated.
        exact_classes: With more classes than this an exact trace costs too much; it is estimated.
        ggn: Measure the generalised Gauss-Newton matrix instead of the Hessian.
        memory: Bytes of graphs kept between products; larger ones are built again each time.
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
        ScalarSpec("top_eigenvalue", "top Hessian eigenvalue", _UNIT, drawn="log"),
        ScalarSpec("smallest_eigenvalue", "smallest Hessian eigenvalue", _UNIT),
        ScalarSpec("trace", "Hessian trace", _UNIT, drawn="log"),
        ScalarSpec("max_stable_lr", "largest stable LR, 2/λmax", "LR", "higher"),
        ScalarSpec(
            "preconditioned_eigenvalue", "top eigenvalue, preconditioned", _SCALED, drawn="log"
        ),
        ScalarSpec("max_stable_lr_adam", "largest stable LR of Adam", "LR", "higher"),
    )
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
        found, suiting = footprint(network, data), self._suited(data)
        return run(self.name, network, data, lambda lent: suiting._measure(lent, data, found))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network.

        The number of products until the eigenvalues converge is a guess: 6 for each, at least 8.
        """
        found = footprint(network, data)
        count, classes = len(data), found.classes or self.exact_classes
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
            memory = 3 * held * found.graph
            like = next((p for p in network.parameters() if p.is_floating_point()), None)
            dtype = torch.float32 if like is None else like.dtype
            lean = self._is_lean(weights, dtype)
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

    def _keeps(self, found: Footprint, samples: int) -> bool:
        return found.graph is not None and 3 * found.graph * samples <= self.memory

    def _measure(self, lent: Lent, data: ProbeData, found: Footprint) -> Measurement:
        outputs = lent.outputs(lent.look)
        terms = lent.losses(outputs, lent.look)
        weights = measured(lent.network).used_by(terms)
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
        asked = blocks_of(weights.names, self.blocks) if self.blocks else {}
        shared = lent.ranks.count > 1 or lent.spread
        if shared and (self.lean or asked):
            return Measurement.skipped(self.name, _NOT_SHARED)
        if not shared and self._is_lean(weights.survivors, lent.weight.dtype):
            report = self._lean(lent, weights, data, found)
            return self._with_blocks(report, lent, weights, data, found, asked)
        wanted = Wanted(
            ggn=self.ggn,
            keep=self._keeps(found, len(lent)) or len(lent) <= 1,
            top=self.top,
            tolerance=self.tolerance,
            most_products=self.most_products,
            density_vectors=self.density_vectors,
            density_steps=self.density_steps,
        )
        try:
            spectrum = find_spectrum(lent, weights, data, wanted, custom)
        except NoMatrixError as error:
            return Measurement.skipped(self.name, str(error))
        classes, generator = lent.behaviour.classes or 0, spectrum.generator
        if why_not is not None:
            krylov = spectrum.top.krylov
            trace = deflated_hutchinson(spectrum.product, krylov, self.trace_vectors, generator)
        elif classes <= self.exact_classes:
            own, everything = wholly(lent, weights)
            trace = exact_gauss_newton(own, SampleGradients(own, everything, found.graph), classes)
        else:
            own, everything = wholly(lent, weights)
            gradients = SampleGradients(own, everything, found.graph)
            trace = sampled_gauss_newton(own, gradients, self.trace_vectors, generator)
        if not math.isfinite(trace.value):
            raise NonFiniteError("the trace of the curvature matrix overflows")
        report = self._report(lent, weights, spectrum, trace, why_not)
        report = self._with_blocks(report, lent, weights, data, found, asked)
        return self._with_adaptive(report, lent, weights, data, spectrum)

    def _is_lean(self, weights: int, dtype: torch.dtype) -> bool:
        """Tell whether no basis is to be held of vectors of so many weights."""
        if self.lean is not None:
            return self.lean
        return weights * vector_dtype(weights, dtype).itemsize * FEW_STEPS > self.basis

    def _lean(
        self, lent: Lent, weights: Measured, data: ProbeData, found: Footprint
    ) -> Measurement:
        """Measure with two vectors in the place of a basis."""
        keep = self._keeps(found, len(lent)) or len(lent) <= 1
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
        report = self._report(lent, weights, spectrum, trace, None)
        notes = {**report.notes, "vectors": LEAN, **rounding_note(lent.weight.dtype)}
        report = replace(report, notes=notes)
        if self.settings is None or not self.settings.adaptive:
            return self._with_adaptive(report, lent, weights, data, spectrum)
        missing = {
            name: Scalar(None, unit, reason=_NO_ADAPTIVE)
            for name, unit in (("preconditioned_eigenvalue", _SCALED), ("max_stable_lr_adam", "LR"))
        }
        return replace(report, scalars={**report.scalars, **missing})

    def _with_blocks(
        self,
        report: Measurement,
        lent: Lent,
        weights: Measured,
        data: ProbeData,
        found: Footprint,
        blocks: dict[str, list[int]],
    ) -> Measurement:
        """Add what is asked of single blocks."""
        if not blocks or report.status is Status.SKIPPED:
            return report
        try:
            rows = measure_blocks(
                lent,
                weights,
                blocks,
                LeanWanted(self.tolerance, self.most_products, 0, 1),
                data.generator(),
                ggn=self.ggn,
                keep=self._keeps(found, len(lent)) or len(lent) <= 1,
                trace_vectors=self.trace_vectors,
            )
        except (NotDifferentiableError, NoMatrixError) as error:
            said = f"not measured: {error}"
            return replace(report, notes={**report.notes, "blocks": said})
        late = [row.name for row in rows if not row.converged]
        said = "largest eigenvalue and trace of the matrix restricted to each block's parameters"
        if late:
            said += f"; not to the tolerance after {self.most_products} products: {', '.join(late)}"
        return replace(
            report,
            arrays={**report.arrays, **arrays_of(rows)},
            notes={**report.notes, "blocks": said},
        )

    def _with_adaptive(
        self,
        found: Measurement,
        lent: Lent,
        weights: Measured,
        data: ProbeData,
        spectrum: Spectrum,
    ) -> Measurement:
        """Add the stable LR of the adaptive optimizer that is asked for, or why it has none."""
        if self.settings is None:
            return found
        told = [list(row) for row in self.settings.as_dict().items()]
        found = replace(found, arrays={**found.arrays, "settings": told})
        if not self.settings.adaptive:
            return found
        names, notes = ("preconditioned_eigenvalue", "max_stable_lr_adam"), dict(found.notes)
        factor = ema_factor(self.settings.betas[0])
        try:
            if self.settings.lora is not None:
                raise NotKnownError(_NO_LORA)
            top = preconditioned_eigenvalue(
                lent,
                weights,
                data,
                self.settings,
                spectrum.product,
                batches=self.warmup,
                tolerance=self.tolerance,
                most_products=self.most_products,
                product_error=spectrum.error,
            )
        except (ProbeError, NonFiniteError) as error:
            missing = {
                name: Scalar(None, unit, reason=str(error))
                for name, unit in zip(names, (_SCALED, "LR"), strict=True)
            }
            return replace(found, scalars={**found.scalars, **missing})
        lr = factor / top.value if top.value > 0 else math.nan
        scalars = {
            names[0]: Scalar.of(top.value, _SCALED, top.error),
            names[1]: Scalar.of(
                lr,
                "LR",
                lr * top.error / top.value if top.value > 0 else None,
                reason="the largest eigenvalue is not positive: no LR is unstable",
            ),
        }
        notes["adam"] = f"{top.method}; the limit is {factor:.3g} / the eigenvalue"
        return replace(found, scalars={**found.scalars, **scalars}, notes=notes)

    def _report(
        self,
        lent: Lent,
        weights: Measured,
        spectrum: Spectrum,
        trace: Trace,
        why_not: str | None,
    ) -> Measurement:
        top, runs = spectrum.top, spectrum.runs
        scale = max(abs(float(top.values[0])), abs(top.smallest))
        errors = top.errors + spectrum.error * scale
        value, error = float(top.values[0]), float(errors[0])
        lr = 2 / value if value > 0 else math.nan
        smallest_known = top.smallest_error <= self.tolerance * scale
        scalars = {
            "top_eigenvalue": Scalar.of(value, _UNIT, error),
            "smallest_eigenvalue": Scalar.of(
                top.smallest if smallest_known else math.nan,
                _UNIT,
                top.smallest_error + spectrum.error * scale,
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
            "eigenvalue_errors": errors.tolist(),
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
            arrays["density_nodes"] = [run.now.values.tolist() for run in runs]
            arrays["density_weights"] = [run.now.weights.tolist() for run in runs]
        loss = "cross-entropy" if loss_unit(lent.task) else "loss"
        matrix = "generalised Gauss-Newton matrix" if self.ggn else "Hessian"
        notes = {
            **weights.notes(),
            "matrix": f"{matrix} of the mean {loss} over {weights.survivors} weights",
            "eigenvalues": (
                f"Lanczos, {top.krylov.steps} products; errors are bounds, "
                f"at most {float(errors.max()):.2g}"
            ),
            "trace": trace.method + (f"; not exact because {why_not}" if why_not else ""),
        }
        if spectrum.products:
            notes["products"] = spectrum.products
        if runs and density.change > RESOLVED:
            notes["density"] = (
                f"the last two Lanczos steps moved {density.change:.0%} of the density, more than "
                f"{RESOLVED:.0%}, so it has no standard error; more density_steps would resolve it"
            )
        status, reason = Status.OK, None
        if not top.converged:
            status = Status.NOT_CONVERGED
            reason = (
                f"after {top.krylov.steps} products an eigenvalue is still uncertain by "
                f"{float(top.errors.max()):.2g}; ask for fewer with --top, or allow more products"
            )
        return Measurement("curvature", status, reason, scalars, arrays, notes=notes)
