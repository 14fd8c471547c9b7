"""A Hugging Face Trainer callback around a ProbeHook."""

from __future__ import annotations

from typing import Any

from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ProbeError(
        "trainscope.probes.transformers needs Hugging Face: pip install transformers accelerate"
    ) from error


class TrainerProbes(TrainerCallback):
    """Attaches a hook while a Hugging Face Trainer trains.

    >>> Trainer(..., callbacks=[TrainerProbes(ProbeHook(norms=every(10)))])  # doctest: +SKIP

    Gradient norms are those after the Trainer's clipping (`max_grad_norm`, 1.0 by default).

    Args:
        hook: What to measure, when, and where to. It is detached when training ends.
    """

    def __init__(self, hook: ProbeHook) -> None:
        self.hook = hook

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach to the model and the optimizer that the Trainer gives."""
        epochs = state.num_train_epochs
        self.hook.attach(
            given["model"],
            given["optimizer"],
            step=state.global_step,
            steps_per_epoch=round(state.max_steps / epochs) if epochs else None,
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Detach."""
        self.hook.detach()
