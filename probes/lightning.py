"""A Lightning callback around a ProbeHook."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from trainscope.errors import ProbeError
from trainscope.probes.hooks import ProbeHook
from trainscope.probes.sinks.logger import LightningLogger, Logger
from trainscope.records.epoch import BEFORE_CLIPPING

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ProbeError(
        "trainscope.probes.lightning needs Lightning: pip install lightning"
    ) from error

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class LightningProbes(Callback):
    """Attaches a hook while a Lightning Trainer fits; of several optimizers, to the first.

    >>> Trainer(callbacks=[LightningProbes(ProbeHook(norms=every(10)))])  # doctest: +SKIP

    Where the Trainer clips gradients, their norms before clipping are kept too. A hook with
    `data="trainer"` pins samples of the Trainer's validation loader, or else of its training
    loader; one with `sink="logger"` writes to the Trainer's loggers.

    Args:
        hook: What to measure, when, and where to. It is detached when fitting ends.
        network: The name of the module's attribute that takes inputs and gives logits, for probes;
            by default the module itself is called.
    """

    def __init__(self, hook: ProbeHook, network: str | None = None) -> None:
        self.hook, self.network = hook, network
        self._begun = 0
        self._told = False

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Attach."""
        if not trainer.optimizers:
            raise ProbeError(
                f"{type(pl_module).__name__} configures no optimizer whose steps could be watched: "
                "return one from configure_optimizers()"
            )
        if self.hook.waits_for_data:
            self.hook.lend(_loader(trainer))
        for sink in self.hook.sinks:
            if isinstance(sink, Logger):
                sink.lend(_loggers(trainer))
        batches = trainer.num_training_batches
        accumulate = trainer.accumulate_grad_batches
        finite = isinstance(batches, int)
        self.hook.attach(
            self._part_of(pl_module),
            trainer.optimizers[0],
            step=_steps_done(trainer),
            steps_per_epoch=-(-batches // accumulate) if finite else None,
        )

    def _part_of(self, pl_module: nn.Module) -> nn.Module:
        if self.network is None:
            return pl_module
        try:
            return pl_module.get_submodule(self.network)
        except AttributeError as error:
            raise ProbeError(
                f"{type(pl_module).__name__} has no module '{self.network}': give LightningProbes "
                "the name of the attribute that takes inputs and gives logits"
            ) from error

    def on_train_epoch_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Count from here."""
        self._begun = self.hook.steps

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Hold the steps of an epoch to what they were: manual optimization makes its own."""
        made, planned = self.hook.steps - self._begun, self.hook.steps_per_epoch
        if not trainer.is_last_batch or planned is None or made in (0, planned):
            return
        self.hook.steps_per_epoch = made
        if not self._told:
            self._told = True
            log.warning(
                "an epoch of %s took %d optimizer steps, and %d were expected of its batches: the "
                "epochs of what was measured so far are those of %d steps, and of all that follows "
                "those of %d",
                *(type(pl_module).__name__, made, planned, planned, made),
            )

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: nn.Module, optimizer: Optimizer
    ) -> None:
        """Look at the gradients before clipping, where there is any."""
        if trainer.gradient_clip_val:
            self.hook.observe(BEFORE_CLIPPING)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Detach."""
        self.hook.detach()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """Detach; what was measured is kept."""
        self.hook.detach()


def _steps_done(trainer: Any) -> int:
    """Return the steps that the first optimizer has made; the Trainer counts those of all."""
    first, *others = trainer.optimizers
    if not others:
        return int(trainer.global_step)
    counted = [int(s["step"]) for s in first.state.values() if "step" in s]
    return max(counted, default=int(trainer.global_step) // (1 + len(others)))


def _loader(trainer: Any) -> Any:
    """Return the validation loader, the first of several, or the training loader."""
    found = trainer.val_dataloaders or trainer.train_dataloader
    while isinstance(found, list | tuple | dict) and found:
        found = next(iter(found.values() if isinstance(found, dict) else found))
    return found


def _loggers(trainer: Any) -> list[LightningLogger]:
    if not trainer.loggers:
        raise ProbeError(
            "the sink 'logger' writes to the Trainer's loggers, and it has none: give "
            "Trainer(logger=...)"
        )
    return [LightningLogger(logger) for logger in trainer.loggers]
