"""Attention heads cut out, against the network with those heads at zero."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from tests.reference.zeroed import lived_in
from tests.sparsify.test_transformers import (
    CALL,
    TOKENS,
    WIDTHS,
    Encoder,
    Translator,
    hugging,
    logits_of,
    opened,
)
from trainscope.errors import ActionError
from trainscope.networks.meta import shapes_of
from trainscope.networks.narrow_attention import NarrowAttention
from trainscope.networks.rebuild import bring_to
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.heads import find_heads
from trainscope.sparsify.masks import masks_of


class Grouped(nn.Module):
    """Four heads of queries, two of keys and values; packed, interleaved by head or by group."""

    def __init__(self, heads=4, shared=2, size=6, width=10):
        super().__init__()
        self.num_heads, self.kv_heads, self.head_dim = heads, shared, size
        self.to_q = nn.Linear(width, heads * size)
        self.to_kv = nn.Linear(width, 2 * shared * size, bias=False)
        self.to_out = nn.Linear(heads * size, width)

    def forward(self, values):
        samples, tokens, _ = values.shape
        q = self.to_q(values).view(samples, tokens, self.num_heads, -1).transpose(1, 2)
        kv = self.to_kv(values).view(samples, tokens, self.kv_heads, 2, self.head_dim)
        k, v = kv.transpose(1, 2).unbind(3)
        times = self.num_heads // self.kv_heads
        k, v = (each.repeat_interleave(times, dim=1) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return values + self.to_out(mixed.transpose(1, 2).flatten(2))


class Written(nn.Module):
    """An attention whose code takes the size of a head from the width of its input."""

    def __init__(self, width=12):
        super().__init__()
        self.n_head = 3
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, values):
        samples, tokens, width = values.shape
        packed = self.qkv(values).view(samples, tokens, 3, self.n_head, width // self.n_head)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return values + self.out(mixed.reshape(samples, tokens, width))


def without(network, call, done):
    """The dense network with the columns of the heads that went at zero."""
    dense = copy.deepcopy(network)
    attentions = find_heads(network, call).attentions
    for name, units in done.heads.items():
        attention = attentions[name]
        weight = f"{attention.output}.weight"
        axis, label = attention.labels[weight]
        with torch.no_grad():
            columns = dense.get_parameter(weight).movedim(axis, 0)
            columns[torch.isin(label, torch.tensor(units))] = 0.0
    return dense


def check(network, call, done):
    difference = logits_of(done.module, call) - logits_of(without(network, call, done), call)
    assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [Encoder, Translator])
def test_torchs_own_attention_loses_heads(kind, fused):
    torch.manual_seed(0)
    network = lived_in(kind())
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        done = sparsify(network, Action(heads=0.6), TOKENS)
        assert {(c.before, c.after) for c in done.record.layers} == {(4, 1)}  # ceil(2.4) go
        check(network, TOKENS, done)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert all(p.shape[0] == 24 for n, p in done.module.named_parameters() if "in_proj" in n)
    assert done.record.heads == 0.6
    assert done.record.ratio is None


@pytest.mark.parametrize(
    ("name", "heads", "rows"),
    [
        ("gpt2", [(4, 3), (4, 3)], {"transformer.h.0.attn.c_attn.weight": (32, 72)}),
        ("llama", [(4, 2), (4, 2)], {"model.layers.0.self_attn.k_proj.weight": (8, 32)}),
        ("phi3", [(4, 2), (4, 2)], {"model.layers.0.self_attn.qkv_proj.weight": (32, 32)}),
        (
            "neox",
            [(4, 3), (4, 3)],
            {"gpt_neox.layers.0.attention.query_key_value.weight": (72, 32)},
        ),
        ("bert", [(4, 3), (4, 3)], {"bert.encoder.layer.0.attention.self.key.weight": (24, 32)}),
        ("vit", [(4, 3), (4, 3)], {"vit.layers.0.attention.o_proj.weight": (32, 24)}),
    ],
)
def test_transformers_networks_lose_heads_and_come_back_by_their_shapes(name, heads, rows):
    network, call = opened(name)
    done = sparsify(network, Action(heads=0.25), call)
    assert [(layer.before, layer.after) for layer in done.record.layers] == heads
    for weight, shape in rows.items():
        assert done.module.get_parameter(weight).shape == shape
    check(network, call, done)
    dense, _ = opened(name)
    assert bring_to(dense, shapes_of(done.module.state_dict()))
    dense.load_state_dict(done.module.state_dict())
    assert torch.equal(logits_of(dense, call), logits_of(done.module, call))


def test_heads_that_share_keys_and_values_go_together():
    torch.manual_seed(0)
    network = lived_in(nn.Sequential(nn.Linear(10, 10), Grouped()))
    done = sparsify(network, Action(heads=0.5), (7, 10))
    assert done.record.layers[0].before == 4
    assert (done.module[1].num_heads, done.module[1].kv_heads) == (2, 1)
    assert done.module[1].to_kv.out_features == 12
    assert any("share keys and values" in note for note in done.notes)
    check(network, torch.randn(2, 7, 10, dtype=torch.float64), done)


def test_heads_are_ranked_by_all_that_they_own():
    torch.manual_seed(0)
    network = lived_in(nn.Sequential(nn.Linear(10, 10), Grouped(shared=4)))
    with torch.no_grad():
        network[1].to_out.weight[:, 12:18] *= 1e-3  # the third head, in every matrix of it
        network[1].to_q.weight[12:18] *= 1e-3
        network[1].to_kv.weight[24:36] *= 1e-3
    assert sparsify(network, Action(heads=0.2), (7, 10)).heads == {"1": (2,)}


def test_an_attention_whose_code_fixes_the_size_of_a_head_is_refused_by_name():
    network = nn.Sequential(nn.Linear(12, 12), Written())
    with pytest.raises(ActionError, match=r"no attention head can be cut \(1: it does not run"):
        sparsify(network, Action(heads=0.5), (7, 12))


def test_a_network_without_attention_is_refused():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ActionError, match="no attention was found"):
        sparsify(network, Action(heads=0.5), (4,))


def test_position_biases_that_all_blocks_share_keep_their_heads():
    settings = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    network = hugging(
        *("T5ForConditionalGeneration", "T5Config"),
        **{**settings, "num_heads": 4, "decoder_start_token_id": 0},
    )
    call = {**CALL, "decoder_input_ids": TOKENS[:, :5]}
    with pytest.raises(ActionError, match=r"encoder\.block\.1.* does not run with fewer heads"):
        sparsify(network, Action(heads=0.5), call)


def test_the_biases_of_relative_positions_are_cut_with_their_heads():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = lived_in(
        timm.create_model(
            *("swin_tiny_patch4_window7_224",),
            img_size=16,
            window_size=2,
            embed_dim=12,
            num_classes=3,
            depths=(2,),
            num_heads=(4,),
        )
    )
    inputs = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    done = sparsify(network, Action(heads=0.5), inputs)
    tables = [p for n, p in done.module.named_parameters() if "position_bias" in n]
    assert [table.shape for table in tables] == [(9, 2), (9, 2)]
    check(network, inputs, done)
    assert done.module.state_dict().keys() == network.state_dict().keys()


def test_masks_are_cut_with_the_heads():
    torch.manual_seed(0)
    network = lived_in(Encoder())
    masked = sparsify(network, Action("unstructured", ratio=0.5), TOKENS).module
    done = sparsify(masked, Action(heads=0.5), TOKENS)
    for name, mask in masks_of(done.module).items():
        weight = done.module.get_parameter(name)
        assert mask.shape == weight.shape
        assert bool((weight[~mask] == 0).all())
    check(masked, TOKENS, done)


def test_heads_and_hidden_units_go_in_one_action():
    torch.manual_seed(0)
    network = lived_in(VisionTransformer(16, 8, 2, 4, 32, 48, num_classes=3))
    done = sparsify(network, Action(ratio=0.5, heads=0.5), (3, 16, 16))
    assert done.record.meaning == (
        "50 % of the heads of 2 attentions and 50 % of the hidden units of 2 MLPs"
    )
    assert not any("self_attention" in row.name for row in done.record.left_alone)
    trained = copy.deepcopy(done.module).train()
    trained(torch.randn(2, 3, 16, 16, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None for p in trained.parameters())


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_heads_are_no_masks(structure):
    with pytest.raises(ActionError, match="goes with the structure filter"):
        Action(structure, ratio=0.5, heads=0.5)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_first": True},
        {"bias": False},
        {"kdim": 5, "vdim": 7},
        {"add_bias_kv": True, "add_zero_attn": True},
    ],
)
def test_the_narrow_attention_computes_what_torchs_own_does(settings, weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, **settings).double().eval()
    narrow = NarrowAttention.of(layer)
    sizes = (8, settings.get("kdim", 8), settings.get("vdim", 8))
    places = (3, 4) if settings.get("batch_first") else (4, 3)
    q, k, v = (torch.randn(*places, size, dtype=torch.float64) for size in sizes)
    samples, tokens = 3, 4
    padding = torch.zeros(samples, tokens, dtype=torch.bool)
    padding[0, -1] = True
    causal = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    for masks in ({}, {"key_padding_mask": padding}, {"attn_mask": causal}):
        expected = layer(q, k, v, need_weights=weights, **masks)
        got = narrow(q, k, v, need_weights=weights, **masks)
        assert torch.allclose(got[0], expected[0], atol=1e-12)
        assert (got[1] is None) == (expected[1] is None)
        if weights:
            assert torch.allclose(got[1], expected[1], atol=1e-12)
    one = [each[0] if settings.get("batch_first") else each[:, 0] for each in (q, k, v)]
    assert torch.allclose(narrow(*one)[0], layer(*one)[0], atol=1e-12)


def test_more_masks_than_one_are_added():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    values = torch.randn(3, 4, 8, dtype=torch.float64)
    padding = torch.zeros(3, 4, dtype=torch.bool)
    padding[:, -1] = True
    by_head = torch.randn(6, 4, 4, dtype=torch.float64)
    given = {"key_padding_mask": padding.double() * -1e9, "attn_mask": by_head}
    expected, _ = layer(values, values, values, **given)
    got, _ = NarrowAttention.of(layer)(values, values, values, **given)
    assert torch.allclose(got, expected, atol=1e-12)


def test_widths_of_all_heads_follow_in_the_configuration():
    network = hugging("LlamaForCausalLM", "LlamaConfig", **{**WIDTHS, "num_key_value_heads": 4})
    done = sparsify(network, Action(heads=0.25), CALL)
    assert done.module.config.num_attention_heads == 4  # of the network as it was made
    assert done.module.model.layers[0].self_attn.q_proj.out_features == 24
