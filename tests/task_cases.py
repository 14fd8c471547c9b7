"""Small float64 networks of every task, each with plain formulas of its loss, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainscope.records.metric import LOWER, Metric
from trainscope.sparsify.masks import set_masks
from trainscope.task import (
    Binary,
    Classification,
    FromLoss,
    LanguageModelling,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
)


@dataclass(frozen=True)
class TaskCase:
    """A network, a batch, and plain formulas.

    `sample(out, i)` is the list of loss terms of sample i; `parts(out)` the tensors that the loss
    is of; `signal(out)` what the Jacobian is of; `points(batch)` what it is by, as the arguments
    of `forward(network, *points)`.
    """

    network: nn.Module
    task: Task
    batch: Any
    count: int
    forward: Callable[..., Any]
    points: tuple[Tensor, ...]
    sample: Callable[[Any, int], list[Tensor]]
    parts: Callable[[Any], list[Tensor]]
    signal: Callable[[Any], Tensor]


def _log_odds(logits: Tensor, label: int) -> Tensor:
    return logits.exp().sum().log() - logits[label]


class Small(nn.Module):
    """Two convolutions with a batch norm, and a head; its last bias is frozen."""

    def __init__(self, outputs: int, wrap: Callable[[Tensor], Any] = lambda out: out) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 2)
        self.bn = nn.BatchNorm2d(2)
        self.conv2 = nn.Conv2d(2, 3, 2)
        self.fc = nn.Linear(3, outputs)
        self.fc.bias.requires_grad_(False)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        x = torch.tanh(self.bn(self.conv1(x)))
        return self.wrap(self.fc(F.silu(self.conv2(x)).mean((2, 3))))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 2, 3, padding=1)
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.up = nn.ConvTranspose2d(2, 2, 2, 2)
        self.out = nn.Conv2d(4, 3, 1)
        self.out.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = torch.tanh(self.down(x))
        b = self.up(torch.tanh(self.inner(F.avg_pool2d(a, 2))))
        return {"aux": a, "out": self.out(torch.cat([a, b], 1))}


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.rnn = nn.LSTM(3, 3, batch_first=True)
        self.fc = nn.Linear(3, 3)
        self.fc.bias.requires_grad_(False)

    def of(self, embedded: Tensor) -> Tensor:
        return self.fc(self.rnn(embedded)[0])

    def forward(self, ids: Tensor) -> Tensor:
        return self.of(self.embed(ids))


class Language(nn.Module):
    """A block of causal means, and logits as an object of Hugging Face's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.position = nn.Embedding(5, 4)
        self.mix = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 6)
        self.head.bias.requires_grad_(False)

    def of(self, embedded: Tensor) -> Tensor:
        steps = torch.arange(1, embedded.shape[1] + 1).to(embedded).view(1, -1, 1)
        h = embedded + self.position(torch.arange(embedded.shape[1]))
        h = self.norm(h + torch.tanh(self.mix(h.cumsum(1) / steps)))
        return self.head(h)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.of(self.embed(input_ids)), past=None)


class Two(nn.Module):
    """A class and two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 4)
        self.kind = nn.Linear(4, 3)
        self.place = nn.Linear(4, 2)
        self.place.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.trunk(x))
        return self.kind(h), self.place(h)


def two_losses(out: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(out[0], wanted[0]) + 0.5 * F.mse_loss(out[1], wanted[1])


class OwnTask:
    """A task by the protocol alone: Poisson counts, whose network returns log rates."""

    metric = Metric("deviance", "", LOWER)

    def size(self, batch: Any) -> int:
        return len(batch["x"])

    def select(self, batch: Any, indices: Tensor) -> Any:
        return {name: value[indices] for name, value in batch.items()}

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        return model(batch["x"].clone())

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        return (outputs.exp() - batch["counts"] * outputs).sum(1)

    def score(self, outputs: Tensor, batch: Any) -> tuple[float, float]:
        return float(self.losses(outputs, batch).sum()), float(len(outputs))

    def signal(self, outputs: Tensor) -> Tensor:
        return outputs


@dataclass
class Reply:
    """What a network of the user's own may return."""

    logits: Tensor
    hidden: Tensor | None = None


def classification(wrap: Callable[[Tensor], Any] = lambda z: z, at: Any = lambda o: o) -> TaskCase:
    x, y = torch.randn(7, 1, 4, 4), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    return TaskCase(
        Small(3, wrap),
        Classification(),
        (x, y),
        7,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [_log_odds(at(out)[i], int(y[i]))],
        lambda out: [at(out)],
        at,
    )


def ignored_labels() -> TaskCase:
    """Only the last of the samples have a label that does not count."""
    x = torch.randn(11, 1, 4, 4)
    y = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1, -100, -100])
    return TaskCase(
        Small(3),
        Classification(),
        (x, y),
        11,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [] if y[i] < 0 else [_log_odds(out[i], int(y[i]))],
        lambda out: [out],
        lambda out: out,
    )


def tagging() -> TaskCase:
    """As many labels count as there are samples, unevenly: 2, 0, 1, 1, 1 of 5."""
    ids = torch.randint(0, 7, (5, 3))
    tags = torch.full((5, 3), -100)
    for i, t, tag in ((0, 0, 1), (0, 2, 2), (2, 1, 0), (3, 2, 2), (4, 0, 1)):
        tags[i, t] = tag
    net = Tagger()
    return TaskCase(
        net,
        Classification(),
        (ids, tags),
        5,
        lambda net, embedded: net.of(embedded),
        (net.embed.weight.detach()[ids],),
        lambda out, i: [_log_odds(out[i, t], int(tags[i, t])) for t in range(3) if tags[i, t] >= 0],
        lambda out: [out],
        lambda out: out.mean(1),
    )


def segmentation() -> TaskCase:
    x, y = torch.randn(3, 1, 4, 4), torch.randint(0, 3, (3, 4, 4))
    y[0, 1:, :] = 255
    y[2, 2, 2] = 255
    return TaskCase(
        UNet(),
        Segmentation(),
        (x, y),
        3,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [
            _log_odds(out["out"][i, :, r, c], int(y[i, r, c]))
            for r in range(4)
            for c in range(4)
            if y[i, r, c] != 255
        ],
        lambda out: [out["out"]],
        lambda out: out["out"].sum((2, 3)) / 16,
    )


def regression(loss: str) -> TaskCase:
    x, y = torch.randn(7, 1, 4, 4), 0.3 * torch.randn(7, 2)
    formula = {
        "mse": lambda d: d * d,
        "mae": lambda d: d.abs(),
        "huber": lambda d: d * d / 2 if d.abs() < 1 else d.abs() - 0.5,
    }[loss]
    return TaskCase(
        Small(2),
        Regression(loss_name=loss),
        (x, y),
        7,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [sum(formula(out[i, k] - y[i, k]) for k in range(2)) / 2],
        lambda out: [out],
        lambda out: out,
    )


def multi_label() -> TaskCase:
    x, y = torch.randn(7, 1, 4, 4), torch.randint(0, 2, (7, 3))
    return TaskCase(
        Small(3),
        MultiLabel(),
        (x, y),
        7,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [
            sum((1 + out[i, k].exp()).log() - int(y[i, k]) * out[i, k] for k in range(3)) / 3
        ],
        lambda out: [out],
        lambda out: out,
    )


def binary() -> TaskCase:
    """Logits [N, 1] for labels [N]."""
    x, y = torch.randn(7, 1, 4, 4), torch.tensor([0, 1, 1, 1, 0, 0, 1])
    return TaskCase(
        Small(1),
        Binary(),
        (x, y),
        7,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [(1 + out[i, 0].exp()).log() - int(y[i]) * out[i, 0]],
        lambda out: [out],
        lambda out: out,
    )


def named_output() -> TaskCase:
    """The logits are the second of a list that stands beside another tensor."""
    whole = classification(
        lambda z: {"logits": z.exp(), "heads": [z * 2, z]}, lambda out: out["heads"][1]
    )
    return replace(whole, task=Classification(output="heads.1"))


def language(form: str) -> TaskCase:
    ids = torch.randint(0, 6, (5, 5))
    ids[1] = torch.tensor([0, 3, 1, 5, 2])
    mask, labels = torch.ones(5, 5, dtype=torch.long), ids.clone()
    mask[1, 2:], mask[3, 4:] = 0, 0
    labels[0, 3] = -100
    net = Language()
    given: Any = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    said: dict[tuple[int, int], int] = {}
    for i in range(5):
        for t in range(4):
            if form == "pairs":
                said[i, t] = int(ids[i, t + 1])
            elif mask[i, t + 1] and labels[i, t + 1] >= 0:
                said[i, t] = int(labels[i, t + 1])
    if form == "pairs":
        given = (ids[:, :4], ids[:, 1:])
    taken = ids[:, :4] if form == "pairs" else ids
    return TaskCase(
        net,
        LanguageModelling(),
        given,
        5,
        lambda net, embedded: SimpleNamespace(logits=net.of(embedded)),
        (net.embed.weight.detach()[taken],),
        lambda out, i: [
            _log_odds(out.logits[i, t], label) for (j, t), label in said.items() if i == j
        ],
        lambda out: [out.logits],
        lambda out: out.logits[:, -1],
    )


def two_outputs() -> TaskCase:
    x, y, z = torch.randn(7, 4), torch.tensor([0, 2, 1, 1, 0, 2, 2]), torch.randn(7, 2)
    return TaskCase(
        Two(),
        FromLoss(two_losses),
        (x, (y, z)),
        7,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [
            _log_odds(out[0][i], int(y[i])) + ((out[1][i] - z[i]) ** 2).sum() / 2 * 0.5
        ],
        list,
        lambda out: torch.cat(out, 1),
    )


def own_task() -> TaskCase:
    x, y = torch.randn(7, 1, 4, 4), torch.randint(0, 4, (7, 2)).double()
    return TaskCase(
        Small(2),
        OwnTask(),
        {"counts": y, "x": x},
        7,
        lambda net, x: net(x),
        (x,),
        lambda out, i: [sum(math.e ** out[i, k] - y[i, k] * out[i, k] for k in range(2))],
        lambda out: [out],
        lambda out: out,
    )


_FORMS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda z: (z, z.detach().sum()), lambda o: o[0]),
    "dictionary": (lambda z: {"hidden": z * 2, "logits": z}, lambda o: o["logits"]),
    "dataclass": (lambda z: Reply(z, z * 2), lambda o: o.logits),
    "object": (lambda z: SimpleNamespace(loss=None, logits=z), lambda o: o.logits),
}

BUILDERS: dict[str, Callable[[], TaskCase]] = {
    "classification": classification,
    **{
        f"classification, {name}": (lambda form=form: classification(*form))
        for name, form in _FORMS.items()
    },
    "classification, ignored labels": ignored_labels,
    "tagging": tagging,
    "segmentation": segmentation,
    **{f"regression, {loss}": (lambda loss=loss: regression(loss)) for loss in ("mse", "huber")},
    "regression, mae": lambda: regression("mae"),
    "multi-label": multi_label,
    "binary": binary,
    "classification, one output of several": named_output,
    "language, dictionaries": lambda: language("dictionaries"),
    "language, pairs": lambda: language("pairs"),
    "two outputs": two_outputs,
    "own task": own_task,
}


def task_case(name: str) -> TaskCase:
    """Return a case, its first wide weight masked by half."""
    before = torch.get_default_dtype()
    torch.manual_seed(len(name))
    torch.set_default_dtype(torch.float64)
    try:
        found = BUILDERS[name]()
    finally:
        torch.set_default_dtype(before)
    for module in found.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    wide = [n for n, p in found.network.named_parameters() if p.ndim > 1 and "embed" not in n]
    weight = found.network.get_parameter(wide[1])
    set_masks(found.network, {wide[1]: torch.rand(weight.shape) > 0.4})
    found.network.eval()
    return found
