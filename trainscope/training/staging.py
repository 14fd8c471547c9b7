"""A pruning stage is done: epochs of training over which a schedule does a sparsifying action."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from trainscope.errors import NoOpError, RecordError
from trainscope.networks import flops
from trainscope.networks.masks import SUFFIX, set_masks
from trainscope.networks.threads import suited_threads
from trainscope.records import EpochRecord, Json, files
from trainscope.sparsify import Action, Sparsified, sparsify
from trainscope.sparsify.act import working_copy
from trainscope.sparsify.again import cut_again, do_again
from trainscope.task.modes import evaluating
from trainscope.training.evaluation import Evaluation, evaluate
from trainscope.training.folder import held
from trainscope.training.growing import Growing
from trainscope.training.job import check_fit
from trainscope.training.loop import steps_of
from trainscope.training.plans.plan import PruningEvent
from trainscope.training.removals import Removals
from trainscope.training.runner import TRAINING_PASSES, Watch, diverged_in, train_job
from trainscope.training.stage import PruningStage
from trainscope.training.state import STATE, State, load_state, save_state
from trainscope.training.stepper import Stepper
from trainscope.training.weights import rewound

STAGE = "stage.json"
SCHEMA = "trainscope.stage/1"


@dataclass(frozen=True)
class Staged:
    """What a pruning stage came to.

    Attributes:
        done: The pruned network, and what was done to the base model in all.
        plan: The pruning schedule, as written.
        schedule: The LR schedule of the stage.
        records: Its epochs.
        flops: Multiply-adds spent on it, counted as `Run.flops` counts them, epoch by epoch.
        events: What went when: the epochs done by then, and the share that is gone since.
        rewound: Whether the survivors were rewound.
    """

    done: Sparsified
    plan: str
    schedule: str
    records: tuple[EpochRecord, ...]
    flops: int
    events: tuple[Mapping[str, Any], ...]
    rewound: bool


def run_stage(
    stage: PruningStage, folder: Path, *, device: str = "cpu", watch: Watch | None = None
) -> Staged:
    """Do a pruning stage in a folder, or go on where it stopped, and return what it came to.

    After every epoch the whole state is written in one step; killed at any moment, it goes on like
    `run_job`, on the CPU with the same bits. One that is done is not repeated, so that retrainings
    that differ in what follows share it. Left behind are `settings.json`, `state.pt` and
    `stage.json`, which tells its epochs and events.

    Args:
        stage: What to do; its networks are not touched.
        folder: Made where it is missing.
        device: Where to train, as torch names it.
        watch: What looks on.

    Raises:
        RecordError: The folder holds another run, or the training diverged.
        DataError: The data does not fit the network.
    """
    check_fit(stage.job.network, stage.job.dataset)
    with held(folder, stage.frozen(), wait=True):
        cost = flops(stage.job.network.module, stage.job.network.inputs)
        with suited_threads(cost):
            under_way = _UnderWay(stage, folder / STATE, device, watch or Watch())
            under_way.go()
            staged = under_way.staged()
        if not (folder / STAGE).exists():
            text = json.dumps(_as_json(staged), indent=2, allow_nan=False)
            files.write_text(folder / STAGE, text + "\n")
    return staged


class _UnderWay:
    """A pruning stage under way; its state is written to one file after every epoch.

    Args:
        stage: It.
        path: The file of its state; gone on from where it exists.
        device: Where to train.
        watch: What looks on.
    """

    def __init__(self, stage: PruningStage, path: Path, device: str, watch: Watch) -> None:
        self.stage, self.job, self.path, self.watch = stage, stage.job, path, watch
        self.device, self.key = device, stage.key
        self.removals, self.flops = Removals(), 0
        self.records: tuple[EpochRecord, ...] = ()
        self.steps = steps_of(len(self.job.train_split), self.job.settings.batch_size)
        found = load_state(path, self.key)
        module, _ = working_copy(self.job.network.module, hold_zeros=stage.hold_zeros)
        picked = {} if found is None else found.engine["picked"]
        self.growing = None
        if stage.growth is not None:
            self.growing = Growing(stage, stage.growth, picked, module)
        if found is None:
            self.begin(module)
            self.start_metric = evaluate(
                self.module, self.job.dataset.test, self.job.dataset.task
            ).metric
            return
        self._take_up(found, module)

    def begin(self, module: nn.Module) -> None:
        """Train a network from now on, with a new optimizer."""
        self.module = module.to(self.device)
        lr = self.job.schedule.lr(0)
        self.stepper = Stepper(self.module, self.job.settings, lr, self.job.dataset.task)
        if self.growing is not None and self.epoch < self.job.schedule.total:
            self.growing.attach(self.module, self.stepper.optimizer, self.epoch * self.steps)

    def _take_up(self, state: State, module: nn.Module) -> None:
        """Go on from a state, with the base model's network in the shape that it had there."""
        engine = state.engine
        self.removals = Removals.from_json(json.loads(engine["removals"]))
        self.flops = engine["flops"]
        self.records, self.start_metric = state.records, state.start_metric
        if self.removals.outputs:
            cut_again(module, self._done(module), self.job.network.inputs)
        known = module.state_dict()
        masks = {
            name.removesuffix(SUFFIX): mask
            for name, mask in state.network.items()
            if name.endswith(SUFFIX) and name not in known
        }
        set_masks(module, masks)
        module.load_state_dict(state.network)
        self.begin(module)
        self.stepper.load_state_dict(dict(engine["stepper"]))
        self._refuse_diverged(state)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.records[-1].epoch if self.records else 0

    def go(self) -> None:
        """Train to the end of the stage, and let go what is to go on the way."""
        due = {event.epoch: event for event in self.stage.plan.events()}
        total = self.job.schedule.total
        if self.watch.on_start is not None and self.epoch < total:
            self.watch.on_start(self.epoch, total)
        if not self.records and 0 in due:
            self.act(due[0])
        for stop in sorted({*due, total}):
            if stop > self.epoch:
                self._train(stop)
                if stop in due:
                    self.act(due[stop])
                self._save()

    def _train(self, stop: int) -> None:
        cost = flops(self.module, self.job.network.inputs)
        spent = TRAINING_PASSES * cost * len(self.job.train_split)

        def epoch_over(record: EpochRecord, _: Evaluation) -> None:
            self.records = (*self.records, record)
            self.flops += spent
            state = self._state()
            if record.epoch < stop:
                save_state(self.path, state)
            if self.watch.on_epoch is not None:
                self.watch.on_epoch(record)
            self._refuse_diverged(state)

        train_job(
            self.job,
            self.module,
            stepper=self.stepper,
            start=self.epoch,
            stop=stop,
            on_epoch=epoch_over,
            on_step=self._step_over,
        )

    def _step_over(self, epoch: int, done: int, steps: int) -> None:
        if self.growing is not None:
            self.growing.step_over(epoch * steps + done)
        if self.watch.on_step is not None:
            self.watch.on_step(epoch, done, steps)

    def act(self, event: PruningEvent) -> None:
        """Take away what goes at an event, and go on with what is left."""
        stage, inputs = self.stage, self.job.network.inputs
        asked = event.of(stage.action)
        optimizer = self.stepper.state_dict()
        module, told = self.module.cpu(), {}
        if self.growing is not None:
            told["separation"] = self.growing.separation(module)
            do_again(module, self.growing.choice, inputs)
            self.removals.add(self.growing.choice)
        else:
            module = self._further(module, asked)
        last = event.epoch == self.job.schedule.total
        if stage.initial is not None and (stage.plan.restarts or last):
            module = rewound(stage.initial, self._done(module), inputs)
        self.begin(module)
        if not stage.plan.restarts and stage.action.structure != "filter":
            self.stepper.load_state_dict(optimizer)
        share = {
            "ratio": asked.ratio,
            "ratios": dict(asked.ratios),
            "reached": self.removals.reached,
        }
        self.removals.events.append({"epoch": event.epoch, **share, **told})

    def _further(self, module: nn.Module, asked: Action) -> nn.Module:
        """Return a network that as much of is gone as is asked, earlier events counted in."""
        gone = self.removals.counts
        inputs, data = self.job.network.inputs, self.job.dataset
        try:
            done = sparsify(module, asked, inputs, hold_zeros=False, data=data, gone=gone)
        except NoOpError as error:
            self.removals.reached = error.reached
            return module
        self.removals.add(done)
        return done.module

    def _done(self, module: nn.Module) -> Sparsified:
        """Return what was done to the base model in all."""
        return self.removals.as_done(self.stage.at_once, module, self.job.network.inputs)

    def staged(self) -> Staged:
        """Return what the stage came to."""
        return Staged(
            done=self._done(evaluating(self.module.cpu())),
            plan=str(self.stage.plan),
            schedule=str(self.job.schedule),
            records=self.records,
            flops=self.flops,
            events=tuple(self.removals.events),
            rewound=self.stage.initial is not None,
        )

    def _state(self) -> State:
        return State(
            key=self.key,
            epoch=self.epoch,
            network=self.module.state_dict(),
            engine={
                "stepper": self.stepper.state_dict(),
                "removals": json.dumps(self.removals.to_json()),
                "flops": self.flops,
                "picked": {} if self.growing is None else self.growing.picked,
            },
            start_metric=self.start_metric,
            records=self.records,
            measurements=(),
            metric=self.job.dataset.task.metric,
        )

    def _save(self) -> None:
        save_state(self.path, self._state())

    def _refuse_diverged(self, state: State) -> None:
        epoch = diverged_in(state)
        if epoch is not None:
            raise RecordError(
                f"the pruning stage {self.stage.plan} diverged in epoch {epoch}, so that there is "
                "no network to retrain: give the schedule a smaller LR, like lr=1e-3"
            )


def _as_json(staged: Staged) -> Json:
    return {
        "schema": SCHEMA,
        "plan": staged.plan,
        "schedule": staged.schedule,
        "flops": staged.flops,
        "action": staged.done.record.to_json(),
        "events": [dict(event) for event in staged.events],
        "epochs": [record.to_json() for record in staged.records],
        "notes": list(staged.done.notes),
    }
