"""A large file's weights stay where they are: mapped, in the dtype that is measured in."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from trainscope import measure
from trainscope.errors import ProbeError
from trainscope.networks import digest, open_checkpoint, undo
from trainscope.networks.registry import build
from trainscope.networks.state_dict import weights_of


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "LARGE", 0)


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(20)
    return {
        "a": torch.randn(4, 3),
        "turned": torch.randn(3, 4).T,
        "tied": whole[:10],
        "tied too": whole[:10],
        "overlapping": whole[5:],
        "half": torch.randn(3).bfloat16(),
        "count": torch.tensor(3),
    }


@pytest.mark.usefixtures("large")
def test_tensors_that_are_nobody_elses_are_taken_as_they_are() -> None:
    given = state()
    values = {name: value.clone() for name, value in given.items()}
    found = weights_of(given, owned=True)
    taken = {n for n, value in found.tensors.items() if value.data_ptr() == given[n].data_ptr()}
    assert taken == {"a"}  # the rest shares memory, is in another order, or of another dtype
    assert all(torch.equal(found.tensors[n], values[n].to(found.tensors[n])) for n in given)
    assert not any(
        value.data_ptr() == given[n].data_ptr() for n, value in weights_of(given).tensors.items()
    )
    halves = weights_of(given, torch.bfloat16, owned=True)
    assert halves.tensors["half"].data_ptr() == given["half"].data_ptr()
    assert {v.dtype for v in halves.tensors.values()} == {torch.bfloat16, torch.int64}


def test_a_small_files_tensors_are_copied() -> None:
    given = state()
    found = weights_of(given, owned=True).tensors
    assert not any(value.data_ptr() == given[name].data_ptr() for name, value in found.items())


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_done_to_the_network_does_not_reach_its_file(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    network = build("resnet20", num_classes=10).to(dtype).eval()
    path = tmp_path / f"file.{kind}"
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    if kind == "pt":
        torch.save(weights, path)
    else:
        safetensors.torch.save_file(weights, path)
    before = path.read_bytes()
    opened = open_checkpoint(path, dtype=dtype)
    assert digest(opened.module) == digest(network)
    with torch.no_grad():
        for parameter in opened.module.parameters():
            parameter.zero_()
    assert path.read_bytes() == before
    assert digest(open_checkpoint(path, dtype=dtype).module) == digest(network)


def test_the_dtype_that_is_measured_in_is_said(tmp_path: Path) -> None:
    network = build("resnet20", num_classes=10).bfloat16()
    path = tmp_path / "half.pt"
    torch.save(network.state_dict(), path)
    plain = open_checkpoint(path)
    assert {p.dtype for p in plain.module.parameters()} == {torch.float32}
    assert any("bfloat16; they are measured in float32" in note for note in plain.notes)
    kept = open_checkpoint(path, dtype=torch.bfloat16)
    assert {p.dtype for p in kept.module.parameters()} == {torch.bfloat16}
    assert any("measured in bfloat16, as they were stored" in note for note in kept.notes)
    torch.save(build("resnet20", num_classes=10).state_dict(), path)
    wide = open_checkpoint(path, dtype=torch.float64)
    assert any("float32; they are measured in float64" in note for note in wide.notes)


def test_a_module_is_measured_in_the_dtype_that_is_asked_for() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).bfloat16()
    options = {"data": "random:3x2x2", "samples": 4, "probes": ["gradient"], "budget": "none"}
    half = measure(network, dtype="bfloat16", **options)["gradient"]
    single = measure(network, **options)["gradient"]
    double = measure(network, dtype=torch.float64, **options)["gradient"]
    assert "bfloat16" in half.notes["rounding"]
    assert "rounding" not in single.notes
    assert single.value("norm") == pytest.approx(double.value("norm"), rel=1e-5)
    assert single.value("norm") != double.value("norm")
    assert next(network.parameters()).dtype == torch.bfloat16
    with pytest.raises(ProbeError, match=r"'float16' is no dtype.*float32, bfloat16 or float64"):
        measure(network, dtype="float16", **options)
