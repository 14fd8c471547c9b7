"""Modules with masks the other way round, sparse tensors, states of their own: right or refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import trainscope
from trainscope.errors import CheckpointError, ProbeError
from trainscope.networks.mask_use import inverted_mask
from trainscope.probes.hooks import ProbeHook

SAMPLES = 32
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


def data():
    torch.manual_seed(0)
    return torch.randn(SAMPLES, 6), torch.randint(3, (SAMPLES,))


def loader():
    return DataLoader(TensorDataset(*data()), 8)


def norm_of(module):
    """Return the norm of the loss's gradient in float64, by autograd."""
    inputs, labels = data()
    module = copy.deepcopy(module).double()
    loss = functional.cross_entropy(module(inputs.double()), labels)
    found = torch.autograd.grad(loss, list(module.parameters()))
    return torch.cat([g.flatten() for g in found]).norm().item()


def measured(module):
    return trainscope.measure(module, data=loader(), probes=["gradient"], budget=None)["gradient"]


class Masked(nn.Linear):
    def __init__(self, keeps):
        super().__init__(6, 8)
        self.keeps = keeps
        self.register_buffer("prune_mask", (torch.rand(8, 6) > 0.4).float())

    def forward(self, x):
        kept = self.prune_mask if self.keeps else 1 - self.prune_mask
        return functional.linear(x, self.weight * kept, self.bias)


def masked(keeps):
    torch.manual_seed(1)
    return nn.Sequential(Masked(keeps), nn.Tanh(), nn.Linear(8, 3))


def test_a_layer_that_drops_where_its_mask_is_one_is_refused():
    right = masked(True)
    assert measured(right).value("norm") == pytest.approx(norm_of(right), rel=1e-5)
    wrong = masked(False)
    before = copy.deepcopy(wrong.state_dict())
    with pytest.raises(CheckpointError, match=r"the mask '0\.prune_mask' is 1 where the layer's"):
        measured(wrong)
    assert all(torch.equal(value, before[name]) for name, value in wrong.state_dict().items())


def test_masks_that_are_one_where_the_weights_are_zero_are_refused():
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    mask = torch.rand(8, 6) > 0.5
    with torch.no_grad():
        module[0].weight[mask] = 0
    module[0].register_buffer("weight_mask", mask)
    with pytest.raises(CheckpointError, match="1 seems to mean pruned"):
        measured(module)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with pytest.raises(ProbeError, match="1 seems to mean pruned"):
        ProbeHook().attach(module, optimizer)
    module[0].weight_mask = ~mask
    assert inverted_mask(module) is None
    ProbeHook().attach(module, optimizer).detach()


class Mixing(nn.Module):
    """A layer that multiplies by a sparse matrix, as those of graphs do."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(1)
        matrix = torch.randn(8, 6)
        matrix[matrix.abs() < 0.8] = 0
        sparse = matrix.to_sparse() if layout == "coo" else matrix.to_sparse_csr()
        self.register_buffer("matrix", sparse)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.tanh((self.matrix @ x.T).T))


def test_a_sparse_buffer_is_measured_or_refused():
    module = Mixing("coo")
    dense = Mixing("coo")
    dense.matrix = dense.matrix.to_dense()
    assert measured(module).value("norm") == pytest.approx(norm_of(dense), rel=1e-5)
    assert module.matrix.is_sparse
    with pytest.raises(CheckpointError, match=r"the buffer 'matrix' is sparse_csr"):
        measured(Mixing("csr"))


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_parameter_is_refused(layout):
    module = Mixing(layout)
    matrix = module.matrix
    del module.matrix
    module.matrix = nn.Parameter(matrix)
    with pytest.raises(CheckpointError, match=rf"the parameter 'matrix' is sparse_{layout}: give"):
        measured(module)


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.last, self.state = nn.GRUCell(6, 5), nn.Linear(5, 3), None

    def forward(self, x):
        self.state = self.cell(x, self.state)
        return self.last(self.state)


def test_a_state_that_passes_leave_is_put_back_and_told():
    module = Stateful()
    found = measured(module)
    assert module.state is None
    assert "keeps a state from pass to pass" in found.reason
    assert found.reason.endswith("let each pass in eval mode begin anew")
    module(data()[0][:8])
    held = module.state
    with pytest.raises(trainscope.TrainscopeError, match="does not take inputs"):
        measured(module)
    assert module.state is held


def test_a_parameter_without_values():
    torch.manual_seed(1)
    inner = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.empty = inner, nn.Parameter(torch.ones(0, 3))

        def forward(self, x):
            return self.inner(x) + self.empty.sum(0)

    assert measured(Empty()).value("norm") == pytest.approx(norm_of(inner), rel=1e-5)


def test_a_module_of_torch_export_is_told_apart():
    inner = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    exported = torch.export.export(
        inner, (data()[0],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()
    with pytest.raises(CheckpointError, match="give the network itself"):
        measured(exported)


class Converting(nn.Module):
    """A layer in bfloat16, to which the code turns what it gets, among others in float32."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.narrow, self.last = nn.Linear(6, 6).bfloat16(), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.narrow(x.bfloat16()).float()))


def test_a_network_that_converts_by_itself_is_measured_as_it_is():
    """A copy in float32 does not run: every probe was skipped with that reason."""
    module = Converting()
    found = trainscope.measure(module, data=loader(), probes=["gradient"], budget=None)
    assert found["gradient"].value("norm") == pytest.approx(
        norm_of(nn.Sequential(module.narrow, nn.Tanh(), module.last)), rel=2e-2
    )
    assert any(
        "into bfloat16 by itself, so it is measured as it is" in note for note in found.notes
    )
    assert module.narrow.weight.dtype == torch.bfloat16
    mixed = nn.Sequential(nn.Linear(6, 6).bfloat16(), nn.Tanh(), nn.Linear(6, 3))
    with pytest.raises(trainscope.TrainscopeError, match="does not take inputs"):
        measured(mixed)  # it runs in no way
