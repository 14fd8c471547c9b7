"""Any probe in any PyTorch training loop, through the optimizer's step hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.probes.compact import compact
from trainscope.probes.probe import Probe, find, lacking
from trainscope.probes.sinks import Memory, Sink, as_sink, close
from trainscope.probes.step_norms import StepNorms
from trainscope.probes.untouched import untouched
from trainscope.probes.when import Step, When, always, never
from trainscope.probes.wrappers import (
    StepArguments,
    after_closure,
    is_first_rank,
    unwrap,
    unwrap_optimizer,
)
from trainscope.records import Measurement, Taken
from trainscope.records.epoch import AFTER_ACTION, AFTER_CLIPPING, AFTER_STEP, BEFORE_ACTION


class ProbeHook:
    """Embeds probes into a training loop with two lines; the trajectory stays bit-identical.

    >>> hook = ProbeHook([Curvature()], when=every(100), data=data, sink="probes.jsonl")
    ... # doctest: +SKIP
    >>> hook.attach(network, optimizer)  # doctest: +SKIP

    Gradient norms are read off the training's own gradients, at every step by default, without a
    wait for the device; probes run between steps, only when due. With gradient accumulation a step
    is one of the optimizer's; a step that a `GradScaler` skips is none. Wrappers (DDP,
    DataParallel, `torch.compile`) are looked through; in a distributed job rank 0 alone measures.

    Args:
        probes: Probes, or their names.
        when: When probes are due, by the steps done; step 0 is at `attach`.
        data: Pinned samples for the probes; not needed without probes.
        norms: When gradient norms are kept; None for never.
        per_layer: Keep each tensor's gradient norm too.
        sink: Where results go: a path (JSON lines), a sink, a function, or several of them. By
            default the list `hook.taken`.

    Raises:
        ProbeError: Probes without data, or a probe that does not exist.
    """

    def __init__(
        self,
        probes: Iterable[Probe | str] = (),
        *,
        when: When = never,
        data: ProbeData | None = None,
        norms: When | None = always,
        per_layer: bool = False,
        sink: object = None,
    ) -> None:
        self.probes = tuple(find(p)() if isinstance(p, str) else p for p in probes)
        if self.probes and data is None:
            raise ProbeError("a hook with probes needs pinned samples: give it data")
        self.when, self.data, self.norms, self.per_layer = when, data, norms, per_layer
        self.memory = Memory()
        targets = [self.memory] if sink is None else sink
        many = targets if isinstance(targets, list | tuple) else [targets]
        self.sinks: tuple[Sink, ...] = tuple(as_sink(target) for target in many)
        self.steps = 0
        self._steps_per_epoch: int | None = None
        self._network: nn.Module | None = None
        self._optimizer: Optimizer | None = None
        self._step_norms: StepNorms | None = None
        self._handles: list[RemovableHandle] = []

    @property
    def taken(self) -> list[Taken]:
        """What was measured so far, where no sink was given."""
        self.flush()
        return self.memory.taken

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
            optimizer: Or a wrapper of it that has it as `.optimizer`.
            step: Steps already done; by default those counted so far.
            steps_per_epoch: Needed for schedules by epochs alone.
        """
        self._release()
        self._network, self._optimizer = unwrap(network), unwrap_optimizer(optimizer)
        self.steps = self.steps if step is None else step
        self._steps_per_epoch = steps_per_epoch or self._steps_per_epoch
        if not is_first_rank():
            return self
        self._step_norms = StepNorms(self._network, self.per_layer)
        self._handles = [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]
        if self.steps == 0:
            self._probe_if_due()
        return self

    def observe(self, moment: str) -> None:
        """Keep the norms of the gradients that are there, for the step that is about to be made.

        The optimizer's hook sees gradients after clipping. Call this before clipping, as
        `hook.observe("before clipping")`, to have those too. Under a `GradScaler` unscale first.
        """
        if self._step_norms is None or self._optimizer is None or self.norms is None:
            return
        step = self._step(self.steps + 1)
        if self.norms(step):
            self._step_norms.look(self._optimizer, step, moment)
            if self._step_norms.due:
                self.flush()

    def before_action(self, network: nn.Module | None = None) -> list[Measurement]:
        """Measure now, before a sparsifying action of the caller's own."""
        return self.measure(BEFORE_ACTION, network)

    def after_action(self, network: nn.Module | None = None) -> list[Measurement]:
        """Measure now, after it. A network that it replaced must be given, and attached again."""
        found = self.measure(AFTER_ACTION, network)
        if self._step_norms is not None and self._network is not None:  # masks may be new
            self._step_norms = StepNorms(self._network, self.per_layer)
        return found

    def measure(self, moment: str, network: nn.Module | None = None) -> list[Measurement]:
        """Run every probe now, whether due or not, and return what they found.

        Args:
            moment: What to call this moment in the record.
            network: By default the one attached.

        Raises:
            ProbeError: There is no network.
        """
        subject = self._network if network is None else unwrap(network)
        if subject is None:
            raise ProbeError("the hook has no network: attach() it or give one")
        if not is_first_rank():
            return []
        self.flush()
        step, found = self._step(self.steps), []
        for probe in self.probes:
            found.append(self._run(probe, subject))
            self._write(Taken(found[-1], int(step), moment, step.epoch))
        return found

    def flush(self) -> None:
        """Send what waits on the device to the sinks; this waits for the device."""
        if self._step_norms is not None:
            for taken in self._step_norms.drain():
                self._write(taken)

    def collect(self) -> list[Taken]:
        """Return what was measured since the last call, and forget it; for hooks without a sink.

        The norms of all steps of a moment come as one measurement.
        """
        self.flush()
        found, self.memory.taken = self.memory.taken, []
        return compact(found)

    def detach(self) -> None:
        """Stop looking on, and close the sinks."""
        self._release()
        for sink in self.sinks:
            close(sink)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _release(self) -> None:
        self.flush()
        for handle in self._handles:
            handle.remove()
        self._handles, self._step_norms = [], None

    def _before_step(
        self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StepArguments | None:
        watched = after_closure((args, kwargs), self._look)
        if watched is None:  # without a closure the gradients are there already
            self._look()
        return watched

    def _look(self) -> None:
        self.observe(AFTER_CLIPPING)

    def _after_step(self, *_: object) -> None:
        self.steps += 1
        self._probe_if_due()

    def _probe_if_due(self) -> None:
        if self.probes and self.when(self._step(self.steps)):
            self.measure(AFTER_STEP)

    def _run(self, probe: Probe, network: nn.Module) -> Measurement:
        assert self.data is not None
        need = lacking(probe, self.data)
        if need is not None:
            return Measurement.skipped(probe.name, f"needs {need}")
        weight = next(network.parameters())
        # The probe itself leaves no trace; one of a third party may.
        with (
            untouched(network),
            torch.enable_grad(),
            torch.autocast(weight.device.type, enabled=False),
        ):
            return probe.measure(network, self.data.to(weight.device))

    def _step(self, step: int) -> Step:
        return Step(step, self._steps_per_epoch)

    def _write(self, taken: Taken) -> None:
        for sink in self.sinks:
            sink.write(taken)
