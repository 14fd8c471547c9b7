"""Every kind of weight is pruned, or named with its share; the record says what is there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainscope.errors import ActionError
from trainscope.networks.cost import parameters
from trainscope.records import ActionRecord
from trainscope.sparsify import Action, masks_of, sparsify


class Zoo(nn.Module):
    """One layer of every kind that has weights, on inputs of [4, 8]."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, padding=1)
        self.grouped = nn.Conv1d(8, 16, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(16, 8, 3, padding=1)
        self.grouped_up = nn.ConvTranspose1d(8, 8, 3, padding=1, groups=2)
        self.conv3d = nn.Conv3d(8, 8, 1)
        self.embed = nn.Embedding(8, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True, proj_size=4)
        self.gru = nn.GRU(8, 8, batch_first=True, bias=False)
        self.cell = nn.LSTMCell(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
        self.other_attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True)
        self.bilinear = nn.Bilinear(8, 8, 8)
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.position = nn.Parameter(torch.randn(1, 8, 8))
        self.scale = nn.Parameter(torch.ones(8, 1))
        self.head = nn.Linear(8, 3)

    def forward(self, inputs):
        x = F.relu(self.grouped_up(self.up(self.grouped(self.conv(inputs)))))
        x = self.conv3d(x[..., None, None])[..., 0, 0].transpose(1, 2) + self.position
        x = x + self.embed(torch.arange(8, device=x.device)) * self.scale
        x = self.gru(self.lstm(x)[0])[0]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        narrow = x[..., :4]
        x = x + self.other_attention(x, narrow, narrow, need_weights=False)[0]
        x = self.cell(x.mean(1))[0]
        return self.head(self.bilinear(x, x) @ self.matrix)


SHAPE = (4, 8)
NAMED = {"embed", "matrix", "position"}
PRUNED = {
    *("conv", "grouped", "up", "grouped_up", "conv3d", "bilinear", "head", "attention"),
    *(f"lstm.weight_{part}_l0{way}" for part in ("ih", "hh", "hr") for way in ("", "_reverse")),
    *("gru.weight_ih_l0", "gru.weight_hh_l0", "cell.weight_ih", "cell.weight_hh"),
    *("attention.out_proj", "other_attention.out_proj"),
    *(f"other_attention.{part}_proj_weight" for part in "qkv"),
}


def zoo():
    torch.manual_seed(0)
    return Zoo().double()


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_every_weight_is_pruned_or_named_with_its_share(structure):
    network = zoo()
    ratio = None if structure == "2:4" else 0.5
    done = sparsify(network, Action(structure, ratio, scope="all"), SHAPE)
    pruned = {layer.name for layer in done.record.layers}
    left = {layer.name: layer for layer in done.record.left_alone}
    alone = NAMED | ({"bilinear"} if structure == "2:4" else set())
    assert (pruned, set(left)) == (PRUNED - alone, alone)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert left["position"].share == 64 / total
    assert left["matrix"].reason == "a parameter of Zoo, whose use is not known"
    weights = dict(network.named_parameters())
    shares = {name: 100 * weights[f"{name}.weight"].numel() / total for name in ("embed",)}
    told = f"left alone: embed (an embedding is looked up, not multiplied), {shares['embed']:.3g} %"
    assert any(note.startswith(told) for note in done.notes)

    by_hand = zoo()
    gone = 0
    with torch.no_grad():
        for name, mask in masks_of(done.module).items():
            by_hand.get_parameter(name).mul_(mask)
            gone += int((~mask).sum())
    inputs = torch.randn(3, *SHAPE, dtype=torch.float64)
    assert torch.equal(done.module(inputs), by_hand(inputs))
    assert not torch.equal(done.module(inputs), network(inputs))
    counted = sum(w.numel() for n, w in weights.items() if w.ndim > 1 and n != "scale")
    assert done.record.reached == gone / counted
    assert done.record.reached < 0.5 == done.record.ratio
    assert any("the ratio asked for is 50 %, and" in note for note in done.notes)
    assert done.record.parameters == total - gone == parameters(done.module)
    assert ActionRecord.from_json(done.record.to_json()) == done.record


def test_records_of_before_are_read_without_the_ratio_reached():
    raw = sparsify(zoo(), Action("unstructured", 0.5), SHAPE).record.to_json()
    del raw["reached"], raw["left_alone"]
    read = ActionRecord.from_json(raw)
    assert (read.reached, read.left_alone) == (None, ())


def test_a_pattern_names_a_layer_or_one_weight_of_it():
    ratios = {"lstm": 0.5, "lstm.weight_hh*": 0.25, "gru.weight_ih_l0": 0.75}
    done = sparsify(zoo(), Action("unstructured", ratios=ratios, scope="all"), SHAPE)
    lost = {layer.name: 1 - layer.after / layer.before for layer in done.record.layers}
    assert lost["lstm.weight_ih_l0"] == 0.5
    assert lost["lstm.weight_hh_l0_reverse"] == 0.25
    assert lost["gru.weight_ih_l0"] == 0.75
    assert "gru.weight_hh_l0" not in lost


def inputs_of(layer, weight):
    """The connections of each output as rows of [its group's inputs], one by one."""
    if not layer.transposed:
        return [weight[o, :, k] for o in range(len(weight)) for k in range(weight.shape[2])]
    size = layer.in_channels // layer.groups
    rows = []
    for group in range(layer.groups):
        for output in range(weight.shape[1]):
            part = weight[group * size : (group + 1) * size, output]
            rows.extend(part[:, k] for k in range(weight.shape[2]))
    return rows


@pytest.mark.parametrize("name", ["conv", "grouped", "up", "grouped_up"])
def test_n_m_runs_along_the_inputs_of_every_convolution(name):
    network = zoo()
    masks = masks_of(sparsify(network, Action("2:4", scope="all"), SHAPE).module)
    layer = network.get_submodule(name)
    weights = inputs_of(layer, layer.weight.detach())
    for kept, row in zip(inputs_of(layer, masks[f"{name}.weight"]), weights, strict=True):
        for start in range(0, len(row), 4):
            best = row[start : start + 4].abs().topk(2).indices.tolist()
            chosen = torch.nonzero(kept[start : start + 4]).flatten().tolist()
            assert sorted(best) == chosen


def test_a_group_of_a_transposed_convolution_that_does_not_divide_is_named():
    network = nn.Sequential(
        nn.Conv1d(4, 12, 1), nn.ConvTranspose1d(12, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 2)
    )
    done = sparsify(network, Action("2:4", scope="all"), (4, 2))
    assert [(left.name, left.reason) for left in done.record.left_alone] == [
        ("1", "its input width is not a multiple of 4")
    ]


@pytest.mark.parametrize("again", [("random", "unstructured"), ("l1", "2:4"), ("random", "2:4")])
@pytest.mark.parametrize("together", [False, True])
def test_masks_stay_whatever_prunes_again(again, together):
    criterion, structure = again
    first = sparsify(
        zoo(), Action("unstructured", 0.6, scope="all", criterion="random", seed=1), SHAPE
    ).module
    ratio = None if structure == "2:4" else 0.8
    together = together and structure == "unstructured"
    action = Action(
        structure, ratio, scope="all", criterion=criterion, seed=2, global_ranking=together
    )
    done = sparsify(first, action, SHAPE)
    before, after = masks_of(first), masks_of(done.module)
    assert all(not (after[name] & ~mask).any() for name, mask in before.items())
    for name, parameter in done.module.named_parameters():
        assert name not in after or not parameter[~after[name]].any()
    if structure == "unstructured" and not together:
        counts = {name: int((~mask).sum()) for name, mask in after.items()}
        assert counts == {name: -(-mask.numel() * 4 // 5) for name, mask in after.items()}


def test_a_layer_of_which_nothing_is_left_keeps_nothing_in_a_global_ranking():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    network[2].register_buffer("weight_mask", torch.zeros(8, 8, dtype=torch.bool))
    with torch.no_grad():
        network[2].weight.zero_()
    action = Action("unstructured", 0.99, scope="all", global_ranking=True)
    done = sparsify(network, action, (2, 2, 2))
    assert [int(mask.sum()) for mask in masks_of(done.module).values()] == [1, 0, 1]
    assert done.notes[0] == "1 weights fewer went: each layer keeps one"  # 143 asked, 142 gone


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 8)
        self.decode = nn.Linear(8, 8, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, inputs):
        return self.decode(inputs.flatten(1) + self.embed(torch.arange(8)).mean(0))


def test_a_weight_that_an_embedding_shares_is_pruned_and_counted_once():
    torch.manual_seed(0)
    network = Tied().double()
    done = sparsify(network, Action("unstructured", 0.5, scope="all"), (8, 1, 1))
    assert [layer.name for layer in done.record.layers] == ["decode"]
    assert parameters(done.module) == done.record.parameters == 32
    assert int((done.module.embed.weight == 0).sum()) == 32


def test_a_recurrent_layer_is_named_where_filters_are_cut():
    done = sparsify(zoo(), Action(ratio=0.5, scope="inner"), SHAPE)
    named = {left.name: left.reason for left in done.record.left_alone}
    assert named["lstm.weight_ih_l0"] == "a recurrent weight has no filters"
    assert named["attention"] == "an attention projection has no filters"
    assert any("a recurrent weight has no filters" in note for note in done.notes)
    assert done.record.reached == pytest.approx(0.5)


class Renamed(nn.Module):
    """Two attributes of one number: one counts channels that are cut, one channels that are not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 1)
        self.next = nn.Conv2d(16, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.width = 16
        self.out_dim = 16

    def forward(self, inputs):
        batch, _, height, side = inputs.shape
        inner = F.relu(self.conv(inputs)).reshape(batch, self.width, height * side)
        inner = inner.reshape(batch, self.width, height, side)
        return self.norm(self.next(inner)).reshape(batch, self.out_dim, -1).mean(-1)


def test_an_attribute_follows_the_layer_that_it_counts_and_no_other_of_its_width():
    torch.manual_seed(0)
    network = Renamed().double().eval()
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 4, 4))
    assert (done.module.width, done.module.out_dim) == (8, 16)
    assert done.notes[-1] == "widths that the network keeps as attributes were set: width"
    by_hand = Renamed().double().eval()
    by_hand.load_state_dict(network.state_dict())
    with torch.no_grad():
        by_hand.conv.weight[list(done.removed["conv"])] = 0
        by_hand.conv.bias[list(done.removed["conv"])] = 0
    inputs = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert (done.module(inputs) - by_hand(inputs)).abs().max() < 1e-12


class Shared(nn.Module):
    """One attribute that counts the channels of two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 12, 1), nn.Conv1d(12, 12, 1)
        self.head, self.dim = nn.Linear(12, 2), 12

    def forward(self, inputs):
        batch = inputs.shape[0]
        inputs = torch.relu(self.first(inputs)).reshape(batch, self.dim, -1)
        return self.head(torch.relu(self.second(inputs)).reshape(batch, self.dim, 2).mean(-1))


def test_an_attribute_that_counts_layers_cut_unequally_is_refused():
    torch.manual_seed(0)
    action = Action(ratios={"first": 0.5, "second": 0.25}, scope="all")
    with pytest.raises(ActionError, match="by its attribute dim, and the cut leaves those layers"):
        sparsify(Shared(), action, (2, 2))
    assert sparsify(Shared(), Action(ratio=0.5, scope="all"), (2, 2)).module.dim == 6


def test_zeros_without_masks_are_held_by_the_action():
    network = zoo()
    with torch.no_grad():
        network.head.weight[:, :4] = 0
    done = sparsify(network, Action("unstructured", 0.6, scope="all", criterion="random"), SHAPE)
    assert not masks_of(done.module)["head.weight"][:, :4].any()
    assert done.notes[0].startswith("12 weights were exactly zero before the action")
    free = sparsify(network, Action("unstructured", 0.6, scope="inner"), SHAPE, hold_zeros=False)
    assert "head.weight" not in masks_of(free.module)
