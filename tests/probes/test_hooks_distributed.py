"""Several processes: all measure in DDP, and what cannot be seen through is refused."""

from __future__ import annotations

import os
import subprocess
import sys

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
PATIENCE = 240
"""Seconds after which a job hangs, and the test fails for that."""

DDP = """
import copy, os, sys, torch
from datetime import timedelta
from torch import nn
from torch.nn import functional as F
from trainscope.data import ProbeData
from trainscope.probes.curvature import Curvature
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.when import every
child = os.fork()  # one start of Python for two ranks
rank = int(child == 0)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2, timeout=timedelta(60)
)
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
x, y = torch.randn(16, 4), torch.randint(3, (16,))
data = ProbeData("random:4", x, y)
ends = []
for probes in ((), ("gradient", Curvature(top=1, tolerance=0.1, density_vectors=0))):
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(copy.deepcopy(network))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hook = ProbeHook(probes, when=every(1), data=data if probes else None)
    if probes:
        hook.attach(model, optimizer)
    for step in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x[rank::2]), y[rank::2]).backward()
        if probes and step == 1:
            hook.observe("before clipping")
            hook.before_action()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        optimizer.step()
    hook.detach()
    ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
kinds = {str(t.measurement.status) for t in hook.taken}
last = [t.measurement.value("norm") for t in hook.taken if t.moment == "after clipping"][-1:]
torch.distributed.destroy_process_group()
if child:
    os.waitpid(child, 0)
same = torch.equal(*ends)
print(rank, same, len(hook.taken), kinds, [abs(v - float(norm)) < 1e-6 for v in last], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_two_ranks_train_to_the_same_bits_with_probes_that_both_measure(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DDP, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    # On rank 0: 2 norms, 1 before clipping, 2 probes at 3 moments and before an action.
    assert done.stdout == "1 True 0 set() []\n0 True 11 {'ok'} [True]\n", done.stderr


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
