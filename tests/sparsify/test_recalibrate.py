import pytest
import torch
from reference.zeroed import PlainNet
from torch import nn

from trainscope.errors import DataError
from trainscope.sparsify import has_batch_norm, recalibrate_batch_norm


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(PlainNet().features, nn.Dropout(0.5)).double().eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 8, 8, generator=generator).double() for _ in range(3)]


def test_statistics_are_the_averages_over_the_batches(network, batches):
    network[0][1].momentum = 0.3
    got = recalibrate_batch_norm(network, batches)
    first = [network[0][0](batch).transpose(0, 1).flatten(1) for batch in batches]
    mean = torch.stack([x.mean(dim=1) for x in first]).mean(dim=0)
    var = torch.stack([x.var(dim=1) for x in first]).mean(dim=0)
    assert torch.allclose(got[0][1].running_mean, mean, rtol=1e-12, atol=1e-14)
    assert torch.allclose(got[0][1].running_var, var, rtol=1e-12)
    assert got[0][1].momentum == 0.3


def test_nothing_else_changes(network, batches):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    got = recalibrate_batch_norm(network, batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    for name, parameter in got.named_parameters():
        assert torch.equal(parameter, before[name])
    modes = [module.training for module in network.modules()]
    assert [module.training for module in got.modules()] == modes


def test_no_batches_or_too_small_ones_are_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    with pytest.raises(DataError, match="no inputs"):
        recalibrate_batch_norm(network, [])
    with pytest.raises(DataError, match="a batch of 1 is too small"):
        recalibrate_batch_norm(network, [torch.randn(1, 4)])


def test_has_batch_norm(network):
    assert has_batch_norm(network)
    assert not has_batch_norm(PlainNet(norm=False))
    assert not has_batch_norm(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))
