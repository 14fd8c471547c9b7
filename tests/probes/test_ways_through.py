"""Networks whose samples go different ways, inputs of one number each, TorchScript, penalties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trainscope
from trainscope.data import ProbeData
from trainscope.errors import CheckpointError
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.tangent_kernel import TangentKernel
from trainscope.task import FromLoss

SAMPLES = 12


class Experts(nn.Module):
    """A mixture of which each sample goes to one expert; the first two to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 3), nn.Tanh()) for _ in range(3))
        self.spare = nn.Linear(4, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        place = x[:, 0].long() % len(self.experts)
        out = x.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            (rows,) = torch.where(place == number)
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]))
        return self.head(out)


def experts():
    torch.manual_seed(0)
    inputs = torch.randn(SAMPLES, 4)
    inputs[:, 0] = torch.arange(SAMPLES).float() % 3
    inputs[:2, 0] = 0
    return Experts().eval(), inputs, torch.arange(SAMPLES) % 3


def dense(network, loss):
    """Return the gradient and the Hessian of a loss by all parameters, in float64."""
    twin = copy.deepcopy(network).double()
    weights = list(twin.parameters())
    options = {"materialize_grads": True, "create_graph": True}
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss(twin), weights, **options)])
    options = {"materialize_grads": True, "retain_graph": True}
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(each, weights, **options)])
        if each.requires_grad
        else torch.zeros(len(gradient), dtype=torch.float64)
        for each in gradient
    ]
    return gradient.detach(), torch.stack(rows)


@pytest.mark.parametrize("batch_size", [2, 5, SAMPLES])
def test_weights_that_the_first_samples_do_not_use_are_measured(batch_size):
    network, inputs, labels = experts()
    gradient, hessian = dense(network, lambda m: F.cross_entropy(m(inputs.double()), labels))
    data = ProbeData("x", inputs, labels, batch_size=batch_size)
    found = Gradient().measure(network, data)
    assert found.value("norm") == pytest.approx(gradient.norm().item(), rel=1e-5)
    found = Curvature().measure(network, data)
    top = torch.linalg.eigvalsh(hessian)[-1].item()
    assert found.value("top_eigenvalue") == pytest.approx(top, rel=1e-4)
    assert found.value("trace") == pytest.approx(hessian.trace().item(), rel=0.2)
    assert found.notes["unused"].endswith("spare.weight, spare.bias")


def test_a_kernel_is_by_the_weights_of_all_samples():
    network, inputs, labels = experts()
    twin = copy.deepcopy(network).double()
    squares = [
        sum(
            g.square().sum().item()
            for g in torch.autograd.grad(
                twin(row[None])[0, k], list(twin.parameters()), materialize_grads=True
            )
        )
        for row in inputs.double()
        for k in range(3)
    ]
    found = TangentKernel().measure(network, ProbeData("x", inputs, labels))
    assert found.value("trace") == pytest.approx(sum(squares) / SAMPLES, rel=1e-5)


class Scaled(nn.Module):
    """Takes a number a sample beside its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, image, *, scale):
        return self.last(torch.tanh(self.first(image) * scale[:, None]))


def test_the_jacobian_takes_inputs_of_one_number_each():
    torch.manual_seed(0)
    network, image, scale = Scaled().eval(), torch.randn(6, 4), torch.rand(6)
    both = torch.autograd.functional.jacobian(lambda x, s: network(x, scale=s), (image, scale))
    rows = [torch.cat([both[0][i, :, i], both[1][i, :, i][:, None]], 1) for i in range(6)]
    right = torch.linalg.svdvals(torch.stack(rows)).mean().item()
    found = trainscope.measure(
        network,
        data={"image": image, "scale": scale, "labels": torch.arange(6) % 3},
        probes=["jacobian"],
    )
    assert found["jacobian"].value("mean_jsv") == pytest.approx(right, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", ["traced", "a part is scripted"])
def test_torchscript_that_can_be_looked_into_is_measured(kind):
    torch.manual_seed(0)
    inputs, labels = torch.randn(8, 4), torch.arange(8) % 3
    own = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    if kind == "traced":
        given = torch.jit.trace(own, inputs)
    else:
        given = nn.Sequential(torch.jit.script(own[:2]), own[2])
    gradient, hessian = dense(own, lambda m: F.cross_entropy(m(inputs.double()), labels))
    found = trainscope.measure(given, data=(inputs, labels), probes=["gradient", "curvature"])
    assert found["gradient"].value("norm") == pytest.approx(gradient.norm().item(), rel=1e-5)
    top = torch.linalg.eigvalsh(hessian)[-1].item()
    assert found["curvature"].value("top_eigenvalue") == pytest.approx(top, rel=1e-4)


def test_a_loss_that_takes_the_weights_itself_is_refused_and_a_way_out_is_right():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    inputs, labels = torch.randn(8, 4), torch.arange(8) % 3

    def penalty(module):
        return 0.1 * sum(p.square().sum() for p in module.parameters())

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels) + penalty(network)

    with pytest.raises(CheckpointError, match=r"the loss takes the weight '0\.weight' itself"):
        trainscope.measure(network, data=(inputs, labels), loss=loss, probes=["gradient"])
    hook = ProbeHook(
        [Gradient(), Curvature(), Jacobian()], data=(inputs, labels), task=FromLoss(loss)
    )
    hook.attach(network, torch.optim.SGD(network.parameters(), 0.1))
    told = {each.probe: each for each in hook.measure("now")}
    assert "takes the weight '0.weight' itself" in told["gradient"].reason
    assert "takes the weight '0.weight' itself" in told["curvature"].reason
    assert told["jacobian"].status == "ok"

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x):
            return self.inner(x), penalty(self.inner)

    gradient, _ = dense(network, lambda m: F.cross_entropy(m(inputs.double()), labels) + penalty(m))
    found = trainscope.measure(
        Both(),
        data=(inputs, labels),
        loss=lambda outputs, labels: F.cross_entropy(outputs[0], labels) + outputs[1],
        probes=["gradient"],
    )
    assert found["gradient"].value("norm") == pytest.approx(gradient.norm().item(), rel=1e-5)
