"""Small networks in float64, each with its pinned samples, fed to every numerical test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from reference.dense import Dense
from scipy import stats
from torch import Tensor, nn
from torch.nn.utils import prune

from trainscope.data import ProbeData
from trainscope.sparsify.masks import set_masks


def seeded(seed: int) -> torch.Generator:
    """Return a generator of random numbers."""
    return torch.Generator().manual_seed(seed)


def student(count: int) -> float:
    """Return what the errors of so many values are widened by: Student's quantile over Gauss'."""
    return float(stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Case:
    name: str
    network: nn.Module
    data: ProbeData
    piecewise_linear: bool


class Plain(nn.Module):
    """Convolutions (strided, grouped, padded by reflection), batch norm, both poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding="same", padding_mode="reflect")
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class Residual(nn.Module):
    """In-place activations and sums, one batch norm that no convolution comes before."""

    def __init__(self, unused: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 1)
        self.conv1 = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.last = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 3)
        if unused:
            self.spare = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.fc(F.avg_pool2d(self.relu(self.last(out)), 2).amax((2, 3)))


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.second(F.relu(self.first(x.flatten(1)[:, :8])))))


class Attention(nn.Module):
    """A transformer block: GELU, layer norm, attention, a position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 4, 2, stride=2)
        self.position = nn.Parameter(torch.randn(1, 4, 4) * 0.1)
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.fc((x + self.mlp(self.norm(x))).mean(1))


class Recurrent(nn.Module):
    """An LSTM and a GRU over the rows of an image, and a scale without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.gru = nn.GRU(3, 2, batch_first=True)
        self.fc = nn.Linear(2, 3)
        self.logit_scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.gru(self.lstm(x[:, 0, :, :4])[0])[0]
        return self.fc(x[:, -1]) * self.logit_scale.exp()


class Writing(nn.Module):
    """Writes into what it is given: normalises in place, and begins with a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x.sub_(0.2).div_(0.5))
        return self.fc(self.relu(self.bn(self.conv(x))).mean((2, 3)))


class Wide(nn.Module):
    """More classes than inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.PReLU(), nn.Linear(6, 7))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


def _masked() -> nn.Module:
    network = Plain()
    generator = torch.Generator().manual_seed(7)
    names = ("conv1.weight", "conv2.weight", "fc.weight", "bn1.weight")
    weights = dict(network.named_parameters())
    set_masks(
        network,
        {name: torch.rand(weights[name].shape, generator=generator) > 0.5 for name in names},
    )
    return network


def _pruned_by_torch() -> nn.Module:
    network = Plain()
    prune.l1_unstructured(network.conv1, "weight", 0.5)
    prune.ln_structured(network.fc, "weight", 0.5, n=2, dim=1)
    return network


def _frozen() -> nn.Module:
    network = Residual()
    for module in (network.stem, network.bn1):
        module.requires_grad_(False)
    return network


SHAPES = {"wide": (3, 1, 1), "attention": (2, 4, 4)}
BUILDERS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "plain": (Plain, True),
    "residual": (Residual, True),
    "masked": (_masked, True),
    "pruned_by_torch": (_pruned_by_torch, True),
    "frozen": (_frozen, True),
    "unused": (lambda: Residual(unused=True), True),
    "wide": (Wide, True),
    "tied": (Tied, False),
    "attention": (Attention, False),
    "recurrent": (Recurrent, False),
    "writing": (Writing, True),
}


def case(name: str, samples: int = 6, batch_size: int = 4) -> Case:
    """Build a case; the same at every call. The last batch is smaller than the others."""
    builder, piecewise_linear = BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = builder().double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
        if name == "masked":
            with torch.no_grad():
                network.bn1.weight.mul_(network.bn1.weight_mask)
        inputs = torch.randn(samples, *SHAPES.get(name, (2, 6, 6)), dtype=torch.float64)
        labels = torch.randint(0, 7 if name == "wide" else 3, (samples,))
    data = ProbeData(name, inputs, labels, batch_size=batch_size)
    return Case(name, network.train(), data, piecewise_linear)


@cache
def dense_case(name: str) -> Dense:
    """Return the reference of a case, worked out once for all tests of a process."""
    one = case(name)
    return Dense(one.network, one.data.inputs, one.data.labels)
