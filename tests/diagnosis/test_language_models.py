"""Language models and text classifiers of transformers through the whole flow."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from hub_folders import image_classifier

from trainscope import diagnose
from trainscope.cli.main import main
from trainscope.errors import DataError
from trainscope.networks import masks_of, open_checkpoint
from trainscope.probes.trainability_accuracy import TrainabilityAccuracy
from trainscope.sparsify import Action

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]

HALF = Action(structure="unstructured", ratio=0.5)


@pytest.fixture
def model(tmp_path):
    """A folder of a Llama that reads bytes, and a text beside it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "hub")
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the rat\n" * 60)
    return tmp_path


def test_a_language_model_from_its_folder(model):
    lrs = (1e-1, 1e-2, 1e-3)
    retraining = TrainabilityAccuracy(lrs=lrs, steps=4)
    found = diagnose(
        f"hf:{model / 'hub'}",
        action=HALF,
        data=f"text:{model / 'text.txt'}",
        probes=["gradient", "jacobian", "curvature", retraining],
        samples=4,
        sequence_length=8,
    )
    assert {name: c.after.status for name, c in found.probes.items()} == dict.fromkeys(
        found.probes, "ok"
    )
    after = found.probes["trainability_accuracy"].after
    assert after.arrays["metric"] == ["perplexity", "", "lower"]
    assert "4 steps" in after.notes["metric"]
    assert "batch size 16" in after.notes["settings"]
    assert len(after.arrays["epoch_metrics"]) == 3
    assert found.probes["jacobian"].before.notes["inputs"] == "the embeddings of the token ids"
    said = " ".join(found.verdict)
    assert "Test perplexity" in said
    assert "accuracy" not in said


def test_retraining_keeps_the_masks_and_remembers_the_text(model):
    text = f"text:{model / 'text.txt'}"
    common = ["--sequence-length", "8", "--probes", "gradient", "--samples", "4"]
    out = str(model / "run")
    options = ["--structure", "2:4", "--recipe", "F1,1e-2", "--output", out, "--batch-size", "16"]
    hub = f"hf:{model / 'hub'}"
    result = CliRunner().invoke(main, ["retrain", hub, "--data", text, *options, *common])
    assert result.exit_code == 0, result.output
    assert "final test perplexity" in result.output
    again = open_checkpoint(model / "run" / "checkpoint.pt")
    assert masks_of(again.module)
    weights = dict(again.module.named_parameters())
    assert all(not bool(weights[n][~mask].any()) for n, mask in masks_of(again.module).items())
    found = CliRunner().invoke(main, ["probe", f"{out}/checkpoint.pt", "--json", *common])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["data"]["name"] == text


def test_a_text_classifier_gets_a_head(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=256,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "hub")
    rows = "\n".join(f"word {i},{'good' if i % 3 else 'bad'}" for i in range(40))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}\n")
    options = {"data": f"text:{tmp_path / 'a.csv'}", "task": "classification", "samples": 4}
    found = diagnose(tmp_path / "hub", action=HALF, probes=["gradient", "jacobian"], **options)
    assert found.network.num_classes == 2
    assert any("THE HEAD IS RANDOM" in note for note in found.notes)
    assert found.probes["jacobian"].after.status == "ok"
    loader = [{"input_ids": torch.randint(256, (6, 5)), "labels": torch.arange(6)}]
    other = diagnose(tmp_path / "hub", data=loader, task="classification", probes=["gradient"])
    assert other.network.num_classes == 6


def test_a_module_of_transformers_reads_text(model):
    module = open_checkpoint(model / "hub").module
    found = diagnose(module, data=f"text:{model / 'text.txt'}", probes=["gradient"], samples=4)
    assert found.probes["gradient"].before.status == "ok"


def test_an_image_classifier_on_random_inputs(tmp_path):
    image_classifier(tmp_path)
    found = diagnose(tmp_path, action=HALF, probes=["gradient", "jacobian"], samples=4)
    assert found.network.num_classes == 4
    assert {c.after.status for c in found.probes.values()} == {"ok"}


def test_text_is_asked_for(model):
    with pytest.raises(DataError, match="--data text:FILE"):
        diagnose(model / "hub")
