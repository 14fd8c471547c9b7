"""What is asked of a diagnosis: the options of `measure`, `diagnose` and `examine`, said once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trainscope.data import Given
from trainscope.diagnosis.clock import DEFAULT, parse_budget
from trainscope.diagnosis.hubs import TextOptions
from trainscope.diagnosis.opening import Opening, Progress, Subject
from trainscope.diagnosis.options import (
    RETRAIN_LRS,
    as_dtype,
    as_probe,
    as_settings,
    check,
    check_action,
    chosen_task,
)
from trainscope.probes import Probe
from trainscope.records import Diagnosis
from trainscope.records.arrays import PROBES
from trainscope.sparsify import Action
from trainscope.task import Task
from trainscope.training.settings import Settings


@dataclass(frozen=True, eq=False)
class MeasureRequest:
    """A network that is measured as it stands.

    Attributes:
        network: A checkpoint file, an opened network, or a module, which keeps its mode and device;
            of one in half precision a copy in float32 is measured.
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
    """

    network: Subject
    _: KW_ONLY
    data: str | Given | None = None
    probes: Sequence[str | Probe] = PROBES
    samples: int | None = None
    batch_size: int = 128
    seed: int = 0
    device: str | None = None
    arch: str | None = None
    model: str | None = None
    input_shape: tuple[int, ...] | None = None
    class_index: str | Path | None = None
    download: bool = False
    unsafe_load: bool = False
    part: str | None = None
    task: str | Task | None = None
    loss: Callable[..., Any] | None = None
    metric: Callable[..., Any] | None = None
    better: str = "lower"
    sequence_length: int | None = None
    tokenizer: str | Path | None = None
    retrain_lr: float | Sequence[float] = RETRAIN_LRS
    retrain_epochs: int | None = None
    retrain_steps: int | None = None
    budget: str | float | None = DEFAULT
    update: Callable[[Diagnosis], None] | None = None
    optimizer: str | Settings | None = None
    dtype: str | torch.dtype | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse what can be refused before anything is opened.

        Raises:
            TrainscopeError: An option is at fault.
        """
        _ = self.seconds, self.chosen_probes, self.opening
        check(self.chosen_probes, self.samples, self.batch_size, self.seed)

    @cached_property
    def seconds(self) -> float | None:
        """The budget; None for all the time it takes."""
        return parse_budget(self.budget)

    @cached_property
    def chosen_probes(self) -> list[Probe]:
        """The probes; those asked for by name with the options of retraining."""
        lr = self.retrain_lr
        retraining: dict[str, Any] = {
            "lrs": (lr,) if isinstance(lr, int | float) else tuple(lr),
            "epochs": self.retrain_epochs,
            "steps": self.retrain_steps,
        }
        if self.optimizer is not None:
            retraining["settings"] = as_settings(self.optimizer)
        return [as_probe(probe, retraining) for probe in self.probes]

    @cached_property
    def opening(self) -> Opening:
        """How its network, and one that it is compared with, are opened."""
        tokenizer = None if self.tokenizer is None else Path(self.tokenizer)
        return Opening(
            self.tell,
            arch=self.arch,
            model=self.model,
            input_shape=self.input_shape,
            unsafe_load=self.unsafe_load,
            part=self.part,
            task=chosen_task(self.task, self.loss, self.metric, self.better),
            text=TextOptions(self.sequence_length, tokenizer),
            dtype=as_dtype(self.dtype),
            class_index=None if self.class_index is None else Path(self.class_index),
            download=self.download,
        )

    @property
    def tell(self) -> Progress:
        """Who is told what is done next."""
        return self.progress or _nobody


def _nobody(_: str) -> None:
    """Hear nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ActionRequest:
    """What is done to a network.

    Attributes:
        ratio: The ratio of the default action (filters of the inner convolutions, by L1).
        action: Any other action, in the place of `ratio`.
        after: The pruned network, where somebody else pruned it: a file, a network or a module.
    """

    ratio: float | None = None
    action: Action | None = None
    after: Subject | None = None


@dataclass(frozen=True, eq=False)
class DiagnoseRequest(MeasureRequest, ActionRequest):
    """A network that is measured, pruned and measured again, or measured beside a pruned one."""

    def __post_init__(self) -> None:
        """Refuse what `MeasureRequest` does, and more than one action.

        Raises:
            TrainscopeError: An option is at fault.
        """
        super().__post_init__()
        check_action(self.ratio, self.action, self.after)
