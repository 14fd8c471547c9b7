"""Where what a hook measured goes: anything with one method, `write`."""

from __future__ import annotations

from trainscope.probes.sinks.json_lines import JsonLines
from trainscope.probes.sinks.mlflow import MLflow
from trainscope.probes.sinks.named import as_sink, find
from trainscope.probes.sinks.sink import (
    About,
    Askable,
    Calls,
    Closable,
    HasRuns,
    Listener,
    Memory,
    Sink,
    close,
)
from trainscope.probes.sinks.tensorboard import TensorBoard
from trainscope.probes.sinks.tracker import Tracker
from trainscope.probes.sinks.trackio import Trackio
from trainscope.probes.sinks.wandb import WandB

__all__ = [
    "About",
    "Askable",
    "Calls",
    "Closable",
    "HasRuns",
    "JsonLines",
    "Listener",
    "MLflow",
    "Memory",
    "Sink",
    "TensorBoard",
    "Tracker",
    "Trackio",
    "WandB",
    "as_sink",
    "close",
    "find",
]
