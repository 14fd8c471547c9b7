"""Sinks: what goes in comes out, also through TensorBoard's own reader."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.probes.hooks import ProbeHook
from trainscope.probes.sinks import JsonLines, Memory, TensorBoard
from trainscope.records import Measurement, Scalar, Taken


def taken(step=3, moment="after step"):
    scalars = {"norm": Scalar(0.1 + step, "nats", 0.01), "lost": Scalar(None, reason="why")}
    return Taken(
        Measurement("gradient", scalars=scalars, arrays={"a": [1, None]}), step, moment, 0.5
    )


def test_json_lines_round_trip_and_append(tmp_path):
    path = tmp_path / "new" / "probes.jsonl"
    for step in (1, 2):
        sink = JsonLines(path)
        sink.write(taken(step))
        sink.close()
    assert JsonLines.read(path) == [taken(1), taken(2)]


def test_a_hook_writes_to_several_sinks(tmp_path):
    weight, seen, memory = nn.Parameter(torch.ones(1)), [], Memory()
    optimizer = torch.optim.SGD([weight], lr=0.0)
    path = tmp_path / "probes.jsonl"
    with ProbeHook(sink=[path, seen.append, memory]).attach(nn.ParameterList([weight]), optimizer):
        weight.grad = torch.tensor([-2.0])
        optimizer.step()
    assert seen == memory.taken == JsonLines.read(path)
    assert seen[0].measurement.value("norm") == 2.0


@pytest.mark.filterwarnings("ignore")
def test_tensorboards_own_reader_finds_the_values(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoard(tmp_path)
    for step in (1, 5):
        sink.write(taken(step))
    sink.write(taken(5, "after action"))
    sink.close()
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    found = [(event.step, event.value) for event in reader.Scalars("gradient/norm")]
    assert found == [(1, pytest.approx(1.1)), (5, pytest.approx(5.1))]
    assert reader.Scalars("gradient after action/norm")[0].value == pytest.approx(5.1)
    assert "gradient/lost" not in reader.Tags()["scalars"]
