"""A Hugging Face Trainer callback around a ProbeHook."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.sinks.logger import Logger
from trainscope.probes.sinks.named import find, installed
from trainscope.probes.sinks.sink import Sink
from trainscope.probes.sinks.tensorboard import TensorBoard

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

    A hook with `data="trainer"` pins samples of the Trainer's evaluation data, collated as the
    Trainer does, where the Trainer is given, and else of its training data; one with
    `sink="logger"` writes to what the Trainer's `report_to` names.

    Args:
        hook: What to measure, when, and where to. It is detached when training ends.
        trainer: The Trainer that this is added to with `add_callback`; only its evaluation data
            are taken from it.
    """

    def __init__(self, hook: ProbeHook, trainer: Any = None) -> None:
        self.hook, self.trainer = hook, trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach to the model and the optimizer that the Trainer gives."""
        if self.hook.waits_for_data:
            self.hook.lend(self._loader(given))
        for sink in self.hook.sinks:
            if isinstance(sink, Logger):
                sink.lend(_reported(args))
        self.hook.attach(
            given["model"],
            given["optimizer"],
            step=state.global_step,
            steps_per_epoch=_steps_of_epoch(args, state, given.get("train_dataloader")),
        )

    def _loader(self, given: dict[str, Any]) -> Any:
        if self.trainer is not None and self.trainer.eval_dataset is not None:
            return self.trainer.get_eval_dataloader()
        return given.get("eval_dataloader") or given["train_dataloader"]

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what waits: the Trainer's own trackers end their runs before `on_train_end`."""
        self.hook.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Detach."""
        self.hook.detach()


def _steps_of_epoch(args: Any, state: Any, loader: Any) -> int | None:
    """Return the optimizer steps of an epoch; None where the data says no length.

    Only where whole epochs are asked for do the steps and epochs that the Trainer plans tell it:
    `max_steps` and half epochs end inside of one.
    """
    asked = float(args.num_train_epochs)
    if args.max_steps <= 0 and asked.is_integer() and state.num_train_epochs:
        steps: int = round(state.max_steps / state.num_train_epochs)
        return steps
    try:
        batches = len(loader)
    except (TypeError, NotImplementedError):
        return None
    return max(1, -(-batches // max(1, int(args.gradient_accumulation_steps))))


def _reported(args: Any) -> list[Sink]:
    """Return a sink for each name of `report_to` that has one."""
    asked = args.report_to or []
    names = [asked] if isinstance(asked, str) else list(asked)
    if not set(names) & set(installed()):
        raise ProbeError(
            f"the sink 'logger' writes to what the Trainer's report_to names, which is "
            f"{', '.join(names) or 'nothing'}: name one of {', '.join(installed())} there"
        )
    found: list[Sink] = []
    for name in names:
        if name == "tensorboard":  # beside the Trainer's own, whose writer it does not lend
            folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or Path(args.output_dir) / "runs"
            found.append(TensorBoard(Path(folder).expanduser() / "trainscope"))
        elif name in installed():
            found.append(find(name))
    return found
