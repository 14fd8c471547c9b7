"""A Diagnosis made up by hand, fed to every test of records and reports."""

from __future__ import annotations

from dataclasses import replace

from trainscope.records import (
    ActionRecord,
    Columns,
    Cost,
    DataRecord,
    Diagnosis,
    LayerChange,
    Measurement,
    NetworkRecord,
    Scalar,
)


def measurement(probe: str, scalars: dict[str, float], **arrays: list) -> Measurement:
    """Return a measurement with the scalars given, each with a standard error of a tenth."""
    held = {name: Scalar.of(value, "u", abs(value) / 10) for name, value in scalars.items()}
    return Measurement(probe, scalars=held, arrays=arrays, cost=Cost(0.5, 10, 20))


def retraining(start: float, *curves: list[float], lrs=(1e-2, 1e-3)) -> Measurement:
    """Return a trainability accuracy with the curves given."""
    means = [sum(curve) / len(curve) for curve in curves]
    found = measurement(
        "trainability_accuracy",
        {"ta": means[0], "start_accuracy": start},
        lrs=list(lrs[: len(curves)]),
        epoch_accuracies=list(curves),
        epoch_losses=[[1.0 / (k + 1) for k in range(len(curve))] for curve in curves],
    )
    error = {name: Scalar.of(s.value, "%", 0.3) for name, s in found.scalars.items()}
    notes = {"accuracy": "top-1", "schedule": "0:1e-2", "settings": "sgd", "comparable": "only so"}
    return replace(found, scalars=error, notes=notes)


def jacobian(mean: float, *, dead: int = 0) -> Measurement:
    """Return a Jacobian whose singular values are spread about a mean."""
    values = [[mean * 1.5, mean, mean * 0.5]] * 4
    found = measurement(
        "jacobian", {"mean_jsv": mean, "dead_outputs": dead}, singular_values=values
    )
    if dead:
        missing = Scalar(None, "", reason=f"{dead} outputs are dead")
        return replace(found, scalars={**found.scalars, "condition_number": missing})
    return found


def diagnosis() -> Diagnosis:
    """Return a Diagnosis with every probe and every column."""
    layers, xs = ["conv1.weight", "fc.weight"], [-1.0, 0.0, 1.0, 2.0]

    def gradient(norm: float) -> Measurement:
        return measurement("gradient", {"norm": norm}, layers=layers, layer_norms=[norm, norm / 2])

    def curvature(lr: float) -> Measurement:
        density = {"density_x": xs, "density_y": [0.1, 1.0, 0.2, 0.01]}
        scalars = {"top_eigenvalue": 2 / lr, "max_stable_lr": lr}
        return measurement("curvature", scalars, **density)

    return Diagnosis(
        network=NetworkRecord("digits_resnet", 97_000, 2_000_000, "ab" * 32, (1, 8, 8), 10),
        action=ActionRecord(
            structure="filter",
            scope="inner",
            criterion="l1",
            ratio=0.9,
            parameters=12_000,
            flops=400_000,
            speedup=5.0,
            layers=(LayerChange("layer1.0.conv1", 16, 1),),
            meaning="90 % of the filters of 6 inner convolutions",
        ),
        data=DataRecord("digits", 256, "true"),
        probes={
            "trainability_accuracy": Columns(
                retraining(98.6, [98.0, 98.2, 98.4], [98.6, 98.6, 98.7]),
                retraining(12.0, [70.0, 85.0, 92.0], [20.0, 35.0, 50.0]),
                retraining(40.0, [80.0, 88.0, 93.0], [45.0, 50.0, 60.0]),
            ),
            "gradient": Columns(gradient(0.1), gradient(3.0), gradient(0.5)),
            "jacobian": Columns(jacobian(1.0), jacobian(0.05), jacobian(0.9)),
            "curvature": Columns(curvature(0.5), curvature(0.1), curvature(0.005)),
        },
        verdict=("It broke.", 'A line with <b>tags</b> & "quotes".'),
        environment={"torch": "2.6"},
        seed=3,
        notes=("Measured by hand.",),
    )
