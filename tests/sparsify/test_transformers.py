"""Transformers: what is masked and cut in them, against dense float64 references."""

import pytest
import torch
from torch import nn

from tests.reference.zeroed import lived_in, zeroed
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.masks import masks_of

TOKENS = torch.arange(24).view(2, 12) % 40 + 3
CALL = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
IMAGES = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).sin().view(2, 3, 16, 16)}
WIDTHS = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4}


class Encoder(nn.Module):
    """Torch's own encoder between an embedding and a classifier."""

    def __init__(self, norm_first=False):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(32, 5)

    def forward(self, tokens):
        return self.classifier(self.encoder(self.embedding(tokens)).mean(1))


class Translator(nn.Module):
    """Torch's own encoder and decoder."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.transformer = nn.Transformer(32, 4, 1, 1, 48, batch_first=True)
        self.classifier = nn.Linear(32, 50)

    def forward(self, tokens):
        return self.classifier(self.transformer(self.embedding(tokens), self.embedding(tokens)))


def hugging(kind, config, **settings):
    """Return a network of transformers with random weights, or skip."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    return lived_in(getattr(transformers, kind)(made))


def logits_of(module, call):
    with torch.no_grad():
        outputs = module(**call) if isinstance(call, dict) else module(call)
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


HUGGING = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**SMALL, "n_positions": 32}, CALL),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**WIDTHS, "num_key_value_heads": 2}, CALL),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**WIDTHS, "num_key_value_heads": 2}, CALL),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", WIDTHS, CALL),
    "bert": ("BertForSequenceClassification", "BertConfig", WIDTHS, CALL),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {
            **{name: WIDTHS[name] for name in list(WIDTHS)[1:5]},
            "image_size": 16,
            "patch_size": 4,
            "num_labels": 3,
        },
        IMAGES,
    ),
}
HIDDEN = {"gpt2": (128, 64), "phi3": (96, 48)}


def opened(name):
    kind, config, settings, call = HUGGING[name]
    return hugging(kind, config, **settings), call


@pytest.mark.parametrize("name", HUGGING)
def test_the_hidden_units_of_a_blocks_mlp_are_cut_from_transformers_networks(name):
    network, call = opened(name)
    done = sparsify(network, Action(ratio=0.5), call)
    assert done.record.meaning == "50 % of the hidden units of 2 MLPs"
    assert {(c.before, c.after) for c in done.record.layers} == {HIDDEN.get(name, (48, 24))}
    difference = logits_of(done.module, call) - logits_of(zeroed(network, done.removed), call)
    assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_hidden_units_of_torchs_own_encoder_are_cut_the_fast_path_too(norm_first):
    torch.manual_seed(0)
    network = lived_in(Encoder(norm_first))
    done = sparsify(network, Action(ratio=0.5), TOKENS)
    assert [(c.name, c.before, c.after) for c in done.record.layers] == [
        ("encoder.layers.0.linear1", 48, 24),
        ("encoder.layers.1.linear1", 48, 24),
    ]
    reference = logits_of(zeroed(network, done.removed), TOKENS)
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        for enabled in (True, False):
            torch.backends.mha.set_fastpath_enabled(enabled)
            assert (logits_of(done.module, TOKENS) - reference).abs().max() < 1e-10
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def test_the_hidden_units_of_torchs_own_decoder_are_cut():
    torch.manual_seed(0)
    network = lived_in(Translator())
    done = sparsify(network, Action(ratio=0.5), TOKENS)
    assert len(done.record.layers) == 2
    difference = logits_of(done.module, TOKENS) - logits_of(zeroed(network, done.removed), TOKENS)
    assert difference.abs().max() < 1e-10


def test_gated_units_are_ranked_by_the_rows_of_both_layers():
    network, call = opened("llama")
    mlp = network.model.layers[0].mlp
    with torch.no_grad():
        mlp.gate_proj.weight.copy_(torch.arange(48.0).view(48, 1).expand(48, 32) + 1)
        mlp.up_proj.weight.copy_(3 * (48 - torch.arange(48.0)).view(48, 1).expand(48, 32))
    gone = sparsify(network, Action(ratio=0.5), call).removed["model.layers.0.mlp.gate_proj"]
    assert gone == tuple(range(24, 48))  # the gate alone would have kept these


def test_two_of_every_four_inputs_are_kept_of_gpt2s_layers_which_store_inputs_first():
    network, call = opened("gpt2")
    done = sparsify(network, Action("2:4"), call)
    masks = masks_of(done.module)
    assert len(masks) == 8
    for name, mask in masks.items():
        assert mask.shape == network.get_parameter(name).shape
        assert mask.T.reshape(-1, 4).sum(1).eq(2).all(), name
    left = {row.name: row.reason for row in done.record.left_alone}
    assert "looked up" in left["transformer.wpe"]
    assert "network's" in left["lm_head"]


def test_masks_of_a_tied_head_hold_in_the_embedding_too():
    network, call = opened("gpt2")
    done = sparsify(network, Action("unstructured", ratio=0.5, scope="all"), call)
    tied = done.module.lm_head.weight
    assert tied is done.module.transformer.wte.weight
    assert int((tied == 0).sum()) == tied.numel() // 2


def test_every_expert_is_masked_along_its_inputs():
    settings = {**WIDTHS, "num_key_value_heads": 2, "num_local_experts": 4}
    network = hugging("MixtralForCausalLM", "MixtralConfig", **settings).float()
    done = sparsify(network, Action("2:4"), CALL)
    masks = masks_of(done.module)
    for leaf in ("gate_up_proj", "down_proj"):
        mask = masks[f"model.layers.0.mlp.experts.{leaf}"]
        assert mask.reshape(-1, 4).sum(1).eq(2).all()
