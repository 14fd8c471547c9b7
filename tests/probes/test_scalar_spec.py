"""What the probes say of their numbers fits what they measure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import case

from trainscope.data.split import TensorSplit
from trainscope.probes import ScalarSpec, find
from trainscope.probes.scalar_spec import Description, described
from trainscope.records import Metric
from trainscope.records.arrays import PROBES
from trainscope.records.metric import ACCURACY

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", PROBES)
def test_every_number_that_is_measured_is_described_with_its_unit_in_its_order(name: str) -> None:
    one = case("plain")
    assert one.data.labels is not None
    half = TensorSplit(one.data.inputs.float(), one.data.labels, (0.0, 0.0), (1.0, 1.0))
    data = replace(one.data, train=half, test=half)
    network = one.network.float() if name == "trainability_accuracy" else one.network.double()
    kind = find(name)
    options = {"lrs": (1e-2, 1e-3), "epochs": 1} if name == "trainability_accuracy" else {}
    measured = kind(**options).measure(network, data)
    said = described(name)
    specs = {scalar: said.spec(scalar) for scalar in measured.scalars}
    assert None not in specs.values()
    assert {n: s.unit for n, s in measured.scalars.items()} == {
        n: spec.unit for n, spec in specs.items() if spec is not None
    }
    held = list(dict.fromkeys(specs.values()))
    assert held == [spec for spec in said.scalars if spec in held]


def test_labels_have_the_words_of_the_metric_and_of_the_setting() -> None:
    said = described("trainability_accuracy")
    rmse = Metric("RMSE", "m", "lower")
    assert said.label("ta@1e-2") == "TA at LR 1e-2"
    assert said.label("ta@1e-2", rmse) == "trainability RMSE at LR 1e-2"
    assert said.label("start_metric", rmse) == "test RMSE, not retrained"
    assert said.label("of_a_later_version") == "of_a_later_version"


def test_a_family_has_no_number_without_a_setting() -> None:
    said = Description("x", (ScalarSpec("y@*", "y at {at}"),))
    assert said.spec("y@3") is said.scalars[0]
    assert said.spec("y") is None
    assert said.spec("z@3") is None


def test_what_hooks_measure_of_themselves_is_described_too() -> None:
    assert described("step_gradient").label("mean_norm").startswith("gradient norm, mean")


def test_a_trainability_is_headed_by_the_tasks_metric():
    said = described("trainability_accuracy")
    assert said.heading(ACCURACY) == "Trainability accuracy"
    assert said.heading(Metric("perplexity", "", "lower")) == "Trainability perplexity"
    assert described("gradient").heading(Metric("perplexity", "", "lower")) == "Gradient"
