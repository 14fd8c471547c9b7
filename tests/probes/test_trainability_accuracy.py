from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import student
from torch import nn

from trainscope.data import ProbeData, TensorSplit
from trainscope.errors import ProbeError
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.records import Status
from trainscope.records.metric import Metric
from trainscope.records.retrained import Retrained, beyond_noise, retrained
from trainscope.sparsify.masks import set_masks
from trainscope.training.loop import Settings
from trainscope.training.settings import LoRA


def data(seed: int = 0) -> ProbeData:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(96, 1, 4, 4, generator=generator)
    labels = (inputs.mean((1, 2, 3)) > 0).long()
    train = TensorSplit(inputs[:64], labels[:64], (0.0,), (1.0,))
    test = TensorSplit(inputs[64:], labels[64:], (0.0,), (1.0,))
    return ProbeData("made up", inputs[:8], labels[:8], train=train, test=test, seed=seed)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, 2),
    )


def by_hand(module: nn.Module, found: ProbeData, lr: float, epochs: int, settings: Settings):
    """Retrain with plain torch, drawing what the loop draws; return each epoch's correctness."""
    module = copy.deepcopy(module)
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    rows = []
    for epoch in range(epochs):
        seed = found.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        module.train()
        for indices in order.split(settings.batch_size):
            inputs, labels = found.train.batch(indices)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            logits = module(found.test.inputs)
        rows.append((logits.argmax(1) == found.test.labels).double())
    return torch.stack(rows)


def test_it_is_the_mean_over_the_epochs_of_retraining_by_hand():
    settings = Settings(batch_size=16)
    probe = TrainabilityAccuracy(lrs=(1e-1, 1e-3), epochs=3, settings=settings)
    got = probe.measure(network(), data(seed=7))
    for index, lr in enumerate((1e-1, 1e-3)):
        right = by_hand(network(), data(seed=7), lr, 3, settings)
        want = [100 * float(row.mean()) for row in right]
        assert got.arrays["epoch_accuracies"][index] == pytest.approx(want, abs=1e-12)
    right = by_hand(network(), data(seed=7), 1e-1, 3, settings)
    assert got.value("ta") == pytest.approx(100 * float(right.mean()))
    shares = right.mean(0)
    assert got.scalars["ta"].stderr == pytest.approx(100 * float(shares.std()) / 32**0.5)
    assert got.value("ta@1e-1") == got.value("ta")
    assert got.value("ta@1e-3") != got.value("ta")
    assert got.notes["schedule"] == "0:1e-1 and 0:1e-3, 3 epochs"


def test_the_network_is_untouched():
    module = network().train()
    module[4].eval()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    grad, states = module[0].weight.grad, torch.get_rng_state()
    TrainabilityAccuracy(epochs=1).measure(module, data())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module[0].weight.grad is grad
    assert module.training
    assert not module[4].training
    assert torch.equal(states, torch.get_rng_state())


def test_masks_hold_and_frozen_layers_stay(monkeypatch):
    module = network()
    mask = torch.rand(module[5].weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    set_masks(module, {"5.weight": mask})
    module[0].weight.requires_grad_(False)
    seen = []

    import trainscope.probes.retrained.copies as home

    def spy(copied, *args, **kwargs):
        records = real(copied, *args, **kwargs)
        seen.append(copied)
        return records

    real = home.train
    monkeypatch.setattr(home, "train", spy)
    TrainabilityAccuracy(epochs=2).measure(module, data())
    trained = seen[0]
    assert trained is not module
    assert bool((trained[5].weight[~mask] == 0).all())
    assert not torch.equal(trained[5].weight, module[5].weight)
    assert torch.equal(trained[0].weight, module[0].weight)


def test_divergence_is_a_status_and_not_a_nan():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 2))
    probe = TrainabilityAccuracy(lrs=(1e-3, 1e3), epochs=3, settings=Settings(batch_size=4))
    got = probe.measure(module, data())
    assert got.status is Status.NONFINITE
    assert "diverged at LR 1e3" in got.reason
    assert got.value("ta") is not None
    assert got.value("ta@1e3") is None
    assert "diverged in epoch" in got.scalars["ta@1e3"].reason


def test_without_a_training_set_it_is_skipped():
    got = TrainabilityAccuracy().measure(network(), ProbeData("inputs", torch.zeros(2, 1, 4, 4)))
    assert got.status is Status.SKIPPED


def test_the_estimate_is_what_it_costs():
    probe = TrainabilityAccuracy(lrs=(1e-2, 1e-3), epochs=2)
    want, got = probe.estimate(network(), data()), probe.measure(network(), data()).cost
    assert (want.forward, want.backward) == (got.forward, got.backward) == (4 * 96 + 32, 4 * 64)


@pytest.mark.parametrize(
    "options", [{"lrs": ()}, {"epochs": 0}, {"lrs": (float("nan"),)}, {"lrs": (1e-2, 1e-2)}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ProbeError, match="trainability_accuracy"):
        TrainabilityAccuracy(**options)


def test_the_default_number_of_epochs_suits_the_training_set():
    small = TrainabilityAccuracy().measure(network(), data())
    assert len(small.arrays["epoch_accuracies"][0]) == 5


def test_a_costly_retraining_waits_to_be_asked_for(monkeypatch):
    import trainscope.probes.trainability_accuracy as home

    monkeypatch.setattr(home, "MOST_WORK", 1)
    skipped = TrainabilityAccuracy().measure(network(), data())
    assert skipped.status is Status.SKIPPED
    assert "--retrain-epochs" in skipped.reason
    assert TrainabilityAccuracy(epochs=1).measure(network(), data()).status is Status.OK


def test_adapters_are_trained_in_the_place_of_the_weights():
    net, found = network(), data()
    set_masks(net, {"5.weight": torch.rand(2, 64) > 0.5})
    state = {name: value.clone() for name, value in net.state_dict().items()}
    settings = Settings(optimizer="adamw", lora=LoRA(1, targets=("5",)))
    told = TrainabilityAccuracy(lrs=(0.1,), epochs=2, settings=settings).measure(net, found)
    whole = TrainabilityAccuracy(lrs=(0.1,), epochs=2, settings=Settings(optimizer="adamw"))
    assert told.status is Status.OK
    assert told.notes["settings"].endswith("LoRA of rank 1")
    assert told.arrays["epoch_losses"] != whole.measure(net, found).arrays["epoch_losses"]
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(each.requires_grad for each in net.parameters())


def test_means_without_each_part_of_the_test_half_give_the_error_of_a_difference():
    found = TrainabilityAccuracy(lrs=(1e-2, 1e-3), epochs=2).measure(network(), data())
    told = retrained(found)
    assert [len(row) for row in told.left_out] == [32] * 3  # one sample each, less than PARTS
    for row, name in ((0, "start_accuracy"), (1, "ta@1e-2"), (2, "ta@1e-3")):
        mean = sum(told.left_out[row]) / len(told.left_out[row])
        assert mean == pytest.approx(found.value(name), rel=2e-2)
    a, b = (np.array(told.left_out[row]) for row in (1, 2))
    by_hand = student(len(a)) * float(np.sqrt((len(a) - 1) * np.var(a - b)))
    for share, sure in ((1.99, False), (2.01, True)):
        assert beyond_noise(share * by_hand, 50.0, told, 1, told, 2) is sure
    assert beyond_noise(1.0, 50.0, told, 1, told, 3) is None
    old = replace(found, arrays={k: v for k, v in found.arrays.items() if k != "left_out"})
    assert beyond_noise(1.0, 50.0, retrained(old), 0, told, 1) is None


def test_a_perplexity_that_one_part_holds_most_of_is_told_by_its_logarithm():
    """Of a blown-up one, the error is as large as the value, and 20 times more than the start."""
    rows = [[16.0] * 16, [1e8 * (1 + 3 * (k == 0)) for k in range(16)]]
    told = Retrained(Metric("perplexity", "", "lower"), 16.0, [0.1], [], [], 1, left_out=rows)
    assert beyond_noise(6e8, 16.0, told, 0, told, 1)
    assert not beyond_noise(100.0, 16.0, told, 0, told, 1)


def test_a_network_is_tested_without_retraining_where_there_is_no_time_for_more():
    whole = TrainabilityAccuracy(lrs=(1e-2,), epochs=1)
    found = replace(whole, epochs=None, start_only=True).measure(network(), data())
    assert found.status == "ok"
    assert list(found.scalars) == ["start_accuracy"]
    assert found.value("start_accuracy") == whole.measure(network(), data()).value("start_accuracy")
    assert "lrs" not in found.arrays
    assert found.cost.backward == 0
