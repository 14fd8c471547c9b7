"""Any probe in any PyTorch training loop, through the optimizer's step hooks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, Self, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from trainscope.data import Given, ProbeData, pinned, suited_to
from trainscope.errors import ProbeError
from trainscope.networks.given import refuse_uninitialised
from trainscope.networks.mask_use import inverted_mask
from trainscope.networks.precision import without_autocast
from trainscope.networks.zeros import find_zeros
from trainscope.probes.hooks.careful import FailureLog, measured
from trainscope.probes.hooks.compact import compact
from trainscope.probes.hooks.parts import find_parts
from trainscope.probes.hooks.recorder import Recorder
from trainscope.probes.hooks.step_norms import NAME, StepNorms
from trainscope.probes.hooks.steps import StepWatch
from trainscope.probes.probe import Probe, find
from trainscope.probes.processes.ranks import alone, present
from trainscope.probes.processes.shards import is_spread, local_masks, parted
from trainscope.probes.sinks.named import as_sinks
from trainscope.probes.sinks.sink import About, Memory, Sink
from trainscope.probes.subject.evaluation import loss_unit
from trainscope.probes.subject.wrappers import is_first_rank, refuse_flat, unwrap
from trainscope.probes.when import Step, When, always, never
from trainscope.records import Measurement, Taken
from trainscope.records.epoch import AFTER_ACTION, AFTER_CLIPPING, AFTER_STEP, BEFORE_ACTION
from trainscope.task import Task, as_task

log = logging.getLogger(__name__)

TRAINER = "trainer"
"""As `data`: what a Trainer is going to lend."""

_OWN = frozenset({"_network", "_alone", "_watch", "_tell", "_recorder"})
"""What belongs to one hook alone; its copies begin without."""


class ProbeHook:
    """Embeds probes into a training loop with two lines; the trajectory stays bit-identical.

    >>> hook = ProbeHook([Curvature()], when=every(100), data=data, sink="probes.jsonl")
    ... # doctest: +SKIP
    >>> hook.attach(network, optimizer)  # doctest: +SKIP

    Gradient norms are read off the training's own gradients, at every step by default, without a
    wait for the device; probes run between steps, only when due. With gradient accumulation a step
    is one of the optimizer's; a step that a `GradScaler` skips is none. Wrappers (DDP,
    DataParallel, `torch.compile`) and shards (`fully_shard`, DTensors) are looked through. In a
    distributed job every process has the hook and measures its share, and rank 0 alone writes.

    What fails here never ends a training: a probe that raises is a measurement with the reason, a
    sink that raises gets what it missed when it works again, or at the end (`recorder.KEPT` at
    most), and both are logged once.

    Args:
        probes: Probes, or their names.
        when: When probes are due, by the steps done; step 0 is at `attach`.
        data: Pinned samples for the probes, or any loader (of which up to 256 samples are pinned,
            the same at every step); not needed without probes. "trainer" takes the loader of the
            Trainer that `LightningProbes` or `TrainerProbes` attaches to.
        task: What the network is asked to do, as a task or by name; by default classification.
        norms: When gradient norms are kept; None for never.
        per_layer: Keep each tensor's gradient norm too.
        sink: Where results go: "mlflow", "wandb", "trackio", "tensorboard", "logger" (a Trainer's
            own), a path (JSON lines), a sink, a function, or a list of them. By default the list
            `hook.taken`.

    Raises:
        ProbeError: Probes without data, a probe that does not exist, or a task that is none.
        DataError: The data holds no batches of the task.
    """

    def __init__(
        self,
        probes: Iterable[Probe | str] = (),
        *,
        when: When = never,
        data: ProbeData | Given | Literal["trainer"] | None = None,
        task: str | Task | None = None,
        norms: When | None = always,
        per_layer: bool = False,
        sink: object = None,
    ) -> None:
        self.probes = tuple(find(p)() if isinstance(p, str) else p for p in probes)
        if self.probes and data is None:
            raise ProbeError("a hook with probes needs pinned samples: give it data")
        self._task = None if task is None else as_task(task)
        self.waits_for_data = isinstance(data, str) and data == TRAINER
        self.data: ProbeData | None = None
        if data is not None and not self.waits_for_data:
            self.data = pinned(cast("ProbeData | Given", data), self._task)
        self.when, self.norms, self.per_layer = when, norms, per_layer
        self.memory = Memory()
        self.sinks: tuple[Sink, ...] = tuple(as_sinks(self.memory if sink is None else sink))
        self.steps = 0
        self.steps_per_epoch: int | None = None
        self._begin()

    def _begin(self) -> None:
        """Take the state of a hook that looks at nothing yet."""
        self._network: nn.Module | None = None
        self._alone = False
        self._watch: StepWatch | None = None
        self._tell = FailureLog()
        self._recorder = Recorder(self.sinks)
        # For who never detaches: nothing of what waits is lost when the hook or the process ends.
        weakref.finalize(self, self._recorder.end)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs, as one in a network's file: it is not attached."""
        return {name: kept for name, kept in vars(self).items() if name not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be such a copy."""
        vars(self).update(state)
        self._begin()

    @property
    def taken(self) -> list[Taken]:
        """What was measured so far, where no sink was given."""
        self.flush()
        return self.memory.taken

    @property
    def unwritten(self) -> list[Taken]:
        """What a sink that fails has not taken yet, of each sink in order."""
        return [taken for outlet in self._recorder.outlets for taken in outlet.unwritten]

    def attach(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        *,
        step: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> Self:
        """Begin to look on. Attach again after the network or the optimizer was replaced.

        Args:
            network: What the optimizer trains.
            optimizer: Or a wrapper of it. One that steps another (SAM, Lookahead) is seen through.
            step: Steps already done; by default those counted so far.
            steps_per_epoch: Needed for schedules by epochs alone.

        Raises:
            ProbeError: Parameters are partitioned over processes in a way that is not seen through,
                or other processes that hold some do not attach; the optimizer is none, or not this
                network's; its masks are 1 where its weights are zero; a schedule needs
                `steps_per_epoch`; or data, or a sink, is a Trainer's that is not there.
            TaskError: A batch has more entries than inputs and labels, and the network may take
                some of them: the task says how many it gets.
        """
        if self.waits_for_data:
            raise ProbeError(
                "the hook is to take a Trainer's data: attach it with LightningProbes or "
                "TrainerProbes, or give it data of its own"
            )
        subject = unwrap(network)
        refuse_flat(subject)
        refuse_uninitialised(subject)
        spread = any(map(is_spread, subject.parameters()))
        wrong = None if spread else inverted_mask(subject)
        if wrong is not None:
            raise ProbeError(f"{type(subject).__name__}: {wrong}")
        parts = find_parts(optimizer, subject)
        refuse_flat(subject, parts.parameters)
        if self.probes and self.data is not None:
            self.data = suited_to(self.data, subject)
        done = self.steps if step is None else step
        per_epoch = steps_per_epoch or self.steps_per_epoch
        for schedule in (self.when if self.probes else never, self.norms or never):
            schedule(Step(done + 1, per_epoch))  # one that cannot tell says so now, not in training
        self._release()
        self._network, self.steps, self.steps_per_epoch = subject, done, per_epoch
        self._alone = present().count == 1 or not self._met(spread)
        self._recorder.silent = not is_first_rank()
        if is_first_rank() or spread:  # elsewhere the gradients are the same in every process
            self._recorder.begin(About(self._parameters()))
            self._recorder.norms = self._norms_of(subject)
        self._watch = StepWatch(parts, look=self._look, made=self._made, dropped=self._dropped)
        if not spread:
            _tell_zeros(subject)
        if self.steps == 0:
            self._probe_if_due()
        return self

    def _met(self, spread: bool) -> bool:
        """Tell whether all processes attach the hook, where they are needed."""
        if not self.probes and not spread:
            return True
        try:
            present().arrive()
        except ProbeError as error:
            if spread:
                raise
            log.warning("%s; the hook goes on in this process alone", error)
            return False
        return True

    def lend(self, data: Given) -> None:
        """Take a Trainer's data, where the hook waits for them; of several, the first."""
        if self.waits_for_data:
            self.data, self.waits_for_data = pinned(data, self._task), False

    def _norms_of(self, network: nn.Module) -> StepNorms:
        task = self._task or getattr(self.data, "task", None)
        unit = "nats" if task is None else loss_unit(task) or "loss"
        return StepNorms(network, self.per_layer, f"{unit}/weight")

    def _parameters(self) -> dict[str, str | float]:
        found: dict[str, str | float] = {}
        if self.probes and self.data is not None:
            found["probes"] = ", ".join(probe.name for probe in self.probes)
            found["samples"] = len(self.data)
            found["task"] = type(self.data.task).__name__
            found["metric"] = self.data.task.metric.name
        return found

    def observe(self, moment: str) -> None:
        """Keep the norms of the gradients that are there, for the step that is about to be made.

        The optimizer's hook sees gradients after clipping. Call this before clipping, as
        `hook.observe("before clipping")`, to have those too. Under a `GradScaler` unscale first.
        """
        if self._watch is None or self._recorder.norms is None or self.norms is None:
            return
        step = self._step(self.steps + 1)
        try:
            if self.norms(step):
                parts = self._watch.parts
                self._recorder.norms.look(parts.parameters, step, moment, scale=parts.grad_scale)
        except Exception as error:
            missing = Measurement.skipped(NAME, self._tell(NAME, error))
            self._recorder.write(Taken(missing, int(step), moment, step.epoch))

    def before_action(self, network: nn.Module | None = None) -> list[Measurement]:
        """Measure now, before a sparsifying action of the caller's own."""
        return self.measure(BEFORE_ACTION, network)

    def after_action(self, network: nn.Module | None = None) -> list[Measurement]:
        """Measure now, after it. A network that it replaced must be given, and attached again."""
        found = self.measure(AFTER_ACTION, network)
        if self._watch is not None and self._network is not None:  # masks may be new
            if self._recorder.norms is not None:
                self._recorder.norms = self._norms_of(self._network)
            self._watch.forgive()
        return found

    def measure(self, moment: str, network: nn.Module | None = None) -> list[Measurement]:
        """Run every probe now, whether due or not, and return what they found.

        Args:
            moment: What to call this moment in the record.
            network: By default the one attached.

        Returns:
            One measurement a probe, in every process that measures. One that raised is there as
            skipped, with the reason.

        Raises:
            ProbeError: There is no network, or its parameters are partitioned over processes in a
                way that is not seen through.
        """
        subject = self._network if network is None else unwrap(network)
        if subject is None:
            raise ProbeError("the hook has no network: attach() it or give one")
        refuse_flat(subject)
        self.flush()
        self._recorder.silent = not is_first_rank()
        step, found = self._step(self.steps), []
        with alone() if self._alone else nullcontext(), _as_masked(subject), without_autocast():
            for probe in self.probes:
                assert self.data is not None
                found.append(measured(probe, subject, self.data, self._tell))
                self._recorder.write(Taken(found[-1], int(step), moment, step.epoch))
        return found

    def flush(self) -> None:
        """Send what waits on the device to the sinks; this waits for the device."""
        self._recorder.flush()

    def collect(self) -> list[Taken]:
        """Return what was measured since the last call, and forget it; for hooks without a sink.

        The norms of all steps of a moment come as one measurement.
        """
        self.flush()
        found, self.memory.taken = self.memory.taken, []
        return compact(found)

    def detach(self) -> None:
        """Stop looking on, and close the sinks, which get what they have not taken once more."""
        self._release()
        self._recorder.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _release(self) -> None:
        self.flush()
        self._recorder.norms = None
        if self._watch is not None:
            self._watch.close()

    def _look(self) -> None:
        self.observe(AFTER_CLIPPING)

    def _made(self) -> None:
        self.steps += 1
        try:
            if self._recorder.norms is not None and self._recorder.norms.due:
                self.flush()
            self._probe_if_due()
        except Exception as error:
            self._tell("what was due after a step", error)

    def _dropped(self) -> None:
        if self._recorder.norms is not None:
            self._recorder.norms.discard(self._step(self.steps + 1), AFTER_CLIPPING)

    def _probe_if_due(self) -> None:
        if self.probes and self.when(self._step(self.steps)):
            self.measure(AFTER_STEP)

    def _step(self, step: int) -> Step:
        return Step(step, self.steps_per_epoch)


@contextmanager
def _as_masked(network: nn.Module) -> Iterator[None]:
    """Have masked weights at zero for a while: a loop may mask them only after the hook has looked.

    Their bits are put back, and no version counter moves.
    """
    held: list[tuple[Tensor, Tensor]] = []
    try:
        plain = parted(network)  # which shares its memory, where weights are spread
        masks = local_masks(plain)
        for name, weight in plain.named_parameters():
            if name in masks and bool(weight.detach()[~masks[name]].any()):
                held.append((weight.data, weight.detach().clone()))
                weight.data.mul_(masks[name])
        yield
    finally:
        for values, before in held:
            values.copy_(before)


def _tell_zeros(network: nn.Module) -> None:
    """Log zeros that no mask holds: whether the training loop holds them is not seen from here."""
    zeros = find_zeros(network).layers
    if zeros:
        log.warning(
            "%s weights of %s are exactly zero, as pruned ones are, and no mask holds them: they "
            "are counted as free to grow, in gradient norms and by probes. Where your loop sets "
            "them to zero after each step, keep its masks as buffers NAME_mask beside the weights "
            "(trainscope.sparsify.masks.set_masks), and they are left out",
            *(f"{sum(each.before - each.after for each in zeros):,}", type(network).__name__),
        )
