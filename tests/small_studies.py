"""Specs of runs that take a second: a tiny network on the digits. Importable by workers."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from trainscope.sparsify import Action
from trainscope.studies import RunSpec
from trainscope.studies.planned import Planned
from trainscope.training.settings import Settings

NETWORK = "small_studies:network"
SETTINGS = Settings(batch_size=256, augment=False)


def network(num_classes: int = 10) -> nn.Module:
    """Return a narrow convolutional network for 8 x 8 digits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def pretraining(recipe: str = "F2,1e-1", **options) -> RunSpec:
    """Return a base model that is trained in a second."""
    return RunSpec(recipe, **{"architecture": NETWORK, "settings": SETTINGS, **options})


def retraining(recipe: str = "F2,1e-1", **options) -> RunSpec:
    """Return its retraining after an action."""
    given = {"base": pretraining(), "settings": SETTINGS, "action": Action(ratio=0.5)}
    return RunSpec(recipe, **{**given, **options})


def one_thread() -> None:
    """Compute on one thread, as the workers of a test do."""
    torch.set_num_threads(1)


def plan(count: int, recipe: str = "F1,1e-1", **options) -> list[Planned]:
    """Return the plan of a study over so many seeds."""
    return [Planned(retraining(recipe, seed=seed, **options), {}) for seed in range(count)]


def environment() -> dict[str, str]:
    """Return the environment of a worker, which finds this module and has one thread."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
