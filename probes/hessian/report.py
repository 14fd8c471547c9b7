"""The curvature probe's numbers as a Measurement: scalars, arrays, notes and status."""

from __future__ import annotations

import math
from dataclasses import replace

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.pace import CUT, INTERRUPTIONS, cut_short, was_cut_short
from trainscope.probes.hessian.density import RESOLVED, spectral_density
from trainscope.probes.hessian.preconditioned import NotKnownError, preconditioned_eigenvalue
from trainscope.probes.hessian.spectrum import Spectrum
from trainscope.probes.hessian.trace import Trace
from trainscope.probes.subject.evaluation import loss_unit
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.records import Measurement, Scalar, Status
from trainscope.records.numbers import number
from trainscope.records.stability import ema_factor
from trainscope.training.settings import Settings

UNIT, SCALED = "nats/weight²", "1/weight"
ADAPTIVE = (("preconditioned_eigenvalue", SCALED), ("max_stable_lr_adam", "LR"))
_NO_LORA = (
    "LoRA trains low-rank factors, one of which starts at zero, where no gradient reaches the "
    "other: this limit says nothing of them"
)
_MORE_PRODUCTS = "ask for fewer with --top, or allow more products"
LEFT_OUT = "it was left out (trace_vectors=0)"


def report(
    lent: Lent,
    weights: Measured,
    spectrum: Spectrum,
    trace: Trace | None,
    why_not: str | None,
    *,
    ggn: bool,
    tolerance: float,
    no_trace: str = LEFT_OUT,
) -> Measurement:
    """Return what was found as a Measurement.

    Args:
        lent: The network and data.
        weights: What was measured.
        spectrum: Eigenvalues and the density's runs.
        trace: None where there is none.
        why_not: Why the trace is not exact.
        ggn: The matrix is the Gauss-Newton matrix.
        tolerance: Relative, of the eigenvalues.
        no_trace: Why there is no trace, where there is none.
    """
    top, runs = spectrum.top, spectrum.runs
    scale = max(abs(float(top.values[0])), abs(top.smallest))
    errors = top.errors + spectrum.error * scale
    value, error = float(top.values[0]), float(errors[0])
    lr = 2 / value if value > 0 else math.nan
    smallest_known = top.smallest_error <= tolerance * scale
    missing = Scalar(None, UNIT, reason=no_trace)
    scalars = {
        "top_eigenvalue": Scalar.of(value, UNIT, error),
        "smallest_eigenvalue": Scalar.of(
            top.smallest if smallest_known else math.nan,
            UNIT,
            top.smallest_error + spectrum.error * scale,
            reason=f"not converged; it is at most {top.smallest:.3g}",
        ),
        "trace": missing if trace is None else Scalar.of(trace.value, UNIT, trace.stderr),
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
    if trace is not None and trace.parameters is not None:
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
    matrix = "generalised Gauss-Newton matrix" if ggn else "Hessian"
    notes = {
        **weights.notes(),
        "matrix": f"{matrix} of the mean {loss} over {weights.survivors} weights",
        "eigenvalues": (
            f"Lanczos, {top.krylov.steps} products; standard errors of "
            f"at most {float(errors.max()):.2g}"
        ),
    }
    if trace is not None:
        notes["trace"] = trace.method + (f"; not exact because {why_not}" if why_not else "")
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
        reason = f"after {top.krylov.steps} products an eigenvalue is still uncertain by "
        reason += f"{number(float(top.errors.max()))}; "
        reason += "the search was cut short" if top.cut else _MORE_PRODUCTS
    return Measurement("curvature", status, reason, scalars, arrays, notes=notes)


def with_adaptive(
    found: Measurement,
    settings: Settings,
    lent: Lent,
    weights: Measured,
    data: ProbeData,
    spectrum: Spectrum,
    *,
    warmup: int | None,
    tolerance: float,
    most_products: int,
) -> Measurement:
    """Add the stable LR of the optimizer that is asked for, or why it has none.

    Args:
        found: What is known; the settings are added in any case.
        settings: Of the optimizer; of one that is not adaptive nothing else is.
        lent: The network and data.
        weights: The parameters; all used by the loss.
        data: For the training half and the seed.
        spectrum: For its products.
        warmup: As all that follows, `Curvature`'s.
        tolerance: Relative.
        most_products: Give up after so many.
    """
    told = [list(row) for row in settings.as_dict().items()]
    found = replace(found, arrays={**found.arrays, "settings": told})
    if not settings.adaptive:
        return found
    if was_cut_short():
        return without_adaptive(found, CUT)
    notes = dict(found.notes)
    factor = ema_factor(settings.betas[0])
    try:
        if settings.lora is not None:
            raise NotKnownError(_NO_LORA)
        top = preconditioned_eigenvalue(
            lent,
            weights,
            data,
            settings,
            spectrum.product,
            batches=warmup,
            tolerance=tolerance,
            most_products=most_products,
            product_error=spectrum.error,
        )
    except (ProbeError, NonFiniteError) as error:
        return without_adaptive(found, str(error))
    except INTERRUPTIONS as error:
        cut_short(error)
        return without_adaptive(found, CUT)
    lr = factor / top.value if top.value > 0 else math.nan
    scalars = {
        ADAPTIVE[0][0]: Scalar.of(top.value, SCALED, top.error),
        ADAPTIVE[1][0]: Scalar.of(
            lr,
            "LR",
            lr * top.error / top.value if top.value > 0 else None,
            reason="the largest eigenvalue is not positive: no LR is unstable",
        ),
    }
    notes["adam"] = f"{top.method}; the limit is {factor:.3g} / the eigenvalue"
    return replace(found, scalars={**found.scalars, **scalars}, notes=notes)


def without_adaptive(found: Measurement, reason: str) -> Measurement:
    """Add that the stable LR of an adaptive optimizer is not known, and why."""
    missing = {name: Scalar(None, unit, reason=reason) for name, unit in ADAPTIVE}
    return replace(found, scalars={**found.scalars, **missing})
