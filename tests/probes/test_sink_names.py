"""Sinks by name: those that are there, those that nearly are, and those that others add."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.sinks import JsonLines, Memory, as_sink, named


class Theirs(Memory):
    """A sink of another package."""


@pytest.fixture
def _theirs(monkeypatch):
    real = named.entry_points

    def points(*, group):
        module = f"{Theirs.__module__}:Theirs"
        monkeypatch.setitem(sys.modules, Theirs.__module__, sys.modules[__name__])
        return [*real(group=group), EntryPoint("theirs", module, group)]

    monkeypatch.setattr(named, "entry_points", points)


@pytest.mark.usefixtures("_theirs")
def test_a_sink_of_another_package_has_a_name():
    assert isinstance(as_sink("theirs"), Theirs)
    assert isinstance(ProbeHook(sink=["theirs", Memory()]).sinks[0], Theirs)
    assert list(named.named(["Theirs", " theirs "])) == ["theirs"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("mlfow", "mlflow"), ("wanbd", "wandb"), ("tensorbord", "tensorboard"), ("loger", "logger")],
)
def test_a_name_that_is_nearly_one_is_no_file(text, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProbeError, match=f"did you mean '{name}'.* with ./{text}"):
        as_sink(text)
    assert isinstance(as_sink(f"./{text}"), JsonLines)
    assert isinstance(as_sink("norms.jsonl"), JsonLines)


def test_the_names_of_the_command_line():
    with pytest.raises(ProbeError, match=r"no sink is named 'mlfow': did you mean mlflow\? choose"):
        named.named(["mlfow"])
    with pytest.raises(ProbeError, match="no sink is named 'x': choose from mlflow, tensorboard"):
        named.named(["x"])
    with pytest.raises(ProbeError, match="'none' stands beside other names"):
        named.named(["none", "mlflow"])
    assert named.named(["none"]) == {}


@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ProbeError, match=rf"pip install {name}, or 'trainscope-pruning\[{name}\]'"):
        ProbeHook(sink=name)
    assert name not in named.named(["all"])


def test_a_trainers_logger_needs_a_trainer():
    import torch

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    hook = ProbeHook(sink="logger")
    with pytest.raises(ProbeError, match="the sink 'logger' is a Trainer's"):
        hook.attach(torch.nn.ParameterList([weight]), optimizer)
    with pytest.raises(ProbeError, match="the hook is to take a Trainer's data"):
        ProbeHook(["gradient"], data="trainer").attach(torch.nn.ParameterList([weight]), optimizer)
