"""The neural tangent kernel against one that is built from a dense Jacobian, in float64."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BUILDERS, case, student
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.tangent_kernel import TangentKernel
from trainscope.task import Regression, Segmentation

pytestmark = pytest.mark.usefixtures("one_thread")


def dense_kernel(network, data):
    """Return the kernel [N, K, N, K] over trainable, unmasked weights."""
    named = {n: p for n, p in network.named_parameters() if p.requires_grad}
    buffers = dict(network.named_buffers())
    masks = [buffers.get(n.removesuffix("_orig") + "_mask") for n in named]
    with sdpa_kernel(SDPBackend.MATH):
        outputs = network(data.inputs.clone())
    rows = []
    for output in outputs.flatten():
        slopes = torch.autograd.grad(
            output, list(named.values()), retain_graph=True, materialize_grads=True
        )
        kept = [s if m is None else s * m for s, m in zip(slopes, masks, strict=True)]
        rows.append(torch.cat([each.flatten() for each in kept]))
    jacobian = torch.stack(rows).view(*outputs.shape, -1)
    total = torch.einsum("ikp,jlp->ikjl", jacobian, jacobian)
    return total.detach()


def spectrum(kernel):
    size = kernel.shape[0] * kernel.shape[1]
    values, vectors = torch.linalg.eigh(kernel.reshape(size, size) / kernel.shape[0])
    return values.flip(0), vectors.flip(1)


@pytest.mark.parametrize("name", BUILDERS)
def test_against_the_dense_kernel(name):
    one = case(name)
    network = one.network.eval()
    count = len(one.data)
    found = TangentKernel(samples=count, memory=2**30, lrs=(1e-3,)).measure(network, one.data)
    kernel = dense_kernel(network, one.data)
    values, vectors = spectrum(kernel)
    assert found.arrays["eigenvalues"] == pytest.approx(
        values.clamp_min(0).tolist(), abs=1e-10 * float(values[0])
    )
    traces = torch.einsum("ikik->i", kernel)
    assert found.value("trace") == pytest.approx(float(traces.mean()))
    error = student(count) * float(traces.std() / count**0.5)
    assert found.scalars["trace"].stderr == pytest.approx(error)
    shares = values.clamp_min(0) / values.clamp_min(0).sum()
    rank = math.exp(-sum(float(s * s.log()) for s in shares if s > 0))
    assert found.value("effective_rank") == pytest.approx(rank, rel=1e-6)
    logits = network(one.data.inputs.clone()).detach()
    residual = F.one_hot(one.data.labels, logits.shape[1]) - logits.softmax(1)
    flat = residual.flatten()
    matrix = kernel.reshape(len(flat), len(flat))
    alignment = float(flat @ matrix @ flat / (matrix.norm() * flat.square().sum()))
    assert found.value("alignment") == pytest.approx(alignment, rel=1e-8)
    along = (vectors.T @ flat).square() / flat.square().sum()
    assert sum(found.arrays["residual_shares"]) == pytest.approx(1)
    leading = slice(0, 3)
    assert found.arrays["residual_shares"][0] == pytest.approx(float(along[leading][0]), abs=1e-8)


def test_the_steps_are_those_of_gradient_descent_on_the_linearised_network():
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()  # its own linearisation
    inputs, targets = torch.randn(4, 3).double(), torch.randn(4, 2).double()
    with torch.no_grad():  # something that it can learn
        targets = inputs @ torch.randn(3, 2).double() + 0.5
    data = ProbeData("x", batch=(inputs, targets), task=Regression())
    found = TangentKernel(lrs=(0.05, 100.0)).measure(network, data)
    steps, copied = found.value("steps@0.05"), copy.deepcopy(network)
    start, taken = (targets - network(inputs)).detach().norm(), 0
    while (targets - network(inputs)).norm() > 0.1 * start:
        loss = (targets - network(inputs)).square().sum() / (2 * len(inputs))
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(network.parameters(), slopes, strict=True):
                parameter -= 0.05 * slope
        taken += 1
    assert taken == math.ceil(steps)
    stable = TangentKernel(lrs=(1 / found.value("max_eigenvalue"),)).measure(copied, data)
    (own,) = (n for n in stable.scalars if n.startswith("steps@"))
    assert found.value("stable_steps") == pytest.approx(stable.value(own))
    largest = 2 / found.value("max_eigenvalue")
    why = found.scalars["steps@100"].reason
    assert "diverges" in why
    assert f"{largest:.3g}" in why


def test_what_cannot_be_learned_stays_and_is_said():
    torch.manual_seed(0)
    network = nn.Linear(2, 1).double()
    inputs, targets = torch.randn(8, 2).double(), torch.randn(8, 1).double()
    data = ProbeData("x", batch=(inputs, targets), task=Regression())
    found = TangentKernel().measure(network, data)
    assert found.scalars["condition_number"].value is None
    assert "its rank is 3 of 8" in found.scalars["condition_number"].reason
    assert "% of the residual's norm lies where the kernel is zero" in (
        found.scalars["steps@0.01"].reason
    )


def test_a_condition_number_where_there_is_one():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    data = ProbeData("x", torch.randn(4, 3).double(), torch.arange(4) % 2)
    found = TangentKernel().measure(network, data)
    values, _ = spectrum(dense_kernel(network, data))
    assert found.value("condition_number") == pytest.approx(float(values[0] / values[-1]))
    kept = [[i for i in range(4) if i != left] for left in range(4)]
    others = [spectrum(dense_kernel(network, data)[k][:, :, k])[0] for k in kept]
    logs = [math.log(float(each[0] / each[-1])) for each in others]
    error = student(4) * math.sqrt(3 / 4 * sum((x - np.mean(logs)) ** 2 for x in logs))
    moved = abs(math.log(found.value("condition_number")) - np.mean(logs))
    assert found.scalars["condition_number"].stderr == pytest.approx(
        found.value("condition_number") * math.expm1(max(error, moved))
    )


def test_the_error_is_the_jackknifes_over_groups():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    data = ProbeData("x", torch.randn(16, 3).double(), torch.arange(16) % 2)
    found = TangentKernel().measure(network, data)
    kernel = dense_kernel(network, data)
    left = []
    for group in range(8):
        kept = [i for i in range(16) if i % 8 != group]
        left.append(float(spectrum(kernel[kept][:, :, kept])[0][0]))
    error = student(8) * math.sqrt(7 / 8 * sum((x - np.mean(left)) ** 2 for x in left))
    assert found.scalars["max_eigenvalue"].stderr == pytest.approx(error)


def test_two_samples_alike_do_not_make_a_rank_sure():
    """Without either of two samples the rank is the same, and half of what both have."""
    network = nn.Linear(2, 1, bias=False).double()
    data = ProbeData("x", torch.eye(2).double(), task=Regression())
    found = TangentKernel().measure(network, data).scalars["effective_rank"]
    assert found.value == pytest.approx(2)
    assert found.stderr == pytest.approx(1)


def test_combinations_of_many_outputs_keep_the_trace_in_expectation():
    torch.manual_seed(2)
    network = nn.Linear(3, 60).double()
    data = ProbeData("x", torch.randn(4, 3).double(), torch.arange(4))
    found = TangentKernel(most_outputs=20).measure(network, data)
    whole = float(torch.einsum("ikik->i", dense_kernel(network, data)).mean())
    assert found.value("trace") == pytest.approx(whole)  # a linear layer's outputs are all alike
    assert "random combinations of 60" in found.notes["kernel"]
    assert len(found.arrays["eigenvalues"]) == 80


class Silent(Regression):
    no_signal = "it has no outputs to speak of"

    def signal(self, outputs):
        return None


def test_reasons():
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    bare = ProbeData("x", torch.randn(4, 3))
    assert "no labels" in TangentKernel().measure(network, bare).scalars["alignment"].reason
    data = ProbeData("x", torch.randn(4, 3), torch.arange(4) % 2)
    found = TangentKernel(memory=10).measure(network, data)
    assert "there is no kernel of 0 samples" in found.reason
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert "no weight is trainable" in TangentKernel().measure(network, data).reason
    targets = ProbeData("x", batch=(torch.randn(4, 3), torch.zeros(4, 2)), task=Silent())
    assert (
        TangentKernel().measure(nn.Linear(3, 2), targets).reason == "it has no outputs to speak of"
    )
    for wrong in ({"samples": 1}, {"most_outputs": 0}, {"lrs": ()}, {"lrs": (0.0,)}, {"reach": 1}):
        with pytest.raises(ProbeError, match="give"):
            TangentKernel(**wrong)


def test_the_loss_of_other_numbers_than_the_signal_has_no_residual():
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 1)
    data = ProbeData(
        "x", batch=(torch.randn(3, 1, 4, 4), torch.randint(3, (3, 4, 4))), task=Segmentation()
    )
    found = TangentKernel().measure(network, data)
    assert found.value("trace") > 0
    assert "other numbers than the signal" in found.scalars["alignment"].reason
    assert "no residual" in found.scalars["steps@0.01"].reason
