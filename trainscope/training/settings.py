"""Everything about a training but its network, data and LR schedule."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from trainscope.errors import ScheduleError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a training but its network, data and LR schedule.

    Attributes:
        optimizer: "sgd" (with momentum) or "adamw".
        momentum: Of SGD, in [0, 1).
        weight_decay: L2 for SGD, decoupled for AdamW.
        batch_size: Samples a step; a rest of one sample is left out.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        clip: Largest 2-norm of the gradient, or None.
        augment: Use the data set's standard augmentation.
        seed: Of the order of samples, augmentation and dropout.
        precision: "fp32", or mixed: "bf16", or "fp16" with a scaled loss. "auto" is bf16 on a CUDA
            device that has it, fp16 on another, and fp32 elsewhere.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    label_smoothing: float = 0.0
    clip: float | None = None
    augment: bool = True
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Refuse what no training can use.

        Raises:
            ScheduleError: A setting is out of range.
        """
        ranges = {
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (0 <= self.weight_decay < 10, "in [0, 10)"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "clip": (self.clip is None or 0 < self.clip < float("inf"), "above 0"),
            "optimizer": (self.optimizer in ("sgd", "adamw"), "sgd or adamw"),
            "precision": (
                self.precision in PRECISIONS,
                "auto, fp32, bf16 or fp16",
            ),
        }
        for name, (right, wanted) in ranges.items():
            if not right:
                words = name.replace("_", " ")
                raise ScheduleError(f"the {words} is {wanted}, not {getattr(self, name)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, for a Run."""
        return asdict(self)
