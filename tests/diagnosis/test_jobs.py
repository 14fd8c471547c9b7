"""Whole diagnoses of networks and data of every task, as people bring them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import trainscope
from trainscope.probes import Curvature, TrainabilityAccuracy
from trainscope.records import Diagnosis
from trainscope.sparsify import Action
from trainscope.task import LanguageModelling, Regression, Segmentation

PROBES = [
    TrainabilityAccuracy(lrs=(1e-2,), epochs=1),
    "gradient",
    "jacobian",
    Curvature(top=1, tolerance=1e-2, density_vectors=0, trace_vectors=2),
]


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.fc = nn.Conv2d(4, 6, 3, stride=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(F.relu(self.bn(self.conv1(x))))).mean((2, 3)))


class Augmented(Dataset):
    """Images that are shifted at random each time they are read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(place))
        image[0, 7 * (place % 4) :][:6] += 1
        return image.roll(int(torch.randint(-1, 2, ())), 2), place % 4


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.up = nn.Conv2d(4, 6, 3, padding=1), nn.ConvTranspose2d(6, 4, 2, 2)
        self.merge, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn(self.down(x)))
        b = self.up(F.relu(self.inner(F.max_pool2d(a, 2))))
        return self.out(F.relu(self.merge(torch.cat([a, b], 1))))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.kind, self.place = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.inner(torch.tanh(self.trunk(x))))
        return {"kind": self.kind(h), "place": self.place(h)}


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 12)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1])
        return {"logits": self.head(self.block(self.embed(input_ids), src_mask=mask))}


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 6), nn.Linear(16, 3)
        self.rnn = nn.LSTM(6, 8, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(ids))[0])


def both(out: dict[str, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(out["kind"], wanted[0]) + F.mse_loss(out["place"], wanted[1])


def hits(out: dict[str, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
    return 100.0 * (out["kind"].argmax(1) == wanted[0])


def job(name: str) -> tuple[nn.Module, dict[str, Any], str]:
    """Return a network, what is asked of `diagnose`, and the metric's name."""
    torch.manual_seed(4)
    whole = Action(structure="unstructured", ratio=0.5)
    if name == "images":
        loader = DataLoader(Augmented(), 8, shuffle=True)
        return Pooled(), {"ratio": 0.5, "data": (loader, loader)}, "accuracy"
    if name == "segmentation":
        drawn = torch.zeros(24, 8, 8, dtype=torch.long)
        drawn[:, 2:5, 1:4], drawn[:, 5:7, 4:7], drawn[::3, 0] = 1, 2, 255
        loader = DataLoader(TensorDataset(torch.randn(24, 1, 8, 8), drawn), 8)
        return UNet(), {"ratio": 0.5, "data": (loader, loader), "task": Segmentation()}, "mean IoU"
    if name == "regression":
        x = torch.randn(40, 5)
        net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
        loader = DataLoader(TensorDataset(x, x[:, 0] * x[:, 1]), 8)
        return net, {"action": whole, "data": (loader, loader), "task": Regression()}, "RMSE"
    if name == "two outputs":
        x, y, z = torch.randn(40, 5), torch.arange(40) % 3, torch.randn(40, 2)
        batches = [(x[i : i + 8], (y[i : i + 8], z[i : i + 8])) for i in range(0, 40, 8)]
        asked = {"loss": both, "metric": hits, "better": "higher"}
        return Two(), {"action": whole, "data": (batches, batches), **asked}, "hits"
    if name == "language":
        ids, mask = torch.randint(0, 12, (24, 6)), torch.ones(24, 6, dtype=torch.long)
        mask[::4, 4:] = 0
        batches = [
            {"input_ids": ids[i : i + 8], "attention_mask": mask[i : i + 8]} for i in (0, 8, 16)
        ]
        asked = {"action": Action(structure="2:4"), "task": LanguageModelling()}
        return Language(), {"data": (batches, batches), **asked}, "perplexity"
    ids = torch.randint(0, 9, (24, 5))
    tags = torch.where(ids > 7, -100, ids % 3)
    loader = DataLoader(TensorDataset(ids, tags), 8)
    return Tagger(), {"action": whole, "data": (loader, loader)}, "accuracy"


JOBS = ("images", "segmentation", "regression", "two outputs", "language", "tagging")


@pytest.mark.parametrize("name", JOBS)
def test_one_call_gives_the_whole_table(name: str) -> None:
    network, asked, metric = job(name)
    found = trainscope.diagnose(network, samples=8, probes=PROBES, **asked)
    assert list(found.probes) == ["trainability_accuracy", "gradient", "jacobian", "curvature"]
    for columns in found.probes.values():
        for column in (columns.before, columns.after):
            assert column is not None
            assert column.status in ("ok", "not converged"), column.reason
    accuracy = found.probes["trainability_accuracy"]
    assert accuracy.before.arrays["metric"][0] == metric
    assert accuracy.after.value("ta") is not None
    assert found.probes["gradient"].after.value("norm") > 0
    assert found.probes["jacobian"].after.value("mean_jsv") > 0
    assert found.probes["curvature"].after.value("trace") is not None
    assert any(metric in line for line in found.verdict)
    assert found.action.parameters < found.network.parameters
    assert Diagnosis.from_json(found.to_json()) == found


@pytest.mark.parametrize("name", JOBS)
def test_one_network_alone_is_measured_as_before_an_action(name: str) -> None:
    network, asked, _ = job(name)
    taken = {key: asked[key] for key in asked if key not in ("ratio", "action")}
    quick = {"samples": 8, "probes": ["gradient"]}
    alone = trainscope.measure(network, **taken, **quick)["gradient"]
    beside = trainscope.diagnose(network, **asked, **quick).probes["gradient"].before
    assert alone.scalars == beside.scalars
