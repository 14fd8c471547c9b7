"""How long to train a pruned architecture from scratch: Scratch-E and Scratch-B."""

from __future__ import annotations

from typing import Literal

from trainscope.errors import ScheduleError

Budget = Literal["epochs", "flops"]


def scratch_epochs(
    budget: Budget, *, pretrain: int, retrain: int, speedup: float | None = None
) -> int:
    """Return the epochs that scratch training gets for a fair comparison with a pipeline.

    Scratch-E gives as many epochs as pretraining and retraining took together. Scratch-B gives as
    many as their FLOPs buy: a pretraining epoch costs `speedup` pruned ones. Liu et al. (ICLR 2019)
    count pretraining alone: give `retrain=0` for that (and they cap Scratch-B at twice the epochs
    on ImageNet).

    Args:
        budget: "epochs" for Scratch-E, "flops" for Scratch-B.
        pretrain: Epochs of pretraining, dense.
        retrain: Epochs of retraining, pruned.
        speedup: Dense FLOPs / pruned FLOPs; needed for "flops".

    Raises:
        ScheduleError: No epoch is left, or there is no speedup.
    """
    if budget == "epochs":
        epochs = pretrain + retrain
    else:
        if speedup is None or not speedup >= 1:
            raise ScheduleError(
                "a budget of FLOPs needs the speedup of the pruned network (dense FLOPs / pruned "
                "FLOPs, 1 or more): give it with --speedup"
            )
        epochs = round(pretrain * speedup + retrain)
    if epochs < 1:
        raise ScheduleError("the budget is no epoch: give the epochs with --epochs")
    return epochs
