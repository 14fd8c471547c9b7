"""Frozen records of what was measured; JSON in and out, versioned. Imports no other room."""

from trainscope.records.action import ActionRecord, LayerChange, LayerLeft
from trainscope.records.before import PrunedBefore
from trainscope.records.columns import Columns
from trainscope.records.diagnosis import DataRecord, Diagnosis, NetworkRecord
from trainscope.records.epoch import EpochRecord, Taken
from trainscope.records.measurement import (
    Array,
    Cost,
    Json,
    Measurement,
    Measurements,
    Scalar,
    Status,
)
from trainscope.records.metric import Metric
from trainscope.records.origin import Pretraining, Pruning
from trainscope.records.run import Kind, Run, RunStatus
from trainscope.records.shown import Shown
from trainscope.records.trainability import Trainability

__all__ = [
    "ActionRecord",
    "Array",
    "Columns",
    "Cost",
    "DataRecord",
    "Diagnosis",
    "EpochRecord",
    "Json",
    "Kind",
    "LayerChange",
    "LayerLeft",
    "Measurement",
    "Measurements",
    "Metric",
    "NetworkRecord",
    "Pretraining",
    "PrunedBefore",
    "Pruning",
    "Run",
    "RunStatus",
    "Scalar",
    "Shown",
    "Status",
    "Taken",
    "Trainability",
]
