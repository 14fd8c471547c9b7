"""Processes that start at once: forked off one that has what they import."""

from __future__ import annotations

import multiprocessing

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "pytest",
        "optuna.storages",
        "trainscope.probes.gradient",
        "trainscope.probes.hooks.hook",
        "trainscope.studies.working",
        "trainscope.training.jobs",
        "trainscope.training.runner",
        "trainscope.training.staging",
    ]
)
