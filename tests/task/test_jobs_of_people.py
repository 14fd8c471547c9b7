"""Jobs that people have beside the named tasks: each measured rightly, or refused in a sentence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_sequence
from torch.utils.data import DataLoader

import trainscope
from trainscope.data import ProbeData
from trainscope.errors import CheckpointError, DataError, TaskError
from trainscope.probes import Curvature, Gradient
from trainscope.task import Classification, FromLoss, Regression


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def norm_of(loss: Tensor, network: nn.Module) -> float:
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    return float(torch.cat([slope.flatten() for slope in slopes]).norm())


def test_a_loss_that_draws_is_refused_whatever_its_form() -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 4).double()
    x = torch.randn(8, 4, generator=seeded(1)).double()

    def mean(out: Tensor, wanted: Tensor) -> Tensor:
        return F.mse_loss(out + torch.randn_like(out), wanted)

    def each(out: Tensor, wanted: Tensor) -> Tensor:
        return (out + torch.randn_like(out) - wanted).square().mean(1)

    def seeded_noise(out: Tensor, wanted: Tensor) -> Tensor:
        return (out + torch.randn(len(out), 4, generator=seeded(2)) - wanted).square().mean()

    for loss in (mean, each):
        data = ProbeData("", batch=(x, x), task=FromLoss(loss))
        for probe in (Gradient(), Curvature()):
            found = probe.measure(network, data)
            assert found.status == "skipped"
            assert "another one each time for the same outputs" in found.reason
    data = ProbeData("", batch=(x, x), task=FromLoss(seeded_noise))
    found = Gradient().measure(network, data)
    assert found.value("norm") == pytest.approx(norm_of(seeded_noise(network(x), x), network))


def test_an_autoencoder_has_its_inputs_as_targets() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 2), nn.Tanh(), nn.Linear(2, 5)).double()
    x = torch.randn(9, 5, generator=seeded(1)).double()
    found = trainscope.measure(network, data=[x], task="regression", probes=["gradient"])
    loss = F.mse_loss(network(x), x)
    assert found["gradient"].value("loss") == pytest.approx(float(loss.detach()), rel=1e-12)
    assert found["gradient"].value("norm") == pytest.approx(norm_of(loss, network), rel=1e-10)
    with pytest.raises(CheckpointError, match="without targets"):
        trainscope.measure(nn.Linear(5, 3), data=[x.float()], task=Regression())


class Speech(nn.Module):
    """Characters of frames, by two recurrent directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


def ctc(out: Tensor, wanted: tuple[Tensor, Tensor]) -> Tensor:
    said, lengths = wanted
    frames = torch.full((len(out),), out.shape[1])
    odds = out.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(odds, said, frames, lengths, reduction="none")


def test_connectionist_temporal_classification() -> None:
    """Its second derivative is none of torch's: products are differences of gradients."""
    torch.manual_seed(0)
    network = Speech().double()
    x = torch.randn(4, 6, 3, generator=seeded(1)).double()
    said, lengths = torch.randint(1, 4, (4, 2), generator=seeded(2)), torch.tensor([2, 1, 2, 2])
    data = ProbeData("", batch=(x, (said, lengths)), task=FromLoss(ctc), batch_size=3)
    found = Gradient().measure(network, data)
    loss = ctc(network(x), (said, lengths)).mean()
    assert found.value("norm") == pytest.approx(norm_of(loss, network), rel=1e-10)
    options = {"top": 1, "density_vectors": 0, "trace_vectors": 2}
    curved = Curvature(**options).measure(network, data)
    assert curved.status == "ok"
    assert "differences of the gradient" in curved.notes["products"]
    step = 1e-4
    point = nn.utils.parameters_to_vector(network.parameters()).detach()
    rows = []
    for i in range(len(point)):
        sides = []
        for sign in (1, -1):
            moved = point.clone()
            moved[i] += sign * step
            nn.utils.vector_to_parameters(moved, network.parameters())
            value = ctc(network(x), (said, lengths)).mean()
            slopes = torch.autograd.grad(value, list(network.parameters()))
            sides.append(torch.cat([slope.flatten() for slope in slopes]))
        rows.append((sides[0] - sides[1]) / (2 * step))
    matrix = torch.stack(rows)
    top = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
    assert curved.value("top_eigenvalue") == pytest.approx(top, rel=2e-3)


class Lengths(nn.Module):
    """Packs padded sequences by their lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.fc(self.rnn(packed)[1][0][-1])


def test_sequences_with_lengths() -> None:
    torch.manual_seed(0)
    network = Lengths().double()
    rows = [torch.randn(2 + i % 3, 3, generator=seeded(i)).double() for i in range(6)]
    labels, lengths = torch.arange(6) % 3, torch.tensor([len(row) for row in rows])
    batch = (pad_sequence(rows, batch_first=True), lengths, labels)
    with pytest.raises(TaskError, match="--task classification:inputs=2"):
        trainscope.measure(network, data=[batch], probes=["gradient"])
    found = trainscope.measure(
        network, data=[batch], task=Classification(inputs=2), probes=["gradient", "jacobian"]
    )
    alone = [network(row[None], torch.tensor([len(row)])) for row in rows]
    loss = F.cross_entropy(torch.cat(alone), labels)
    assert found["gradient"].value("norm") == pytest.approx(norm_of(loss, network), rel=1e-10)
    assert found["jacobian"].status == "ok"
    packed = DataLoader(
        list(zip(rows, labels, strict=True)),
        3,
        collate_fn=lambda part: (
            pack_sequence([row for row, _ in part], enforce_sorted=False),
            torch.stack([label for _, label in part]),
        ),
    )
    with pytest.raises(DataError, match="holds a packed sequence"):
        trainscope.measure(network, data=packed, probes=["gradient"])


def test_a_graph_is_refused_with_what_to_do() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
            return self.fc(nodes.index_add(0, edges[1], nodes[edges[0]]))

    nodes, edges = torch.randn(9, 3), torch.randint(2, 9, (2, 12), generator=seeded(0))
    with pytest.raises(CheckpointError, match="as the nodes of a graph do"):
        trainscope.measure(
            Graph(), data=[(nodes, edges, torch.arange(9) % 2)], task=Classification(inputs=2)
        )
