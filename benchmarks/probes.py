"""The numerical probes beside their peers: same network, same data, same process, one CPU thread.

    python benchmarks/probes.py [--samples 128] [--repeats 3] [--tasks product,top,trace,jacobian]

The network is a CIFAR ResNet-20 fitted for a few steps to random images with class means. Times are
processor seconds, the least of the repeats, in units of one gradient of the mean loss over the same
samples (forward and backward of the plain network). Each answer is held against a reference that
was run to convergence in float64.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.networks.registry import build
from trainscope.probes.curvature import Curvature
from trainscope.probes.eigenvalues import largest_eigenvalues
from trainscope.probes.evaluation import evaluation
from trainscope.probes.footprint import footprint
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.parameters import measured
from trainscope.probes.products import MatrixProduct
from trainscope.probes.sample_gradients import SampleGradients
from trainscope.probes.trace import exact_gauss_newton

Task = Callable[[], object]


def setting(samples: int) -> tuple[nn.Module, ProbeData]:
    torch.manual_seed(0)
    network = build("resnet20", num_classes=10)
    labels = torch.randint(0, 10, (samples,))
    inputs = torch.randn(samples, 3, 32, 32) + 0.5 * torch.randn(10, 3, 1, 1)[labels]
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(10):
        optimizer.zero_grad()
        F.cross_entropy(network.train()(inputs), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval(), ProbeData("random:3x32x32", inputs, labels, batch_size=samples)


def seconds(task: Task, repeats: int) -> tuple[float, object]:
    """Return the least processor time of a task, and its last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            result = task()
        best = min(best, time.process_time() - start)
    return best, result


def line(who: str, cost: float, answer: str) -> None:
    print(f"  {who:34s}{cost:9.2f}   {answer}", flush=True)


def off(value: float, reference: float) -> str:
    return f"{value:.6g}, off by {abs(value / reference - 1):.1e}"


def tries(name: str, load: Callable[[], Iterator[tuple[str, Task]]]) -> list[tuple[str, Task]]:
    """Return a peer's tasks, or say why there are none."""
    try:
        return list(load())
    except Exception as error:  # a peer that is missing or broken must not stop the others
        print(f"  {name:34s}  skipped: {type(error).__name__}: {str(error)[:60]}")
        return []


def products(network: nn.Module, data: ProbeData, repeats: int) -> None:
    print("one Hessian-vector product, graph built beforehand where the tool can")
    parameters = list(network.parameters())
    size = sum(p.numel() for p in parameters)
    vector = torch.randn(size, generator=torch.Generator().manual_seed(1))
    with evaluation(network, data) as lent:
        product = MatrixProduct(lent, measured(network), ggn=False, keep=True)
        product(vector)
        ours = product(vector)

    def naive() -> Tensor:
        loss = F.cross_entropy(network(data.inputs), data.labels)
        grads = torch.autograd.grad(loss, parameters, create_graph=True)
        dot = sum((g * v).sum() for g, v in zip(grads, split(vector, parameters), strict=True))
        return torch.cat([h.flatten() for h in torch.autograd.grad(dot, parameters)])

    def pyhessian() -> Iterator[tuple[str, Task]]:
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product

        it = hessian(network, nn.CrossEntropyLoss(), data=(data.inputs, data.labels), cuda=False)
        pieces = split(vector, parameters)

        def task() -> Tensor:
            found = hessian_vector_product(it.gradsH, it.params, pieces)
            return torch.cat([h.flatten() for h in found])

        yield "PyHessian, kept graph", task

    def curvlinops() -> Iterator[tuple[str, Task]]:
        it = curvlinops_operator(network, data)
        yield "curvlinops", lambda: torch.as_tensor(it @ vector)

    def gradient() -> Tensor:
        loss = F.cross_entropy(network(data.inputs), data.labels)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    tasks: list[tuple[str, Task]] = [("one gradient", gradient)]
    tasks += [("trainscope, kept graph", lambda: product(vector))]
    tasks += [("double backward, no reuse", naive)]
    tasks += tries("PyHessian", pyhessian) + tries("curvlinops", curvlinops)
    best = [float("inf")] * len(tasks)
    for _ in range(2 * repeats):  # in turns, so that a busy machine is unfair to nobody
        for place, (_, task) in enumerate(tasks):
            cost, other = seconds(task, 1)
            best[place] = min(best[place], cost)
    for (who, task), cost in zip(tasks, best, strict=True):
        other = task()
        assert isinstance(other, Tensor)
        apart = float((other.double() - ours).norm() / ours.norm())
        line(who, cost / best[0], "" if who == "one gradient" else f"differs by {apart:.1e}")
    clean(network)


def converged_tops(network: nn.Module, data: ProbeData, count: int) -> np.ndarray:
    """Return the largest eigenvalues in float64 to 1e-6, from a random start."""
    double = build("resnet20", num_classes=10).double()
    double.load_state_dict(network.state_dict())
    with evaluation(double.eval(), data) as lent:
        product = MatrixProduct(lent, measured(double), ggn=False, keep=True)
        generator = data.generator()
        start = torch.randn(product.size, generator=generator, dtype=torch.float64)
        found = largest_eigenvalues(
            product, start, count, tolerance=1e-6, generator=generator, dtype=torch.float64
        )
    return found.values


def tops(
    network: nn.Module, data: ProbeData, unit: float, repeats: int, reference: np.ndarray
) -> None:
    count = len(reference)
    print(f"top {count} eigenvalue(s) to 1e-3, all set-up included")

    def ours() -> np.ndarray:
        probe = Curvature(top=count, density_vectors=0)
        with evaluation(network, data) as lent:
            product = MatrixProduct(lent, measured(network), ggn=False, keep=True)
            return probe._spectrum(product, lent, data.generator())[0].values

    def pyhessian() -> Iterator[tuple[str, Task]]:
        from pyhessian import hessian

        def task() -> list[float]:
            it = hessian(
                network, nn.CrossEntropyLoss(), data=(data.inputs, data.labels), cuda=False
            )
            return it.eigenvalues(maxIter=100, tol=1e-3, top_n=count)[0]

        yield "PyHessian, power iteration", task

    def eigenthings() -> Iterator[tuple[str, Task]]:
        import hessian_eigenthings as things

        def task() -> np.ndarray:
            it = things.HessianOperator(
                network,
                [(data.inputs, data.labels)],
                lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
            )
            found = things.lanczos(it, k=count, tol=1e-3, which="LA", seed=0)
            return np.sort(np.asarray(found.eigenvalues, dtype=float))[::-1]

        yield "hessian-eigenthings, lanczos", task

    def curvlinops() -> Iterator[tuple[str, Task]]:
        from scipy.sparse.linalg import eigsh

        it = curvlinops_operator(network, data).to_scipy()
        yield (
            "curvlinops + eigsh",
            lambda: eigsh(it, k=count, which="LA", tol=1e-3, return_eigenvectors=False)[::-1],
        )

    peers: list[tuple[str, Task]] = [("trainscope", ours)]
    peers += tries("PyHessian", pyhessian)
    peers += tries("hessian-eigenthings", eigenthings) + tries("curvlinops", curvlinops)
    for who, task in peers:
        for name, run in tries(who, lambda task=task, who=who: iter([(who, task)])):
            try:
                cost, found = seconds(run, 1 if who != "trainscope" else repeats)
                values = np.asarray(found, dtype=float)
                worst = float(np.abs(values / reference - 1).max())
                line(name, cost / unit, f"top {values[0]:.6g}, worst off by {worst:.1e}")
            except Exception as error:  # say it and go on to the next peer
                print(f"  {name:34s}  failed: {type(error).__name__}: {str(error)[:60]}")
        clean(network)


def traces(network: nn.Module, data: ProbeData, unit: float, repeats: int) -> None:
    print("trace of the Hessian, all set-up included")
    double = build("resnet20", num_classes=10).double()
    double.load_state_dict(network.state_dict())

    def ours(network: nn.Module = network) -> float:
        found = footprint(network, data)
        with evaluation(network, data) as lent:
            gradients = SampleGradients(lent, measured(network), found.graph)
            return exact_gauss_newton(lent, gradients, 10).value

    reference = ours(double.eval())

    def pyhessian() -> Iterator[tuple[str, Task]]:
        from pyhessian import hessian

        def task() -> float:
            it = hessian(
                network, nn.CrossEntropyLoss(), data=(data.inputs, data.labels), cuda=False
            )
            return float(np.mean(it.trace(maxIter=50, tol=0)))

        yield "PyHessian, at most 50 vectors", task

    def curvlinops() -> Iterator[tuple[str, Task]]:
        from curvlinops import hutchpp_trace

        it = curvlinops_operator(network, data)
        yield "curvlinops, Hutch++, 51 products", lambda: float(hutchpp_trace(it, 51))

    cost, value = seconds(ours, repeats)
    line("trainscope, exact", cost / unit, off(float(value), reference))  # type: ignore[arg-type]
    for who, task in tries("PyHessian", pyhessian) + tries("curvlinops", curvlinops):
        cost, value = seconds(task, 1)
        line(who, cost / unit, off(float(value), reference))  # type: ignore[arg-type]
        clean(network)


def jacobians(network: nn.Module, data: ProbeData, unit: float, repeats: int) -> None:
    print("all singular values of the input-output Jacobian, 10 classes, all set-up included")
    double = build("resnet20", num_classes=10).double()
    double.load_state_dict(network.state_dict())
    probe = Jacobian()

    def values(found: object) -> np.ndarray:
        return np.array(found.arrays["singular_values"])  # type: ignore[attr-defined]

    reference = values(probe.measure(double, data))

    def loop() -> Tensor:
        rows = []
        for x in data.inputs.split(1):
            x = x.clone().requires_grad_()
            logits = network(x)[0]
            rows.append(
                torch.stack(
                    [torch.autograd.grad(z, x, retain_graph=True)[0].flatten() for z in logits]
                )
            )
        return torch.linalg.svdvals(torch.stack(rows))

    def vectorised() -> Tensor:
        from torch.func import jacrev, vmap

        jacobian = vmap(jacrev(lambda x: network(x.unsqueeze(0))[0]), chunk_size=16)(data.inputs)
        return torch.linalg.svdvals(jacobian.detach().flatten(2))

    cost, found = seconds(lambda: probe.measure(network, data), repeats)
    worst = float(np.abs(values(found) / reference - 1).max())
    line("trainscope", cost / unit, f"worst off by {worst:.1e}")
    for who, task in (("loop over samples and classes", loop), ("vmap(jacrev)", vectorised)):
        cost, other = seconds(task, 1)
        worst = float(np.abs(other.numpy() / reference - 1).max())  # type: ignore[attr-defined]
        line(who, cost / unit, f"worst off by {worst:.1e}")


def curvlinops_operator(network: nn.Module, data: ProbeData):  # type: ignore[no-untyped-def]
    from curvlinops import HessianLinearOperator

    return HessianLinearOperator(
        network,
        nn.CrossEntropyLoss(),
        list(network.parameters()),
        [(data.inputs, data.labels)],
        check_deterministic=False,
    )


def split(vector: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    pieces = torch.split(vector, [p.numel() for p in parameters])
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


def clean(network: nn.Module) -> None:
    """Take away the gradients that some peers leave behind."""
    for parameter in network.parameters():
        parameter.grad = None
    network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", default="product,top,trace,jacobian")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    network, data = setting(options.samples)
    parameters = list(network.parameters())

    def gradient() -> object:
        return torch.autograd.grad(F.cross_entropy(network(data.inputs), data.labels), parameters)

    unit, _ = seconds(gradient, options.repeats + 2)
    print(f"ResNet-20, {options.samples} samples, one gradient: {unit:.3f} processor seconds")
    print(f"  {'':34s}{'gradients':>9s}   answer")
    chosen = options.tasks.split(",")
    if "product" in chosen:
        products(network, data, options.repeats)
    if "top" in chosen:
        reference = converged_tops(network, data, 5)
        tops(network, data, unit, options.repeats, reference[:1])
        tops(network, data, unit, options.repeats, reference)
    if "trace" in chosen:
        traces(network, data, unit, options.repeats)
    if "jacobian" in chosen:
        jacobians(network, data, unit, options.repeats)


if __name__ == "__main__":
    main()
