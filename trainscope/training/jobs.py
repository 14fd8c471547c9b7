"""The trainings that people run, as jobs: from scratch, retraining, tickets, scratch baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainscope.data import Dataset
from trainscope.errors import ActionError, DataError, RecordError
from trainscope.networks import Network, Remembered, digest, noticed
from trainscope.networks.copies import whole_copy
from trainscope.networks.forward import check_forward
from trainscope.networks.given import given_network
from trainscope.networks.masks import keep_masks
from trainscope.records import Kind, Pretraining, Pruning, Run
from trainscope.records.run import FILE_NAME
from trainscope.sparsify import Action, Sparsified, sparsify
from trainscope.training.job import Job
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings
from trainscope.training.staging import Staged
from trainscope.training.weights import fresh_network, given_initial, reinitialised, rewound


def training_job(
    architecture: str, dataset: Dataset, schedule: LRSchedule, settings: Settings
) -> Job:
    """Return the training of a dense network from random weights, drawn from the seed.

    Raises:
        DataError: The data does not say how many classes it has, and neither does the network.
    """
    if dataset.num_classes is None and ":" not in architecture:
        raise DataError(
            f"{dataset.name} does not say how many classes it has: give the network with them, "
            "--model package.module:factory"
        )
    module = fresh_network(architecture, dataset.num_classes, settings.seed)
    if not dataset.plain:
        network = given_network(module, dataset.first_batch, dataset.task)
        network = replace(network, architecture=architecture, recognised="")
        return Job(Kind.TRAIN, network, dataset, schedule, settings)
    classes = dataset.num_classes or check_forward(module, dataset.input_shape, architecture)
    network = Network(module, architecture, dataset.input_shape, classes)
    return Job(Kind.TRAIN, network, dataset, schedule, settings)


def retraining_job(
    base: Network,
    dataset: Dataset,
    action: Action | None,
    schedule: LRSchedule,
    settings: Settings,
    *,
    pretraining: Run | None = None,
    weights: Kind = Kind.RETRAIN,
    initial: Network | None = None,
    staged: Staged | None = None,
) -> tuple[Job, Sparsified | None]:
    """Apply the sparsifying action and return the retraining that follows.

    Args:
        base: The pretrained network; not touched.
        dataset: What it is retrained on.
        action: None retrains the network as it is.
        schedule: The learning rates of retraining.
        settings: Everything else.
        pretraining: The Run that made `base`, where it is known.
        weights: `RETRAIN` keeps the trained weights; `WINNING_TICKET` rewinds the survivors to
            `initial`; `RANDOM_REINIT` draws new ones under the same masks or widths.
        initial: The network before pretraining, or early in it.
        staged: What a pruning stage of this action came to (`stage.run_stage`); by default the
            action happens at once.

    Returns:
        The job, and what the action did.

    Raises:
        ActionError: The action cannot be done, or there is nothing to rewind to.
    """
    base = noticed(base)
    pretrained = pretraining_of(base, pretraining)
    if action is None:
        if weights is not Kind.RETRAIN:
            raise ActionError(f"a {weights} needs a sparsifying action: give one with --ratio")
        return _as_it_is(base, dataset, schedule, settings, pretraining), None
    if staged is None:
        free = any(not each.held for each in base.before)
        done = sparsify(base.module, action, base.inputs, hold_zeros=not free, data=dataset)
    else:
        done = staged.done
    network = replace(base, module=done.module, remembered=Remembered())
    if weights is Kind.WINNING_TICKET and not (staged is not None and staged.rewound):
        network = replace(network, module=rewound(given_initial(initial), done, base.inputs))
    elif weights is Kind.RANDOM_REINIT:
        network = reinitialised(network, settings.seed)
    pruning = Pruning.of(done.record, None if pretrained is None else pretrained.epochs)
    pruning = replace(pruning, before=base.before)
    if staged is not None:
        pruning = replace(
            pruning,
            plan=staged.plan,
            stage_epochs=len(staged.records),
            stage_schedule=staged.schedule,
            stage_flops=staged.flops,
        )
    job = Job(
        weights,
        network,
        dataset,
        schedule,
        settings,
        base=digest(base.module),
        pruning=pruning,
        pretraining=pretrained,
        notes=(*_came(base), *done.notes),
    )
    return job, done


def _as_it_is(
    network: Network, dataset: Dataset, schedule: LRSchedule, settings: Settings, run: Run | None
) -> Job:
    """Return the retraining of a network that was pruned before, or never."""
    job = Job(
        Kind.RETRAIN,
        _own_masks(network),
        dataset,
        schedule,
        settings,
        base=digest(network.module),
        pruning=Pruning.came(network.before),
        pretraining=pretraining_of(network, run),
        notes=("Retrained as it was: no action was asked for.", *_came(network)),
    )
    if run is None or run.pruning is None or not all(each.held for each in network.before):
        return job
    return replace(job, base=run.base, pruning=run.pruning, pretraining=run.pretraining)


def _own_masks(network: Network) -> Network:
    """Return a copy whose masks are part of its state, to be saved with it."""
    module = whole_copy(network.module)
    keep_masks(module)
    return replace(network, module=module)


def _came(network: Network) -> tuple[str, ...]:
    """Say how a network came pruned; what masks of its own hold is said where they are read."""
    told = [each for each in network.before if each.how != "masks" or not each.held]
    return tuple(each.sentence() for each in told)


def scratch_job(
    like: Network,
    dataset: Dataset,
    schedule: LRSchedule,
    settings: Settings,
    kind: Kind,
    *,
    retraining: Run | None = None,
) -> Job:
    """Return the training of a pruned architecture from random weights.

    Args:
        like: The pruned network, whose shape and masks are taken; not touched.
        dataset: What to train on.
        schedule: The learning rates; its total is the budget.
        settings: Everything else.
        kind: `SCRATCH_E` or `SCRATCH_B`.
        retraining: The Run that made `like`, where it is known.

    Raises:
        ActionError: The shape has no fresh weights.
    """
    like = noticed(like)
    network = replace(reinitialised(like, settings.seed), remembered=Remembered())
    notes = _came(like)
    if any(each.held and each.how != "narrower" for each in like.before):
        notes += (
            "The fresh weights are held at zero where those were: --regrow trains all of them.",
        )
    if retraining is None:
        pruning = Pruning.came(like.before)
        return Job(kind, network, dataset, schedule, settings, pruning=pruning, notes=notes)
    return Job(
        kind,
        network,
        dataset,
        schedule,
        settings,
        base=retraining.base,
        pruning=retraining.pruning,
        pretraining=retraining.pretraining,
        notes=notes,
    )


def run_beside(checkpoint: Path, network: Network) -> Run | None:
    """Return the Run in the folder of a checkpoint, if that Run ended with these very weights."""
    path = checkpoint.parent / FILE_NAME
    if not path.is_file():
        return None
    try:
        run = Run.load(path)
    except RecordError:
        return None
    return run if run.end == digest(network.module) else None


def pretraining_of(base: Network, run: Run | None) -> Pretraining | None:
    """Return how a base model was trained: from its Run, else from what its file remembers."""
    if run is not None:
        return Pretraining(
            schedule=run.schedule,
            total=run.total,
            epochs=run.epochs[-1].epoch if run.epochs else 0,
            flops=run.flops,
            accuracy=run.final_accuracy,
        )
    left = base.remembered
    if left.schedule is None and left.epochs is None:
        return None
    return Pretraining(left.schedule, None, left.epochs, None, left.accuracy)
