"""The other tasks of `peers.py`: Jacobians, per-sample gradients, and what a hook costs a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from peers_cases import Case
from peers_race import Answer, Contender, Task
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from trainscope.probes.gradient import Gradient
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.jacobian import Jacobian

GIGABYTE = 2**30


def jacobian_contenders(case: Case) -> Iterator[Contender]:
    inputs, network = case.data.inputs, case.network
    each = inputs[0].numel() * inputs.element_size()
    with torch.no_grad():
        classes = network(inputs[:1]).shape[1]
    chunk = max(1, min(len(inputs), GIGABYTE // (each * classes)))

    def trainscope() -> Callable[[], Answer]:
        probe = Jacobian(exact=True)
        return lambda: Answer(
            probe.measure(network, case.data),
            read=lambda found: np.array(found.arrays["singular_values"]),
        )

    def batched() -> Callable[[], Answer]:
        return lambda: Answer(rows_and_values(case, chunk), read=lambda v: v.double().cpu().numpy())

    def jacrev_of_the_sum() -> Callable[[], Answer]:
        def run() -> Tensor:
            found = []
            for part in torch.split(inputs, chunk):
                rows = jacrev(lambda x: network(x).sum(0), chunk_size=10)(part).detach()
                found.append(torch.linalg.svdvals(rows.flatten(2).transpose(0, 1)))
            return torch.cat(found)

        return lambda: Answer(run(), read=lambda v: v.double().cpu().numpy())

    def vmap_jacrev() -> Callable[[], Answer]:
        per_sample = vmap(jacrev(lambda x: network(x.unsqueeze(0))[0], chunk_size=10), chunk_size=8)
        return lambda: Answer(
            torch.linalg.svdvals(per_sample(inputs).detach().flatten(2)),
            read=lambda v: v.double().cpu().numpy(),
        )

    yield Contender("trainscope", trainscope)
    yield Contender("batched rows + svdvals", batched)
    yield Contender("jacrev of the sum + svdvals", jacrev_of_the_sum)
    if classes <= 10:
        yield Contender("vmap(jacrev) + svdvals", vmap_jacrev, slow=True)


def rows_and_values(case: Case, chunk: int) -> Tensor:
    """Return all singular values, by one backward pass of a class's sum over a batch a row."""
    found = []
    for part in torch.split(case.data.inputs, chunk):
        x = part.clone().requires_grad_()
        logits = case.network(x)
        rows = [
            torch.autograd.grad(logits[:, c].sum(), x, retain_graph=True)[0].flatten(1)
            for c in range(logits.shape[1])
        ]
        found.append(torch.linalg.svdvals(torch.stack(rows, 1)))
    return torch.cat(found)


def jacobian_reference(case: Case) -> Any:
    return rows_and_values(case.double(), 1 if case.name.endswith("50") else 8).cpu().numpy()


def jacobian_error(answer: Answer, reference: Any) -> float:
    """Return the worst error, relative to the sample's largest value."""
    found = answer.value
    return float((np.abs(found - reference) / reference[:, :1]).max())


def gradient_contenders(case: Case) -> Iterator[Contender]:
    """Yield ways to each sample's gradient norm and the mean gradient's, which make the SNR."""

    def trainscope() -> Callable[[], Answer]:
        probe = Gradient()

        def read(found: Any) -> Tensor:
            norms = torch.tensor(found.arrays["sample_norms"], dtype=torch.float64)
            return torch.cat([norms, torch.tensor([found.value("norm")], dtype=torch.float64)])

        return lambda: Answer(probe.measure(case.network, case.data), read=read)

    def functional() -> Callable[[], Answer]:
        return lambda: Answer(vmap_grad(case))

    def backpack() -> Callable[[], Answer]:
        from backpack import backpack as context
        from backpack import extend, extensions

        network = copy.deepcopy(case.network)
        for module in network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        network = extend(network, use_converter=True).eval()
        criterion = extend(nn.CrossEntropyLoss())

        def run() -> list[Tensor]:
            network.zero_grad()
            loss = criterion(network(case.data.inputs), case.data.labels)
            with context(extensions.BatchGrad()):
                loss.backward()
            scaled = [p.grad_batch * len(case.data) for p in network.parameters()]
            return [p.grad for p in network.parameters()] + scaled

        return lambda: Answer(run(), read=lambda found: summary(case, found))

    def opacus() -> Callable[[], Answer]:
        from opacus import GradSampleModule

        network = GradSampleModule(
            copy.deepcopy(case.network).train(), loss_reduction="mean", strict=True
        )

        def run() -> list[Tensor]:
            network.zero_grad()
            case.criterion(network(case.data.inputs), case.data.labels).backward()
            found = [p.grad for p in network.parameters()]
            return found + [p.grad_sample for p in network.parameters()]

        return lambda: Answer(run(), read=lambda found: summary(case, found))

    yield Contender("trainscope", trainscope)
    yield Contender("vmap(grad)", functional)
    yield Contender("BackPACK, BatchGrad", backpack)
    yield Contender("opacus, GradSampleModule", opacus)


def summary(case: Case, found: list[Tensor]) -> Tensor:
    """Return the norms of per-sample gradients and of the mean gradient, given both."""
    count = len(case.parameters)
    mean = torch.stack([g.square().sum() for g in case.keep(found[:count])]).sum().sqrt()
    each = [g.flatten(1).square().sum(1) for g in case.keep(found[count:])]
    return torch.cat([torch.stack(each).sum(0).sqrt(), mean.view(1)]).double().cpu()


def vmap_grad(case: Case, chunk: int = 32) -> Tensor:
    """Return every sample's gradient norm, then the mean gradient's, by torch.func."""
    weights = {name: p.detach() for name, p in case.network.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return case.criterion(functional_call(case.network, weights, (x[None],)), y[None])

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))
    size = sum(p.numel() * p.element_size() for p in case.parameters)
    chunk = max(1, min(chunk, GIGABYTE // size))
    squares, total = [], None
    for x, y in zip(
        torch.split(case.data.inputs, chunk), torch.split(case.data.labels, chunk), strict=True
    ):
        found = case.keep(list(per_sample(weights, x, y).values()))
        squares.append(torch.stack([g.flatten(1).square().sum(1) for g in found]).sum(0))
        sums = [g.sum(0) for g in found]
        total = sums if total is None else [a + b for a, b in zip(total, sums, strict=True)]
    assert total is not None
    mean = torch.stack([g.square().sum() for g in total]).sum().sqrt() / len(case.data)
    return torch.cat([torch.cat(squares).sqrt(), mean.view(1)]).double().cpu()


def gradient_reference(case: Case) -> Tensor:
    return vmap_grad(case.double(), 8)


def gradient_error(answer: Answer, reference: Any) -> float:
    return float((answer.value / reference - 1).abs().max())


def hook_contenders(case: Case) -> Iterator[Contender]:
    """Yield what is called at a step: 100 times, of an optimizer that does nothing else."""

    class Nothing(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            return None

    def watched(watch: Callable[[nn.Module, torch.optim.Optimizer], object]) -> Any:
        def make() -> Callable[[], Answer]:
            network = copy.deepcopy(case.network)
            optimizer = Nothing(network.parameters(), lr=1e-3)
            held = watch(network, optimizer)
            case.criterion(network(case.data.inputs), case.data.labels).backward()

            def run() -> Answer:
                for _ in range(100):
                    optimizer.step()
                return Answer(held)

            return run

        return make

    def naive(network: nn.Module, optimizer: torch.optim.Optimizer) -> object:
        def look(*_: object) -> None:
            sum(p.grad.norm().item() ** 2 for p in network.parameters() if p.grad is not None)

        return optimizer.register_step_pre_hook(look)

    yield Contender("trainscope", watched(lambda n, o: ProbeHook().attach(n, o)))
    yield Contender(
        "trainscope, no norms", watched(lambda n, o: ProbeHook(norms=None).attach(n, o))
    )
    yield Contender("a loop of norm().item()", watched(naive))
    yield Contender("a step without a hook", watched(lambda n, o: None))


TASKS = [
    Task(
        "jacobian",
        "all singular values of the input-output Jacobian",
        "worst error over largest",
        jacobian_contenders,
        jacobian_reference,
        jacobian_error,
        1e-3,
        needs_pixels=True,
    ),
    Task(
        "gradients",
        "per-sample gradient norms and the mean gradient",
        "worst relative error",
        gradient_contenders,
        gradient_reference,
        gradient_error,
        1e-3,
    ),
    Task(
        "hook",
        "100 steps' hooks, the steps themselves left out",
        "",
        hook_contenders,
        lambda case: None,
        lambda answer, _: 0.0,
        1.0,
    ),
]
