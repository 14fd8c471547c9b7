"""A sink that fails never ends a training: what it missed is kept, and written once, in order."""

from __future__ import annotations

import errno
import gc
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook, recorder
from trainscope.probes.hooks.recorder import Outlet
from trainscope.probes.sinks import JsonLines, Memory, TensorBoard
from trainscope.records import Measurement, Scalar, Status, Taken


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch):
    """A slow machine must not change what these tests see."""
    monkeypatch.setattr(recorder, "REST", 0)


def taken(step, **arrays):
    return Taken(
        Measurement("p", scalars={"norm": Scalar(float(step)), "two": Scalar(2.0)}, arrays=arrays),
        step,
        "after step",
    )


def train(hook, steps, between=lambda step: None):
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    with hook.attach(nn.ParameterList([weight]), optimizer):
        for step in range(1, steps + 1):
            between(step)
            weight.grad = torch.full((1,), float(step))
            optimizer.step()
            hook.flush()
    return hook


def values(found):
    return [t.measurement.value("norm") for t in found]


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


class Service:
    """Takes measurements while it is up."""

    def __init__(self):
        self.up, self.found, self.closed = True, [], 0

    def write(self, taken):
        if not self.up:
            raise ConnectionError("no route to host")
        self.found.append(taken)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("back", [6, None])
def test_what_a_service_missed_is_written_in_order_when_it_is_back_or_at_the_end(back, caplog):
    service, memory = Service(), Memory()

    def between(step):
        service.up = step < 3 or (back is not None and step >= back)

    hook = ProbeHook(sink=[service, memory])
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    hook.attach(nn.ParameterList([weight]), optimizer)
    for step in range(1, 9):
        between(step)
        weight.grad = torch.full((1,), float(step))
        optimizer.step()
        hook.flush()
        if step == 5:
            assert values(service.found) == [1, 2]
            assert values(hook.unwritten) == [3, 4, 5]
        if step == back:
            assert values(service.found) == [1, 2, 3, 4, 5, 6]
    service.up = True
    hook.detach()
    assert values(service.found) == values(memory.taken) == list(range(1, 9))
    (said,) = warnings_in(caplog)
    assert said.startswith("the sink Service failed (ConnectionError: no route to host): ")
    assert hook.unwritten == []
    assert service.closed == 1


def test_a_service_that_stays_down_ends_nothing_and_what_it_missed_can_be_had(caplog):
    service = Service()
    service.up = False
    hook = train(ProbeHook(sink=service), 4)
    assert values(hook.unwritten) == [1, 2, 3, 4]
    first, last = warnings_in(caplog)
    assert "the training goes on" in first
    assert "the sink Service never took 4 measurements: 4 are in the hook's `unwritten`" in last
    service.up = True
    train(hook, 1)  # attached again, it begins with what was left
    assert values(service.found) == [1, 2, 3, 4, 1]


def test_two_outages_are_two_warnings_and_flapping_is_silenced(caplog):
    service = Service()

    def between(step):
        service.up = step % 2 == 0

    train(ProbeHook(sink=service), 60, between)
    assert len(warnings_in(caplog)) == recorder.OUTAGES
    assert values(service.found) == list(range(1, 61))


def test_so_many_are_kept_and_the_oldest_are_lost(monkeypatch, caplog):
    monkeypatch.setattr(recorder, "KEPT", 5)
    service = Service()
    service.up = False
    outlet = Outlet(service)
    for step in range(1, 9):
        outlet.write(taken(step))
    service.up = True
    outlet.end()
    assert [t.step for t in service.found] == [4, 5, 6, 7, 8]
    assert "never took 3 measurements: 0 are in" in warnings_in(caplog)[-1]
    assert "the 3 oldest, beyond the 5 that are kept, are lost" in warnings_in(caplog)[-1]


@pytest.mark.parametrize("error", [KeyError("norm"), ValueError("bad"), OSError("gone")])
def test_a_measurement_that_a_sink_refuses_alone_does_not_hold_up_the_others(error, caplog):
    found = []

    def sink(each):
        if each.step == 3:
            raise error
        found.append(each.step)

    hook = ProbeHook(sink=sink)
    train(hook, recorder.TRIES + 10)
    assert found == [step for step in range(1, recorder.TRIES + 11) if step != 3]
    assert [t.step for t in hook.unwritten] == [3]


def test_a_refused_measurement_is_set_aside_while_the_training_runs():
    found, bad = [], {3}

    def sink(each):
        if each.step in bad:
            raise KeyError("norm")
        found.append(each.step)

    outlet = Outlet(ProbeHook(sink=sink).sinks[0])
    for step in range(1, recorder.TRIES + 3):
        outlet.write(taken(step))
    assert found == [1, 2, *range(4, recorder.TRIES + 3)]
    bad.clear()
    outlet.end()
    assert found[-1] == 3


def test_a_failure_that_takes_long_is_not_repeated_at_every_step(monkeypatch):
    monkeypatch.setattr(recorder, "REST", 20)
    now, tries = [0.0], []

    class Slow:
        def write(self, each):
            tries.append(now[0])
            now[0] += 3.0  # a timeout
            raise TimeoutError("timed out")

    outlet = Outlet(Slow(), clock=lambda: now[0])
    for step in range(1000):
        outlet.write(taken(step))
        now[0] += 0.1  # a step of training
    assert len(tries) == 2  # 3 s, then 20 times as much of rest
    outlet.end()
    assert len(tries) < 2 + recorder.PATIENCE / 3 + 2
    assert len(outlet.unwritten) == 1000


def test_a_sink_that_does_not_close_ends_nothing(caplog):
    class Sink(Service):
        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    hook = train(ProbeHook(sink=Sink()), 2)
    assert values(hook.sinks[0].found) == [1, 2]
    assert "the sink Sink did not close" in warnings_in(caplog)[0]


def test_a_sink_that_makes_the_hook_measure_from_inside_gets_each_once():
    class Counts:
        name, needs = "counts", frozenset()

        def measure(self, network, data):
            return Measurement("counts")

    found = []

    def sink(each):
        found.append((each.step, each.moment))
        if len(found) < 3:
            hook.measure(f"from inside {len(found)}")

    data = ProbeData("random:1", torch.ones(1, 1))
    hook = ProbeHook([Counts()], data=data, sink=sink)
    train(hook, 2)
    assert found == [
        (1, "after clipping"),
        (1, "from inside 1"),
        (1, "from inside 2"),
        (2, "after clipping"),
    ]


def test_keyboard_interrupt_in_a_sink_passes():
    found, pressed = [], [KeyboardInterrupt]

    def sink(each):
        if pressed:
            raise pressed.pop()
        found.append(each.step)

    hook = ProbeHook(sink=sink)
    with pytest.raises(KeyboardInterrupt):
        train(hook, 3)
    assert found == [1]  # written by the `with` on the way out


# ---- files


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk(caplog):
    hook = train(ProbeHook(sink="/dev/full"), 3)
    assert values(hook.unwritten) == [1, 2, 3]
    assert "the file /dev/full failed (OSError: [Errno 28]" in warnings_in(caplog)[0]


def test_half_a_line_of_a_full_disk_is_taken_back(tmp_path, monkeypatch):
    """As a disk with 20 bytes left: the first write is short, the second fails."""
    sink, room, real = JsonLines(tmp_path / "p.jsonl"), [10**9], os.write

    def write(file, data):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(file, bytes(data)[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    outlet = Outlet(sink)
    outlet.write(taken(1))
    room[0] = 20
    outlet.write(taken(2))
    outlet.write(taken(3))
    assert JsonLines.read(sink.path) == [taken(1)]
    assert sink.path.read_bytes().endswith(b"\n")
    room[0] = 10**9
    outlet.write(taken(4))
    assert JsonLines.read(sink.path) == [taken(step) for step in (1, 2, 3, 4)]
    outlet.end()


def test_half_a_line_that_cannot_be_taken_back_stands_alone(tmp_path, monkeypatch, caplog):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(taken(1).to_json()) + "\n" + '{"probe": "p", "st')  # killed here
    with monkeypatch.context():
        sink = JsonLines(path)
        sink.write(taken(2))
        sink.close()
    assert JsonLines.read(path) == [taken(1), taken(2)]
    assert f"line 2 of {path} is no measurement: it is left out" in caplog.text


def test_a_handle_that_has_gone_stale_is_opened_anew(tmp_path, monkeypatch):
    sink, real = JsonLines(tmp_path / "p.jsonl"), os.write
    sink.write(taken(1))
    stale = sink._file

    def write(file, data):
        if file == stale:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "close", lambda file: None)  # or its number would be given again
    outlet = Outlet(sink)
    outlet.write(taken(2))
    outlet.write(taken(3))
    assert JsonLines.read(sink.path) == [taken(1), taken(2), taken(3)]
    monkeypatch.undo()
    os.close(stale)
    sink.close()


def test_a_folder_that_is_removed_comes_back(tmp_path, caplog):
    folder = tmp_path / "logs"

    def between(step):
        if step == 4:
            shutil.rmtree(folder)

    train(ProbeHook(sink=folder / "p.jsonl"), 6, between)
    assert values(JsonLines.read(folder / "p.jsonl")) == [4, 5, 6]
    assert "was removed while it was written to: a new one is begun" in caplog.text


def test_a_folder_that_cannot_be_made_is_waited_for(tmp_path, caplog):
    """A file stands where the folder should be, as root may write anywhere."""
    (tmp_path / "logs").write_text("in the way")

    def between(step):
        if step == 4:
            (tmp_path / "logs").unlink()

    train(ProbeHook(sink=tmp_path / "logs" / "p.jsonl"), 6, between)
    assert values(JsonLines.read(tmp_path / "logs" / "p.jsonl")) == [1, 2, 3, 4, 5, 6]
    assert len(warnings_in(caplog)) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    hook = train(ProbeHook(sink=tmp_path / "new" / "p.jsonl"), 2)
    tmp_path.chmod(0o700)
    assert values(hook.unwritten) == [1, 2]


def test_a_line_holds_whatever_a_third_partys_probe_holds(tmp_path):
    sink = JsonLines(tmp_path / "p.jsonl")
    odd = {"a": [math.nan, 1.0], "b": torch.tensor([1.0, math.inf]), "c": [object, "\udc80"]}
    sink.write(taken(1, **odd))
    sink.close()
    (back,) = JsonLines.read(sink.path)
    assert back.measurement.arrays["a"] == [None, 1.0]
    assert back.measurement.arrays["b"] == [1.0, None]
    assert back.measurement.arrays["c"][1] == "\udc80"


def test_a_path_that_is_a_folder_and_an_open_file_are_refused(tmp_path):
    with pytest.raises(ProbeError, match="is a folder: give a file"):
        ProbeHook(sink=tmp_path)
    with (tmp_path / "x").open("w") as file, pytest.raises(ProbeError, match="give its path"):
        ProbeHook(sink=file)


# ---- nobody detaches

SCRIPT = """
import sys, torch
from torch import nn
from trainscope.probes.hooks import ProbeHook
weight = nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.0)
hook = ProbeHook(sink=sys.argv[1]).attach(nn.ParameterList([weight]), optimizer)
for step in range(1, 6):
    weight.grad = torch.full((1,), float(step))
    optimizer.step()
    if step == int(sys.argv[2]):
        raise SystemExit("the training fails here")
"""


def test_a_script_that_never_detaches_or_fails_loses_nothing(tmp_path):
    path = tmp_path / "p.jsonl"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(path), "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "the training fails here\n"
    assert values(JsonLines.read(path)) == [1, 2, 3, 4]


def test_a_hook_that_goes_out_of_scope_loses_nothing(tmp_path):
    def inside():
        weight = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=0.0)
        ProbeHook(sink=tmp_path / "p.jsonl").attach(nn.ParameterList([weight]), optimizer)
        weight.grad = torch.ones(1)
        optimizer.step()

    inside()
    gc.collect()
    assert values(JsonLines.read(tmp_path / "p.jsonl")) == [1]


# ---- TensorBoard


def events(folder):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return [(each.step, each.value) for each in reader.Scalars("step_gradient/norm")]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_goes_on_after_its_folder_was_removed_and_its_writer_closed(tmp_path, caplog):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder = tmp_path / "events"
    sink = TensorBoard(folder)

    def between(step):
        if step == 3:
            sink.writer.close()
        if step == 5:
            shutil.rmtree(folder)

    train(ProbeHook(sink=sink), 7, between)
    assert events(folder) == [(5, 5.0), (6, 6.0), (7, 7.0)]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_has_on_disk_what_it_has_taken(tmp_path):
    """Its thread writes two minutes later: what fails then would be lost in silence."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    found = []

    def between(step):
        if step > 1:
            found.append(events(tmp_path)[-1])

    train(ProbeHook(sink=TensorBoard(tmp_path)), 5, between)
    assert found == [(step, float(step)) for step in (1, 2, 3, 4)]


class Writer:
    """A SummaryWriter of the user's own that fails in the middle of a measurement."""

    def __init__(self):
        self.found, self.fails = [], False

    def add_scalar(self, name, value, step):
        if self.fails and name.endswith("two"):
            raise OSError("Writer is closed")
        self.found.append((name, value, step))

    def flush(self):
        pass


def test_a_scalar_is_not_written_twice_when_the_next_one_failed():
    writer = Writer()
    outlet = Outlet(TensorBoard(writer))
    writer.fails = True
    outlet.write(taken(1))
    outlet.write(taken(2))
    writer.fails = False
    outlet.write(taken(3))
    outlet.end()
    assert writer.found == [
        (name, float(step) if name == "p/norm" else 2.0, step)
        for step in (1, 2, 3)
        for name in ("p/norm", "p/two")
    ]


def test_a_folder_where_no_event_files_can_be_made_is_refused(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ProbeError, match="no event files can be made in"):
        TensorBoard(tmp_path / "file" / "events")


def test_an_ok_measurement_stays_what_it_is(tmp_path):
    """The careful way to a file changes no value."""
    one = Taken(Measurement("p", Status.OK, scalars={"norm": Scalar(0.1 + 0.2, "nats")}), 1, "x")
    sink = JsonLines(tmp_path / "p.jsonl")
    sink.write(one)
    sink.close()
    assert JsonLines.read(sink.path) == [one]
