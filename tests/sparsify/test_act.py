import copy

import pytest
import torch
import torchvision
from reference.zeroed import PlainNet
from torch import nn
from torch.nn.utils import prune

from trainscope.errors import ActionError
from trainscope.networks.cost import flops
from trainscope.networks.network import digest
from trainscope.records import ActionRecord
from trainscope.sparsify import Action, masks_of, sparsify
from trainscope.sparsify.ratios import parse

SHAPE, FULL = (3, 8, 8), (3, 224, 224)


@pytest.fixture(scope="module")
def resnet34():
    torch.manual_seed(0)
    return torchvision.models.resnet34(num_classes=100)


# Wang et al. (2023), Table 4: ResNet-34 at 224x224.
@pytest.mark.parametrize(
    ("ratio", "giga", "speedup"),
    [
        *((0.1, 3.30, 1.11), (0.7, 1.19, 3.09), (0.95, 0.30, 12.06)),
    ],
)
def test_resnet34_has_the_published_flops(resnet34, ratio, giga, speedup):
    done = sparsify(resnet34, Action(ratio=ratio), FULL)
    assert round(done.record.flops / 1e9, 2) == giga
    assert round(done.record.speedup, 2) == speedup
    assert done.record.meaning == f"{100 * ratio:.0f} % of the filters of 16 inner convolutions"


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    network = torchvision.models.resnet50()
    return network, flops(network, FULL)


# The speedups that GReg publishes for these stage ratios.
@pytest.mark.parametrize(
    ("ratios", "speedup"),
    [
        ("layer[123]*=0.3,layer4*=0.14", 1.49),
        ("layer[1-3]*conv[12]=0.6,layer4*=0.21", 2.31),
        ("*=0.74,layer3*=0.6,layer4*=0.21", 2.56),
    ],
)
def test_resnet50_has_the_published_speedups(resnet50, ratios, speedup):
    network, dense = resnet50
    done = sparsify(network, Action(ratios=parse(ratios)), (3, 32, 32))
    assert round(dense / 1e9, 2) == 4.09
    assert round(dense / flops(done.module, FULL), 2) == speedup
    assert len(done.record.layers) == 32


@pytest.mark.parametrize("structure", ["filter", "unstructured", "2:4"])
@pytest.mark.parametrize("scope", ["inner", "all"])
def test_the_network_given_is_not_touched(structure, scope):
    torch.manual_seed(0)
    network = PlainNet().train()
    network.features[3].eval()
    network.features[3].weight.requires_grad_(False)
    network.fc1.weight.grad = torch.ones_like(network.fc1.weight)
    before, state = digest(network), torch.get_rng_state()
    ratio = None if structure == "2:4" else 0.5
    done = sparsify(network, Action(structure, ratio, scope=scope, criterion="random"), SHAPE)
    assert digest(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert masks_of(network) == {}
    assert torch.equal(network.fc1.weight.grad, torch.ones_like(network.fc1.weight))
    modes = [module.training for module in network.modules()]
    assert [module.training for module in done.module.modules()] == modes
    assert not done.module.features[3].weight.requires_grad
    assert done.module.features[6].weight.requires_grad
    assert not any(len(module._forward_pre_hooks) for module in done.module.modules())
    assert ActionRecord.from_json(done.record.to_json()) == done.record


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("structure", ["filter", "unstructured"])
def test_the_dtype_is_kept(dtype, structure):
    done = sparsify(PlainNet().to(dtype), Action(structure, 0.5), SHAPE)
    assert {parameter.dtype for parameter in done.module.parameters()} == {dtype}


def test_the_record_says_what_was_done():
    torch.manual_seed(0)
    network = PlainNet()
    done = sparsify(network, Action(ratios=parse("*=0.9,features.3=0.5"), seed=3), SHAPE)
    rows = {layer.name: (layer.before, layer.after) for layer in done.record.layers}
    assert rows == {"features.3": (12, 6), "features.6": (10, 1)}
    assert done.record.meaning == "50 % to 90 % of the filters of 2 inner convolutions"
    assert done.record.ratio is None
    assert dict(done.record.ratios) == {"*": 0.9, "features.3": 0.5}
    assert done.record.parameters == sum(p.numel() for p in done.module.parameters())
    assert done.record.flops == flops(done.module, SHAPE)
    assert done.record.speedup == flops(network, SHAPE) / done.record.flops
    assert set(done.removed) == {"features.3", "features.4", "features.6", "features.7"}


def test_the_filters_that_go_are_the_smallest():
    torch.manual_seed(0)
    network = PlainNet()
    done = sparsify(network, Action(ratio=0.5), SHAPE)
    size = network.features[3].weight.abs().flatten(1).mean(dim=1)
    assert sorted(size.argsort()[:6].tolist()) == list(done.removed["features.3"])


def test_bn_scale_ranks_by_the_batch_norm_after_the_convolution():
    torch.manual_seed(0)
    network = PlainNet()
    nn.init.uniform_(network.features[4].weight, -1, 1)
    done = sparsify(network, Action(ratio=0.5, criterion="bn-scale"), SHAPE)
    order = network.features[4].weight.abs().argsort()
    assert sorted(order[:6].tolist()) == list(done.removed["features.3"])
    with pytest.raises(ActionError, match=r"no batch norm .* follows features\.3"):
        sparsify(PlainNet(norm=False), Action(ratio=0.5, criterion="bn-scale"), SHAPE)


def test_a_global_ranking_removes_the_share_of_all_filters():
    torch.manual_seed(0)
    network = PlainNet()
    with torch.no_grad():
        network.features[6].weight.mul_(0.01)
    done = sparsify(network, Action(ratio=0.5, global_ranking=True), SHAPE)
    rows = {layer.name: layer.before - layer.after for layer in done.record.layers}
    assert rows == {"features.6": 9, "features.3": 2}  # 11 of 22, one of features.6 kept
    assert done.record.meaning.endswith("2 inner convolutions, ranked together")


def test_masks_are_cut_along_with_their_weights():
    torch.manual_seed(0)
    masked = sparsify(PlainNet(), Action("unstructured", 0.5, scope="all"), SHAPE).module
    done = sparsify(masked, Action(ratio=0.5), SHAPE)
    for name, mask in masks_of(done.module).items():
        weight = done.module.get_parameter(name)
        assert mask.shape == weight.shape
        assert not weight[~mask].any()
    assert done.record.parameters < sum(p.numel() for p in done.module.parameters())


def test_what_torch_prune_made_is_understood():
    torch.manual_seed(0)
    network = PlainNet()
    prune.l1_unstructured(network.features[3], "weight", 0.5)
    network(torch.randn(2, *SHAPE))  # its weight is now a computed tensor, which deepcopy refuses
    cut = sparsify(network, Action(ratio=0.5), SHAPE).module.features[3]
    assert cut.weight_mask.shape == cut.weight_orig.shape == (6, 8, 3, 3)
    further = sparsify(network, Action("unstructured", 0.75), SHAPE)
    assert int((masks_of(further.module)["features.3.weight_orig"]).sum()) == 12 * 8 * 9 // 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    network = PlainNet()
    with torch.no_grad():
        network.features[3].weight[0, 0] = value
    with pytest.raises(ActionError, match=r"the weights features\.3\.weight are not all finite"):
        sparsify(network, Action(ratio=0.5), SHAPE)


def test_an_input_shape_that_does_not_fit_is_refused():
    with pytest.raises(ActionError, match="PlainNet does not run on inputs of shape 1x8x8"):
        sparsify(PlainNet(), Action(ratio=0.5), (1, 8, 8))


def test_sparing_every_layer_is_refused():
    with pytest.raises(ActionError, match="every layer in scope has the ratio 0"):
        sparsify(PlainNet(), Action(ratio=0.5, ratios={"*": 0.0}), SHAPE)


def test_layers_with_one_filter_left_are_a_no_op():
    once = sparsify(PlainNet(), Action(ratio=0.99), SHAPE).module
    assert once.features[3].out_channels == once.features[6].out_channels == 1
    with pytest.raises(ActionError, match="nothing"):
        sparsify(once, Action(ratio=0.5), SHAPE)


def test_pruning_again_takes_its_share_of_what_is_left():
    network = sparsify(PlainNet(), Action(ratio=0.5), SHAPE).module
    again = sparsify(copy.deepcopy(network), Action(ratio=0.5), SHAPE)
    assert again.module.features[3].out_channels == 3
