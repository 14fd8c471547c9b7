"""Networks of transformers' own classes from a hub's folder, and back from our checkpoints."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from hub_folders import image_classifier
from torch import nn

from trainscope.errors import CheckpointError, TaskError
from trainscope.networks import (
    masks_of,
    open_checkpoint,
    save_checkpoint,
    transformers_zoo,
    undo,
)
from trainscope.networks.hub import Head, Hub, task_of
from trainscope.networks.masks import set_masks
from trainscope.networks.readers import folder, safetensors_file
from trainscope.task import (
    Classification,
    LanguageModelling,
    MaskedLanguageModelling,
    Regression,
)

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = {"vocab_size": 31, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8}
BERT = {**SIZES, "intermediate_size": 12, "max_position_embeddings": 16, "pad_token_id": 0}
GPT = {"vocab_size": 31, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
ENDS = {"bos_token_id": 1, "eos_token_id": 1}


def gpt() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(**GPT, **ENDS)
    return transformers.GPT2LMHeadModel(config).eval()


def bert(kind: str = "BertModel", **more: object) -> nn.Module:
    torch.manual_seed(0)
    return getattr(transformers, kind)(transformers.BertConfig(**BERT, **more)).eval()


def ids() -> torch.Tensor:
    return torch.randint(31, (3, 9), generator=torch.Generator().manual_seed(1))


def changed(folder, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


@pytest.mark.parametrize("form", ["safetensors", "shards", "bin", "hf:"])
def test_a_language_model_is_what_was_saved(tmp_path, form):
    own = gpt()
    own.save_pretrained(tmp_path, max_shard_size="3KB" if form == "shards" else "5GB")
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(own.state_dict(), tmp_path / "pytorch_model.bin")
    opened = open_checkpoint(f"hf:{tmp_path}" if form == "hf:" else tmp_path)
    module = opened.module
    assert opened.architecture == "transformers/GPT2LMHeadModel"
    assert (opened.num_classes, opened.notes) == (None, ())
    assert torch.equal(module(input_ids=ids()).logits, own(input_ids=ids()).logits)
    assert module.lm_head.weight is module.transformer.wte.weight
    assert not module.config.use_cache
    assert all(tensor.dtype == torch.float32 for tensor in module.parameters())


def test_half_precision_is_measured_in_float32(tmp_path):
    own = gpt().bfloat16()
    own.save_pretrained(tmp_path)
    opened = open_checkpoint(tmp_path)
    assert opened.module(input_ids=ids()).logits.dtype == torch.float32
    assert torch.equal(opened.module.lm_head.weight, own.lm_head.weight.float())
    assert any("bfloat16" in note for note in opened.notes)


def test_what_was_pruned_opens_again(tmp_path):
    gpt().save_pretrained(tmp_path / "hub")
    opened = open_checkpoint(tmp_path / "hub")
    module = opened.module
    weight = module.transformer.h[0].mlp.c_fc.weight
    mask = torch.rand(weight.shape) < 0.5
    set_masks(module, {"transformer.h.0.mlp.c_fc.weight": mask})
    save_checkpoint(tmp_path / "pruned.pt", opened)
    again = open_checkpoint(tmp_path / "pruned.pt")
    assert torch.equal(masks_of(again.module)["transformer.h.0.mlp.c_fc.weight"], mask)
    assert torch.equal(again.module(input_ids=ids()).logits, module(input_ids=ids()).logits)
    assert again.module.lm_head.weight is again.module.transformer.wte.weight
    assert again.hub.folder == str(tmp_path / "hub")


def test_narrower_layers_are_resized(tmp_path):
    own = bert("BertForMaskedLM")
    layer = own.bert.encoder.layer[0]
    layer.intermediate.dense = nn.Linear(8, 5)
    layer.output.dense = nn.Linear(5, 8)
    own.save_pretrained(tmp_path)
    opened = open_checkpoint(tmp_path)
    assert torch.allclose(
        opened.module(input_ids=ids()).logits, own(input_ids=ids()).logits, atol=1e-6
    )
    assert opened.before[0].how == "narrower"
    save_checkpoint(tmp_path / "own.pt", opened)
    assert torch.equal(
        open_checkpoint(tmp_path / "own.pt").module(input_ids=ids()).logits,
        opened.module(input_ids=ids()).logits,
    )


def test_a_head_that_is_not_there_is_said_to_be_random(tmp_path):
    own = bert()
    own.save_pretrained(tmp_path)
    opened = open_checkpoint(tmp_path, head=Head(Classification(), 3))
    again = open_checkpoint(tmp_path, head=Head(Classification(), 3))
    assert opened.architecture == "transformers/BertForSequenceClassification"
    assert opened.num_classes == 3
    assert any(
        "THE HEAD IS RANDOM" in note and "classifier.weight" in note for note in opened.notes
    )
    assert torch.equal(opened.module.classifier.weight, again.module.classifier.weight)
    inner, outer = own(input_ids=ids()), opened.module.bert(input_ids=ids())
    assert torch.equal(inner.last_hidden_state, outer.last_hidden_state)


def test_older_names_and_buffers_are_taken(tmp_path):
    own = gpt()
    state = {n.removeprefix("transformer."): t for n, t in own.state_dict().items()}
    del state["lm_head.weight"]
    own.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    opened = open_checkpoint(tmp_path)
    assert torch.equal(opened.module(input_ids=ids()).logits, own(input_ids=ids()).logits)


def test_the_head_says_the_task(tmp_path):
    def task(kind: str, **more: object) -> object:
        config = json.loads(transformers.BertConfig(**BERT, **more).to_json_string(use_diff=False))
        return task_of(Hub({**config, "architectures": [kind]}))

    assert task("BertForMaskedLM") == MaskedLanguageModelling()
    assert task("BertForSequenceClassification") == Classification()
    assert task("BertForTokenClassification") == Classification()
    assert task("BertForSequenceClassification", num_labels=1) == Regression()
    gpt().save_pretrained(tmp_path)
    assert task_of(Hub(json.loads((tmp_path / "config.json").read_text()))) == LanguageModelling()
    with pytest.raises(TaskError, match="--task"):
        task("BertForQuestionAnswering")
    with pytest.raises(TaskError, match="masked-language-modelling"):
        transformers_zoo.class_of({"model_type": "bert", **BERT}, LanguageModelling())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "mine", "auto_map": {"AutoModel": "code.Mine"}}, "auto_map asks for code"),
        ({"architectures": ["MineForCausalLM"], "auto_map": {}}, "auto_map asks for code"),
        ({"architectures": ["AutoModel"]}, "does not have"),
        ({"architectures": ["BertModel"]}, "does not have"),
        ({"architectures": ["__builtins__"]}, "does not have"),
        ({"architectures": [3]}, "no word"),
        ({"architectures": None}, "name the task"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"n_embd": "many"}, "transformers"),
        ({"n_embd": 2_000_000}, "not of one network"),
        ({"n_embd": 6}, "do not fit|transformers does not load"),
        ({"n_layer": 3}, "lacks 'transformer.h.2"),
    ],
)
def test_what_cannot_be_taken_is_one_sentence(tmp_path, settings, said):
    gpt().save_pretrained(tmp_path)
    changed(tmp_path, **settings)
    with pytest.raises((CheckpointError, TaskError), match=said) as error:
        open_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_a_name_of_a_hub_is_not_fetched():
    with pytest.raises(CheckpointError, match="nothing is fetched"):
        open_checkpoint("hf:gpt2")


def test_the_extra_is_named_where_transformers_is_missing(tmp_path, monkeypatch):
    gpt().save_pretrained(tmp_path)
    monkeypatch.setattr(transformers_zoo, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"trainscope-pruning\[transformers\]"):
        open_checkpoint(tmp_path)


def test_an_image_classifier_takes_images(tmp_path):
    image_classifier(tmp_path)
    opened = open_checkpoint(tmp_path)
    assert (opened.input_shape, opened.num_classes, opened.example) == ((3, 8, 8), 4, None)


def test_nothing_of_a_folder_is_imported(tmp_path):
    gpt().save_pretrained(tmp_path)
    (tmp_path / "modeling_mine.py").write_text("raise SystemExit('run')\n")
    changed(tmp_path, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    before = set(sys.modules)
    open_checkpoint(tmp_path)
    assert not any("modeling_mine" in name for name in set(sys.modules) - before)


def test_a_large_folder_in_bfloat16_is_never_in_memory_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(undo, "LARGE", 0)
    gpt().bfloat16().save_pretrained(tmp_path)
    read: dict[str, torch.Tensor] = {}
    plain = safetensors_file.tensors_of

    def remembered(path):
        read.update(plain(path))
        return dict(read)

    monkeypatch.setattr(folder, "tensors_of", remembered)
    opened = open_checkpoint(tmp_path, dtype=torch.bfloat16)
    places = {tensor.data_ptr() for tensor in read.values()}
    assert places
    assert all(p.data_ptr() in places for p in opened.module.parameters())
    assert opened.module.lm_head.weight is opened.module.transformer.wte.weight
    assert all(
        torch.equal(p, q)
        for p, q in zip(opened.module.parameters(), gpt().bfloat16().parameters(), strict=True)
    )
