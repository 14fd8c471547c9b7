"""A network and its recalibrated copy are retrained as one, and measured as if each by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainscope import Action, diagnose
from trainscope.data import ProbeData, TensorSplit
from trainscope.pace import INTERRUPTIONS, Pace, paced
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.report.rows import notes
from trainscope.sparsify import recalibrate_batch_norm
from trainscope.training import loop
from trainscope.training.settings import LoRA, Settings

PROBE = TrainabilityAccuracy(lrs=(0.1, 0.01), epochs=3, settings=Settings(batch_size=16))


def data() -> ProbeData:
    inputs = torch.randn(96, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    labels = (inputs.mean((1, 2, 3)) > 0).long()
    train = TensorSplit(inputs[:64], labels[:64], (0.0,), (1.0,))
    test = TensorSplit(inputs[64:], labels[64:], (0.0,), (1.0,))
    return ProbeData("made up", inputs[:8], labels[:8], train=train, test=test)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    first = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*first, nn.Dropout(0.2), nn.Linear(64, 2))


def recalibrated(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(9)
    inputs = 2 + 3 * torch.randn(32, 1, 4, 4, generator=generator)
    return recalibrate_batch_norm(module, [inputs])


class Frozen(nn.Sequential):
    """Keeps its batch norms in eval mode, as detectors do."""

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self[1].eval()
        return self


class FrozenInPassing(nn.Sequential):
    """Puts them there in its forward pass, of some batches alone."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        training = self[1].training
        self[1].train(training and bool(inputs.sum() > -10))
        outputs = super().forward(inputs)
        self[1].train(training)
        return outputs


class Again(nn.Module):
    """Goes through its first layers twice, so that their statistics move twice a step."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.first, self.last = layers[:4], layers[4:]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(checkpoint(self.first, inputs, use_reentrant=False))


class Normalised(nn.BatchNorm2d):
    """Looks at its running statistics in training too."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + self.running_mean[:, None, None]


def with_norm(norm: nn.Module) -> nn.Module:
    module = network()
    module[1] = norm
    return module


def test_both_are_what_each_is_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    own = loop.Stepper.step
    monkeypatch.setattr(loop.Stepper, "step", lambda self, *a: [steps.append(1), own(self, *a)][1])
    after = network().eval()
    pair = (after, recalibrated(after))
    before = [copy.deepcopy(each.state_dict()) for each in pair]
    both = PROBE.measure_both(*pair, data())
    assert both is not None
    assert len(steps) == 2 * 3 * 4  # of one training
    for module, state in zip(pair, before, strict=True):
        assert all(torch.equal(module.state_dict()[k], v) for k, v in state.items())
    alone = [PROBE.measure(each, data()) for each in pair]
    for found, expected in zip(both, alone, strict=True):
        assert found.scalars == expected.scalars
        assert found.arrays == expected.arrays
        assert found.status == expected.status
    assert both[0].notes == alone[0].notes
    assert set(both[1].notes) - set(alone[1].notes) == {"retraining"}
    assert both[0].value("start_accuracy") != both[1].value("start_accuracy")
    assert both[1].cost.backward == 0
    assert both[1].cost.forward == 32 * (1 + 2 * 3)


@pytest.mark.parametrize("momentum", [0.1, 0.01, 1.0])
@pytest.mark.parametrize("way", ["once", "twice a step", "lora", "steps"])
def test_running_statistics_are_those_of_its_own_training(way: str, momentum: float) -> None:
    """By the test loss after each epoch, to rounding."""
    after = network()
    after[1].momentum = momentum
    probe = PROBE
    if way == "twice a step":
        after = Again(after)
    if way == "lora":
        settings = Settings(batch_size=16, lora=LoRA(2))
        probe = TrainabilityAccuracy(lrs=(0.1,), epochs=3, settings=settings)
    if way == "steps":
        probe = TrainabilityAccuracy(lrs=(0.1,), steps=7, settings=Settings(batch_size=16))
    pair = (after.eval(), recalibrated(after))
    losses: dict[str, list[list[float]]] = {}

    def told(which: str):
        def seen(network: nn.Module, test, task, *rest):
            found = evaluated(network, test, task, *rest)
            losses.setdefault(which, []).append(found.loss)
            return found

        return seen

    with pytest.MonkeyPatch.context() as patch:
        from trainscope.probes.retrained import copies as trained_copies

        evaluated = trained_copies.evaluate
        patch.setattr(trained_copies, "evaluate", told("both"))
        assert probe.measure_both(*pair, data()) is not None
    twin = losses["both"][2:]  # after both starts: the twin alone is tested here
    by_itself = probe._suited(data())._trial(data())
    expected = [
        record.test_loss for lr in probe.lrs for record, _ in by_itself.trained(pair[1], lr)
    ]
    other = [record.test_loss for lr in probe.lrs for record, _ in by_itself.trained(after, lr)]
    assert twin == pytest.approx(expected, rel=1e-5)
    if momentum < 1:
        assert twin != pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        Frozen(*network()),
        FrozenInPassing(*network()),
        Again(FrozenInPassing(*network())),
        with_norm(Normalised(4)),
        with_norm(nn.BatchNorm2d(4, momentum=None)),
        with_norm(nn.BatchNorm2d(4, track_running_stats=False)),
        with_norm(nn.GroupNorm(2, 4)),
    ],
    ids=["frozen", "in passing", "of two", "own norm", "cumulative", "no statistics", "none"],
)
def test_what_is_no_pair_of_twins_is_measured_one_by_one(module: nn.Module) -> None:
    module.eval()
    assert PROBE.measure_both(module, recalibrated(module), data()) is None


@pytest.mark.parametrize("changed", ["weight", "bias", "frozen", "eps"])
def test_networks_that_differ_in_more_are_no_twins(changed: str) -> None:
    module = network().eval()
    other = recalibrated(module)
    with torch.no_grad():
        if changed == "weight":
            other[0].weight[0, 0, 0, 0] += 1e-3
        elif changed == "bias":
            other[1].bias[0] += 1e-3
        elif changed == "frozen":
            other[0].weight.requires_grad_(False)
        else:
            other[1].eps = 1e-3
    assert PROBE.measure_both(module, other, data()) is None


def test_outputs_that_are_random_are_tested_by_the_draws_of_their_own_training() -> None:
    class Random(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs + torch.randn_like(inputs)

    module = nn.Sequential(*network(), Random()).eval()
    assert PROBE.measure_both(module, recalibrated(module), data()) is None


def test_a_twin_that_is_not_finite_says_so_by_itself() -> None:
    module = network().eval()
    other = recalibrated(module)
    other[1].running_mean.fill_(torch.nan)
    both = PROBE.measure_both(module, other, data())
    assert both is not None
    for found, which in zip(both, (module, other), strict=True):
        expected = PROBE.measure(which, data())
        assert (found.status, found.reason) == (expected.status, expected.reason)
        assert found.scalars == expected.scalars
    assert both[0].status == "ok"
    assert both[1].status == "non-finite values"


@pytest.mark.parametrize("error", INTERRUPTIONS)
def test_an_interruption_keeps_the_same_learning_rates_of_both(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, own = [], loop.Stepper.step

    def step(self: loop.Stepper, *rest: object) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 15:  # of the second learning rate
            raise error
        return own(self, *rest)

    monkeypatch.setattr(loop.Stepper, "step", step)
    module = network().eval()
    with paced(Pace(1.0, partial=True)) as pace:
        both = PROBE.measure_both(module, recalibrated(module), data())
    assert both is not None
    assert type(pace.cut) is error
    for found in both:
        assert found.value("ta@1e-1") is not None
        assert "cut short" in (found.scalars["ta@1e-2"].reason or "")
    steps.clear()
    with pytest.raises(error), paced(Pace(1.0)):
        PROBE.measure_both(module, recalibrated(module), data())


def test_a_diagnosis_trains_once_for_both_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    own = loop.Stepper.__init__
    monkeypatch.setattr(
        loop.Stepper, "__init__", lambda self, *a, **k: [trained.append(1), own(self, *a, **k)][1]
    )
    halves = data()
    pair = tuple(
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*half.batch(range(len(half)))))
        for half in (halves.train, halves.test)
    )
    action = Action(structure="unstructured", ratio=0.5, scope="all")
    found = diagnose(network(), action=action, data=pair, probes=[PROBE], budget=None)
    columns = found.probes["trainability_accuracy"]
    assert len(trained) == 2 * 2  # before, and after with its twin
    assert "same steps" in columns.recalibrated.notes["retraining"]
    assert any("same steps with batch norm recalibrated" in line for line in notes(found))
    assert columns.after.arrays["epoch_losses"] == columns.recalibrated.arrays["epoch_losses"]
    total = [getattr(columns, name).cost.seconds for name in ("before", "after", "recalibrated")]
    assert all(each > 0 for each in total)
