"""Multiply-adds of transformers against values worked out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainscope.networks.cost import dense_flops, flops, layer_flops

TOKENS = torch.arange(24).view(2, 12) % 40 + 3
T, D, WIDE, LAYERS, WORDS = 12, 32, 48, 2, 50
ATTENDED = 2 * T * T * D  # queries times keys, weights times values
SMALL = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDTHS = {
    **SMALL,
    "hidden_size": D,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
GROUPED = {**WIDTHS, "num_key_value_heads": 2}
BY_HAND = {
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": WORDS, "n_embd": D, "n_layer": LAYERS, "n_head": 4, "n_positions": 32},
        LAYERS * (12 * T * D * D + ATTENDED) + T * D * WORDS,
    ),
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        GROUPED,
        LAYERS * (3 * T * D * D + 3 * T * D * WIDE + ATTENDED) + T * D * WORDS,
    ),
    "bert": (
        "BertForSequenceClassification",
        "BertConfig",
        {**WIDTHS, "num_labels": 3},
        LAYERS * (4 * T * D * D + 2 * T * D * WIDE + ATTENDED) + D * D + 3 * D,
    ),
    "two of four experts": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        LAYERS * (3 * T * D * D + 4 * T * D + 2 * 3 * T * D * WIDE + ATTENDED) + T * D * WORDS,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_multiply_adds_of_transformers_networks(name):
    transformers = pytest.importorskip("transformers")
    kind, config, settings, expected = BY_HAND[name]
    network = getattr(transformers, kind)(getattr(transformers, config)(**settings))
    call = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    assert flops(network.eval(), call) == expected


def test_the_multiply_adds_of_torchs_own_encoder():
    layer = nn.TransformerEncoderLayer(D, 4, WIDE, batch_first=True)
    network = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    expected = LAYERS * (4 * T * D * D + 2 * T * D * WIDE + ATTENDED)
    assert flops(network.eval(), (T, D)) == expected


class Functional(nn.Module):
    """Products with parameters of its own, by functions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(7, 5))
        self.second = nn.Parameter(torch.randn(7, 6))

    def forward(self, inputs):
        values = torch.einsum("bti,ij->btj", F.linear(inputs, self.first), self.second)
        heads = values.view(len(values), -1, 2, 3).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)


def test_products_by_functions_count_too():
    assert flops(Functional(), (4, 5)) == 4 * 7 * 5 + 4 * 7 * 6 + 2 * 4 * 4 * 6
    assert layer_flops(Functional(), (4, 5)) == {"": 4 * 7 * 5 + 4 * 7 * 6}
    assert dense_flops(Functional(), (4, 5)) == flops(Functional(), (4, 5))
