"""What is asked of a diagnosis is one record, whose fields are the options of three functions."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest
from torch import nn

import trainscope
from trainscope.diagnosis.request import ActionRequest, DiagnoseRequest, MeasureRequest
from trainscope.errors import ActionError, ProbeError, TaskError
from trainscope.sparsify import Action

NET = nn.Linear(2, 2)
ACTION = {each.name for each in fields(ActionRequest)}


def test_the_options_are_the_fields():
    for function, request in (
        (trainscope.examine, DiagnoseRequest),
        (trainscope.diagnose, DiagnoseRequest),
        (trainscope.measure, MeasureRequest),
    ):
        options = inspect.signature(function).parameters
        assert set(options) == {each.name for each in fields(request)}
        assert next(iter(options)) == "network"
        for each in fields(request):
            if each.name != "network":
                assert options[each.name].default == each.default
                assert options[each.name].kind is inspect.Parameter.KEYWORD_ONLY
            assert function.__doc__.count(f"\n    {each.name}: ") == 1
    assert ACTION.isdisjoint(inspect.signature(trainscope.measure).parameters)
    assert not any(f"{name}:" in trainscope.measure.__doc__ for name in ACTION)


def test_an_option_that_does_not_exist_is_said_of_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"^diagnose\(\) .*'ration'"):
        trainscope.diagnose(NET, ration=0.5)
    with pytest.raises(TypeError, match=r"^measure\(\) .*'network'"):
        trainscope.measure(data="digits")


@pytest.mark.parametrize("name", sorted(ACTION))
def test_measure_takes_no_action(name):
    with pytest.raises(ActionError, match="measure takes one network as it is: use diagnose"):
        trainscope.measure(NET, data="random:2", **{name: 0.5})
    with pytest.raises(ProbeError):  # None is none
        trainscope.measure(NET, samples=0, **{name: None})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"samples": 1}, ProbeError),
        ({"dtype": "float16"}, ProbeError),
        ({"probes": ["gradient", "gradient"]}, ProbeError),
        ({"metric": len}, TaskError),
        ({"ratio": 0.5, "action": Action(ratio=0.5)}, ActionError),
    ],
)
def test_a_request_that_is_none_is_refused_before_anything_is_opened(options, error):
    with pytest.raises(error):
        DiagnoseRequest("no file", **options)


def test_a_request_does_not_change():
    request = DiagnoseRequest(NET, retrain_lr=0.1, retrain_steps=3, optimizer="adam")
    with pytest.raises(FrozenInstanceError):
        request.seed = 1
    retraining = request.chosen_probes[0]
    assert (retraining.lrs, retraining.steps) == ((0.1,), 3)
    assert retraining.settings.optimizer == "adam"


class Gauge:
    """Progress that hears how far a step is."""

    def __init__(self):
        self.steps, self.shares = [], []

    def __call__(self, step):
        self.steps.append(step)

    def share(self, done):
        self.shares.append(done)


def test_progress_is_told_steps_and_shares_where_it_hears_them():
    gauge, steps = Gauge(), []
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given = {"data": "random:1x8x8", "probes": ["curvature"], "samples": 8}
    trainscope.measure(network, progress=gauge, **given)
    trainscope.measure(network, progress=steps.append, **given)
    assert gauge.steps == steps
    assert "curvature, before" in steps[-1]
    assert max(gauge.shares) == 1.0
