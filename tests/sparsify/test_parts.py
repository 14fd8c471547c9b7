"""Networks whose inputs are lists: inner filters of the parts that take tensors."""

from __future__ import annotations

import pytest
import torch
from reference.detectors import collate, faster_rcnn, pictures, tiny
from torch import Tensor, nn

from trainscope.errors import ActionError
from trainscope.networks import flops
from trainscope.networks.given import given_network
from trainscope.networks.network import Network
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.trial import alike
from trainscope.sparsify.verify import run
from trainscope.task import Detection


def opened(module: nn.Module, count: int = 2) -> Network:
    return given_network(module, collate(pictures(count, 1)), Detection())


def test_filters_of_a_detectors_backbone_go_and_it_finds_what_it_found_with_them_at_zero() -> None:
    network = opened(faster_rcnn().double())
    done = sparsify(network.module, Action(ratio=0.5), network.inputs)
    assert done.record.meaning == "50 % of the filters of 1 inner convolution"
    assert [(c.name, c.before, c.after) for c in done.record.layers] == [("backbone.2", 6, 3)]
    assert "takes lists" in done.notes[0]
    gone = list(done.removed["backbone.2"])
    zeroed = faster_rcnn().double()
    norms = zeroed.backbone[2].weight.detach().flatten(1).abs().sum(1)
    assert set(gone) == set(norms.argsort()[:3].tolist())
    with torch.no_grad():
        zeroed.backbone[2].weight[gone] = 0
        zeroed.backbone[2].bias[gone] = 0
    one, two = run(done.module, network.inputs), run(zeroed, network.inputs)
    assert alike(one, two, 1e-9)
    assert any(len(boxes) for boxes in one.values())


def test_every_part_but_that_of_the_images_may_lose_its_first_convolution() -> None:
    class TwoParts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)
            )
            self.neck = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
            self.rest = tiny()
            self.rest.body = nn.Identity()

        def forward(self, images: list[Tensor], targets: object = None) -> object:
            side = min(image.shape[1] for image in images)
            small = torch.stack([image[:, :side, :side] for image in images])
            return self.rest(list(self.neck(self.body(small))), targets)

    network = opened(TwoParts())
    done = sparsify(network.module, Action(ratio=0.5), network.inputs)
    assert {c.name: c.after for c in done.record.layers} == {"body.2": 2, "neck.0": 3}
    left = {layer.name: layer.reason for layer in done.record.left_alone}
    assert left["body.0"] == "the first convolution is spared"
    assert "its outputs leave" in left["neck.2"]
    assert "no part" in left["rest.inner"]


def test_other_scopes_are_refused_or_masked() -> None:
    network = opened(tiny())
    with pytest.raises(ActionError, match="takes lists"):
        sparsify(network.module, Action(ratio=0.5, scope="all"), network.inputs)
    done = sparsify(network.module, Action(structure="2:4"), network.inputs)
    assert {layer.name for layer in done.record.layers} == {"inner", "head.place"}


def test_the_cost_is_of_one_image() -> None:
    one, two = opened(tiny(), 1), opened(tiny(), 2)
    assert (one.inputs.size, two.inputs.size) == (1, 2)
    each = [flops(tiny(), one.inputs), flops(tiny(), two.inputs)]
    # Convolutions on 30 x 30 places, and the two heads.
    assert each[0] == 30 * 30 * (4 * 27 + 4 * 4) + 4 * 7
    assert each[1] == (2 * 38 * 30 * (4 * 27 + 4 * 4)) // 2 + 4 * 7
