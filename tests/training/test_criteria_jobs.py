"""Criteria that need data, through retraining and the commands that repeat it."""

from __future__ import annotations

import torch
from small_training import few_digits, pretrained

from trainscope.comparison.commands import retrain_command
from trainscope.networks.masks import masks_of
from trainscope.records import Kind, Pruning, Run
from trainscope.sparsify import Action
from trainscope.training.jobs import retraining_job
from trainscope.training.recipe import parse_recipe
from trainscope.training.runner import run_job
from trainscope.training.schedule import parse_schedule
from trainscope.training.settings import Settings


def job_of(criterion: str, kind: Kind = Kind.RETRAIN, **fields):
    start = pretrained()
    return retraining_job(
        start.network,
        start.dataset,
        Action("unstructured", ratio=0.8, criterion=criterion, criterion_samples=24, **fields),
        parse_recipe("F2,1e-2").schedule(),
        Settings(batch_size=32),
        weights=kind,
        initial=start.network if kind is Kind.WINNING_TICKET else None,
    )


def test_the_run_says_what_the_criterion_was_told(tmp_path):
    job, _ = job_of("wanda", seed=4)
    run = run_job(job, tmp_path)
    read = Run.load(tmp_path / "run.json").pruning.action.collected
    assert read == run.pruning.action.collected
    assert (read.samples, read.seed, read.half) == (24, 4, "train")
    assert read.data == few_digits().name
    assert any("24 training samples" in note for note in run.notes)
    line = retrain_command(run, parse_schedule("0:1e-2", 2), run)
    assert "--criterion wanda" in line
    assert "--criterion-samples 24" in line


def test_a_ticket_is_rewound_without_its_data():
    job, done = job_of("sparsegpt", Kind.WINNING_TICKET)
    start = pretrained().network.module
    kept, masks = job.network.module, masks_of(done.module)
    assert masks
    for name, mask in masks.items():
        # The repaired weights are those of the pruned network, and not of the ticket.
        assert torch.equal(kept.get_parameter(name), start.get_parameter(name) * mask)
    assert Pruning.of(done.record).criterion == "sparsegpt"
