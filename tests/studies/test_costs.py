"""How long a plan takes is told by runs of its own network, not by whatever is in the store."""

from __future__ import annotations

import pytest
from small_studies import NETWORK, one_thread

from trainscope.sparsify import Action
from trainscope.studies import RunSpec, Study
from trainscope.studies.costs import forecast
from trainscope.studies.rows import columns_of


def planned(architecture):
    base = RunSpec("F1,1e-1", architecture=architecture)
    study = Study("x", base=base, action=Action(ratio=0.5), recipes="F1,1e-2", seeds=range(3))
    return study.plan()


def done(plan, speed):
    more = {"flops": 1e9, "seconds": 1e9 / speed, "study": "y"}
    return [columns_of(each.spec) | more | {"digest": f"{k}{speed}"} for k, each in enumerate(plan)]


def test_the_speed_is_that_of_runs_of_the_same_network():
    one_thread()
    plan = planned(NETWORK)
    other = done(planned("digits_resnet"), 10.0)
    alike = forecast(plan, done=[*other, *done(plan, 2e6)]).rate
    assert alike == (pytest.approx(2e6), "as 3 runs of the store had it")
    timed, known = forecast(plan, done=other).rate
    assert timed > 1e3
    assert known.startswith("as a step of ")
    ours = [row | {"digest": each.digest} for row, each in zip(other, plan, strict=True)]
    assert forecast(plan, done=ours).rate == (pytest.approx(10.0), "as 3 runs of the store had it")
