"""Whole blocks taken out, against the network in which they pass their input on."""

import copy

import pytest
import torch
from torch import nn

from tests.reference.zeroed import lived_in
from tests.sparsify.test_transformers import (
    CALL,
    TOKENS,
    WIDTHS,
    Encoder,
    hugging,
    logits_of,
    opened,
)
from trainscope.errors import ActionError
from trainscope.networks import build
from trainscope.networks.meta import shapes_of
from trainscope.networks.rebuild import bring_to
from trainscope.records import ActionRecord
from trainscope.sparsify import Action, given_action, sparsify
from trainscope.sparsify.again import cut_again
from trainscope.sparsify.blocks import find_stacks


class Residual(nn.Module):
    def __init__(self, width, strength=1.0):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(width), nn.Linear(width, width)
        self.layer_idx = 0
        with torch.no_grad():
            self.layer.weight.mul_(strength)

    def forward(self, values):
        return values + self.layer(self.norm(values))


class Plain(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, values):
        return torch.relu(self.layer(values))


class Deep(nn.Module):
    def __init__(self, kind=Residual, count=5):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(kind(6) for _ in range(count))
        for place, block in enumerate(self.blocks):
            block.layer_idx = place
        self.num_layers = count

    def forward(self, values):
        values = self.stem(values)
        for block in self.blocks:
            values = block(values)
        return self.head(values)


def passing(network, done):
    """The dense network whose blocks that went return their first argument."""
    dense = copy.deepcopy(network)
    for name, places in done.blocks.items():
        for place in places:
            block = list(dense.get_submodule(name).children())[place]

            def forward(first, *rest, inner=block, **named):
                out = type(inner).forward(inner, first, *rest, **named)
                return (first, *out[1:]) if isinstance(out, tuple) else first

            block.forward = forward
    return dense


def check(network, call, done):
    difference = logits_of(done.module, call) - logits_of(passing(network, done), call)
    assert difference.abs().max() < 1e-10


@pytest.mark.parametrize(("ratio", "left"), [(0.2, 4), (0.5, 2), (0.9, 1), (0.99, 1)])
def test_a_share_of_the_blocks_goes_rounded_up_and_one_stays(ratio, left):
    torch.manual_seed(0)
    network = lived_in(Deep())
    done = sparsify(network, Action(blocks=ratio), (4,))
    assert len(done.module.blocks) == done.module.num_layers == left
    assert [block.layer_idx for block in done.module.blocks] == list(range(left))
    assert done.record.layers[0].before == 5
    check(network, torch.randn(3, 4, dtype=torch.float64), done)


def test_the_weakest_go_by_magnitude_and_those_that_change_least_by_influence():
    torch.manual_seed(0)
    network = Deep(count=4).double().eval()
    with torch.no_grad():
        network.blocks[1].layer.weight.mul_(1e-2)  # small, and its bias changes much
        network.blocks[1].layer.bias.fill_(50.0)
        network.blocks[2].layer.weight.mul_(1e-1)
        network.blocks[2].layer.bias.zero_()
    assert sparsify(network, Action(blocks=0.25), (4,)).blocks == {"blocks": (1,)}
    asked = Action(blocks=0.25, criterion="influence")
    assert sparsify(network, asked, (4,)).blocks == {"blocks": (2,)}


def test_the_influence_of_a_block_is_one_minus_the_mean_cosine():
    torch.manual_seed(0)
    network = lived_in(Deep(count=2))
    inputs = torch.randn(7, 4, dtype=torch.float64)
    first = network.stem(inputs)
    second = network.blocks[0](first)
    expected = 1 - torch.cosine_similarity(first, second, dim=-1).mean()
    found = find_stacks(network, inputs)[0].influence[0]
    assert found == pytest.approx(float(expected.detach()), rel=1e-12)


def test_layers_without_a_residual_connection_stay():
    with pytest.raises(ActionError, match=r"blocks\.0: it has no residual connection"):
        sparsify(Deep(Plain), Action(blocks=0.5), (4,))


def test_a_network_without_lists_of_blocks_is_refused():
    with pytest.raises(ActionError, match="no list of residual blocks"):
        sparsify(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), Action(blocks=0.5), (4,))


def test_blocks_that_change_the_shape_stay_in_a_residual_network():
    network = lived_in(build("resnet20", 10))
    done = sparsify(network, Action(blocks=0.5), (3, 32, 32))
    left = {layer.name: (layer.before, layer.after) for layer in done.record.layers}
    assert left == {"layer1": (3, 1), "layer2": (3, 1), "layer3": (3, 1)}
    assert all(0 not in places for name, places in done.blocks.items() if name != "layer1")
    check(network, torch.randn(2, 3, 32, 32, dtype=torch.float64), done)


@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_own_encoder_loses_blocks(norm_first):
    torch.manual_seed(0)
    network = lived_in(Encoder(norm_first))
    done = sparsify(network, Action(blocks=0.5), TOKENS)
    assert len(done.module.encoder.layers) == done.module.encoder.num_layers == 1
    check(network, TOKENS, done)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_configurations_count_the_blocks_that_are_left(name):
    network, call = opened(name)
    done = sparsify(network, Action(blocks=0.5), call)
    assert done.module.config.num_hidden_layers == 1
    assert network.config.num_hidden_layers == 2
    check(network, call, done)
    dense, _ = opened(name)
    assert bring_to(dense, shapes_of(done.module.state_dict()))
    dense.load_state_dict(done.module.state_dict())
    assert torch.equal(logits_of(dense, call), logits_of(done.module, call))
    assert dense.config.num_hidden_layers == 1


def test_a_cut_language_model_still_generates_with_its_cache():
    network, call = opened("llama")
    done = sparsify(network, Action(blocks=0.5, heads=0.5, ratio=0.5), call)
    short = {name: value[:1, :5] for name, value in call.items()}
    asked = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    kept = done.module.generate(**short, **asked, use_cache=True)
    assert torch.equal(kept, done.module.generate(**short, **asked, use_cache=False))


def test_lists_in_the_configuration_follow_the_blocks_that_stay():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    settings = {**WIDTHS, "num_hidden_layers": 3, "layer_types": kinds, "head_dim": 8}
    settings["num_key_value_heads"] = 2
    network = hugging("Gemma2ForCausalLM", "Gemma2Config", **settings)
    with torch.no_grad():
        for parameter in network.model.layers[1].parameters():
            parameter.mul_(0.1)
    done = sparsify(network, Action(blocks=0.3), CALL)
    assert done.blocks == {"model.layers": (1,)}
    assert done.module.config.layer_types == [kinds[0], kinds[2]]
    check(network, CALL, done)


def test_a_block_that_others_need_stays():
    settings = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3}
    network = hugging(
        *("T5ForConditionalGeneration", "T5Config"),
        **{**settings, "num_heads": 4, "decoder_start_token_id": 0},
    )
    call = {**CALL, "decoder_input_ids": TOKENS[:, :5]}
    done = sparsify(network, Action(blocks=0.9), call)
    assert done.blocks == {"encoder.block": (1, 2), "decoder.block": (1, 2)}
    assert (done.module.config.num_layers, done.module.config.num_decoder_layers) == (1, 1)
    assert any("encoder.block.0" in note for note in done.notes)


def test_the_criterion_influence_is_for_blocks_alone():
    with pytest.raises(ActionError, match="ranks whole blocks"):
        Action(ratio=0.5, criterion="influence")
    with pytest.raises(ActionError, match="ranks whole blocks"):
        Action(heads=0.5, blocks=0.5, criterion="influence")


def test_records_name_heads_and_blocks_only_where_they_were_asked_for():
    done = sparsify(Deep(), Action(blocks=0.5), (4,)).record
    raw = done.to_json()
    assert (raw["blocks"], "heads" in raw) == (0.5, False)
    assert ActionRecord.from_json(raw) == done
    del raw["blocks"]  # as an older trainscope wrote it
    assert ActionRecord.from_json(raw).blocks is None


def test_what_somebody_else_took_out_is_named():
    torch.manual_seed(0)
    network = lived_in(Encoder())
    done = sparsify(network, Action(blocks=0.5, heads=0.5), TOKENS)
    given = given_action(network, done.module, TOKENS).record
    assert given.meaning == (
        "1 of the 2 blocks of encoder.layers, and 50 % of the heads of 1 attention"
    )
    assert given.scope == "cut"
    assert (given.layers[0].before, given.layers[0].after) == (2, 1)


def test_earlier_weights_are_cut_as_the_trained_ones_were():
    torch.manual_seed(0)
    network, early = lived_in(Encoder()), lived_in(Encoder(), seed=1)
    done = sparsify(network, Action(blocks=0.5, heads=0.5, ratio=0.5), TOKENS)
    cut_again(early, done, TOKENS)
    assert shapes_of(early.state_dict()) == shapes_of(done.module.state_dict())


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_a_share_of_blocks_is_between_0_and_1(share):
    with pytest.raises(ActionError, match="the share of blocks is"):
        Action(blocks=share)
