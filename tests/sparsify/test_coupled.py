import pytest
import torch
import torchvision
from reference.zeroed import PlainNet, lived_in, zeroed
from torch import nn
from torch.nn.utils import prune
from torchvision.models import RegNet, ResNet
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import Bottleneck

from trainscope.errors import ActionError
from trainscope.networks.registry import build
from trainscope.sparsify import Action, masks_of, sparsify
from trainscope.sparsify.coupled import coupled


def zoo(name, **options):
    return torchvision.models.get_model(name, weights=None, num_classes=10, **options)


FAMILIES = {
    "plain": (PlainNet, (3, 8, 8)),
    "resnet18": (lambda: zoo("resnet18"), (3, 32, 32)),
    "resnext": (
        lambda: ResNet(Bottleneck, [2, 1, 1, 1], num_classes=10, groups=32, width_per_group=4),
        (3, 32, 32),
    ),
    "mobilenet_v3": (lambda: zoo("mobilenet_v3_small"), (3, 64, 64)),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 2), 8, 2, num_classes=5), (3, 32, 32)),
    "regnet_y": (
        lambda: RegNet(
            BlockParams.from_init_params(4, 24, 24, 2.5, 8, se_ratio=0.25), num_classes=10
        ),
        (3, 32, 32),
    ),
    "squeezenet": (lambda: zoo("squeezenet1_1"), (3, 64, 64)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cut_network_is_the_one_with_those_channels_at_zero(family):
    make, shape = FAMILIES[family]
    torch.manual_seed(0)
    network = lived_in(make())
    done = sparsify(network, Action(ratio=0.5, scope="all"), shape)
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        dense, expected, got = (
            net(inputs) for net in (network, zeroed(network, done.removed), done.module)
        )
    assert (got - expected).abs().max() < 1e-12 * dense.abs().max()
    dense_count = sum(parameter.numel() for parameter in network.parameters())
    # Channels fall on both sides of nearly every weight: parameters by about 1 - (1 - p)^2.
    assert 0.2 < done.record.parameters / dense_count < 0.35
    assert "of the channels of" in done.record.meaning


def test_coupled_filters_are_ranked_as_one_filter_with_all_their_weights():
    torch.manual_seed(0)
    network = zoo("resnet18")
    first = coupled(network, (3, 32, 32)).candidates[0]
    weights = [network.get_submodule(name).weight.flatten(1) for name in first.layers]
    assert set(first.layers) == {"conv1", "layer1.0.conv2", "layer1.1.conv2"}
    assert first.subject.weight.shape == (64, 3 * 49 + 2 * 576)
    expected = torch.cat(weights, dim=1).abs().mean(dim=1)
    assert torch.allclose(first.subject.weight.abs().mean(dim=1), expected)


def test_shortcuts_that_pad_channels_are_left_alone_and_named():
    torch.manual_seed(0)
    network = lived_in(build("resnet20"))
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 32, 32))
    assert [layer.name.split(".")[-1] for layer in done.record.layers] == ["conv1"] * 9
    assert "padding with zeros along axis 1" in done.notes[0]
    inputs = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    difference = done.module(inputs) - zeroed(network, done.removed)(inputs)
    assert difference.abs().max() < 1e-12


def test_heads_and_widths_of_a_vision_transformer_stay_consistent():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 32, 32))
    assert done.module.hidden_dim == 8
    assert done.module.encoder.layers[0].self_attention.embed_dim == 8
    assert "widths that the network keeps as attributes were set: hidden_dim" in done.notes[-1]
    assert network.hidden_dim == 16


def test_frozen_layers_modes_and_gradients_are_put_back():
    torch.manual_seed(0)
    network = build("resnet20").train()
    network.get_submodule("conv1").weight.requires_grad_(False)
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 32, 32))
    assert done.module.training
    frozen = [name for name, p in done.module.named_parameters() if not p.requires_grad]
    assert frozen == ["conv1.weight"]
    assert all(parameter.grad is None for parameter in done.module.parameters())


def test_auxiliary_heads_still_run_in_training():
    torch.manual_seed(0)
    network = zoo("googlenet", init_weights=False).train()
    done = sparsify(network, Action(ratio=0.5, scope="all"), (3, 64, 64))
    outputs = done.module(torch.randn(2, 3, 64, 64))
    assert [out.shape for out in outputs] == [(2, 10)] * 3


def test_masks_are_cut_along_with_their_weights():
    torch.manual_seed(0)
    masked = sparsify(lived_in(PlainNet()), Action("unstructured", 0.5, scope="all"), (3, 8, 8))
    done = sparsify(masked.module, Action(ratio=0.5, scope="all"), (3, 8, 8))
    masks = masks_of(done.module)
    assert masks.keys() == masks_of(masked.module).keys()
    for name, mask in masks.items():
        weight = done.module.get_parameter(name)
        assert mask.shape == weight.shape
        assert torch.equal(mask, weight != 0)
        assert not mask.all()
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = zeroed(masked.module, done.removed)(inputs)
    assert (done.module(inputs) - expected).abs().max() < 1e-12


def test_what_torch_pruning_cannot_cut_is_refused():
    computed = PlainNet()
    prune.l1_unstructured(computed.features[3], "weight", 0.5)
    with pytest.raises(ActionError, match=r"cannot cut what torch\.nn\.utils\.prune computes"):
        sparsify(computed, Action(ratio=0.5, scope="all"), (3, 8, 8))


class FixedWidth(PlainNet):
    def forward(self, inputs):
        return self.fc2(self.fc1(self.features(inputs).view(-1, 40)))


class Shared(nn.Module):
    """Two convolutions with one weight, and a transposed one in groups between the others."""

    def __init__(self, *, groups: int = 1, shared: bool = False, norm=lambda layer: layer) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.one = norm(nn.Conv2d(8, 8, 3, padding=1))
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, groups=groups)
        self.two, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)
        if shared:
            self.two.weight = self.one.weight

    def forward(self, x):
        x = self.up(self.one(self.first(x).relu()).relu()).relu()
        return self.fc(self.last(self.two(x).relu()).relu().mean((2, 3)))


GIVES_WAY = {
    "channels that are shuffled": lambda: zoo("shufflenet_v2_x0_5"),
    "a transposed convolution in groups": lambda: Shared(groups=2),
    "a weight that is shared": lambda: Shared(shared=True),
    "spectral norm": lambda: Shared(norm=nn.utils.parametrizations.spectral_norm),
    "weight norm": lambda: Shared(norm=nn.utils.parametrizations.weight_norm),
    "spectral norm by a hook": lambda: Shared(norm=nn.utils.spectral_norm),
    "weight norm by a hook": lambda: Shared(norm=nn.utils.weight_norm),
    "a width in the code": FixedWidth,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", GIVES_WAY)
def test_where_scope_all_fails_and_inner_works_it_gives_way(kind):
    torch.manual_seed(0)
    network = GIVES_WAY[kind]().eval().double()
    shape = (3, 8, 8) if kind == "a width in the code" else (3, 32, 32)
    done = sparsify(network, Action(ratio=0.5, scope="all"), shape)
    assert done.notes[0].startswith("scope all gave way to scope inner: ")
    assert done.record.scope == "inner"
    again = sparsify(network, Action(ratio=0.5, scope="inner"), shape)
    assert (done.record, done.removed) == (again.record, again.removed)
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    expected = zeroed(network, done.removed)(inputs)
    assert (done.module(inputs) - expected).abs().max() < 1e-12


def test_what_neither_scope_can_cut_is_refused_for_what_was_asked():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x)).mean((2, 3))

    with pytest.raises(ActionError, match=r"Torch-Pruning cannot follow Two .*use --scope inner"):
        sparsify(Two(), Action(ratio=0.5, scope="all"), (3, 8, 8))
