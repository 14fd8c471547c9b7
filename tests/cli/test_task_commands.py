"""Networks of any task on the command line: from training to probing what was pruned."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import invoke

from trainscope.networks import from_factory, open_checkpoint
from trainscope.records import Diagnosis, Run

SOURCE = '''
import torch
from torch import nn
from torch.utils.data import DataLoader


class Pixels(nn.Module):
    """A small U-Net."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.mid = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2),
        )
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image):
        down = self.down(image)
        return {"out": self.head(torch.cat([down, self.mid(down)], 1))}


def pixels():
    return Pixels()


def squares(count=32):
    labels = torch.randint(3, (count, 1, 1), generator=torch.Generator().manual_seed(count))
    labels = labels.expand(count, 8, 8).clone()
    labels[:, :3] = 0
    return [{"image": y[None].float(), "labels": y} for y in labels]


def loaders():
    return DataLoader(squares(), 8, shuffle=True), DataLoader(squares(16), 8)


def flat():
    """Take vectors of four numbers, which no image has."""
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def classes():
    return [(torch.randn(8, 4), torch.arange(8) % 3)]


print("the user's code runs")
'''
NAMED = ("--model", "task_code:pixels", "--data", "task_code:loaders", "--task", "segmentation")
FEW = ("--samples", 4, "--probes", "gradient", "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    (root / "task_code.py").write_text(SOURCE)
    return root


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    yield
    sys.modules.pop("task_code", None)


def said(result):
    """Return the sentence of a refusal, which is the last line of stderr."""
    return result.stderr.strip().splitlines()[-1]


def document(result):
    return json.loads(result.stdout[result.stdout.index("{") :])


@pytest.fixture(scope="module")
def trained(folder):
    """A trained network, without the fixture that changes the folder for each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke("train", *NAMED, "--recipe", "F2,1e-1", "--output", "trained")
        sys.modules.pop("task_code", None)
    return "trained/checkpoint.pt"


def test_training_writes_a_run_of_the_metric(trained, folder):
    run = Run.load(folder / "trained")
    assert run.metric.name == "mean IoU"
    assert run.final_accuracy is None
    assert 0 <= run.final_metric <= 100


def test_what_was_retrained_is_probed(trained):
    invoke("retrain", trained, *NAMED, "--ratio", 0.5, "--recipe", "F1,1e-2", "--output", "cut")
    assert Run.load("cut").pruning.action.speedup > 1
    found = document(invoke("probe", "cut/checkpoint.pt", *NAMED, *FEW))
    assert found["action"] is None
    assert found["network"]["num_classes"] == 3
    assert found["probes"]["gradient"]["before"]["status"] == "ok"
    after = document(invoke("probe", trained, "--after", "cut/checkpoint.pt", *NAMED, *FEW))
    assert after["action"]["structure"] == "given"
    assert after["probes"]["gradient"]["after"]["status"] == "ok"


def test_steps_of_retraining_and_the_page(trained):
    steps = ("--retrain-steps", 5, "--retrain-lr", "1e-2")
    only = ("--probes", "trainability_accuracy", "--samples", 4, "--ratio", 0.5)
    result = invoke("probe", trained, *NAMED, *only, *steps, "--output", "out")
    assert "trainability mean IoU at LR 1e-2" in result.stdout
    page = Path("out/diagnosis.html").read_text(encoding="utf-8")
    assert "top-1" not in page
    assert "of the test mean IoU a higher value is better" in page
    assert "First steps of retraining" in page
    found = Diagnosis.from_json(Path("out/diagnosis.json").read_text(encoding="utf-8"))
    arrays = found.probes["trainability_accuracy"].before.arrays
    assert arrays["metric"] == ["mean IoU", "%", "higher"]
    assert len(arrays["epoch_metrics"][0]) == 5
    assert arrays["steps"] == [1]


def test_scratch_and_a_winning_ticket(trained):
    action = ("--structure", "unstructured", "--ratio", 0.5)
    ticket = ("--weights", "winning-ticket", "--rewind-to", trained)
    common = (*NAMED, "--recipe", "F1,1e-2")
    invoke("retrain", trained, *common, *action, *ticket, "--output", "ticket")
    assert Run.load("ticket").kind == "winning-ticket"
    invoke("scratch", "--like", "ticket/checkpoint.pt", "--budget", "epochs", *common,
           "--output", "scratch")  # fmt: skip
    assert Run.load("scratch").metric.name == "mean IoU"


def test_a_pipeline_of_any_task():
    invoke("pipeline", *NAMED, "--recipe", "P1F1,1e-2", "--ratio", 0.5, "--stem", "stem",
           "--output", "piped")  # fmt: skip
    run = Run.load("piped")
    assert run.metric.name == "mean IoU"
    assert run.pruning.action.speedup > 1


def test_data_that_a_file_names_is_not_imported(folder):
    invoke("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F1,1e-2",
           "--output", "digits")  # fmt: skip
    kept = torch.load("digits/checkpoint.pt", weights_only=True)
    torch.save({**kept, "data": "task_code:loaders"}, "bad.pt")
    for command in (("probe", "bad.pt", *FEW), ("retrain", "bad.pt", "--recipe", "F1,1e-2")):
        result = invoke(*command, code=2)
        assert "the user's code runs" not in result.output
        assert "where you trust that code, say --data task_code:loaders" in said(result)


def test_the_data_says_the_shape_for_a_network_of_ones_own():
    torch.save(from_factory("task_code:flat").state_dict(), "flat.pt")
    common = ("probe", "flat.pt", "--model", "task_code:flat")
    for data in ("task_code:classes", "random:4"):
        found = document(invoke(*common, "--data", data, *FEW))
        assert found["network"]["input_shape"] == [4]
    found = document(invoke(*common, "--input-shape", "4", *FEW))
    assert found["data"]["name"] == "random:4"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--task", "segmentation"), "no data is named: give --data"),
        (("--task", "nothing"), "no task is named 'nothing'"),
        (("--task", "task_code:flat", "--data", "task_code:loaders"), "Sequential without metric"),
        (("--task", "segmentation", "--data", "random:1x8x8"), "has no targets for Segmentation"),
        (("--data", "random:1x8x8"), "name the task"),
    ],
)
def test_wrong_use_is_refused_in_a_sentence(trained, args, message):
    result = invoke("probe", trained, "--model", "task_code:pixels", *args, *FEW, code=2)
    assert message in said(result)


def test_inspect_shows_a_network_that_tells_no_classes_apart():
    invoke("train", "--model", "task_code:flat", "--data", "task_code:numbers", "--task",
           "regression", "--recipe", "F1,1e-2", code=2)  # fmt: skip
    with Path("task_code.py").open("a") as file:
        file.write(
            "\n\ndef numbers():\n    x = torch.randn(16, 4)\n"
            "    return [(x, x[:, :3])], [(x[:8], x[:8, :3])]\n"
        )
    sys.modules.pop("task_code", None)
    invoke("train", "--model", "task_code:flat", "--data", "task_code:numbers", "--task",
           "regression", "--recipe", "F1,1e-2", "--output", "numbers")  # fmt: skip
    assert "None" not in invoke("inspect", "numbers/checkpoint.pt").stdout
    named = ("--model", "task_code:flat", "--data", "task_code:numbers", "--task", "regression")
    found = document(invoke("probe", "numbers/checkpoint.pt", *named, *FEW))
    assert found["network"]["num_classes"] is None
    assert Diagnosis.from_json(json.dumps(found)).network.num_classes is None
    with pytest.raises(Exception, match="say --model task_code:flat"):
        open_checkpoint("numbers/checkpoint.pt")
