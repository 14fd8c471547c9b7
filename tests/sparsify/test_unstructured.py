import pytest
import torch
from reference.zeroed import PlainNet
from torch import nn

from trainscope.errors import ActionError
from trainscope.networks.cost import flops
from trainscope.sparsify import Action, masks_of, sparsify

SHAPE = (3, 8, 8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PlainNet()


def test_the_smallest_weights_of_each_layer_go(network):
    done = sparsify(network, Action("unstructured", 0.9, scope="all"), SHAPE)
    dense = dict(network.named_parameters())
    assert len(masks_of(done.module)) == 5
    for name, mask in masks_of(done.module).items():
        count = -(-dense[name].numel() * 9 // 10)
        assert int((~mask).sum()) == count
        assert dense[name].abs()[~mask].max() <= dense[name].abs()[mask].min()
        pruned = done.module.get_parameter(name)
        assert torch.equal(pruned, dense[name] * mask)
    assert done.record.meaning == "90 % of the weights of 3 convolutions and 2 linear layers"
    assert done.removed == {}


def test_scope_inner_spares_the_first_convolution_and_the_classifier(network):
    done = sparsify(network, Action("unstructured", 0.5), SHAPE)
    assert [layer.name for layer in done.record.layers] == ["features.3", "features.6", "fc1"]
    assert "first convolution and classifier spared" in done.record.meaning


def test_a_network_without_a_convolution_is_not_said_to_have_one():
    linear = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    done = sparsify(linear, Action("unstructured", 0.5), (4,))
    assert done.record.meaning == "50 % of the weights of 1 linear layer (output layer spared)"
    whole = sparsify(linear, Action("unstructured", 0.5, scope="all"), (4,))
    assert "spared" not in whole.record.meaning


def test_flops_go_by_density(network):
    done = sparsify(network, Action("unstructured", 0.5, scope="all"), SHAPE)
    assert done.record.speedup == pytest.approx(2, abs=0.05)
    assert done.record.flops == flops(done.module, SHAPE)
    gone = sum(layer.before - layer.after for layer in done.record.layers)
    assert done.record.parameters == sum(p.numel() for p in network.parameters()) - gone


def test_a_global_ranking_removes_exactly_the_share_of_all(network):
    action = Action("unstructured", 0.9, scope="all", global_ranking=True)
    masks = masks_of(sparsify(network, action, SHAPE).module)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == -(-total * 9 // 10)
    assert len({float(mask.float().mean()) for mask in masks.values()}) > 1


def test_a_ratio_is_the_share_of_all_weights_and_masks_stay(network):
    first = sparsify(network, Action("unstructured", 0.5, criterion="random"), SHAPE).module
    second = sparsify(first, Action("unstructured", 0.75), SHAPE).module
    before, after = masks_of(first), masks_of(second)
    assert before.keys() == after.keys() != set()
    for name, mask in after.items():
        assert int((~mask).sum()) == -(-mask.numel() * 3 // 4)
        assert not (mask & ~before[name]).any()


def test_masks_that_hold_as_much_already_are_a_no_op(network):
    first = sparsify(network, Action("unstructured", 0.5), SHAPE).module
    with pytest.raises(ActionError, match="masks hold up to 50 % of the weights at zero already"):
        sparsify(first, Action("unstructured", 0.5), SHAPE)


def test_random_masks_come_from_the_seed(network):
    def masks(seed):
        action = Action("unstructured", 0.5, criterion="random", seed=seed)
        return masks_of(sparsify(network, action, SHAPE).module)["fc1.weight"]

    assert torch.equal(masks(1), masks(1))
    assert not torch.equal(masks(1), masks(2))


def test_attention_projections_are_masked():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 3))
    done = sparsify(network, Action("unstructured", 0.5), (4, 16))
    assert {change.name for change in done.record.layers} == {
        *("0.self_attn", "0.self_attn.out_proj", "0.linear1", "0.linear2")
    }
    assert "3 linear layers and 1 attention projection" in done.record.meaning


def test_a_tied_weight_is_masked_once():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    network[3].weight = network[1].weight
    done = sparsify(network, Action("unstructured", 0.5, scope="all"), (8,))
    assert [change.name for change in done.record.layers] == ["1"]
    assert done.module[3].weight is done.module[1].weight


@pytest.mark.parametrize(
    ("scope", "structure", "width", "advice"),
    [
        ("inner", "unstructured", 8, "try --scope all"),
        ("inner", "2:4", 8, "try --scope all"),
        ("inner", "2:4", 6, "choose an M that divides the input widths"),
        ("all", "2:4", 6, "choose an M that divides the input widths"),
    ],
)
def test_the_way_out_of_nothing_to_prune_is_one(scope, structure, width, advice):
    network = nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(width * 9, 2))
    ratio = 0.5 if structure == "unstructured" else None
    with pytest.raises(ActionError, match=advice) as caught:
        sparsify(network, Action(structure, ratio=ratio, scope=scope), (3, 5, 5))
    if "all" in advice:
        sparsify(network, Action(structure, ratio=ratio, scope="all"), (3, 5, 5))
    assert ("try --scope all" in str(caught.value)) is ("all" in advice)
