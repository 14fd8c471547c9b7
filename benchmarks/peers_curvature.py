"""The curvature tasks of `peers.py`: a product, the largest eigenvalues, the trace, the density."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers_cases import Case
from peers_matrices import (
    TOLERANCE,
    Matrix,
    as_scipy,
    curvlinops_hessian,
    curvlinops_product,
    eigenthings,
    eigsh,
    kept_graph,
    ours,
    pyhessian,
    size_of,
    vector_of,
)
from peers_race import Answer, Contender, Task
from torch import Tensor

from trainscope.probes.curvature import Curvature
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured

DRAWS = 16
VECTORS, STEPS = 2, 12
UNMASKED = "it has no masks, so its matrix is another one"


def product_contenders(case: Case) -> Iterator[Contender]:
    vector = vector_of(case)

    def trainscope() -> Callable[[], Answer]:
        with evaluation(case.network, case.data) as lent:
            weights = measured(case.network)
            product = MatrixProduct(lent, weights, ggn=False, keep=True)
            flat = weights.flatten(case.split(vector))
            product(flat)
        join = weights.unflatten
        return lambda: Answer(product(flat), read=lambda out: case.join(join(out)))

    def kept() -> Callable[[], Answer]:
        product = kept_graph(case)
        return lambda: Answer(product(vector))

    def nothing_kept() -> Callable[[], Answer]:
        return lambda: Answer(kept_graph(case)(vector))

    def hessian() -> Callable[[], Answer]:
        from pyhessian.utils import hessian_vector_product

        it, pieces = pyhessian(case), case.split(vector)
        return lambda: Answer(hessian_vector_product(it.gradsH, it.params, pieces), read=case.join)

    def linops() -> Callable[[], Answer]:
        product = curvlinops_product(case)
        return lambda: Answer(product(vector))

    def things() -> Callable[[], Answer]:
        operator = eigenthings(case)
        return lambda: Answer(operator.matvec(vector), read=lambda v: case.join(case.split(v)))

    yield Contender("trainscope", trainscope)
    yield Contender("kept graph", kept)
    yield Contender("no graph kept", nothing_kept)
    yield Contender("PyHessian", hessian)
    yield Contender("curvlinops", linops)
    yield Contender("hessian-eigenthings", things)


def product_reference(case: Case) -> Tensor:
    double = case.double()
    return kept_graph(double)(vector_of(case, torch.float64))


def product_error(answer: Answer, reference: Any) -> float:
    found = answer.value.double()
    return float((found - reference.to(found)).norm() / reference.norm())


def top_contenders(count: int) -> Callable[[Case], Iterator[Contender]]:
    def contenders(case: Case) -> Iterator[Contender]:
        small = max(count + 4, 2 * count + 1)

        def trainscope() -> Callable[[], Answer]:
            probe = ours(case, top=count, tolerance=TOLERANCE)
            return lambda: Answer(
                probe.measure(case.network, case.data),
                read=lambda found: np.array(found.arrays["eigenvalues"][:count], dtype=float),
            )

        def kept(ncv: int | None) -> Callable[[], Callable[[], Answer]]:
            return lambda: (
                lambda: Answer(eigsh(as_scipy(kept_graph(case), case), count, ncv, TOLERANCE))
            )

        def linops(ncv: int | None) -> Callable[[], Callable[[], Answer]]:
            return lambda: (
                lambda: Answer(
                    eigsh(as_scipy(curvlinops_product(case), case), count, ncv, TOLERANCE)
                )
            )

        def hessian() -> Callable[[], Answer]:
            return lambda: Answer(
                pyhessian(case).eigenvalues(maxIter=100, tol=TOLERANCE, top_n=count)[0],
                read=lambda found: np.sort(np.array(found, dtype=float))[::-1],
            )

        def things() -> Callable[[], Answer]:
            import hessian_eigenthings

            steps = 20 if count == 1 else 8 * count
            return lambda: Answer(
                hessian_eigenthings.lanczos(
                    eigenthings(case), k=count, max_iter=steps, tol=TOLERANCE, which="LA", seed=0
                ),
                read=lambda found: np.sort(found.eigenvalues.double().cpu().numpy())[::-1],
            )

        yield Contender("trainscope", trainscope)
        yield Contender("kept graph + eigsh", kept(None))
        yield Contender(f"kept graph + eigsh, ncv {small}", kept(small))
        why = UNMASKED if case.masked else ""
        yield Contender("PyHessian, power iteration", hessian, refuses=why)
        yield Contender("hessian-eigenthings, Lanczos", things)
        yield Contender("curvlinops + eigsh", linops(None), slow=True)
        yield Contender(f"curvlinops + eigsh, ncv {small}", linops(small), slow=True)

    return contenders


def top_reference(case: Case) -> NDArray[np.float64]:
    double = case.double()
    return eigsh(as_scipy(kept_graph(double), double), 5, None, 1e-4)  # to about 1e-6


def top_error(answer: Answer, reference: Any) -> float:
    count = len(answer.value)
    return float(np.abs(answer.value / np.asarray(reference)[:count] - 1).max())


def trace_contenders(case: Case) -> Iterator[Contender]:
    """Yield ways that state, or show over repeats, how far off they are."""

    def trainscope() -> Callable[[], Answer]:
        known = inspect.signature(Curvature).parameters
        probe = ours(case, trace_vectors=DRAWS, exact_classes=known["exact_classes"].default)

        def read(found: Any) -> tuple[float, float]:
            scalar = found.scalars["trace"]
            return scalar.value, scalar.stderr or 0.0

        return lambda: Answer(probe.measure(case.network, case.data), read=read)

    def stated(values: list[float]) -> tuple[float, float]:
        return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)

    def hutchinson() -> Callable[[], Answer]:
        def run() -> list[float]:
            product = kept_graph(case)
            return [one_draw(case, product) for _ in range(DRAWS)]

        return lambda: Answer(run(), read=stated)

    def hessian() -> Callable[[], Answer]:
        return lambda: Answer(pyhessian(case).trace(maxIter=DRAWS, tol=0), read=stated)

    def things() -> Callable[[], Answer]:
        import hessian_eigenthings

        def read(found: Any) -> tuple[float, float]:
            return float(found.estimate), math.nan

        return lambda: Answer(
            hessian_eigenthings.trace(eigenthings(case), num_matvecs=3 * DRAWS), read=read
        )

    def linops() -> Callable[[], Answer]:
        from curvlinops import hutchpp_trace

        return lambda: Answer(
            hutchpp_trace(curvlinops_hessian(case), 3 * DRAWS),
            read=lambda found: (float(found), math.nan),
        )

    why = UNMASKED if case.masked else ""
    yield Contender("trainscope", trainscope)
    yield Contender(f"kept graph, Hutchinson, {DRAWS} draws", hutchinson)
    yield Contender(f"PyHessian, {DRAWS} draws", hessian, refuses=why)
    yield Contender(f"hessian-eigenthings, Hutch++, {3 * DRAWS} products", things, slow=True)
    yield Contender(f"curvlinops, Hutch++, {3 * DRAWS} products", linops, slow=True, refuses=why)


def one_draw(case: Case, product: Matrix) -> float:
    drawn = torch.randint(0, 2, (size_of(case),)).to(case.device, case.parameters[0].dtype)
    signs = case.join(case.split(2 * drawn - 1))
    return float((signs * product(signs)).sum(dtype=torch.float64))


def trace_reference(case: Case) -> tuple[float, float]:
    """Return the trace and its standard error: exact, 0, where the network is made of ReLUs."""
    if case.name in ("vit", "gpt"):
        product = kept_graph(case)
        values = [one_draw(case, product) for _ in range(4 * DRAWS)]
        return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
    return gauss_newton(case.double()), 0.0


def gauss_newton(case: Case) -> float:
    """Return the mean over samples of sum_c p_c |gradient of <e_c - p, logits>|^2, by vmap(grad).

    It is the trace of the Hessian where logits are affine in each single weight.
    """
    from torch.func import functional_call, grad, vmap

    weights = {name: p.detach() for name, p in case.network.named_parameters()}

    def score(weights: dict[str, Tensor], x: Tensor, r: Tensor) -> Tensor:
        out = functional_call(case.network, weights, (x.unsqueeze(0),))[0]
        return (out * r).sum()

    per_sample = vmap(grad(score), in_dims=(None, 0, 0), chunk_size=8)
    with torch.no_grad():
        p = case.network(case.data.inputs).softmax(1)
    total = 0.0
    for c in range(p.shape[1]):
        unit = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)[c]
        roots = p[:, c : c + 1].sqrt() * (unit - p)
        found = case.keep(list(per_sample(weights, case.data.inputs, roots).values()))
        total += sum(float(each.square().sum()) for each in found)
    return total / len(p)


def trace_error(answer: Answer, reference: Any) -> float:
    return abs(answer.value[0] / reference[0] - 1)


def equal_error(cost: float, answer: Answer, errors: list[float], target: float) -> float | None:
    """Return what a random estimate would cost at an error: its square falls with the draws.

    Args:
        cost: Of the estimate as it was made.
        answer: One of it, with its stated standard error, NaN where none is stated.
        errors: Its errors over the repeats.
        target: The relative error to reach.
    """
    value, stderr = answer.value
    spread = stderr / abs(value)
    if math.isnan(spread):
        spread = math.sqrt(float(np.mean(np.square(errors))))
    return cost * max(2 / DRAWS, (spread / target) ** 2) if spread else cost


def density_contenders(case: Case) -> Iterator[Contender]:
    def trainscope() -> Callable[[], Answer]:
        probe = ours(case, density_vectors=VECTORS, density_steps=STEPS)
        return lambda: Answer(
            probe.measure(case.network, case.data),
            read=lambda found: float(max(found.arrays["density_nodes"])),
        )

    def hessian() -> Callable[[], Answer]:
        return lambda: Answer(
            pyhessian(case).density(iter=STEPS, n_v=VECTORS),
            read=lambda found: float(max(map(max, found[0]))),
        )

    def things() -> Callable[[], Answer]:
        import hessian_eigenthings

        return lambda: Answer(
            hessian_eigenthings.spectral_density(
                eigenthings(case), num_runs=VECTORS, lanczos_steps=STEPS, seed=0
            ),
            read=lambda found: float(found.ritz_values.max()),
        )

    why = UNMASKED if case.masked else ""
    yield Contender("trainscope", trainscope)
    yield Contender("PyHessian, SLQ", hessian, refuses=why)
    yield Contender("hessian-eigenthings, SLQ", things)


def density_error(answer: Answer, reference: Any) -> float:
    return abs(answer.value / float(np.asarray(reference)[0]) - 1)


TASKS = [
    Task(
        "product",
        "one Hessian-vector product, set-up left out",
        "relative error of the product",
        product_contenders,
        product_reference,
        product_error,
        1e-2,
    ),
    Task(
        "top",
        "top eigenvalue to 1e-3, set-up included",
        "relative error",
        top_contenders(1),
        top_reference,
        top_error,
        2 * TOLERANCE,
        reference_name="tops",
    ),
    Task(
        "top5",
        "top five eigenvalues to 1e-3, set-up included",
        "worst relative error",
        top_contenders(5),
        top_reference,
        top_error,
        2 * TOLERANCE,
        reference_name="tops",
    ),
    Task(
        "trace",
        "trace of the Hessian at equal error, set-up included",
        "relative error",
        trace_contenders,
        trace_reference,
        trace_error,
        math.inf,
        equal=equal_error,
    ),
    Task(
        "density",
        f"spectral density, {VECTORS} vectors, {STEPS} steps",
        "largest node, off by",
        density_contenders,
        top_reference,
        density_error,
        0.1,
        reference_name="tops",
    ),
]
