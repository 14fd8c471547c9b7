"""A Lightning callback around a ProbeHook."""

from __future__ import annotations

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
            step=trainer.global_step,
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
