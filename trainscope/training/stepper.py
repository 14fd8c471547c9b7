"""One optimizer step: forward, backward, clipping, mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.errors import ActionError
from trainscope.task import Batch, Classification, Task, mean_loss
from trainscope.task.batches import beside, mapped, working_weight
from trainscope.task.task import said_of
from trainscope.training.optimizers import SGD, Adam, AdamW
from trainscope.training.settings import Settings


def make_optimizer(network: nn.Module, settings: Settings, lr: float) -> Optimizer:
    """Return a fresh optimizer over the trainable parameters of a network.

    Raises:
        ActionError: All of them are frozen.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ActionError("every parameter is frozen, so there is nothing to train")
    if settings.adaptive:
        return (AdamW if settings.optimizer == "adamw" else Adam)(
            parameters,
            lr=lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
    return SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


class Stepper:
    """An optimizer with what mixed precision needs, and its state.

    Args:
        network: Trained in place, on the device where it is.
        settings: Optimizer, clipping, label smoothing and precision.
        lr: The learning rate until `set_lr` changes it.
        task: What the network is asked to do.

    Raises:
        ActionError: There is nothing to train, or labels are to be smoothed where there are none.
    """

    def __init__(
        self, network: nn.Module, settings: Settings, lr: float, task: Task | None = None
    ) -> None:
        self.network, self.settings, self.task = network, settings, task or Classification()
        if settings.label_smoothing and not isinstance(self.task, Classification):
            raise ActionError(
                f"label smoothing is of classification, and this is {type(self.task).__name__}: "
                "leave it out"
            )
        self.optimizer = make_optimizer(network, settings, lr)
        self.weight = working_weight(network)
        self.dtype = _autocast_dtype(settings, self.weight)
        kind = self.weight.device.type
        self.scaler = torch.amp.GradScaler(kind, enabled=self.dtype is torch.float16)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self, batch: Batch, before_clipping: Callable[[], None] | None = None) -> Tensor:
        """Take one step.

        Args:
            batch: Of the task.
            before_clipping: Called when the (unscaled) gradient is there.

        Returns:
            The mean loss of the batch before the step, on the device, without a wait for it.
        """
        settings, kind = self.settings, self.weight.device.type
        batch = beside(batch, self.weight)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, self.dtype, enabled=self.dtype is not None):
            with said_of(f"the network fails on a training batch of {self.task.size(batch)}"):
                outputs = self.task.outputs(self.network, batch)
            if self.dtype is not None:
                outputs = mapped(_full, outputs)
            with said_of(f"the loss fails on a training batch of {self.task.size(batch)}"):
                if isinstance(self.task, Classification):
                    loss = self.task.loss(outputs, batch, settings.label_smoothing)
                else:
                    loss = mean_loss(self.task, outputs, batch)
        with said_of("the backward pass of a training step fails"):
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if before_clipping is not None or settings.clip is not None:
            self.scaler.unscale_(self.optimizer)
        if before_clipping is not None:
            before_clipping()
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return what a training must know to go on: the optimizer's and the scaler's state."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def _full(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values


def _autocast_dtype(settings: Settings, weight: Tensor) -> torch.dtype | None:
    """Return the dtype of mixed precision, None for full precision."""
    if settings.precision == "auto":
        if weight.device.type != "cuda" or weight.dtype != torch.float32:
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]
