"""Everything about a training but its network, data and LR schedule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from trainscope.errors import ScheduleError
from trainscope.task import LanguageModelling, Task

Optimizer = Literal["sgd", "adam", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TEXT_BATCH = 16
"""Sequences of a step of a language model where nobody says them."""


@dataclass(frozen=True, slots=True)
class LoRA:
    """Low-rank adapters that are trained in the place of the weights they are added to.

    A weight W of shape [n, ...] becomes `W + (alpha / rank) B A` under the mask that W has, with A
    of [rank, rest] and B of [n, rank], which starts at zero. Source: Hu et al. (2021).

    Attributes:
        rank: Of the product, 1 or more.
        alpha: Its scale times the rank; by default twice the rank.
        targets: Names of layers or weights, or patterns of them ("*.mlp.*"); the end of a name is
            enough ("c_attn"). By default the weights of every linear, convolutional and attention
            layer.
    """

    rank: int
    alpha: float | None = None
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no adapter can have.

        Raises:
            ScheduleError: The rank or alpha is out of range, or a target is empty.
        """
        if self.rank < 1:
            said = f"the rank of LoRA is 1 or more, not {self.rank}"
            raise ScheduleError(said, field=("rank",))
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            said = f"the alpha of LoRA is above 0, not {self.alpha}"
            raise ScheduleError(said, field=("alpha",))
        if not all(self.targets):
            raise ScheduleError(
                "a target of LoRA is empty: write names with one comma between them",
                field=("targets",),
            )

    @property
    def scale(self) -> float:
        """Return what the product is multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a training but its network, data and LR schedule.

    Attributes:
        optimizer: "sgd" (with momentum), "adam" or "adamw".
        momentum: Of SGD, in [0, 1).
        betas: Of Adam and AdamW: of the mean of gradients and of that of their squares, each in
            [0, 1).
        eps: Of Adam and AdamW, added to the root of the mean square, above 0.
        weight_decay: L2 for SGD and Adam, decoupled for AdamW.
        batch_size: Samples a step; a rest of one sample is left out.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        clip: Largest 2-norm of the gradient, or None.
        augment: Use the data set's standard augmentation.
        seed: Of the order of samples, augmentation and dropout.
        precision: "fp32", or mixed: "bf16", or "fp16" with a scaled loss. "auto" is bf16 on a CUDA
            device that has it, fp16 on another, and fp32 elsewhere.
        lora: Train low-rank adapters in the place of all weights; None trains the weights.
    """

    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 5e-4
    batch_size: int = 64
    label_smoothing: float = 0.0
    clip: float | None = None
    augment: bool = True
    seed: int = 0
    precision: Precision = "auto"
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        """Refuse what no training can use.

        Raises:
            ScheduleError: A setting is out of range.
        """
        ranges = {
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "betas": (
                len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
                "two numbers in [0, 1)",
            ),
            "eps": (0 < self.eps < 1, "in (0, 1)"),
            "weight_decay": (0 <= self.weight_decay < 10, "in [0, 10)"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "clip": (self.clip is None or 0 < self.clip < float("inf"), "above 0"),
            "optimizer": (self.optimizer in OPTIMIZERS, "sgd, adam or adamw"),
            "precision": (
                self.precision in PRECISIONS,
                "auto, fp32, bf16 or fp16",
            ),
        }
        for name, (right, wanted) in ranges.items():
            if not right:
                words = name.replace("_", " ")
                verb = "are" if words == "betas" else "is"
                said = f"the {words} {verb} {wanted}, not {getattr(self, name)}"
                raise ScheduleError(said, field=(name,))

    @property
    def adaptive(self) -> bool:
        """Tell whether each weight's step is divided by the root of its mean squared gradient."""
        return self.optimizer != "sgd"

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that this optimizer has by name, in plain types, for a Run."""
        found = asdict(self)
        del found["lora"]
        if self.adaptive:
            del found["momentum"]
            found["betas"] = list(self.betas)
        else:
            del found["betas"], found["eps"]
        if self.lora is not None:
            found["lora_rank"] = self.lora.rank
            found["lora_alpha"] = self.lora.scale * self.lora.rank
            found["lora_targets"] = ", ".join(self.lora.targets) or "all"
        return found

    def __str__(self) -> str:
        """Return the optimizer and its settings in words."""
        how = (
            f"betas {self.betas[0]:g} and {self.betas[1]:g}"
            if self.adaptive
            else f"momentum {self.momentum:g}"
        )
        lora = "" if self.lora is None else f", LoRA of rank {self.lora.rank}"
        return (
            f"{self.optimizer}, {how}, weight decay {self.weight_decay:g}, "
            f"batch size {self.batch_size}{lora}"
        )


def suited(settings: Settings, task: Task) -> Settings:
    """Return settings with what nobody chose as it suits a task.

    A step of a language model on as many sequences as others have samples would be a long one, so
    the default batch size is `TEXT_BATCH` there.
    """
    if isinstance(task, LanguageModelling) and settings.batch_size == Settings().batch_size:
        return replace(settings, batch_size=TEXT_BATCH)
    return settings
