"""The commands as a person types them."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoke
from PIL import Image

from trainscope.cli import printing
from trainscope.networks import open_checkpoint
from trainscope.networks.masks import masks_of
from trainscope.records import Run

pytestmark = pytest.mark.usefixtures("few_digits")


def refused(*args):
    """Run a command that must fail; return its one sentence."""
    result = invoke(*args, code=2)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("trainscope: ")
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stem of two epochs and a retrained network."""
    root = tmp_path_factory.mktemp("runs")
    common = ("--ratio", 0.9, "--stem", root / "stem")
    invoke("pipeline", "--recipe", "P2F2,1e-2", *common, "--output", root / "retrained")
    return root


@pytest.mark.parametrize(
    ("recipe", "schedule"),
    [
        ("F90,1e-1", "0:1e-1,30:1e-2,60:1e-3,75:1e-4,83:1e-5"),
        ("F60,1e-2", "0:1e-2,30:1e-3,45:1e-4,53:1e-5"),
        ("F90,1e-2", "0:1e-2,30:1e-3,60:1e-4,75:1e-5"),
        ("F120,1e-1", "0:1e-1,30:1e-2,60:1e-3,90:1e-4,105:1e-5"),
        ("F60,1e-3(+60)", "0:1e-3,90:1e-4,105:1e-5"),
    ],
)
def test_schedule_prints_the_string_and_nothing_else(recipe, schedule):
    result = invoke("schedule", recipe)
    assert result.stdout == schedule + "\n"
    assert result.stderr == ""


def test_schedule_squeezed_plotted_and_as_json(tmp_path):
    result = invoke("schedule", "P30/F90,1e-2", "--speedup", 1.11, "--plot", tmp_path / "s.png")
    assert result.stdout == "0:1e-2,30:1e-3,60:1e-4,75:1e-5\n"
    assert "pruning epoch 27" in result.stderr
    with Image.open(tmp_path / "s.png") as image:
        assert image.size[0] > 500
    known = json.loads(invoke("schedule", "P30/F90,1e-2", "--speedup", 1.11, "--json").stdout)
    assert (known["pruning_epoch"], known["epochs"], known["first_stage"]) == (27, 90, 30)
    assert known["pretraining"] == "0:1e-1,30:1e-2,60:1e-3,90:1e-4,105:1e-5"
    assert invoke("schedule", "P60F60,1", "--shape", "rewind").stdout == "0:1e-3,30:1e-4,45:1e-5\n"
    assert invoke("schedule", "0:1e-2,3:1e-3", "--epochs", 9).stdout == "0:1e-2,3:1e-3\n"
    assert "is no picture" in refused("schedule", "F9,1e-2", "--plot", tmp_path / "s.what")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["F60"], "'F60' is no recipe"),
        (["1:1e-2", "--epochs", 5], "must start at epoch 0"),
        (["0:1e-2,5:1e-3,3:1e-4", "--epochs", 9], "must ascend"),
        (["0:-1", "--epochs", 9], "at character 3, found '-'"),
        (["0:1e9", "--epochs", 9], "no learning rate"),
        (["0:1e-2,30:1e-3", "--epochs", 20], "total must be above"),
        (["0:1e-2"], "needs its total"),
        (["P30/F90,1e-2"], "--speedup"),
        (["F60,1e-3", "--epochs", 9], "leave --epochs out"),
        (["F60,1e-3", "--shape", "rewind"], "--pretrain-schedule"),
        (["F60,1e-3", "--pretrain-epochs", 9], "give both"),
        (["F60,1e-3", "--shape", "cosine", "--min-lr", 1], "cannot end at 1"),
    ],
)
def test_schedules_that_cannot_be_are_one_sentence(args, words):
    assert words in refused("schedule", *args)


def test_a_schedule_without_its_total_names_no_option_that_the_command_lacks():
    told = refused("schedule", "0:1e-2,30:1e-3")
    assert "0:1e-2,30:1e-3 needs its total: give it with --epochs" in told
    assert "--schedule" not in told
    train = ("train", "--arch", "digits_resnet", "--data", "digits", "--schedule", "0:1e-2")
    assert "--schedule 0:1e-2 needs its total" in refused(*train)


def test_a_recipe_in_the_place_of_a_schedule_is_sent_to_its_option(tmp_path):
    train = ("train", "--arch", "digits_resnet", "--data", "digits", "--schedule", "F2,1e-2")
    for more in ((), ("--epochs", 2)):
        assert "--recipe F2,1e-2" in refused(*train, *more)
    log = tmp_path / "log.csv"
    log.write_text("epoch,lr,accuracy\n1,1e-3,40\n2,1e-3,50\n")
    assert "--recipe F2,1e-2" in refused("import", log, "--schedule", "F2,1e-2")
    stages = "`trainscope schedule P2F2,1e-2` prints its stages"
    assert stages in refused("estimate", log, "--target", 60, "--schedule", "P2F2,1e-2")
    pretraining = ("--pretrain-schedule", "P2F2,1e-2", "--pretrain-epochs", 4)
    assert stages in refused("schedule", "P2F2,1e-2", *pretraining)


def test_options_beside_what_says_it_already_are_refused(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("epoch,lr,accuracy\n1,1e-3,40\n2,1e-3,50\n")
    assert (
        "--epochs is the total of --schedule" in invoke("import", log, "--epochs", 9, code=2).stderr
    )
    like = ("scratch", "--like", log, "--recipe", "F2,1e-1", "--lr", "1e-4")
    assert "--lr is the first LR where no --recipe" in invoke(*like, code=2).stderr


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--optimizer", "adam", "--momentum", 0.5), "--momentum is of sgd, and --optimizer adam"),
        (("--betas", "0.8,0.9"), "--betas is of adam and adamw, and --optimizer sgd"),
        (("--optimizer", "sgd", "--eps", 1e-6), "--eps is of adam and adamw"),
    ],
)
@pytest.mark.parametrize("command", ["train", "probe"])
def test_an_option_of_another_optimizer_is_refused(command, typed, words, tmp_path):
    asked = ("train", "--arch", "resnet20", "--data", "digits", "--recipe", "F1,1e-1")
    asked = asked if command == "train" else ("probe", tmp_path / "none.pt", "--ratio", 0.5)
    done = invoke(*asked, *typed, "--output", tmp_path / "run", code=2)
    assert words in done.stderr
    assert not (tmp_path / "run").exists()


def test_schedule_does_not_load_torch():
    import subprocess

    code = (
        "import sys; from trainscope.cli.main import main\n"
        "try: main(['schedule', 'F90,1e-1'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_pipeline_leaves_a_checkpoint_that_opens_bare(folder):
    run = Run.load(folder / "retrained")
    assert run.kind == "retrain"
    assert (run.pruning.epoch, run.pruning.ratio) == (2, 0.9)
    assert (run.pretraining.epochs, run.pretraining.total) == (2, 4)
    assert run.base == Run.load(folder / "stem" / "epoch-0002").end
    network = open_checkpoint(folder / "retrained" / "checkpoint.pt")
    assert (network.architecture, network.remembered.data) == ("digits_resnet", "digits")
    norms = [t for t in run.measurements if t.measurement.probe == "step_gradient"]
    assert [len(t.measurement.arrays["norms"]) for t in norms] == [5, 5]


def test_the_same_command_again_is_done_at_once(folder):
    before = (folder / "retrained" / "run.json").read_text()
    result = invoke(
        *("pipeline", "--recipe", "P2F2,1e-2", "--ratio", 0.9, "--stem", folder / "stem"),
        *("--output", folder / "retrained", "--json"),
    )
    assert result.stdout == before
    assert "epoch 1/" not in result.stderr


def test_retrain_with_probes_and_extra_epochs(folder, tmp_path):
    result = invoke(
        *("retrain", folder / "stem" / "epoch-0002" / "checkpoint.pt", "--ratio", 0.8),
        *("--structure", "unstructured", "--recipe", "F1,1e-3", "--extra-epochs", 1),
        *("--probes", "gradient", "--probe-epochs", "0,2", "--samples", 32, "--no-norms"),
        *("--output", tmp_path / "run"),
    )
    run = Run.load(tmp_path / "run")
    assert (run.schedule, run.total) == ("0:1e-3", 2)
    assert [(t.step, t.epoch) for t in run.measurements] == [(0, 0.0), (10, 2.0)]
    assert "80 % of the weights" in result.stdout
    assert "epoch 2/2" in result.stderr


def test_retraining_and_pipelines_on_adapters(folder, tmp_path):
    adapters = ("--optimizer", "adamw", "--lora", 2, "--lora-targets", "conv2", "--no-norms")
    start = folder / "retrained" / "checkpoint.pt"
    action = ("--structure", "2:4", "--recipe", "F1,1e-2")
    run = json.loads(
        invoke("retrain", start, *action, *adapters, "--output", tmp_path / "a", "--json").stdout
    )
    assert run["settings"]["lora_targets"] == "conv2"
    assert 0 < run["trained_parameters"] < run["parameters"]
    masks = masks_of(open_checkpoint(tmp_path / "a" / "checkpoint.pt").module)
    assert masks
    common = ("--recipe", "P2F2,1e-2", "--ratio", 0.9, "--stem", folder / "stem", *adapters[2:])
    # The pretraining is the one that was done without adapters.
    invoke("pipeline", *common, "--output", tmp_path / "b")
    assert Run.load(tmp_path / "b").settings["lora_rank"] == 2
    assert Run.load(folder / "stem" / "epoch-0002").settings.get("lora_rank") is None


def test_scratch_and_tickets(folder, tmp_path):
    like = folder / "retrained" / "checkpoint.pt"
    common = ("--no-norms", "--batch-size", 256)
    invoke("scratch", "--like", like, *common, "--output", tmp_path / "e")
    run = Run.load(tmp_path / "e")
    assert (run.kind, run.total, run.schedule) == ("scratch-e", 4, "0:1e-1,2:1e-2,3:1e-3")
    invoke(
        *("scratch", "--like", like, "--budget", "flops", "--count", "pretraining", *common),
        *("--speedup", 1.5, "--output", tmp_path / "b"),
    )
    run = Run.load(tmp_path / "b")  # Scratch-E's stages, 0:1e-1,1:1e-2 of 2 epochs, stretched
    assert (run.kind, run.total, run.schedule) == ("scratch-b", 3, "0:1e-1,2:1e-2")
    invoke(
        *("retrain", folder / "stem" / "epoch-0002" / "checkpoint.pt", "--ratio", 0.5, *common),
        *("--structure", "unstructured", "--recipe", "F1,1e-1", "--weights", "winning-ticket"),
        *("--rewind-to", folder / "stem" / "epoch-0000" / "checkpoint.pt"),
        *("--output", tmp_path / "w"),
    )
    assert Run.load(tmp_path / "w").kind == "winning-ticket"


def test_train_on_a_folder_of_images(tmp_path):
    """CIFAR's ResNet-20 and its standard augmentation, on a handful of pictures."""
    draw = np.random.default_rng(0)
    for half, count in (("train", 6), ("val", 3)):
        for label in range(2):
            place = tmp_path / "images" / half / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 128, (40, 40, 3)) + 127 * label
                Image.fromarray(pixels.astype("uint8")).save(place / f"{index}.png")
    invoke(
        *("train", "--arch", "resnet20", "--data", f"imagefolder:{tmp_path / 'images'}"),
        *("--recipe", "F3,1e-1", "--batch-size", 4, "--clip", 1, "--output", tmp_path / "run"),
    )
    run = Run.load(tmp_path / "run")
    assert run.epochs[-1].train_loss < run.epochs[0].train_loss
    assert {t.moment for t in run.measurements} == {"before clipping", "after clipping"}
    network = open_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert (network.architecture, network.num_classes) == ("resnet20", 2)


def test_on_a_terminal_there_is_a_bar(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    result = invoke(
        *("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F1,1e-1"),
        *("--output", tmp_path / "run"),
    )
    assert "training digits_resnet" in result.stderr
    assert "epoch 1.0 of 1" in result.stderr


def test_ctrl_c_is_a_line_and_130_and_the_same_command_goes_on(tmp_path, monkeypatch):
    from trainscope.cli import running

    command = (
        *("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F3,1e-1"),
        *("--output", tmp_path / "run"),
    )
    line = running.line

    def press(record, total):
        if record.epoch == 2:
            raise KeyboardInterrupt
        return line(record, total)

    with monkeypatch.context() as patch:
        patch.setattr(running, "line", press)
        result = invoke(*command, code=130)
    assert "interrupted after epoch 2 of 3" in result.stderr
    assert Run.load(tmp_path / "run").status == "interrupted"
    assert open_checkpoint(tmp_path / "run" / "checkpoint.pt").remembered.epochs == 2
    result = invoke(*command)
    assert "going on after epoch 2 of 3" in result.stderr
    run = Run.load(tmp_path / "run")
    assert (run.status, len(run.epochs)) == ("finished", 3)


def test_an_interrupted_run_that_diverged_is_not_said_to_have_a_checkpoint(tmp_path, monkeypatch):
    from trainscope.cli import running

    command = (
        *("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F3,1e2"),
        *("--batch-size", 512, "--output", tmp_path / "run"),
    )

    def press(record, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "line", press)
    monkeypatch.setattr(
        "trainscope.training.stepper.Stepper.step", lambda *_: torch.tensor(math.nan)
    )
    result = invoke(*command, code=130)
    assert "interrupted after epoch 1 of 3" in result.stderr
    assert "the training had diverged, so there is no checkpoint" in result.stderr
    assert "checkpoint.pt" not in result.stderr + result.stdout
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_import_writes_a_run(tmp_path):
    log = Path(__file__).parents[1] / "records" / "logs" / "smilelogging.txt"
    stage = ("--stage-epochs", 10, "--stage-schedule", "0:1e-3", "--stage-flops", 5)
    run = Run.from_json(invoke("import", log, "--ratio", 0.95, *stage).stdout)
    assert (run.pruning.stage_epochs, run.pruning.stage_flops) == (10, 5)
    assert run.pruning.stage_schedule == "0:1e-3"
    assert {"stage_epochs", "stage_schedule", "stage_flops"} <= set(run.given)
    run = Run.from_json(invoke("import", log, "--ratio", 0.95, "--structure", "filter").stdout)
    assert run.pruning.ratio == 0.95
    result = invoke("import", log, "--output", tmp_path, "--setting", "optimizer=sgd")
    assert Run.load(tmp_path).settings == {"optimizer": "sgd"}
    assert "counts epochs from 0" in result.stderr
    table = tmp_path / "log.csv"
    table.write_text("epoch,test_acc\n1,40\n2,50\n")
    run = Run.from_json(invoke("import", table, "--recipe", "F2,1e-2").stdout)
    assert (run.schedule, run.given) == ("0:1e-2,1:1e-3", ("kind", "schedule"))
    assert "--schedule" in refused("import", table)
    assert "the fields are epoch" in refused("import", table, "--column", "top1=test_acc")
    assert "NAME=VALUE" in refused("import", table, "--setting", "sgd")


def test_what_people_get_wrong_is_one_sentence(folder, tmp_path):
    base = folder / "stem" / "epoch-0002" / "checkpoint.pt"
    go = ("--recipe", "F1,1e-2", "--output", tmp_path / "run")

    def retrain(*args):
        return refused("retrain", base, "--ratio", 0.5, *args, *go)

    assert "--recipe F60,1e-3" in refused("retrain", base, "--ratio", 0.5)
    assert "give a share between 0 and 1" in refused("retrain", base, "--ratio", 12, *go)
    assert "no MNIST at" in retrain("--data", f"mnist:{tmp_path / 'none'}")
    assert "no labels" in retrain("--data", "random:1x8x8")
    assert "batch size" in retrain("--batch-size", 0)
    assert "no probe is named" in retrain("--probes", "x")
    for names in ("gradient,,jacobian", "gradient,", ""):  # as `probe` does
        assert f"--probes '{names}' has an empty name" in retrain("--probes", names)
    both = ("--probes", "gradient", "--probe-epochs", "1", "--probe-every", 3)
    assert "give one of them" in retrain(*both)
    assert "no list of epochs" in retrain("--probes", "gradient", "--probe-epochs", "x")
    assert "cannot be used here" in retrain("--device", "x")
    train = ("train", "--data", "digits", *go)
    assert "name the architecture once" in refused(*train)
    assert "no architecture is named" in refused(*train, "--arch", "resnt20")
    assert "does not take the inputs 1x8x8" in refused(*train, "--arch", "resnet20")
    wrong = refused(*train, "--arch", "resnet20", "--input-shape", "3x3")
    assert "not of the form CxHxW" in wrong
    assert "write one like P60F1,1e-2" in refused("pipeline", "--ratio", 0.5, *go)
    first = folder / "stem" / "epoch-0000" / "checkpoint.pt"
    assert "no run.json beside" in refused("scratch", "--like", first)
    assert not (tmp_path / "run").exists()
    again = ("retrain", base, "--ratio", 0.5, "--recipe", "F1,1e-2")
    assert "holds another run" in refused(*again, "--output", folder / "retrained")


def test_sigterm_keeps_what_was_done_and_the_same_command_ends_with_the_same_bits(
    tmp_path, monkeypatch
):
    from trainscope.cli import running

    command = ("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F3,1e-1")
    invoke(*command, "--batch-size", 256, "--output", tmp_path / "whole")
    line = running.line

    def terminate(record, total):
        if record.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return line(record, total)

    again = (*command, "--batch-size", 256, "--output", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(running, "line", terminate)
        assert "interrupted after epoch 2 of 3" in invoke(*again, code=130).stderr
    invoke(*again)
    assert Run.load(tmp_path / "run").end == Run.load(tmp_path / "whole").end
    assert Run.load(tmp_path / "run").status == "finished"


def test_progress_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    from trainscope.cli import running

    monkeypatch.setattr(
        running, "progress_console", lambda: printing.console(printing.Unfailing(Full()))
    )
    invoke(
        *("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F1,1e-1"),
        *("--batch-size", 512, "--output", tmp_path / "run"),
    )
    assert Run.load(tmp_path / "run").status == "finished"
