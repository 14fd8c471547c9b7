"""The curvature of one block at a time: the loss's Hessian restricted to some of the parameters.

The restriction to a block is its diagonal block of the whole matrix: products differentiate by the
block's parameters alone, and take vectors of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch

from trainscope.errors import ProbeError
from trainscope.pace import CUT, INTERRUPTIONS, cut_short, was_cut_short
from trainscope.probes.hessian.few_vectors import LeanWanted, hutchinson, lean_spectrum
from trainscope.probes.hessian.spectrum import NoMatrixError
from trainscope.probes.hessian.streamed_products import StreamedProduct
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.parameters import Measured
from trainscope.probes.subject.passes import NotDifferentiableError
from trainscope.records import Measurement, Status
from trainscope.records.measurement import Array


@dataclass(frozen=True)
class BlockCurvature:
    """What was found of one block.

    Attributes:
        name: The block's.
        weights: How many survive in it.
        top: The largest eigenvalue of its part of the matrix.
        top_error: Its standard error.
        trace: The trace of that part.
        trace_error: Its standard error.
        converged: The eigenvalue is within the tolerance.
    """

    name: str
    weights: int
    top: float
    top_error: float
    trace: float
    trace_error: float
    converged: bool


@dataclass(frozen=True)
class BlocksWanted:
    """What is asked of every block.

    Attributes:
        spectrum: What is to be found of its eigenvalues.
        ggn: Of the Gauss-Newton matrix instead of the Hessian.
        keep: Keep every batch's graph between a block's products.
        trace_vectors: Random vectors of a trace.
    """

    spectrum: LeanWanted
    ggn: bool
    keep: bool
    trace_vectors: int


def blocks_of(names: Sequence[str], asked: bool | str) -> dict[str, list[int]]:
    """Return the places of each block's parameters, by the block's name.

    Args:
        names: Of the measured parameters.
        asked: True for the network's own blocks: what a list of modules numbers ("layers.3",
            "layer1.0"), and beside these each layer by itself. Or patterns of parameter names with
            commas between them, each of which is one block.

    Raises:
        ProbeError: A pattern fits no name.
    """
    found: dict[str, list[int]] = {}
    if asked is True:
        for place, name in enumerate(names):
            parts = name.split(".")
            number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
            block = parts[:-1] or parts if number is None else parts[: number + 1]
            found.setdefault(".".join(block), []).append(place)
        return found
    for pattern in filter(None, (part.strip() for part in str(asked).split(","))):
        places = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
        if not places:
            raise ProbeError(
                f"curvature: no measured parameter is called '{pattern}'; give blocks=True, or "
                f"patterns of names like '{names[0]}'"
            )
        found[pattern] = places
    if not found:
        raise ProbeError("curvature: blocks names no parameter; give True or patterns of names")
    return found


def with_blocks(
    found: Measurement,
    lent: Lent,
    weights: Measured,
    blocks: dict[str, list[int]],
    wanted: BlocksWanted,
    generator: torch.Generator,
) -> Measurement:
    """Add what is asked of single blocks to what is known of the whole matrix, or why it is not.

    Args:
        found: What is known.
        lent: As `measure_blocks` takes it, like the others.
        weights: See there.
        blocks: See there; none adds nothing.
        wanted: See there.
        generator: See there.
    """
    if not blocks or found.status is Status.SKIPPED:
        return found
    if was_cut_short():
        return replace(found, notes={**found.notes, "blocks": f"not measured: {CUT}"})
    try:
        rows = measure_blocks(lent, weights, blocks, wanted, generator)
    except (NotDifferentiableError, NoMatrixError) as error:
        return replace(found, notes={**found.notes, "blocks": f"not measured: {error}"})
    late = [row.name for row in rows if not row.converged]
    said = "largest eigenvalue and trace of the matrix restricted to each block's parameters"
    if was_cut_short():
        said += f"; of the first {len(rows)} of {len(blocks)} alone, as the rest was cut short"
    if late:
        most = wanted.spectrum.most_products
        said += f"; not to the tolerance after {most} products: {', '.join(late)}"
    return replace(
        found,
        arrays={**found.arrays, **arrays_of(rows)},
        notes={**found.notes, "blocks": said},
    )


def measure_blocks(
    lent: Lent,
    weights: Measured,
    blocks: dict[str, list[int]],
    wanted: BlocksWanted,
    generator: torch.Generator,
) -> list[BlockCurvature]:
    """Return the top eigenvalue and the trace of each block of a curvature matrix.

    Interrupted, it returns the blocks that are done, where that is wanted (see `pace.cut_short`).

    Args:
        lent: The network and data.
        weights: The parameters; all used by the loss.
        blocks: As `blocks_of` returns them; those without a survivor are left out.
        wanted: What is to be found of each.
        generator: Draws the vectors.
    """
    rows = []
    for name, places in blocks.items():
        some = weights.some(places)
        if not some.survivors:
            continue
        product = StreamedProduct(lent, some, ggn=wanted.ggn, keep=wanted.keep)
        try:
            spectrum, _ = lean_spectrum(product, generator, wanted.spectrum)
            if spectrum.top.cut:
                break
            trace = hutchinson(product, generator, wanted.trace_vectors)
        except INTERRUPTIONS as error:
            cut_short(error)
            break
        top = spectrum.top
        scale = max(abs(float(top.values[0])), abs(top.smallest))
        rows.append(
            BlockCurvature(
                name=name,
                weights=some.survivors,
                top=float(top.values[0]),
                top_error=float(top.errors[0]) + spectrum.error * scale,
                trace=trace.value,
                trace_error=trace.stderr or 0.0,
                converged=top.converged,
            )
        )
    return rows


def arrays_of(rows: Sequence[BlockCurvature]) -> dict[str, Array]:
    """Return what was found of blocks as a Measurement's arrays."""
    return {
        "blocks": [row.name for row in rows],
        "block_weights": [row.weights for row in rows],
        "block_eigenvalues": [row.top for row in rows],
        "block_eigenvalue_errors": [row.top_error for row in rows],
        "block_traces": [row.trace for row in rows],
        "block_trace_errors": [row.trace_error for row in rows],
    }
