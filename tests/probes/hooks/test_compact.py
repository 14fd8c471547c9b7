"""The gradient norms of an epoch as one measurement."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainscope.probes.hooks import ProbeHook
from trainscope.probes.hooks.compact import compact
from trainscope.records import Measurement, Scalar, Status, Taken


def norm(step, value, moment="after clipping", status=Status.NONFINITE, reason="it holds NaN"):
    if value is None:
        scalars = {"norm": Scalar(None, reason=reason)} if status is Status.NONFINITE else {}
        found = Measurement("step_gradient", status, reason, scalars=scalars)
    else:
        found = Measurement("step_gradient", scalars={"norm": Scalar(value)})
    return Taken(found, step, moment, step / 4)


def test_each_moment_becomes_one_measurement_at_its_last_step():
    other = Taken(Measurement("gradient"), 2, "after step")
    before = [norm(step, 4.0 * step, "before clipping") for step in (1, 2, 3)]
    after = [norm(1, 1.0), norm(2, 3.0), norm(3, 2.0)]
    mixed = [each for pair in zip(before, after, strict=True) for each in pair]
    rest, first, second = compact([*mixed[:3], other, *mixed[3:]])
    assert rest is other
    assert [(t.moment, t.step, t.epoch) for t in (first, second)] == [
        ("before clipping", 3, 0.75),
        ("after clipping", 3, 0.75),
    ]
    assert first.measurement.arrays == {"steps": [1, 2, 3], "norms": [4.0, 8.0, 12.0]}
    found = second.measurement
    assert (found.status, found.reason) == ("ok", None)
    assert (found.value("mean_norm"), found.value("max_norm")) == (2.0, 3.0)


def test_gradients_that_were_not_finite_are_counted_and_left_out():
    (found,) = compact([norm(1, 1.0), norm(2, None), norm(3, 3.0), norm(4, None)])
    assert found.measurement.status is Status.NONFINITE
    assert found.measurement.reason == (
        "the gradient was not finite at 2 of 4 steps; at step 2: it holds NaN"
    )
    assert found.measurement.value("mean_norm") == 2.0
    assert found.measurement.arrays["norms"] == [1.0, None, 3.0, None]


def test_no_finite_gradient_at_all_is_a_reason():
    (found,) = compact([norm(1, None)])
    assert found.measurement.value("max_norm") is None
    assert found.measurement.scalars["mean_norm"].reason == "no gradient was finite"


def test_a_gradient_that_could_not_be_read_is_not_called_infinite():
    (found,) = compact([norm(1, 1.0), norm(2, None, status=Status.SKIPPED, reason="no kernel")])
    assert found.measurement.status is Status.SKIPPED
    assert found.measurement.reason == (
        "the gradient could not be read at 1 of 2 steps; at step 2: no kernel"
    )


def test_a_hook_gives_what_it_took_since_the_last_time():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    hook = ProbeHook().attach(nn.ParameterList([weight]), optimizer)
    for values in ((1.0, 3.0), (math.nan, 5.0)):
        for value in values:
            weight.grad = torch.full((1,), value)
            optimizer.step()
        (found,) = hook.collect()
        assert found.measurement.value("max_norm") == pytest.approx(values[1])
    assert hook.collect() == []
    hook.detach()
