"""The networks of `peers.py`, small enough for a laptop and trained on data that every install has.

Images are scikit-learn's digits, drawn large, coloured and put beside each other: one digit makes
10 classes, two make 100, three make 1,000. Text is the standard library's own, as bytes. What was
trained is kept in a folder and read from there the next time.
"""

from __future__ import annotations

import copy
import random
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from trainscope.data import ProbeData
from trainscope.networks.registry import build
from trainscope.sparsify import (
    Action,
    has_batch_norm,
    masks_of,
    recalibrate_batch_norm,
    sparsify,
)
from trainscope.task import Classification, LanguageModelling

VARIANTS = {
    "dense": None,
    "filters": Action("filter", ratio=0.9),
    "masks": Action("unstructured", ratio=0.9, scope="all"),
}
CONTEXT = 64


@dataclass(frozen=True)
class Kind:
    """How one network is made, trained and looked at.

    Attributes:
        make: The untrained network.
        data: So many samples from a seed: inputs and labels.
        samples: How many a measurement takes.
        steps: Training steps.
        batch: Samples of each.
        adam: Train with AdamW in the place of SGD.
    """

    make: Callable[[], nn.Module]
    data: Callable[[int, int], tuple[Tensor, Tensor]]
    samples: int
    steps: int = 0
    batch: int = 64
    adam: bool = False


@dataclass
class Case:
    """A network and the samples that it is measured on.

    Attributes:
        name: The network's.
        variant: One of `VARIANTS`.
        network: In eval mode.
        data: The samples, as trainscope takes them.
        masks: For each parameter in order, True where the weight survives; None without a mask.
    """

    name: str
    variant: str
    network: nn.Module
    data: ProbeData
    masks: list[Tensor | None]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.network.parameters())

    @property
    def masked(self) -> bool:
        return any(mask is not None for mask in self.masks)

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    @staticmethod
    def criterion(outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, of classes or of every next token."""
        return F.cross_entropy(outputs.flatten(0, -2), labels.flatten())

    def loss(self) -> Tensor:
        return self.criterion(self.network(self.data.inputs), self.data.labels)

    def keep(self, pieces: list[Tensor]) -> list[Tensor]:
        """Return tensors shaped like the parameters, zero where masked."""
        pairs = zip(pieces, self.masks, strict=True)
        return [piece if mask is None else piece * mask for piece, mask in pairs]

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return the pieces of a vector over all weights, zero where masked."""
        pieces = torch.split(vector, [p.numel() for p in self.parameters])
        pairs = zip(pieces, self.parameters, strict=True)
        return self.keep([piece.view(p.shape) for piece, p in pairs])

    def join(self, pieces: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """Return pieces as a vector over all weights, zero where masked."""
        return torch.cat([piece.reshape(-1) for piece in self.keep(list(pieces))])

    def double(self) -> Case:
        """Return the same in float64."""
        inputs = self.data.inputs
        data = ProbeData(
            self.data.name,
            inputs.double() if inputs.is_floating_point() else inputs,
            self.data.labels,
            task=self.data.task,
            batch_size=self.data.batch_size,
        )
        return Case(self.name, self.variant, copy.deepcopy(self.network).double(), data, self.masks)

    def clean(self) -> None:
        """Take away the gradients and the mode that some peers leave behind."""
        for parameter in self.network.parameters():
            parameter.grad = None
        self.network.eval()


def images(digits: int, size: int) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Return a source of coloured images of so many digits side by side, [N, 3, size, size]."""

    def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
        digit = load_digits()
        pictures = torch.tensor(digit.images, dtype=torch.float32).unsqueeze(1) / 16
        targets = torch.tensor(digit.target)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(pictures), (count, digits), generator=generator)
        width = size // digits
        parts = [
            F.interpolate(pictures[column], size=(size, width), mode="bilinear")
            for column in chosen.T
        ]
        drawn = F.pad(torch.cat(parts, 3), (0, size - width * digits))
        colours = 0.5 + torch.rand(count, 3, 1, 1, generator=generator)
        noise = 0.1 * torch.randn(count, 3, size, size, generator=generator)
        places = 10 ** torch.arange(digits - 1, -1, -1)
        return 2 * drawn * colours - 0.5 + noise, (targets[chosen] * places).sum(1)

    return draw


def text(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return byte sequences of the standard library, [N, CONTEXT], and the bytes that follow."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    random.Random(0).shuffle(files)
    known = torch.tensor(list(b"\n".join(f.read_bytes() for f in files[:60])), dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(known) - CONTEXT - 1, (count, 1), generator=generator)
    rows = known[starts + torch.arange(CONTEXT + 1)]
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class Block(nn.Module):
    """Causal attention and an MLP, each on a normalised residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = (
            part.reshape(n, t, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class Gpt(nn.Module):
    """A GPT of 1 M weights over bytes."""

    def __init__(self, width: int = 144, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        out: Tensor = self.head(self.norm(self.blocks(self.tokens(ids) + self.places(places))))
        return out


def vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(32, 4, 4, 4, 128, 256, num_classes=10)


KINDS = {
    "resnet20": Kind(lambda: build("resnet20", num_classes=10), images(1, 32), 128, 100, 32),
    "resnet18": Kind(lambda: build("resnet18", num_classes=100), images(2, 64), 32, 80, 16),
    "resnet18-1000": Kind(lambda: build("resnet18", num_classes=1000), images(3, 64), 8),
    "resnet50": Kind(lambda: build("resnet50", num_classes=1000), images(3, 224), 2),
    "vit": Kind(vit, images(1, 32), 64, 150, 32, adam=True),
    "gpt": Kind(Gpt, text, 16, 150, 16, adam=True),
}


def case(name: str, variant: str, folder: Path, device: str, samples: int | None = None) -> Case:
    """Return a network ready to be measured, trained now unless the folder has it."""
    kind = KINDS[name]
    network = trained(name, folder)
    count = samples or kind.samples
    inputs, labels = kind.data(count, 1)
    if action := VARIANTS[variant]:
        network = sparsify(
            network, action, inputs[:2] if name == "gpt" else inputs.shape[1:]
        ).module
        network = settled(network, kind)
    network = network.to(device).eval()
    data = ProbeData(
        "digits" if name != "gpt" else "text",
        inputs.to(device),
        labels.to(device),
        task=LanguageModelling() if name == "gpt" else Classification(),
        batch_size=count,
    )
    masks = masks_of(network)
    return Case(name, variant, network, data, [masks.get(n) for n, _ in network.named_parameters()])


def settled(network: nn.Module, kind: Kind) -> nn.Module:
    """Return a network whose batch norms' statistics are those of its data."""
    if not has_batch_norm(network):
        return network
    return recalibrate_batch_norm(network, [kind.data(32, 100 + seed)[0] for seed in range(2)])


def trained(name: str, folder: Path) -> nn.Module:
    """Return a trained network, from the folder where it is there."""
    kind, path = KINDS[name], folder / f"{name}.pt"
    torch.manual_seed(0)
    network = kind.make()
    if path.is_file():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    if kind.steps:
        train(network, kind)
    else:
        network = settled(network, kind)  # random weights, whose signal the batch norms hold
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network.eval()


def train(network: nn.Module, kind: Kind) -> None:
    """Train for the steps of its kind, with a learning rate that ends at zero."""
    rate = 1e-3 if kind.adam else 0.05
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(network.parameters(), rate)
        if kind.adam
        else torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * rate, total_steps=kind.steps)
    inputs, labels = kind.data(20 * kind.batch, 2)
    network.train()
    for step in range(kind.steps):
        some = torch.arange(kind.batch) + kind.batch * (step % 20)
        optimizer.zero_grad()
        Case.criterion(network(inputs[some]), labels[some]).backward()
        optimizer.step()
        schedule.step()
    network.zero_grad()
