"""What a plan will cost: epochs, FLOPs, and how long that takes here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from trainscope.errors import TrainscopeError
from trainscope.networks import flops
from trainscope.networks.threads import suited_threads
from trainscope.records import Kind
from trainscope.sparsify import Action, sparsify
from trainscope.studies.planned import Planned
from trainscope.studies.results import Row, planned_digests
from trainscope.studies.roots import Roots, root_key
from trainscope.studies.rows import columns_of
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.training.budget import scratch_epochs
from trainscope.training.runner import TRAINING_PASSES

TIMED_FLOPS = 2e10
"""Multiply-adds of the step that is timed, at most, where one sample does not take more."""
ENOUGH = 3
"""Runs of the store that tell the speed better than one step does."""


@dataclass(frozen=True)
class PlanCost:
    """What a plan costs. FLOPs are multiply-adds of training; evaluation and probes are not in.

    Attributes:
        runs: Runs in all.
        epochs: Epochs of all of them, without shared pretraining.
        flops: Theirs; None where the data does not say how many samples it has.
        stems: Pretrainings that runs share.
        stem_epochs: Epochs of those.
        stem_flops: FLOPs of those.
        each: FLOPs of each run, in the order of the plan.
        refused: Why runs cannot be done, by their places in the plan; they are in no sum.
        seconds: What one worker takes here for what is not done; None where that is not known.
        rate: Multiply-adds a second, and how that is known.
    """

    runs: int
    epochs: int
    flops: float | None
    stems: int
    stem_epochs: int
    stem_flops: float | None
    each: tuple[float | None, ...]
    refused: Mapping[int, str]
    seconds: float | None
    rate: tuple[float, str] | None


def forecast(
    plan: Sequence[Planned],
    done: Sequence[Row] = (),
    tell: Callable[[str], None] | None = None,
) -> PlanCost:
    """Return what a plan costs, without training anything but one step.

    The speedup of a uniform ratio does not depend on the weights, so that untrained networks tell
    it; under a global ranking it is an estimate.

    Args:
        plan: The runs.
        done: Rows of the store, which tell how fast this machine is.
        tell: Told of what is worked out.

    Raises:
        TrainscopeError: No run of the plan can be done: what is said of the first.
    """
    sizes = RunSizes(tell or (lambda _: None))
    each: list[float | None] = []
    refused: dict[int, TrainscopeError] = {}
    epochs, known = 0, True
    stems: dict[str, tuple[int, RunSpec]] = {}
    for place, planned in enumerate(plan):
        spec = planned.spec
        try:
            begun, total, one = sizes.stem_epochs(spec), sizes.epochs(spec), sizes.of(spec)
            over = sizes.stage(spec)
        except TrainscopeError as error:  # such a run fails, and the others are done
            refused[place] = error
            each.append(None)
            continue
        if begun is not None and isinstance(spec.base, RunSpec):
            before = stems.get(spec.base.digest, (0, spec.base))[0]
            stems[spec.base.digest] = (max(before, begun), spec.base)
        epochs += total + (0 if spec.over is None else spec.over.epochs)
        each.append(None if one is None or over is None else one * total + over)
        known = known and one is not None
    if len(refused) == len(plan) > 0:
        raise refused[0]
    stem_flops = {key: _times(sizes.of(stem), length) for key, (length, stem) in stems.items()}
    rate = rate_of(plan, done, sizes)
    whole = sum(f for f in each if f is not None) if known else None
    shared = None if None in stem_flops.values() else sum(f or 0.0 for f in stem_flops.values())
    seconds = None
    if rate is not None and whole is not None and shared is not None:
        finished = planned_digests(done)
        ends = [planned.digest in finished for planned in plan]
        bases = [p.spec.base for p, ended in zip(plan, ends, strict=True) if ended]
        trained = {base.digest for base in bases if isinstance(base, RunSpec)}
        left = sum(f or 0.0 for f, ended in zip(each, ends, strict=True) if not ended)
        left += sum(f or 0.0 for key, f in stem_flops.items() if key not in trained)
        seconds = left / rate[0]
    return PlanCost(
        runs=len(plan),
        epochs=epochs,
        flops=whole,
        stems=len(stems),
        stem_epochs=sum(length for length, _ in stems.values()),
        stem_flops=shared,
        each=tuple(each),
        refused={place: str(error) for place, error in refused.items()},
        seconds=seconds,
        rate=rate,
    )


def _times(flops_of_one: float | None, epochs: int) -> float | None:
    return None if flops_of_one is None else flops_of_one * epochs


class RunSizes:
    """FLOPs and samples, each worked out once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.roots = Roots(tell)
        self.cut: dict[str, tuple[int, float]] = {}

    def of(self, spec: RunSpec) -> float | None:
        """Return the FLOPs of an epoch; None where nobody knows the samples."""
        samples = self.roots.samples(spec)
        if samples is None:
            return None
        return TRAINING_PASSES * float(self.pruned(spec)[0]) * samples

    def stage(self, spec: RunSpec) -> float | None:
        """Return the FLOPs of the pruning stage, which falls in proportion to what is gone."""
        samples, over, action = self.roots.samples(spec), spec.over, spec.action
        if over is None or action is None:
            return 0.0
        if samples is None:
            return None
        left = self.pruned(spec)[0]
        begin = self.pruned(replace(spec, action=None, plan=None, weights="inherited"))[0]
        whole = action.ratio or max(action.ratios.values(), default=0.0) or 1.0
        events = {event.epoch: event.reached(whole) / whole for event in over.events()}
        gone, spent = 0.0, 0.0
        for epoch in range(over.epochs):
            gone = events.get(epoch, gone)
            spent += begin - (begin - left) * gone
        return TRAINING_PASSES * spent * samples

    def epochs(self, spec: RunSpec) -> int:
        """Return the epochs of a run; those from scratch follow from its budget."""
        if spec.kind not in (Kind.SCRATCH_E, Kind.SCRATCH_B) or spec.read is None:
            return spec.schedule.total
        if isinstance(spec.base, BaseModel):
            return spec.schedule.total
        return scratch_epochs(
            "epochs" if spec.kind is Kind.SCRATCH_E else "flops",
            pretrain=self.pruning_epoch(spec),
            retrain=spec.read.retrain,
            speedup=self.pruned(spec)[1],
        )

    def stem_epochs(self, spec: RunSpec) -> int | None:
        """Return how long a run needs the stem that it shares; None where it has none."""
        shares = isinstance(spec.base, RunSpec) and spec.base.base is None
        return self.pruning_epoch(spec) if shares else None

    def pruning_epoch(self, spec: RunSpec) -> int:
        """Return the epoch of its stem at which a run begins."""
        assert isinstance(spec.base, RunSpec)
        if spec.read is None or spec.read.pretrain is None:
            return spec.base.schedule.total
        found = spec.read.pruning_epoch(self.pruned(spec)[1])
        assert found is not None
        return found

    def pruned(self, spec: RunSpec) -> tuple[int, float]:
        """Return the FLOPs of one sample and the speedup after all actions of a run."""
        dense = self.roots.network(spec)
        actions = _actions(spec)
        key = f"{root_key(spec)} {[_counted(action) for action in actions]!r}"
        if key not in self.cut:
            module, speedup = dense.module, 1.0
            for action in actions:
                bare = action
                if action.criterion != "influence":
                    bare = replace(action, criterion="l1")  # how many go does not depend on it
                done = sparsify(module, bare, dense.inputs)
                module, speedup = done.module, speedup * done.record.speedup
            self.cut[key] = (flops(module, dense.inputs), speedup)
        return self.cut[key]


def _actions(spec: RunSpec) -> tuple[Action, ...]:
    """Return the actions of a run and of all that it stands on, the first one first."""
    before = _actions(spec.base) if isinstance(spec.base, RunSpec) else ()
    return before if spec.action is None else (*before, spec.action)


def _counted(action: Action) -> Action | dict[str, int]:
    """Return what tells what an action costs: of filters that stay by name, how many they are."""
    if not action.kept:
        return action
    return {layer: len(places) for layer, places in action.kept.items()}


def rate_of(
    plan: Sequence[Planned], done: Sequence[Row], sizes: RunSizes
) -> tuple[float, str] | None:
    """Return the multiply-adds a second of this machine and how that is known."""
    if not plan:
        return None
    ours, network = {planned.digest for planned in plan}, _network_of(columns_of(plan[0].spec))
    known = [
        row["flops"] / row["seconds"]
        for row in done
        if row["flops"] and row["seconds"]
        if (row.get("search.slot") or row["digest"]) in ours or _network_of(row) == network
    ]
    if len(known) >= ENOUGH:
        return median(known), f"as {len(known)} runs of the store had it"
    timed = sizes.roots.network(plan[0].spec)
    if timed.example is not None or len(tuple(timed.input_shape)) != 3:
        return None
    cost = TRAINING_PASSES * flops(timed.module, timed.inputs)
    batch = plan[0].spec.settings.batch_size
    samples = int(min(batch, max(2, TIMED_FLOPS // cost)))
    sizes.roots.tell(f"timing a step of {samples} samples")
    inputs = torch.randn(samples, *timed.input_shape)
    with suited_threads(flops(timed.module, timed.inputs)):
        best = min(_step_seconds(timed.module, inputs) for _ in range(3))
    return cost * samples / best, f"as a step of {samples} samples of {timed.architecture} had it"


def _network_of(row: Row) -> set[object]:
    """Return what names the base model: another network has another speed."""
    ends = ("architecture", "base.digest")
    return {value for name, value in row.items() if name.endswith(ends) and value is not None}


def _step_seconds(module: torch.nn.Module, inputs: torch.Tensor) -> float:
    begun = time.perf_counter()
    outputs = module(inputs)
    outputs.float().square().mean().backward()
    module.zero_grad(set_to_none=True)
    return time.perf_counter() - begun
