"""The main command as a user types it, on the digits network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from trainscope.cli.main import main
from trainscope.networks import Network, Remembered, build, open_checkpoint, save_checkpoint
from trainscope.records import Diagnosis

pytestmark = pytest.mark.usefixtures("few_digits")

QUICK = ("--samples", "4", "--retrain-steps", "4", "--retrain-lr", "1e-2", "--top", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A digits network with random weights, saved as ours."""
    path = tmp_path_factory.mktemp("networks") / "checkpoint.pt"
    torch.manual_seed(0)
    module = build("digits_resnet", 10).eval()
    network = Network(module, "digits_resnet", (1, 8, 8), 10, remembered=Remembered("digits"))
    save_checkpoint(path, network)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def check_one_sentence(result: Result, *parts: str) -> None:
    """Check that a result is a refusal as the house makes them."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    last = [line for line in result.stderr.splitlines() if line.startswith("trainscope:")]
    assert len(last) == 1
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in last[0]


def test_the_bare_command_on_its_own_checkpoint(checkpoint, tmp_path):
    before = checkpoint.read_bytes()
    result = run("probe", checkpoint, "--ratio", 0.9, "--output", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    assert checkpoint.read_bytes() == before
    for text in ("before", "recalibrated", "Verdict", "Trainability accuracy", "mean JSV"):
        assert text in result.stdout
    assert "will cost" in result.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {
        "diagnosis.json",
        "diagnosis.html",
        "pruned.pt",
        "retraining.png",
        "gradient_norms.png",
        "singular_values.png",
        "spectral_density.png",
    }
    raw = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    for probe, scalars in {
        "trainability_accuracy": {"ta"},
        "gradient": {"norm", "snr", "noise_scale"},
        "jacobian": {"mean_jsv", "std_over_mean", "max_jsv", "min_jsv", "condition_number"},
        "curvature": {"top_eigenvalue", "trace", "max_stable_lr"},
    }.items():
        assert scalars <= raw["probes"][probe]["before"]["scalars"].keys()


def test_the_pruned_checkpoint_opens_and_is_what_was_measured(checkpoint, tmp_path):
    run("probe", checkpoint, "--ratio", 0.5, "--output", tmp_path, "--probes", "gradient", *QUICK)
    first = Diagnosis.from_json((tmp_path / "diagnosis.json").read_text())
    again = run("probe", tmp_path / "pruned.pt", "--ratio", 0.5, "--probes", "gradient", "--json")
    second = Diagnosis.from_json(again.stdout)
    assert second.network.parameters == first.action.parameters
    assert second.network.flops == first.action.flops
    assert second.action.parameters < first.action.parameters


def test_json_is_alone_on_stdout_and_repeats(checkpoint):
    probes = ("--probes", "trainability_accuracy,gradient,jacobian")
    asked = ("probe", checkpoint, "--ratio", 0.9, "--json", *probes, *QUICK)
    results = [run(*asked) for _ in range(2)]
    one, two = (json.loads(result.stdout) for result in results)
    assert one["schema"] == "trainscope.diagnosis/1"
    for raw in (one, two):
        raw["environment"].pop("date")
        for columns in raw["probes"].values():
            for column in ("before", "after", "recalibrated"):
                columns[column]["cost"].pop("seconds")
    assert one == two


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_masked_structures(checkpoint, tmp_path, structure):
    ratio = ("--ratio", "0.9") if structure == "unstructured" else ()
    probes = ("--probes", "gradient", "--output", tmp_path)
    result = run("probe", checkpoint, *ratio, "--structure", structure, "--json", *probes, *QUICK)
    assert result.exit_code == 0, result.output
    raw = json.loads(result.stdout)
    assert raw["action"]["parameters"] < raw["network"]["parameters"]
    opened = open_checkpoint(tmp_path / "pruned.pt")
    zeros = sum(int((p == 0).sum()) for p in opened.module.parameters())
    assert zeros >= raw["network"]["parameters"] - raw["action"]["parameters"]


def test_a_foreign_checkpoint_is_measured_on_gaussian_inputs(tmp_path):
    torch.manual_seed(0)
    torch.save(build("lenet5", 10).state_dict(), tmp_path / "weights.pt")
    result = run("probe", tmp_path / "weights.pt", "--ratio", 0.5, "--json", *QUICK)
    assert result.exit_code == 0, result.output
    raw = json.loads(result.stdout)
    assert raw["data"] == {"name": "random:1x28x28", "samples": 4, "labels": "predicted"}
    skipped = raw["probes"]["trainability_accuracy"]["before"]
    assert skipped["status"] == "skipped"
    assert "--data" in skipped["reason"]
    assert raw["probes"]["jacobian"]["recalibrated"] is None  # LeNet-5 has no batch norm
    assert any("Gaussian" in note for note in raw["notes"])


def damaged(checkpoint: Path, folder: Path, kind: str) -> Path:
    """Return a file that cannot be probed."""
    path = folder / f"{kind}.pt"
    whole = checkpoint.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "nan":
        state = build("lenet5", 10).state_dict()
        next(iter(state.values())).view(-1)[3] = float("nan")
        torch.save(state, path)
    elif kind == "code":
        torch.save({"state_dict": {}, "evil": Evil(folder / "ran")}, path)
    elif kind == "unknown":
        torch.save({"layer.weight": torch.zeros(3, 3)}, path)
    return path


class Evil:
    """An object that would make a file if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "empty", "text", "nan", "code", "unknown"]
)
def test_bad_files_are_one_sentence_and_leave_nothing(checkpoint, tmp_path, kind):
    path = damaged(checkpoint, tmp_path, kind)
    there = set(tmp_path.rglob("*"))
    check_one_sentence(run("probe", path, "--ratio", 0.9), path.name)
    assert set(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--ratio", 0), "ratio"),
        (("--ratio", 1), "ratio"),
        (("--ratio", -0.5), "ratio"),
        (("--ratio", "nan"), "ratio"),
        (("--structure", "unstructured"), "ratio"),
        (("--ratios", "layer1*=0"), "by pattern are all 0"),
        (("--ratio", 0.5, "--ratios", ""), "the ratios are empty"),
        (("--ratio", 0.5, "--probes", "nothing"), "no probe is named 'nothing'"),
        (("--ratio", 0.5, "--probes", ""), "has an empty name"),
        (("--ratio", 0.5, "--data", "mnist:/nowhere"), "no MNIST at /nowhere"),
        (("--ratio", 0.5, "--data", "what"), "no data is named 'what'"),
        (("--ratio", 0.5, "--data", "random:3x8x8"), "has inputs 3x8x8 and digits"),
        (("--ratio", 0.5, "--arch", "resnet18"), "resnet18"),
        (("--ratio", 0.5, "--arch", "resnet1"), "no architecture is named 'resnet1'"),
        (("--ratio", 0.5, "--criterion", "l3"), "l3"),
        (("--ratio", 0.5, "--criterion", "wanda"), "wanda ranks single weights"),
        (("--structure", "2:4", "--criterion", "fpgm"), "fpgm ranks whole filters"),
        (("--structure", "2:4", "--criterion", "snip", "--global"), "nothing to rank globally"),
        (("--ratio", 0.5, "--criterion", "fpgm", "--global"), "do not compare across layers"),
        (
            ("--ratio", 0.5, "--criterion", "taylor", "--data", "random:1x8x8"),
            "the criterion taylor needs training samples",
        ),
        (("--ratio", 0.5, "--criterion-samples", 0), "--criterion-samples"),
        (("--ratio", 0.5, "--structure", "rows"), "rows"),
        (("--ratios", "nothing*=0.5"), "nothing*"),
        (("--ratio", 0.5, "--retrain-lr", "x"), "no learning rate"),
        (("--ratio", 0.5, "--device", "cuda:77"), "cuda:77"),
        (("--ratio", 0.5, "--device", "meta"), "the device 'meta' cannot be used here"),
        (("--ratio", 0.5, "--probes", "gradient,,"), "has an empty name"),
        (("--ratio", 0.5, "--seed", 2**64), "--seed"),
        (("--ratio", 0.5, "--samples", 1), "--samples"),
        (("--ratio", 0.5, "--colour", "red"), "--colour"),
    ],
)
def test_bad_options_are_one_sentence(checkpoint, arguments, part):
    check_one_sentence(run("probe", checkpoint, *arguments), part)


def test_an_output_that_cannot_be_written_is_found_before_the_work(checkpoint, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    result = run("probe", checkpoint, "--ratio", 0.9, "--output", blocked / "out")
    check_one_sentence(result, "choose another --output")
    assert "will cost" not in result.stderr


def test_a_wrong_number_of_classes_is_named(tmp_path):
    torch.save(build("digits_resnet", 7).state_dict(), tmp_path / "seven.pt")
    result = run("probe", tmp_path / "seven.pt", "--ratio", 0.5, "--data", "digits")
    check_one_sentence(result, "digits has 10 classes", "7")


def test_an_unknown_command_and_no_checkpoint():
    check_one_sentence(run("prob"), "prob")
    check_one_sentence(run("probe"), "CHECKPOINT")


def test_the_optimizer_that_retrains_is_measured_and_recorded(checkpoint):
    probes = ("--probes", "trainability_accuracy,curvature", "--ratio", "0.5", "--json")
    settings = ("--optimizer", "adamw", "--betas", "0.8,0.99", "--retrain-batch-size", "128")
    result = run("probe", checkpoint, *QUICK, *probes, *settings, "--lora", "2")
    assert result.exit_code == 0, result.output
    found = Diagnosis.from_json(result.stdout)
    held = dict(found.probes["trainability_accuracy"].after.arrays["settings"])
    assert (held["optimizer"], held["betas"], held["lora_rank"]) == ("adamw", [0.8, 0.99], 2)
    assert held["batch_size"] == 128
    assert "momentum" not in held
    said = found.probes["trainability_accuracy"].after.notes["settings"]
    assert said.startswith("adamw, betas 0.8 and 0.99, weight decay 0.0005, batch size 128, LoRA")
    curvature = found.probes["curvature"].last
    assert "LoRA trains low-rank factors" in curvature.scalars["max_stable_lr_adam"].reason
    assert any("not of AdamW on LoRA" in line for line in found.verdict)


def test_options_of_optimizers_that_cannot_be_are_one_sentence(checkpoint):
    for options, part in (
        (("--betas", "0.9"), "no pair of numbers like 0.9,0.999"),
        (("--betas", "0.9,1"), "betas are two numbers in"),
        (("--lora-alpha", "2"), "give its --lora RANK"),
        (("--lora", "0"), "rank of LoRA is 1 or more"),
    ):
        result = run("probe", checkpoint, *QUICK, *options)
        check_one_sentence(result, part)
