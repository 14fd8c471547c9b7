"""A Hessian as trainscope and its peers have it, for the tasks of `peers_curvature.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers_cases import Case
from torch import Tensor, nn

from trainscope.errors import ProbeError
from trainscope.probes.curvature import Curvature

Matrix = Callable[[Tensor], Tensor]
TOLERANCE = 1e-3


def kept_graph(case: Case) -> Matrix:
    """Return products from one gradient's graph, which is what ten lines of PyTorch do."""
    first = torch.autograd.grad(case.loss(), case.parameters, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        found = torch.autograd.grad(
            first, case.parameters, case.split(vector), retain_graph=True, materialize_grads=True
        )
        return case.join(found)

    return product


def size_of(case: Case) -> int:
    return sum(p.numel() for p in case.parameters)


def vector_of(case: Case, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(size_of(case), generator=torch.Generator().manual_seed(1))
    return case.join(case.split(drawn.to(case.device))).to(dtype)


def ours(case: Case, **options: Any) -> Curvature:
    """Return the probe with what is not asked for left out as far as it has options for that."""
    least = {"top": 1, "tolerance": 0.5, "density_vectors": 0, "trace_vectors": 0}
    known = inspect.signature(Curvature).parameters
    wanted = {name: value for name, value in (least | options).items() if name in known}
    try:
        return Curvature(**wanted)
    except ProbeError:  # the probe does not go without a trace: give it the cheapest
        return Curvature(**(wanted | {"trace_vectors": 2, "exact_classes": 0}))


def as_scipy(product: Matrix, case: Case) -> Any:
    from scipy.sparse.linalg import LinearOperator

    size, dtype = size_of(case), case.parameters[0].dtype

    def matvec(x: NDArray[Any]) -> NDArray[Any]:
        moved = torch.from_numpy(np.ascontiguousarray(x.reshape(-1))).to(case.device, dtype)
        return product(moved).cpu().numpy()

    return LinearOperator((size, size), matvec, dtype=np.dtype(str(dtype).removeprefix("torch.")))


def eigsh(operator: Any, count: int, ncv: int | None, tolerance: float) -> NDArray[np.float64]:
    from scipy.sparse import linalg

    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(operator.dtype)
    found = linalg.eigsh(
        operator, count, which="LA", ncv=ncv, tol=tolerance, v0=start, return_eigenvectors=False
    )
    return np.sort(found.astype(float))[::-1]


class Transposed(nn.Module):
    """Logits [N, T, C] as [N, C, T]."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.transpose(1, 2)


def curvlinops_hessian(case: Case) -> Any:
    from curvlinops import HessianLinearOperator

    network = case.network
    if case.data.labels.ndim == 2:  # torch's loss wants the classes second
        network = nn.Sequential(network, Transposed())
    return HessianLinearOperator(
        network,
        nn.CrossEntropyLoss(),
        case.parameters,
        [(case.data.inputs, case.data.labels)],
        check_deterministic=False,
    )


def curvlinops_product(case: Case) -> Matrix:
    operator = curvlinops_hessian(case)
    return lambda vector: case.join(case.split(operator @ vector))


def eigenthings(case: Case) -> Any:
    import hessian_eigenthings as things

    operator = things.HessianOperator(
        case.network,
        [(case.data.inputs, case.data.labels)],
        lambda network, batch: Case.criterion(network(batch[0]), batch[1]),
    )
    if not case.masked:
        return operator
    return things.LambdaOperator(
        lambda v: case.join(case.split(operator.matvec(case.join(case.split(v))))),
        size=operator.size,
        device=operator.device,
        dtype=operator.dtype,
    )


def pyhessian(case: Case) -> Any:
    from pyhessian import hessian

    data = (case.data.inputs, case.data.labels)
    return hessian(case.network, Case.criterion, data=data, cuda=case.device.type == "cuda")
