import pytest
import torch
import torch.nn.functional as F
import torchvision
from reference.zeroed import PlainNet, lived_in, zeroed
from torch import nn
from torchvision.models import DenseNet, EfficientNet, RegNet, ResNet
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import Bottleneck
from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlockV2

from trainscope.errors import ActionError
from trainscope.networks.registry import build
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.inner import inner


def zoo(name, **options):
    return torchvision.models.get_model(name, weights=None, num_classes=10, **options)


def efficientnet():
    stages = [MBConvConfig(1, 3, 1, 32, 16, 1, 1, 1), MBConvConfig(6, 5, 2, 16, 24, 2, 1, 1)]
    return EfficientNet(stages, dropout=0.2, num_classes=10)


def regnet_y():
    return RegNet(BlockParams.from_init_params(4, 24, 24, 2.5, 8, se_ratio=0.25), num_classes=10)


def convnext():
    network = ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=10)
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):  # 1e-6 at the start, which would hide any mistake
            nn.init.ones_(parameter)
    return network


def vit():
    network = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    nn.init.normal_(network.heads.head.weight)
    return network


def swin_v2():
    return SwinTransformer(
        [4, 4], 16, [2, 2], [2, 2], [2, 2], block=SwinTransformerBlockV2, num_classes=10
    )


FAMILIES = {
    "digits": (lambda: build("digits_resnet"), (1, 8, 8), "6 inner convolutions"),
    "cifar_resnet": (lambda: build("resnet20"), (3, 32, 32), "9 inner convolutions"),
    "lenet": (lambda: build("lenet5"), (1, 28, 28), "1 inner convolution"),
    "plain": (PlainNet, (3, 8, 8), "2 inner convolutions"),
    "resnet18": (lambda: zoo("resnet18"), (3, 32, 32), "8 inner convolutions"),
    "resnext": (
        lambda: ResNet(Bottleneck, [2, 1, 1, 1], num_classes=10, groups=32, width_per_group=4),
        (3, 32, 32),
        "10 inner convolutions",
    ),
    "mobilenet_v2": (lambda: zoo("mobilenet_v2"), (3, 32, 32), "19 inner convolutions"),
    "mobilenet_v3": (lambda: zoo("mobilenet_v3_small"), (3, 64, 64), "21 inner convolutions"),
    "efficientnet": (efficientnet, (3, 32, 32), "7 inner convolutions"),
    "densenet": (
        lambda: DenseNet(8, (2, 2), 16, 2, num_classes=10),
        (3, 32, 32),
        "9 inner convolutions",
    ),
    "squeezenet": (lambda: zoo("squeezenet1_1"), (3, 64, 64), "24 inner convolutions"),
    "shufflenet": (lambda: zoo("shufflenet_v2_x0_5"), (3, 32, 32), "17 inner convolutions"),
    "regnet_y": (regnet_y, (3, 32, 32), "12 inner convolutions"),
    "convnext": (convnext, (3, 32, 32), "4 MLPs"),
    "vit": (vit, (3, 32, 32), "2 MLPs"),
    "swin_v2": (swin_v2, (3, 32, 32), "4 MLPs"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cut_network_is_the_one_with_those_filters_at_zero(family):
    make, shape, what = FAMILIES[family]
    torch.manual_seed(0)
    network = lived_in(make())
    done = sparsify(network, Action(ratio=0.5), shape)
    assert done.record.meaning.endswith(what)
    check_exact(network, done, shape)


def check_exact(network, done, shape):
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        dense, expected, got = (
            net(inputs) for net in (network, zeroed(network, done.removed), done.module)
        )
    scale = dense.abs().max()
    assert (got - expected).abs().max() < 1e-12 * scale
    assert (got - dense).abs().max() > 1e-6 * scale  # the test would see a cut that did nothing


def one(*layers):
    return nn.Sequential(*layers)


class Branches(nn.Module):
    """A concatenation, a flattening, a gate, a depthwise multiplier, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left = nn.Conv2d(8, 4, 3, padding=1)
        self.right = nn.Conv2d(8, 6, 3, padding=1)
        self.depth = nn.Conv2d(10, 20, 3, groups=10, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.act = nn.PReLU(20)
        self.gate = nn.Conv2d(8, 9, 1)
        self.value = nn.Conv2d(20, 9, 1, bias=False)
        self.up = nn.ConvTranspose2d(9, 5, 2, stride=2)
        self.fc = nn.Linear(5 * 12 * 12, 4)

    def forward(self, inputs):
        stem = torch.relu(self.stem(inputs))
        both = torch.cat([self.left(stem), F.relu(self.right(stem))], 1)
        value = self.value(self.act(self.norm(self.depth(both))))
        gate = torch.sigmoid(self.gate(stem.mean((2, 3), keepdim=True)))
        up = F.silu(self.up(gate * value))
        batch, channels, height, width = up.shape
        return self.fc(up.reshape(batch, channels * height * width))


def test_layouts_of_a_network_that_has_them_all():
    torch.manual_seed(0)
    network = lived_in(Branches())
    done = sparsify(network, Action(ratio=0.4, criterion="random"), (3, 8, 8))
    assert [layer.name for layer in done.record.layers] == [
        "left",
        "right",
        "depth",
        "gate",
        "value",
        "up",
    ]
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-12
    assert done.module.depth.weight.shape[0] == 2 * (2 + 3) == done.module.depth.out_channels
    assert done.module.depth.groups == 5


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions_are_cut_alike(dims):
    torch.manual_seed(0)
    conv, up, norm = (getattr(nn, f"{n}{dims}d") for n in ("Conv", "ConvTranspose", "BatchNorm"))
    network = lived_in(
        one(
            *(conv(2, 6, 3), nn.ReLU(), conv(6, 8, 1, groups=2), norm(8), nn.ReLU()),
            *(up(8, 6, 2), norm(6), nn.PReLU(6), conv(6, 6, 2, groups=6), nn.Flatten()),
            nn.Linear(6 * 3**dims, 3),
        )
    )
    shape = (2, *(5,) * dims)
    done = sparsify(network, Action(ratio=0.5), shape)
    assert [layer.name for layer in done.record.layers] == ["2", "5", "8"]
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    assert torch.allclose(done.module(inputs), zeroed(network, done.removed)(inputs), atol=1e-12)
    assert not torch.allclose(done.module(inputs), network(inputs))


class Twice(nn.Module):
    """One convolution called twice, and one reshape to a width written into the code."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.enter = nn.Conv2d(6, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(96, 2)

    def forward(self, inputs):
        features = self.shared(torch.relu(self.shared(torch.relu(self.enter(self.stem(inputs))))))
        return self.fc(torch.relu(self.last(features)).view(-1, 96))


def test_a_layer_that_is_called_twice_is_cut_once_and_consistently():
    torch.manual_seed(0)
    network = lived_in(Twice())
    done = sparsify(network, Action(ratio=0.5), (1, 4, 4))
    # The shared layer reads what it makes, so its inputs and outputs are one group.
    assert [layer.name for layer in done.record.layers] == ["enter", "shared"]
    inputs = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    assert torch.allclose(done.module(inputs), zeroed(network, done.removed)(inputs), atol=1e-12)
    why = "its outputs are reshaped to a width written into the code"
    assert f"left alone: last ({why}), 26 % of the parameters" in done.notes


def test_the_first_convolution_residuals_and_the_classifier_are_spared_with_reasons():
    cutter = inner(zoo("resnet18"), (3, 32, 32))
    assert [c.name for c in cutter.candidates] == [
        f"layer{stage}.{block}.conv1" for stage in range(1, 5) for block in range(2)
    ]
    assert cutter.spared["conv1"] == "the first convolution is spared"
    assert cutter.spared["layer1.0.conv2"] == "its outputs meet a residual addition"
    assert cutter.spared["fc"] == "its outputs are the network's"
    assert cutter.notes == ()


def test_the_ranked_layer_of_a_gated_group_is_the_first_and_the_gate_follows():
    cutter = inner(zoo("mobilenet_v3_small"), (3, 64, 64))
    gated = next(c for c in cutter.candidates if c.name == "features.4.block.0.0")
    assert gated.layers == ("features.4.block.0.0", "features.4.block.2.fc2")
    assert gated.subject.weight.shape == (96, 24)
    assert len(gated.subject.scales) == 1


def test_auxiliary_heads_are_kept_and_still_run_in_training():
    torch.manual_seed(0)
    network = lived_in(zoo("googlenet", init_weights=False)).train()
    done = sparsify(network, Action(ratio=0.5), (3, 64, 64))
    assert done.record.meaning.endswith("56 inner convolutions")
    assert done.module.training
    assert "used in training only" in done.notes[0]
    done.module.eval()
    check_exact(network.eval(), done, (3, 64, 64))
    outputs = done.module.train()(torch.randn(2, 3, 64, 64).double())
    assert [out.shape for out in outputs] == [(2, 10)] * 3


def test_layers_that_share_a_weight_or_are_parametrised_are_left_alone():
    torch.manual_seed(0)
    network = one(*(nn.Conv2d(4, 4, 1) for _ in range(7)))
    network[2].weight = network[1].weight
    nn.utils.parametrizations.weight_norm(network[4])
    cutter = inner(network, (4, 2, 2))
    assert [c.name for c in cutter.candidates] == ["5"]
    assert cutter.spared["2"] == "1 and 2 share a weight"
    assert cutter.spared["3"] == "its outputs feed 4, and its weight is parametrised"
    assert cutter.spared["4"] == "its weight is parametrised"


def test_group_and_layer_norm_block_what_feeds_them():
    network = one(
        *(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)),
        *(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1), nn.Flatten()),
    )
    cutter = inner(network, (3, 1, 1))
    assert [c.name for c in cutter.candidates] == ["3"]
    assert cutter.spared["1"] == "its outputs feed a GroupNorm"


def test_nothing_to_prune_says_why():
    network = one(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(ActionError, match="0: the first convolution is spared; 2: its outputs"):
        inner(network, (3, 8, 8))


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, inputs):
        mean = self.conv(inputs).mean((2, 3))
        return self.fc(mean if mean.sum() > 0 else -mean)


def test_a_network_without_inner_filters_is_told_of_scope_all():
    with pytest.raises(ActionError, match=r"no convolution or MLP is inner .*--scope all"):
        inner(Undecided(), (3, 8, 8))
    done = sparsify(Undecided(), Action(ratio=0.5, scope="all"), (3, 8, 8))
    assert done.module.conv.out_channels == 4


def test_the_layout_of_weights_in_memory_stays():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).to(memory_format=torch.channels_last)
    done = sparsify(network, Action(ratio=0.5), (3, 12, 12))
    assert done.module[2].weight.shape == (4, 8, 3, 3)
    for layer in (done.module[2], done.module[4]):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert not layer.weight.is_contiguous()
