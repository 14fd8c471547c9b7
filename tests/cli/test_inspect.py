from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from trainscope.cli.main import main
from trainscope.networks import build, open_checkpoint, save_checkpoint
from trainscope.sparsify import Action, sparsify


class Runs:
    """An object that would make a file if it were restored."""

    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def run(*arguments):
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": build("lenet5", 10).state_dict(), "epoch": 12}, path)
    return path


def test_it_tells_what_is_there(weights):
    raw = json.loads(run(weights, "--json").stdout)
    state = build("lenet5", 10).state_dict()
    assert raw["architecture"] == "lenet5"
    assert raw["recognised"] == "by names and shapes"
    assert raw["parameters"] == sum(value.numel() for value in state.values())
    assert [each["name"] for each in raw["tensors"]] == list(state)
    assert raw["tensors"][0]["shape"] == list(next(iter(state.values())).shape)
    assert raw["remembered"]["epochs"] == 12
    assert raw["classes"] == []
    assert raw["problem"] is None
    shown = run(weights).stdout
    assert "lenet5" in shown
    assert "loading it runs no code" in shown


def test_masks_and_zeros_are_counted(weights, tmp_path):
    network = open_checkpoint(weights)
    action = Action(structure="unstructured", ratio=0.75, scope="all")
    done = sparsify(network.module, action, network.input_shape)
    save_checkpoint(tmp_path / "masked.pt", replace(network, module=done.module))
    raw = json.loads(run(tmp_path / "masked.pt", "--json").stdout)
    assert raw["masks"] == 5
    zeros = {each["name"]: each["zeros"] for each in raw["tensors"]}
    assert zeros["conv2.weight"] == pytest.approx(0.75, abs=1e-3)
    assert raw["parameters"] == sum(p.numel() for p in network.module.parameters())


@pytest.mark.parametrize("container", [True, False])
def test_classes_are_named_and_never_run(tmp_path, container):
    mark = tmp_path / "ran"
    content = {"model": build("lenet5", 10), "extra": Runs(mark)}
    path = tmp_path / "evil.pt"
    torch.save(content, path, _use_new_zipfile_serialization=container)
    result = run(path, "--json")
    assert result.exit_code == 0, result.output
    raw = json.loads(result.stdout)
    assert "posix.system" in raw["classes"]
    assert "running code" in raw["problem"]
    assert not mark.exists()
    assert "posix.system" in run(path).stdout


def test_an_unknown_network_is_described_with_the_reason(tmp_path):
    torch.save({"layer.weight": torch.zeros(3, 4)}, tmp_path / "unknown.pt")
    raw = json.loads(run(tmp_path / "unknown.pt", "--json").stdout)
    assert raw["architecture"] is None
    assert raw["tensors"] == [
        {"name": "layer.weight", "shape": [3, 4], "dtype": "float32", "zeros": 1.0}
    ]
    assert "--arch" in raw["problem"]


@pytest.mark.parametrize("content", [b"", b"some text", b"PK\x03\x04 cut"])
def test_what_cannot_be_described_is_one_sentence(tmp_path, content):
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    for target in (path, tmp_path / "missing.pt", tmp_path):
        result = run(target)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert str(target) in result.stderr


def test_a_large_file_is_described_by_its_shapes(weights, monkeypatch):
    import trainscope.networks.inspection as home

    monkeypatch.setattr(home, "LARGE", 1)
    monkeypatch.setattr(home, "open_contents", None)  # reading it whole would fail
    found = home.inspect_checkpoint(weights)
    assert (found.architecture, found.num_classes) == ("lenet5", 10)
    assert all(each.zeros is None for each in found.tensors)


@pytest.mark.parametrize(
    "name", ["w[red]x[/red]", "blocks[/0].weight", "a\x1b[31mb", "a\nb", "\u202eabc", ":smile:"]
)
def test_names_from_a_file_are_shown_as_text(tmp_path, name):
    folder = tmp_path / "runs["
    folder.mkdir()
    path = folder / "a[red].pt"
    torch.save({"arch": name, "state_dict": {name: torch.zeros(2), "w": torch.ones(1)}}, path)
    result = run(path)
    assert result.exit_code == 0, result.output
    assert all(each.isprintable() or each in "\n\ufffd" for each in result.output)
    if name.isprintable():
        assert name in result.output
    assert json.loads(run(path, "--json").stdout)["tensors"][0]["name"] == name


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_kind_are_described(tmp_path):
    dense = torch.eye(3)
    state = {
        "sparse": dense.to_sparse(),
        "meta": dense.to("meta"),
        "packed": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "eighth": dense.to(torch.float8_e5m2),
        "whole": dense.to(torch.uint16),
        "complex": dense.to(torch.complex64),
        "half": dense.half().expand(2, 3, 3),
    }
    torch.save(state, tmp_path / "a.pt")
    result = run(tmp_path / "a.pt", "--json")
    assert result.exit_code == 0, result.output
    zeros = {each["name"]: each["zeros"] for each in json.loads(result.stdout)["tensors"]}
    third = pytest.approx(2 / 3)
    assert zeros == {
        "sparse": third,
        "meta": None,
        "packed": None,
        "eighth": third,
        "whole": third,
        "complex": third,
        "half": third,
    }
