"""A pruning stage as it is asked: a base model, an action, and the schedule of its epochs."""

from __future__ import annotations

from dataclasses import dataclass

from trainscope.data import Dataset
from trainscope.errors import ActionError
from trainscope.networks import Network, digest, noticed
from trainscope.records import Json, Kind
from trainscope.sparsify import Action, Sparsified, sparsify
from trainscope.training.job import Job, key_of
from trainscope.training.loop import steps_of
from trainscope.training.plans import PruningPlan
from trainscope.training.plans.plan import Growth
from trainscope.training.schedule import LRSchedule
from trainscope.training.settings import Settings
from trainscope.training.weights import given_initial


@dataclass(frozen=True)
class PruningStage:
    """One pruning stage, as asked; `pruning_stage` makes it.

    Attributes:
        job: The training: the base model under the LR schedule of the stage.
        action: What is reached in the end.
        plan: The pruning schedule.
        at_once: What the action alone would do to the base model.
        growth: How a penalty grows from step to step; None where there is none.
        hold_zeros: Whether weights that came at zero without a mask are held.
        initial: The network that survivors are rewound to; None keeps what they are.
    """

    job: Job
    action: Action
    plan: PruningPlan
    at_once: Sparsified
    growth: Growth | None = None
    hold_zeros: bool = True
    initial: Network | None = None

    def frozen(self) -> Json:
        """Return all that decides what comes out, in plain types."""
        record = self.at_once.record
        rewinds = None if self.initial is None else digest(self.initial.module)
        return self.job.frozen() | {
            "kind": "pruning stage",
            "plan": str(self.plan),
            "action": f"{record.meaning}, by {record.criterion}",
            "weights that the action leaves": {"sha256": digest(self.at_once.module)},
            "weights that are rewound to": {"sha256": rewinds},
        }

    @property
    def key(self) -> str:
        """The digits that name the stage."""
        return key_of(self.frozen())


def pruning_stage(
    base: Network,
    dataset: Dataset,
    action: Action,
    plan: PruningPlan,
    schedule: LRSchedule,
    settings: Settings,
    *,
    weights: Kind = Kind.RETRAIN,
    initial: Network | None = None,
) -> PruningStage:
    """Return a pruning stage, checked before an epoch is spent.

    Args:
        base: The pretrained network; not touched.
        dataset: What it is trained on.
        action: What is reached in the end.
        plan: The pruning schedule.
        schedule: Of the retraining that follows: its largest LR is the stage's where the plan has
            none.
        settings: Everything else.
        weights: Of the retraining that follows; those of a winning ticket are rewound in the stage.
        initial: The network that a winning ticket is rewound to.

    Raises:
        ActionError: The action cannot be done, or not over epochs, or there is nothing to rewind
            to.
        ScheduleError: A penalty does not reach its ceiling within the stage.
    """
    check_plan(plan, action, settings)
    initial = given_initial(initial) if weights is Kind.WINNING_TICKET else None
    base = noticed(base)
    free = any(not each.held for each in base.before)
    at_once = sparsify(base.module, action, base.inputs, hold_zeros=not free, data=dataset)
    lr_schedule = plan.lr_schedule(max(schedule.rates()))
    start = digest(base.module)
    job = Job(Kind.RETRAIN, base, dataset, lr_schedule, settings, base=start)
    growth = plan.growth(steps_of(len(job.train_split), settings.batch_size))
    return PruningStage(job, action, plan, at_once, growth, not free, initial)


def check_plan(plan: PruningPlan, action: Action, settings: Settings) -> None:
    """Refuse what can be refused before there is a base model.

    Raises:
        ActionError: The action cannot happen over epochs, or not under these settings.
    """
    plan.check(action)
    if settings.lora is not None:
        raise ActionError(
            f"the pruning schedule {plan.name} trains all weights, which LoRA freezes: leave one "
            "of them out"
        )
