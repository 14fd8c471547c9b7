"""Trials by masks against cutting, one by one, in float64."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.data.split import TensorSplit
from trainscope.errors import ActionError
from trainscope.studies import masked_trials
from trainscope.studies.combinations import all_of, count_of, some_of
from trainscope.studies.masked_trials import score_trials
from trainscope.studies.oracle import FilterChoice, search
from trainscope.task import Classification
from trainscope.task.regression import Regression
from trainscope.training.evaluation import evaluate


class Plain(nn.Module):
    """Two convolutions, a batch norm, an activation that is not 0 at 0, and a flattened map."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, x):
        x = F.softplus(self.norm(self.conv1(x)))
        x = F.relu(F.max_pool2d(self.conv2(x), 2), inplace=True)
        return self.fc(x.flatten(1))


class Separable(nn.Module):
    """A depthwise convolution between the filters and what reads them, and a residual block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 5, 1)
        self.deep = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.out = nn.Conv2d(5, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.out(torch.sigmoid(self.deep(self.inner(x))))
        return self.fc(x.mean((2, 3)))


class Untraced(Plain):
    """A branch on values, which torch.fx cannot trace and torch.export can."""

    def forward(self, x):
        if x.shape[0] == 0 or not isinstance(x, torch.Tensor):
            raise ValueError
        return super().forward(x)


def made(kind=Plain, seed: int = 0):
    torch.manual_seed(seed)
    network = kind().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return network


def samples(n: int = 60, classes: int = 3):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(n, 1, 8, 8, generator=generator)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return TensorSplit(inputs, labels, (0.5,), (0.2,))


def brute(network, layer, keep, split):
    """Return the loss and accuracy of every combination, each cut out of a copy."""
    choice = FilterChoice(network, (1, 8, 8), {layer: keep})
    count = choice.layers[0].count
    found = {}
    for kept in combinations(range(count), keep):
        seen = evaluate(choice.cut((kept,)), split)
        found[kept] = (seen.loss, seen.metric)
    return choice, found


CASES = [(Plain, "conv1", 3), (Plain, "conv2", 1), (Separable, "inner", 2), (Untraced, "conv1", 5)]


@pytest.mark.parametrize(("kind", "layer", "keep"), CASES)
def test_every_combination_is_what_cutting_gives(kind, layer, keep):
    network, split = made(kind), samples()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    choice, right = brute(network, layer, keep, split)
    found = search(choice, network, split, Classification(), batch_size=25)
    assert found.exact
    assert found.combinations == len(right) == len(found.trials)
    for trial in found.trials:
        loss, metric = right[trial.kept[choice.layers[0].name]]
        assert trial.loss == pytest.approx(loss, abs=1e-12)
        assert trial.metric == pytest.approx(metric)
    best = min(right, key=lambda kept: right[kept][0])
    assert found.best.kept[choice.layers[0].name] == best
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_cut_network_has_fewer_filters():
    network = made()
    choice = FilterChoice(network, (1, 8, 8), {"conv1": 2})
    cut = choice.cut(((1, 4),))
    assert (cut.conv1.out_channels, cut.norm.num_features, cut.conv2.in_channels) == (2, 2, 2)
    assert torch.equal(cut.conv1.weight, network.conv1.weight[[1, 4]])
    assert network.conv1.out_channels == 6


def test_several_layers_are_chosen_together():
    network, split = made(), samples()
    choice = FilterChoice(network, (1, 8, 8), {"conv1": 5, "conv2": 3})
    found = search(choice, network, split, Classification())
    assert found.combinations == 24 == len(found.trials)
    for trial in found.trials[::5]:
        cut = choice.cut(tuple(trial.kept.values()))
        assert trial.loss == pytest.approx(evaluate(cut, split).loss, abs=1e-12)


def test_only_what_depends_on_the_masks_is_run_again(monkeypatch):
    network, split = made(), samples(50)
    choice = FilterChoice(network, (1, 8, 8), {"conv2": 2})
    calls = {"conv1": 0, "fc": 0}
    for name in calls:
        network.get_submodule(name).register_forward_hook(
            lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
        )
    masks = [choice.masks(kept) for kept in all_of(choice.layers, choice.keep)]
    quick = score_trials(network, masks, split, Classification(), batch_size=25)
    assert calls["conv1"] < 10 < calls["fc"]  # two batches; a few calls to check the pass
    slow = score_trials(network, masks, split, Classification(), batch_size=25, suffix=False)
    assert [s.loss for s in quick] == pytest.approx([s.loss for s in slow], abs=1e-12)


def test_a_pass_that_is_not_the_networks_is_not_used(monkeypatch):
    network, split = made(), samples(50)
    choice = FilterChoice(network, (1, 8, 8), {"conv1": 3})
    masks = [choice.masks(kept) for kept in all_of(choice.layers, choice.keep)]
    right = score_trials(network, masks, split, Classification(), suffix=False)
    run = masked_trials._Suffix.trial
    monkeypatch.setattr(masked_trials._Suffix, "trial", lambda *given: run(*given) + 1e-3)
    found = score_trials(network, masks, split, Classification())
    assert [s.loss for s in found] == [s.loss for s in right]


class Pairs:
    """Inputs with three numbers to predict."""

    def __init__(self, n: int = 30):
        self.inputs, self.targets = torch.rand(n, 1, 8, 8), torch.rand(n, 3)

    def __len__(self):
        return len(self.inputs)

    def batch(self, indices):
        return self.inputs[indices], self.targets[indices]


def test_other_tasks_are_scored_too():
    network, split = made(), Pairs()
    choice = FilterChoice(network, (1, 8, 8), {"conv1": 5})
    for trial in search(choice, network, split, Regression()).trials:
        seen = evaluate(choice.cut(tuple(trial.kept.values())), split, Regression())
        assert trial.loss == pytest.approx(seen.loss, rel=1e-6)
        assert trial.metric == pytest.approx(seen.metric, rel=1e-6)


def test_drawn_combinations_differ_and_come_again():
    choice = FilterChoice(made(), (1, 8, 8), {"conv1": 3})
    drawn = some_of(choice.layers, choice.keep, 12, 4)
    assert len(set(drawn)) == 12
    assert drawn == some_of(choice.layers, choice.keep, 12, 4)
    assert drawn != some_of(choice.layers, choice.keep, 12, 5)
    assert set(drawn) < set(all_of(choice.layers, choice.keep))
    assert some_of(choice.layers, choice.keep, 99, 0) == list(all_of(choice.layers, choice.keep))
    found = search(choice, made(), samples(20), Classification(), count=12, seed=4)
    assert not found.exact
    assert [tuple(t.kept.values()) for t in found.trials] == drawn


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


def test_parts_of_a_grouped_convolution_lose_equally_many():
    network, split = made(Grouped), samples(20)
    for layer in ("conv1", "conv2"):
        choice = FilterChoice(network, (1, 8, 8), {layer: 4})
        assert count_of(choice.layers, choice.keep) == 9
        for trial in search(choice, network, split, Classification()).trials:
            kept = tuple(trial.kept.values())
            assert sum(k < 3 for k in kept[0]) == 2
            assert trial.loss == pytest.approx(evaluate(choice.cut(kept), split).loss, abs=1e-12)
    with pytest.raises(ActionError, match="keep a multiple of 2"):
        FilterChoice(network, (1, 8, 8), {"conv1": 3})


@pytest.mark.parametrize(
    ("kind", "keep", "words"),
    [
        (Plain, {"conv1": 6}, "keep from 1 to 5"),
        (Plain, {"conv1": 0}, "keep from 1 to 5"),
        (Plain, {"conv9": 2}, "no layer is named 'conv9'; choose from conv1, conv2"),
        (Plain, {"fc": 2}, "the filters of fc cannot be chosen"),
        (Separable, {"stem": 2}, "residual addition"),
        (Separable, {"norm": 2}, "no layer is named 'norm'"),
    ],
)
def test_what_cannot_be_chosen_is_refused(kind, keep, words):
    with pytest.raises(ActionError) as error:
        FilterChoice(made(kind), (1, 8, 8), keep)
    assert words in str(error.value)


def test_too_many_combinations_are_refused():
    wide = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 3, 3), nn.Flatten())
    choice = FilterChoice(wide, (1, 8, 8), {"0": 32})
    with pytest.raises(ActionError, match="--candidates N"):
        search(choice, wide, samples(8), Classification())
    found = some_of(choice.layers, choice.keep, 5, 0)
    assert all(len(kept[0]) == 32 for kept in found)
