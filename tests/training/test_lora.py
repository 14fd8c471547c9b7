"""Low-rank adapters: the mask holds in every step and after merging."""

from __future__ import annotations

import pytest
import small_training
import torch
from torch import Tensor, nn

from trainscope.errors import ActionError, ScheduleError
from trainscope.networks import open_checkpoint
from trainscope.networks.masks import masks_of, set_masks
from trainscope.sparsify import Action
from trainscope.training.jobs import retraining_job
from trainscope.training.lora import add_adapters, merge_adapters, trained_parameters
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import Watch, run_job
from trainscope.training.settings import LoRA, Settings


class Conv1D(nn.Module):
    """A linear layer as GPT-2 has it: the weight is [in, out]."""

    def __init__(self, out: int, inner: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, out) / inner**0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


Conv1D.__module__ = "transformers.pytorch_utils"  # where GPT-2's is at home


class Mixed(nn.Module):
    """Convolutions of several kinds, attention, GPT-2's layer, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(8, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = Conv1D(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = self.up(self.conv(x.transpose(1, 2))).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(torch.tanh(self.mlp(x)))


NAMES = ("conv.weight", "up.weight", "attention.in_proj_weight", "attention.out_proj.weight")


def masked() -> nn.Module:
    """Return a network in float64 with half of its weights masked."""
    torch.manual_seed(0)
    network = Mixed().double()
    named = dict(network.named_parameters())
    masks = {n: torch.rand(named[n].shape) > 0.5 for n in (*NAMES, "mlp.weight")}
    set_masks(network, masks)
    return network


def trained(network: nn.Module, check=lambda: None) -> nn.Module:
    """Take a few steps of AdamW with weight decay."""
    torch.manual_seed(1)
    moved = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(moved, lr=0.05, weight_decay=0.1)
    for _ in range(4):
        ids = torch.randint(10, (3, 6))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(ids).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
        check()
    return network


def test_the_mask_holds_every_step_and_the_merged_network_is_the_one_that_was_trained():
    network, ids = masked(), torch.arange(10).view(2, 5)
    before, masks = network(ids), masks_of(network)
    frozen = {n: p.detach().clone() for n, p in network.named_parameters()}
    assert add_adapters(network, LoRA(2)) == (*NAMES, "mlp.weight")
    assert torch.equal(network(ids), before)
    sizes = {"conv.weight": 8 + 12, "up.weight": 8 + 24, "attention.in_proj_weight": 24 + 8}
    assert trained_parameters(network) == 2 * (sum(sizes.values()) + 16 + 16)

    def holds() -> None:
        for name, mask in masks.items():
            owner, _, leaf = name.rpartition(".")
            weight = getattr(network.get_submodule(owner), leaf)
            assert not weight[~mask].any()
            assert not torch.equal(weight, frozen[name])

    trained(network, holds)
    after = network(ids)
    assert not torch.allclose(after, before)
    assert merge_adapters(network) is network
    assert torch.allclose(network(ids), after, rtol=1e-10, atol=1e-10)
    named = dict(network.named_parameters())
    assert named.keys() == frozen.keys()
    assert all(each.requires_grad for each in named.values())
    assert torch.equal(named["embed.weight"], frozen["embed.weight"])
    assert masks_of(network).keys() == masks.keys()
    assert not any(bool(named[name][~mask].any()) for name, mask in masks.items())


def test_targets_are_names_their_ends_or_patterns():
    assert add_adapters(masked(), LoRA(1, targets=("out_proj", "m*p"))) == (
        "attention.out_proj.weight",
        "mlp.weight",
    )
    assert add_adapters(nn.Sequential(nn.Embedding(4, 3)), LoRA(1, targets=("0",))) == ("0.weight",)


@pytest.mark.parametrize(
    ("network", "targets", "said"),
    [
        (Mixed, ("head",), "several layers share this weight"),
        (Mixed, ("mlp", "fc9"), "the LoRA target 'fc9' is no weight of this network"),
        (lambda: nn.LSTM(3, 3), ("weight_hh_l0",), "recurrent layers"),
        (lambda: nn.LayerNorm(3), (), "finds no weight"),
    ],
)
def test_what_cannot_be_adapted_is_refused(network, targets, said):
    made = network()
    with pytest.raises(ActionError, match=said):
        add_adapters(made, LoRA(1, targets=targets))
    assert all(each.requires_grad for each in made.parameters())


def test_what_is_no_lora_is_refused():
    with pytest.raises(ScheduleError, match="rank of LoRA is 1 or more"):
        LoRA(0)
    with pytest.raises(ScheduleError, match="alpha of LoRA"):
        LoRA(1, -1.0)
    with pytest.raises(ScheduleError, match="target of LoRA is empty"):
        LoRA(1, targets=("a", ""))
    with pytest.raises(ActionError, match="carries no adapters"):
        merge_adapters(nn.Linear(2, 2))


def job(structure: str = "unstructured"):
    """Return a retraining by AdamW on adapters."""
    start = small_training.pretrained()
    ratio = None if ":" in structure else 0.8
    settings = Settings(optimizer="adamw", batch_size=32, lora=LoRA(2, 8.0))
    action = Action(structure=structure, ratio=ratio)
    schedule = parse_recipe("F3,1e-2").schedule()
    return retraining_job(start.network, start.dataset, action, schedule, settings)[0]


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_a_run_on_adapters_ends_in_a_plain_masked_network_and_says_what_was_trained(
    tmp_path, structure
):
    asked = job(structure)
    run = run_job(asked, tmp_path)
    assert run.settings["optimizer"] == "adamw"
    assert run.settings["betas"] == [0.9, 0.999]
    assert (run.settings["lora_rank"], run.settings["lora_alpha"]) == (2, 8.0)
    assert run.settings["lora_targets"] == "all"
    assert 0 < run.trained_parameters < run.parameters
    assert type(run).load(tmp_path) == run
    ended = open_checkpoint(tmp_path / "checkpoint.pt").module
    start, masks = asked.network.module, masks_of(asked.network.module)
    assert {n: p.shape for n, p in ended.named_parameters()} == {
        n: p.shape for n, p in start.named_parameters()
    }
    moved = 0
    for name, weight in ended.named_parameters():
        if name in masks:
            assert not weight[~masks[name]].any()
            moved += not torch.equal(weight, start.get_parameter(name))
            if structure == "2:4":
                kept = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
                assert int(kept.max()) <= 2
    assert moved == len(masks)


def test_stopped_it_goes_on_with_the_same_bits(tmp_path):
    def stop(record) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    whole = run_job(job(), tmp_path / "whole")
    cut = run_job(job(), tmp_path / "cut", watch=Watch(on_epoch=stop))
    assert cut.status == "interrupted"
    assert masks_of(open_checkpoint(tmp_path / "cut" / "checkpoint.pt").module)
    resumed = run_job(job(), tmp_path / "cut")
    assert resumed.end == whole.end
    assert small_training.without_seconds(resumed) == small_training.without_seconds(whole)


def test_another_rank_is_another_run(tmp_path):
    from dataclasses import replace

    from trainscope.training.job import difference

    one = job()
    other = replace(one, settings=replace(one.settings, lora=LoRA(4, 8.0)))
    assert difference(one.frozen(), other.frozen()) == "the lora rank is 2 there and 4 here"
    weights = replace(one, settings=replace(one.settings, lora=None))
    assert "lora rank is 2 there and None here" in difference(one.frozen(), weights.frozen())


def test_adapters_of_peft_are_merged_with_every_mask_held():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = {"r": 2, "target_modules": ["0", "2"], "init_lora_weights": False}
    for wrapped in (True, False):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        set_masks(network, {"0.weight": torch.rand(8, 6) > 0.5, "2.weight": torch.rand(3, 8) > 0.5})
        masks, plain = masks_of(network), network[0].weight.detach().clone()
        made = peft.LoraConfig(**config)
        adapted = (
            peft.get_peft_model(network, made)
            if wrapped
            else peft.inject_adapter_in_model(made, network)
        )
        merged = merge_adapters(adapted)
        assert [type(each) for each in merged] == [nn.Linear, nn.ReLU, nn.Linear]
        assert masks_of(merged).keys() == masks.keys()
        assert not merged[0].weight[~masks["0.weight"]].any()
        assert not torch.equal(merged[0].weight, plain)
