"""Tables, figures and files that show records.

The figures are names of this package, imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainscope.report.along_display import AlongDisplay
    from trainscope.report.convergence_display import ConvergenceDisplay
    from trainscope.report.density_display import DensityDisplay
    from trainscope.report.gradient_display import GradientDisplay
    from trainscope.report.learning_curve_display import LearningCurveDisplay
    from trainscope.report.retraining_display import RetrainingDisplay
    from trainscope.report.schedule_display import ScheduleDisplay
    from trainscope.report.setting_display import SettingDisplay
    from trainscope.report.singular_values_display import SingularValuesDisplay

_HOMES = {
    "AlongDisplay": "along_display",
    "ConvergenceDisplay": "convergence_display",
    "DensityDisplay": "density_display",
    "GradientDisplay": "gradient_display",
    "LearningCurveDisplay": "learning_curve_display",
    "RetrainingDisplay": "retraining_display",
    "ScheduleDisplay": "schedule_display",
    "SettingDisplay": "setting_display",
    "SingularValuesDisplay": "singular_values_display",
}

__all__ = [
    "AlongDisplay",
    "ConvergenceDisplay",
    "DensityDisplay",
    "GradientDisplay",
    "LearningCurveDisplay",
    "RetrainingDisplay",
    "ScheduleDisplay",
    "SettingDisplay",
    "SingularValuesDisplay",
]


if not TYPE_CHECKING:

    def __getattr__(name):
        """Import the class of a figure."""
        if name not in _HOMES:
            raise AttributeError(f"module 'trainscope.report' has no attribute '{name}'")
        return getattr(import_module(f"trainscope.report.{_HOMES[name]}"), name)
