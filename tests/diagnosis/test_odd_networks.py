"""What one probe cannot do never takes the rest of a diagnosis with it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from trainscope.data import ProbeData, RandomInputs, pin_random
from trainscope.diagnosis import examine
from trainscope.diagnosis.flow import Outcome
from trainscope.errors import DataError, ProbeError
from trainscope.networks import Network
from trainscope.probes.gradient import Gradient
from trainscope.records import Measurement, Status
from trainscope.sparsify import Action, recalibrate_batch_norm
from trainscope.training.loop import Settings, evaluate, train
from trainscope.training.schedule import constant


class Net(nn.Module):
    def __init__(self, odd: Callable[[Tensor], Tensor] = F.relu, classes: int = 3) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3)
        self.fc, self.odd = nn.Linear(4, classes), odd

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(self.odd(self.a(x)))).mean((2, 3)))


def examined(module: nn.Module, **options: object) -> Outcome:
    classes = module.fc.out_features
    network = Network(module.eval(), "net", (2, 8, 8), classes)
    chosen = {"probes": ["gradient", "jacobian", "curvature"], "samples": 8, "ratio": 0.5}
    return examine(network, data="random:2x8x8", **(chosen | options))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def statuses(done: Outcome) -> dict[str, str]:
    return {name: columns.after.status for name, columns in done.diagnosis.probes.items()}


def test_a_random_network_has_reasons_in_every_column() -> None:
    done = examined(Net(lambda x: F.dropout(F.relu(x), 0.5)))
    for columns in done.diagnosis.probes.values():
        for found in (columns.before, columns.after):
            assert found.status is Status.SKIPPED
            assert "the forward method of Net draws random numbers" in found.reason
    assert done.diagnosis.verdict


def test_a_coupled_network_is_noted_and_does_not_move_with_the_batch_size() -> None:
    module = Net(lambda x: F.relu(x - x.mean(0)))
    first, second = (examined(module, batch_size=size).diagnosis for size in (2, 128))
    assert any("depend on the other samples" in note for note in first.notes)
    for name, columns in first.probes.items():
        assert columns.before.scalars == second.probes[name].before.scalars
        assert columns.after.status is Status.OK


class Refusing(Gradient):
    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        raise ProbeError("this network is not for me")


def test_one_probe_that_cannot_leaves_the_others() -> None:
    done = examined(Net(), probes=[Refusing(), "jacobian"])
    assert statuses(done) == {"gradient": "skipped", "jacobian": "ok"}
    assert done.diagnosis.probes["gradient"].before.reason == "this network is not for me"


def test_a_backward_pass_that_torch_refuses_is_a_reason() -> None:
    def clobbering(x: Tensor) -> Tensor:
        y = x.exp()
        return y + y.mul_(2)

    done = examined(Net(clobbering))
    assert set(statuses(done).values()) == {"skipped"}
    assert "inplace operation" in done.diagnosis.probes["jacobian"].after.reason


def test_predictions_that_overflow_are_no_labels() -> None:
    module = Net()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1e25)
    done = examined(module)
    for name in ("gradient", "curvature"):
        found = done.diagnosis.probes[name].before
        assert found.status is Status.SKIPPED
        assert "logits hold NaN or infinite values" in found.reason
    assert done.diagnosis.probes["jacobian"].before.status is Status.NONFINITE
    done.diagnosis.to_json()


def test_one_output_is_told() -> None:
    done = examined(Net(classes=1))
    assert statuses(done) == {"gradient": "skipped", "jacobian": "ok", "curvature": "skipped"}
    assert "one output" in done.diagnosis.probes["gradient"].before.reason


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(x.sub_(1).mul_(2)).mean((2, 3)))


def test_no_forward_pass_of_ours_changes_what_it_is_given() -> None:
    pinned = pin_random(RandomInputs((2, 3, 3)), Writing(), 8, seed=3)
    drawn = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pinned.inputs, drawn)
    batches = [drawn.clone(), drawn.clone()]
    recalibrate_batch_norm(Writing(), batches)
    assert all(torch.equal(batch, drawn) for batch in batches)

    class Views:
        """A split whose batches are the very memory of its samples."""

        augment = None

        def __len__(self) -> int:
            return 8

        def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            return batches[0][: len(indices)], torch.zeros(len(indices), dtype=torch.int64)

    evaluate(Writing(), Views())
    assert torch.equal(batches[0], drawn)
    train(Writing(), Views(), Views(), constant(1e-3, 1), Settings())
    assert torch.equal(batches[0], drawn)


def test_labels_do_not_move_with_the_batch_size() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)[:, :3]
            return 5 * (x - x.mean(0))

    shape = RandomInputs((2, 3, 3))
    first, second = (pin_random(shape, Centred(), 20, batch_size=n) for n in (3, 64))
    assert torch.equal(first.labels, second.labels)


def test_what_returns_no_logits_gets_no_labels() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(DataError, match="does not take inputs random:2x3x3"):
        pin_random(RandomInputs((2, 3, 3)), Pair(), 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_measured_in_float32(dtype: torch.dtype) -> None:
    module = Net().to(dtype).eval()
    given = [(torch.randn(8, 2, 8, 8), torch.arange(8) % 3)]
    options = {"data": given, "probes": ["gradient", "jacobian", "curvature"], "samples": 8}
    found = examine(module, ratio=0.5, **options).diagnosis
    single = examine(copy.deepcopy(module).float(), ratio=0.5, **options).diagnosis
    for name, columns in found.probes.items():
        assert columns.before.scalars == single.probes[name].before.scalars
        assert columns.after.scalars == single.probes[name].after.scalars
    kind = str(dtype).removeprefix("torch.")
    assert f"Its weights are {kind}; a copy of them in float32 is measured." in found.notes
    assert {weight.dtype for weight in module.parameters()} == {dtype}

    pruned = copy.deepcopy(module)
    prune.l1_unstructured(pruned.b, "weight", 0.5)
    after = examine(module, after=pruned, **options).diagnosis
    assert after.action.ratio == pytest.approx(0.5)


def test_float64_stays() -> None:
    module = Net().double().eval()
    given = [(torch.randn(8, 2, 8, 8), torch.arange(8) % 3)]
    done = examine(module, ratio=0.5, data=given, probes=["gradient"], samples=8)
    assert done.base.module is module


def test_batch_norm_over_the_samples_takes_no_single_one() -> None:
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    module = nn.Sequential(nn.Linear(6, 16), norm, nn.ReLU(), nn.Linear(16, 3))
    given = [(torch.randn(8, 6), torch.arange(8) % 3)]
    action = Action("unstructured", ratio=0.5, scope="all")
    done = examine(module, action=action, data=given, samples=8, probes=["gradient", "jacobian"])
    assert done.diagnosis.network.flops == 6 * 16 + 16 * 3
    assert statuses(done) == {"gradient": "ok", "jacobian": "ok"}
    assert any("depend on the other samples" in note for note in done.diagnosis.notes)


def test_frozen_and_unused_weights_are_named() -> None:
    module = Net()
    module.a.requires_grad_(False)
    module.spare = nn.Linear(2, 2)
    notes = examined(module).diagnosis.notes
    assert any(note.startswith("Left out, for they are frozen: a.weight") for note in notes)
    assert any("does not use them: spare.weight, spare.bias" in note for note in notes)
