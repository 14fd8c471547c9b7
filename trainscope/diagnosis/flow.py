"""The main flow: a network, measured; the sparsifying action; the network, measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import nn

from trainscope.data import Dataset, Given, RandomInputs
from trainscope.diagnosis.asked import (
    RETRAIN_LRS,
    as_dtype,
    as_probe,
    as_settings,
    asked_task,
    check,
    check_action,
)
from trainscope.diagnosis.budget import Measuring
from trainscope.diagnosis.clock import DEFAULT, parse_budget
from trainscope.diagnosis.context import DiagnosisContext
from trainscope.diagnosis.hubs import TextOptions
from trainscope.diagnosis.inputs import default_samples, pin_inputs
from trainscope.diagnosis.measuring import columns_of
from trainscope.diagnosis.opening import Opening, Progress, Subject
from trainscope.errors import NoOpError
from trainscope.networks import Network, flops
from trainscope.networks.device import find_device
from trainscope.networks.precision import without_autocast
from trainscope.networks.threads import suited_threads
from trainscope.probes import Probe
from trainscope.probes.processes.joining import joined
from trainscope.probes.processes.shards import whole
from trainscope.probes.subject.behaviour import checked_once
from trainscope.probes.subject.wrappers import unwrap
from trainscope.records import Diagnosis
from trainscope.records.arrays import PROBES
from trainscope.sparsify import (
    Action,
    Sparsified,
    given_action,
    sparsify,
    unchanged,
)
from trainscope.task import Task
from trainscope.training.settings import Settings

Options = ParamSpec("Options")
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Outcome:
    """A Diagnosis and the networks that it is about.

    Attributes:
        diagnosis: What was measured.
        base: The network before the action.
        pruned: The network after it; None where there was no action.
        interrupted: Ctrl-C ended it before everything was measured.
    """

    diagnosis: Diagnosis
    base: Network
    pruned: Network | None
    interrupted: bool = False


def _by_all(flow: Callable[Options, Outcome]) -> Callable[Options, Outcome]:
    """Return the flow as all processes go through it that torchrun, or accelerate, started."""

    @wraps(flow)
    def together(*args: Options.args, **kwargs: Options.kwargs) -> Outcome:
        with joined() as ranks, ranks.together(), without_autocast():
            return flow(*args, **kwargs)

    return together


@_by_all
def examine(
    network: Subject,
    *,
    ratio: float | None = None,
    action: Action | None = None,
    after: Subject | None = None,
    data: str | Given | None = None,
    probes: Sequence[str | Probe] = PROBES,
    samples: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    device: str | None = None,
    arch: str | None = None,
    model: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    class_index: str | Path | None = None,
    download: bool = False,
    unsafe_load: bool = False,
    part: str | None = None,
    task: str | Task | None = None,
    loss: Callable[..., Any] | None = None,
    metric: Callable[..., Any] | None = None,
    better: str = "lower",
    sequence_length: int | None = None,
    tokenizer: str | Path | None = None,
    retrain_lr: float | Sequence[float] = RETRAIN_LRS,
    retrain_epochs: int | None = None,
    retrain_steps: int | None = None,
    budget: str | float | None = DEFAULT,
    update: Callable[[Diagnosis], None] | None = None,
    optimizer: str | Settings | None = None,
    dtype: str | torch.dtype | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Open a network and measure it; after an action, measure again and say what that did.

    The action is trainscope's own (`ratio` or `action`) or somebody else's (`after`); without any
    of them the network is measured as it stands.

    Args:
        network: A checkpoint file, an opened network, or a module, which keeps its mode and device;
            of one in half precision a copy in float32 is measured.
        ratio: The ratio of the default action (filters of the inner convolutions, by L1).
        action: Any other action, in the place of `ratio`.
        after: The pruned network, where somebody else pruned it: a file, a network or a module.
        data: As `--data` takes it, or what a person brings: a `DataLoader`, a map-style data set
            or any iterable of batches (tuples or dictionaries of tensors), or a pair of them, train
            and test. By default what the checkpoint remembers, else Gaussian inputs.
        probes: Names, or probes with options.
        samples: How many pinned samples, all of which are then measured on; by default 256, fewer
            where they take more than 64 MiB, and without a budget for a costly network.
        batch_size: How many samples a probe may hold at once.
        seed: Of every random choice.
        device: Where to measure, as torch names it; by default the CPU, for a module where it is.
        arch: The architecture's name, where it cannot be recognised.
        model: Or its factory, "package.module:factory".
        input_shape: The shape of one input, (C, H, W), where it is not the architecture's own.
        class_index: A file that says at which output of the network each folder of images stands.
        download: Fetch what torchvision can fetch.
        unsafe_load: Load a whole pickled network with its own code, which runs it.
        part: Which network, where the file holds several, like "student".
        task: What the network is asked to do: a `trainscope.task.Task` or its name; by default
            what the head of a network of transformers is for, else classification.
        loss: Or a loss of the user's own, called with outputs and targets (`task.FromLoss`).
        metric: Its metric, likewise; by default the loss.
        better: "higher" or "lower", of that metric.
        sequence_length: Tokens of a sequence of text; by default 128, fewer where the network
            takes fewer.
        tokenizer: The folder of the tokenizer of text, where it is not the network's own.
        retrain_lr: LRs of the trainability accuracy; the smaller ones are told how many more epochs
            they need to get to what the largest sound one reached.
        retrain_epochs: Its epochs.
        retrain_steps: Or its optimizer steps.
        budget: Time for the measurements of all columns, like "2m" or seconds; what it is too short
            for is measured in part, which the notes say. "none" (or None) for all of it. Networks
            that cost less are measured whole in any case.
        update: Called with the Diagnosis so far whenever more is known.
        optimizer: What retrains: "sgd" (the default, with momentum 0.9), "adam", "adamw", or
            `trainscope.training.settings.Settings` with all else. The trainability accuracy is
            measured with it, and for Adam and AdamW their stable LR.
        dtype: What is measured in, "float32", "bfloat16" or "float64"; by default float32, and for
            a module of float64 that. In bfloat16 a large network takes half, and derivatives are
            exact to about a percent.
        progress: Told what is done next.

    Raises:
        TrainscopeError: The checkpoint, the data, the action or an option is at fault.
    """
    tell = progress or (lambda _: None)
    seconds = parse_budget(budget)
    lrs = (retrain_lr,) if isinstance(retrain_lr, int | float) else tuple(retrain_lr)
    retraining: dict[str, Any] = {"lrs": lrs, "epochs": retrain_epochs, "steps": retrain_steps}
    if optimizer is not None:
        retraining["settings"] = as_settings(optimizer)
    chosen = [as_probe(probe, retraining) for probe in probes]
    asked = asked_task(task, loss, metric, better)
    check(chosen, samples=samples, batch_size=batch_size, seed=seed)
    check_action(ratio, action, after)
    text = TextOptions(sequence_length, None if tokenizer is None else Path(tokenizer))
    network, after = _held_here(network), _held_here(after)
    opening = Opening(
        tell,
        arch,
        model,
        input_shape,
        unsafe_load=unsafe_load,
        part=part,
        task=asked,
        text=text,
        dtype=as_dtype(dtype),
    )
    tell("opening the checkpoint")
    base, source = opening.network_and_data(
        network,
        data,
        class_index=None if class_index is None else Path(class_index),
        download=download,
    )
    where = find_device(device or _device_of(network))
    done = None
    if after is not None:
        tell("comparing the pruned network with the dense one")
        pruned = opening.network(after, like=base, data=source)
        done = given_action(base.module, pruned.module, base.inputs)
        done = replace(done, notes=(*_of_pruned(base, pruned), *done.notes))
    elif action is not None or ratio is not None:
        tell("applying the sparsifying action")
        done = _sparsified(base, action or Action(ratio=ratio, seed=seed), source)
    cost = flops(base.module, base.inputs)
    with suited_threads(cost):
        count = samples or default_samples(cost, base, budget=seconds)
        pinned, extra = pin_inputs(source, base, count, batch_size, seed, cost)
        pinned = pinned.to(where)
        modules = columns_of(base.module, None if done is None else done.module, extra, where)
        context = DiagnosisContext.of(base, done, source, pinned, cost, where, seed)
        work = Measuring(chosen, modules, pinned, cost, seconds, tell, fixed=samples is not None)
        if update is not None:
            work.update = lambda measured: update(context.diagnosis(work, measured))
        with checked_once():
            work.run()
    return Outcome(
        context.diagnosis(work, work.found),
        base,
        None if done is None else replace(base, module=done.module),
        interrupted=work.stopped,
    )


def _of_pruned(base: Network, pruned: Network) -> tuple[str, ...]:
    """Return what is to be said of the second file alone; what came pruned the action says."""
    told = (note for note in pruned.notes if note not in base.notes)
    said = [note for note in told if not note.startswith(("It came pruned", "It is a pruned "))]
    return tuple(f"Of the pruned network: {note[0].lower()}{note[1:]}" for note in said)


def _held_here(given: Kept) -> Kept:
    """Return a module without wrappers and shards of several processes; anything else as it is."""
    if not isinstance(given, nn.Module):
        return given
    return cast("Kept", whole(unwrap(given)))


def _device_of(given: Subject) -> str:
    """Return where a network is measured by default: a module where it is, a file on the CPU."""
    if not isinstance(given, nn.Module):
        return "cpu"
    first = next(iter((*given.parameters(), *given.buffers())), None)
    return "cpu" if first is None else str(first.device)


def _sparsified(base: Network, action: Action, source: Dataset | RandomInputs) -> Sparsified:
    """Apply the action; where the network came with all of it at zero, nothing, which is said.

    Raises:
        ActionError: The action cannot be done, or masks of the network's own hold it already.
    """
    try:
        data = source if isinstance(source, Dataset) else None  # no training samples are drawn
        return sparsify(base.module, action, base.inputs, data=data)
    except NoOpError as error:
        if not any(each.how == "zeros" for each in base.before):
            raise
        return unchanged(base.module, action, base.inputs, error)
