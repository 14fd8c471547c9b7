"""A job of one process: what is spread over it is measured, and what cannot be seen refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch has no distributed package here"
)


@pytest.fixture
def group(tmp_path):
    """Lend a job of one process: what is sharded over it has the types of any number."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def spread(kind, mesh):
    """Return a network that is spread over processes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    if kind == "none":
        return network
    if kind == "fully_shard":
        return fully_shard(network, mesh=mesh)
    placement = Shard(0) if kind == "shard" else Replicate()
    weight = distribute_tensor(network[0].weight.detach(), mesh, [placement])
    network[0].weight = nn.Parameter(weight)
    return network


@pytest.mark.parametrize("kind", ["fully_shard", "shard", "replicate"])
def test_a_job_of_one_measures_what_is_spread_over_it(kind, group):
    network, plain = spread(kind, group), spread("none", group)
    data = ProbeData("random:4", torch.randn(3, 4), torch.randint(3, (3,)))
    hook = ProbeHook(["gradient", "jacobian", "curvature"], data=data)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with hook.attach(network, optimizer):
        for got, expected in zip(hook.before_action(), hook.before_action(plain), strict=True):
            assert got.status == "ok"
            assert got.scalars.keys() == expected.scalars.keys()
            for name, scalar in expected.scalars.items():
                value = got.scalars[name].value
                assert value == scalar.value or value == pytest.approx(scalar.value, rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_flat_parameters_are_refused_in_a_sentence(group):
    network = FullyShardedDataParallel(nn.Linear(4, 3), device_id=torch.device("cpu"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    data = ProbeData("random:4", torch.randn(3, 4), torch.randint(3, (3,)))
    hook = ProbeHook(["gradient"], data=data)
    for use in (lambda: hook.attach(network, optimizer), lambda: hook.before_action(network)):
        with pytest.raises(ProbeError, match=r"in a way \(FullyShardedDataParallel\) that probes"):
            use()
    assert hook.steps == 0


@pytest.mark.parametrize("mark", ["ds_id", "_is_sharded", "tensor_model_parallel"])
def test_shards_of_others_are_told_by_their_marks(mark):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    setattr(model.bias, mark, False)
    ProbeHook().attach(model, optimizer).detach()
    setattr(model.bias, mark, 0 if mark == "ds_id" else True)
    with pytest.raises(ProbeError, match=rf"partitioned over processes in a way \({mark}\) that"):
        ProbeHook().attach(model, optimizer)
