"""What a probe says of its numbers: tables, pages, help and docs read it here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal

from trainscope.records.metric import ACCURACY, Metric
from trainscope.records.trainability import trainability_name

GROUP = "trainscope.probes"
"""The entry points of probes."""
BESIDE = {"step_gradient": ("trainscope.probes.hooks.step_norms", "StepNorms")}
"""What hooks measure of themselves, without a probe that anybody could ask for."""


@dataclass(frozen=True, slots=True)
class ScalarSpec:
    """How one number of a probe is called and shown.

    Attributes:
        name: As the Measurement has it. "x@*" is one number at several settings ("x@1e-2"); a
            number "x" beside them is that of the first setting, and is shown once.
        label: In words, without the unit. `{at}` stands for what follows the "@" of the name,
            `{metric}` for the name of the task's metric and `{TA}` for that of its mean over the
            first epochs of retraining: "TA", or "trainability RMSE".
        unit: "" for a pure number. Where the task decides, that of a classifier; tables write the
            unit of the Measurement.
        better: Which direction is; "" where neither is better in itself.
        drawn: On which axis it is drawn along retraining, where a hook measured it; "" for not.
    """

    name: str
    label: str
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    drawn: Literal["linear", "log", ""] = ""

    def __post_init__(self) -> None:
        """Check the words.

        Raises:
            ValueError: One is none of those above.
        """
        if self.better not in ("higher", "lower", ""):
            raise ValueError(f"{self.name}: better is 'higher', 'lower' or '', not {self.better!r}")
        if self.drawn not in ("linear", "log", ""):
            raise ValueError(f"{self.name}: drawn is 'linear', 'log' or '', not {self.drawn!r}")


@dataclass(frozen=True, slots=True)
class Description:
    """A probe in words.

    Attributes:
        title: Its name; the plain one where it has no other.
        scalars: Its numbers, in the order in which they are shown.
    """

    title: str
    scalars: tuple[ScalarSpec, ...] = ()

    def spec(self, name: str) -> ScalarSpec | None:
        """Return the spec of a number by its name in the Measurement; None for an unknown one."""
        family = f"{name.partition('@')[0]}@*" if "@" in name else name
        return next((each for each in self.scalars if each.name in (name, family)), None)

    def heading(self, metric: Metric) -> str:
        """Return the title; that of a trainability is told by the task's metric."""
        if metric.is_accuracy:
            return self.title
        return self.title.replace("Trainability accuracy", f"Trainability {metric.name}")

    def label(self, name: str, metric: Metric = ACCURACY) -> str:
        """Return a number's label, or its plain name where the probe does not say one.

        Args:
            name: As the Measurement has it.
            metric: What the task is told by.
        """
        spec = self.spec(name)
        if spec is None:
            return name
        words = {
            "{at}": name.partition("@")[2],
            "{metric}": metric.name,
            "{TA}": "TA" if metric.is_accuracy else trainability_name(metric),
        }
        label = spec.label
        for word, text in words.items():
            label = label.replace(word, text)
        return label


@cache
def described(probe: str) -> Description:
    """Return what an installed probe says of itself; plain names of one that is not installed.

    A probe without a `title` or `scalars`, or one that cannot be imported here, has plain names
    too: a file that it wrote must be readable without it.
    """
    try:
        kind = _find(probe)
    except Exception:  # whatever another package raises
        kind = None
    title, scalars = getattr(kind, "title", None), getattr(kind, "scalars", None)
    held = scalars if isinstance(scalars, tuple) else ()
    return Description(
        title if isinstance(title, str) and title else probe,
        tuple(each for each in held if isinstance(each, ScalarSpec)),
    )


def _find(probe: str) -> object:
    if probe in BESIDE:
        module, name = BESIDE[probe]
        return getattr(import_module(module), name)
    return next((p.load() for p in entry_points(group=GROUP) if p.name == probe), None)
