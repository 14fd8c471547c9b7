"""A detector on the command line: probed, cut, and opened again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import invoke
from reference.detectors import tiny

SOURCE = """
from reference.detectors import loader, tiny


def loaders():
    return loader(8, 0), loader(6, 20)
"""
NAMED = ("--model", "detector_code:tiny", "--data", "detector_code:loaders")


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    (tmp_path / "detector_code.py").write_text(SOURCE)
    torch.save(tiny().state_dict(), tmp_path / "dense.pt")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("detector_code", None)


def test_a_detector_is_pruned_and_the_pruned_one_opened_again():
    common = ("--task", "detection", "--samples", 4, "--probes", "gradient,jacobian")
    invoke(
        "probe", "dense.pt", *NAMED, *common, "--structure", "unstructured", "--ratio", 0.5,
        "--output", "out",
    )  # fmt: skip
    document = json.loads(Path("out/diagnosis.json").read_text())
    after = document["probes"]["gradient"]["after"]
    assert after["status"] == "ok"
    assert "each image put forward alone" in after["notes"]["task"]
    assert document["network"]["input_shape"] == [3, 40, 32]
    assert "as many boxes as it finds" in document["probes"]["jacobian"]["after"]["reason"]
    pruned = invoke("probe", "out/pruned.pt", *NAMED, *common, "--json")
    again = json.loads(pruned.stdout[pruned.stdout.index("{") :])
    norm = again["probes"]["gradient"]["before"]["scalars"]["norm"]["value"]
    assert norm == pytest.approx(after["scalars"]["norm"]["value"], rel=1e-5)


def test_it_is_retrained_in_map():
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    invoke(
        "retrain", "dense.pt", *NAMED, "--task", "detection", "--structure", "unstructured",
        "--ratio", 0.5, "--recipe", "F1,1e-2", "--batch-size", 4, "--output", "cut",
    )  # fmt: skip
    run = json.loads(Path("cut/run.json").read_text())
    assert "mAP" in json.dumps(run)
