"""Trainability accuracy (TA): how far the first epochs of retraining get."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import nn

from trainscope.data import ProbeData, Split
from trainscope.data.split import DrawnSplit
from trainscope.errors import ProbeError
from trainscope.networks import flops
from trainscope.networks.given import call_of
from trainscope.probes.probe import Need
from trainscope.probes.processes.ranks import present
from trainscope.probes.processes.shards import whole
from trainscope.probes.retrained.copies import Run, Trial, retrain_copies, retrain_twins
from trainscope.probes.retrained.report import report
from trainscope.probes.retrained.twins import NoTwinsError, Twins
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.subject.alike import alike
from trainscope.probes.subject.behaviour import Behaviour, behaviour_of
from trainscope.probes.subject.evaluation import taken_batch
from trainscope.probes.subject.untouched import untouched
from trainscope.probes.subject.wrappers import refuse_flat, unwrap
from trainscope.records import Cost, Measurement
from trainscope.records.retrained import START, START_METRIC
from trainscope.task import LanguageModelling
from trainscope.training.loop import Evaluation, Settings
from trainscope.training.schedule import MAX_LR
from trainscope.training.settings import suited

MOST_EPOCHS, FEWEST_EPOCHS = 5, 2
DEFAULT_PASSES = 100_000
"""Training samples passed at one LR by default, within the bounds above."""
TESTS = 5
"""Tests on the way where steps are asked for."""
FEWER_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""What is tried where the time is too short for the epochs of the default."""
FEWEST_TESTED, FEWEST_TEXTS = 256, 16
"""Test samples that are tested on at least; sequences, each with a loss at every token."""
FEWEST_DEAR, TESTED_WORK = 32, 2e11
"""The same where more of them would take more multiply-adds than that."""
FEWEST_STEPS = 5
"""Steps of a language model that are tried at least: one of them is as long as many of others."""
TEXT_STEPS = 50
"""Steps of a language model where nobody says them."""
SAME_STEPS = (
    "retraining takes the same steps with batch norm recalibrated, as each batch is normalised by "
    "its own statistics: what differs is the tests of the first epochs"
)
"""What a recalibrated network's retraining is."""
MOST_WORK = 3e13
"""Multiply-adds a column that are begun without being asked for: about 20 minutes of a laptop."""


@dataclass(frozen=True)
class TrainabilityAccuracy:
    r"""Mean test accuracy over the first N epochs of retraining a copy.

    .. math:: \mathrm{TA} = \frac{1}{N} \sum_{e=1}^{N} a_e

    with :math:`a_e` the top-1 test accuracy, percent, after epoch e of retraining at a constant
    learning rate; of another task its metric, whose name and unit the notes and `metric` say.
    Source: Wang et al. (2023), Sec. 4, who give no code and do not say which accuracy they average:
    compare TAs only under the same LR schedule, N and settings.

    The standard error is over test samples (each one's share of the N epochs in which it was
    right; of other metrics the jackknife over batches of the test half); the spread over seeds of
    retraining comes on top and is not measured here.

    Attributes:
        lrs: Learning rates, each tried on a copy of its own; the scalar `ta` is the first one's.
        epochs: N, the length of the first LR stage. By default 5, down to 2 for a large training
            half; where even that would take a laptop much of an hour, the probe is skipped. A
            language model takes `TEXT_STEPS` steps.
        steps: Optimizer steps in the place of epochs, tested `TESTS` times on the way.
        test_samples: Test on so many samples of the test half, drawn once; by default on all.
        start_only: Test the network as it is, and retrain nothing.
        settings: The optimizer and the rest. `seed` is taken from the data. A language model
            takes `training.settings.TEXT_BATCH` sequences a step where the batch size is the
            default one.
    """

    name: ClassVar[str] = "trainability_accuracy"
    title: ClassVar[str] = "Trainability accuracy"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("ta", "trainability {metric}", "%", "higher"),
        ScalarSpec("ta@*", "{TA} at LR {at}", "%", "higher"),
        ScalarSpec(START, "test {metric}, not retrained", "%", "higher"),
        ScalarSpec(START_METRIC, "test {metric}, not retrained", "%"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TRAINING})

    lrs: tuple[float, ...] = (1e-2,)
    epochs: int | None = None
    steps: int | None = None
    test_samples: int | None = None
    start_only: bool = False
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ProbeError: No learning rate, one that is none or comes twice, or no epoch.
        """
        if any(not 0 < lr <= MAX_LR for lr in self.lrs):
            raise ProbeError(f"trainability_accuracy: {self.lrs} are no learning rates")
        if len(set(self.lrs)) < len(self.lrs):
            raise ProbeError(f"trainability_accuracy: {self.lrs} names a learning rate twice")
        counts = [each for each in (self.epochs, self.steps) if each is not None]
        if not self.lrs or min(counts, default=1) < 1:
            raise ProbeError("trainability_accuracy needs a learning rate and at least one epoch")
        if self.epochs is not None and self.steps is not None:
            raise ProbeError("trainability_accuracy takes a number of epochs or of steps, not both")

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Retrain a copy at each learning rate. The network itself is untouched.

        Scalars: `ta` and `ta@LR` for each LR (percent); `start_accuracy`, the test accuracy before
        the first step (percent). Arrays: `lrs`; `epoch_accuracies` and `epoch_losses` [LRs][N];
        `left_out`, the start and each LR's mean with each part of the test half left out, for the
        error of a difference (`records.retrained`), [1 + LRs][parts], empty where not known;
        `metric`, its name, unit and direction; `settings`, name and value of each; `steps`, those
        of one epoch, where steps were asked for. Of a metric that is no accuracy, `start_metric`
        and `epoch_metrics`.
        """
        with present().together():
            network = unwrap(network)
            refuse_flat(network)
            return self._suited(data)._measure(whole(network), data)

    def measure_both(
        self, network: nn.Module, recalibrated: nn.Module, data: ProbeData
    ) -> tuple[Measurement, Measurement] | None:
        """Measure a network and its copy with recalibrated batch norms, with the training of one.

        Weights are trained alike from both (see `twins`), so that the copy is tested alone: its
        accuracies are those of `measure` to the rounding of its running statistics.

        Returns:
            Both; None where they are to be measured one by one, as the two differ in more, batch
            norms are not trained as such, outputs are random, or several processes share the work.
        """
        if present().count > 1:
            return None
        pair = (whole(unwrap(network)), whole(unwrap(recalibrated)))
        twins = None if self.start_only else Twins.of(*pair)
        suited = self._suited(data)
        if twins is None or suited._cannot(pair[0], data) is not None:
            return None
        begun = time.perf_counter()
        with untouched(pair[0]), untouched(pair[1]):
            seen = [behaviour_of(each, taken_batch(each, data), data) for each in pair]
            if any(each.unfit_loss or each.random for each in seen):
                return None
            try:
                found = retrain_twins(*pair, twins, suited._trial(data), suited.lrs)
            except NoTwinsError:
                return None
        seconds = time.perf_counter() - begun
        own, other = (
            suited._told(each, data, behaviour, *tested, seconds)
            for each, behaviour, tested in zip(pair, seen, found, strict=True)
        )
        tests = own.cost.forward - own.cost.backward
        part = seconds * tests / (own.cost.forward + 2 * own.cost.backward + tests)
        notes = {**other.notes, "retraining": SAME_STEPS}
        return (
            replace(own, cost=replace(own.cost, seconds=seconds - part)),
            replace(other, cost=Cost(part, tests, 0), notes=notes),
        )

    @property
    def tells_parts(self) -> bool:
        """Whether a measurement that is cut short says something: learning rates that are done."""
        return not self.start_only

    def _cannot(self, network: nn.Module, data: ProbeData) -> str | None:
        """Return why nothing is measured, where that can be told before."""
        if data.train is None or data.test is None:
            return f"needs {Need.TRAINING}"
        if not any(parameter.requires_grad for parameter in network.parameters()):
            return "every parameter is frozen: nothing can retrain"
        return self._too_much(network, data)

    def _measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        cannot = self._cannot(network, data)
        if cannot is not None:
            return Measurement.skipped(self.name, cannot)
        begun = time.perf_counter()
        with untouched(network):
            behaviour = behaviour_of(network, taken_batch(network, data), data)
            if behaviour.unfit_loss is not None:
                return Measurement.skipped(self.name, behaviour.unfit_loss)
            data = alike(network, data, present())
            asked = () if self.start_only else self.lrs
            start, runs = retrain_copies(network, self._trial(data), asked)
        return self._told(network, data, behaviour, start, runs, time.perf_counter() - begun)

    def _told(
        self,
        network: nn.Module,
        data: ProbeData,
        behaviour: Behaviour,
        start: Evaluation,
        runs: list[Run],
        seconds: float,
    ) -> Measurement:
        """Return what a test and retrainings, of the first learning rates, say."""
        lrs = () if self.start_only else self.lrs
        drawn_from = None if self.test_samples is None or data.test is None else len(data.test)
        told = report(network, self._trial(data), behaviour, lrs, start, runs, drawn_from)
        return replace(told, cost=self._cost(data, seconds))

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return the samples that retraining will pass."""
        return self._suited(data)._cost(data, 0.0)

    def _suited(self, data: ProbeData) -> TrainabilityAccuracy:
        """Return the probe with what nobody chose as it suits the task.

        An epoch of text is long, and so is a step on as many sequences as images.
        """
        if not isinstance(data.task, LanguageModelling):
            return self
        steps = TEXT_STEPS if self.epochs is None and self.steps is None else self.steps
        return replace(self, steps=steps, settings=suited(self.settings, data.task))

    def lighter(
        self, network: nn.Module, data: ProbeData
    ) -> Iterator[tuple[TrainabilityAccuracy, str]]:
        """Yield less of the default: a few steps, tested on part of the test half, and words."""
        if self.epochs is not None or self.steps is not None or data.test is None:
            return
        whole = self._suited(data)
        size = whole.settings.batch_size
        full = whole._epochs(data) * (0 if data.train is None else len(data.train))
        if whole.steps is not None:
            full = whole.steps * size
        text = isinstance(data.task, LanguageModelling)
        least = FEWEST_TEXTS if text else _fewest_tested(network, data)
        yield (
            replace(whole, start_only=True, test_samples=min(len(data.test), least)),
            f"{data.task.metric.name} alone, on {min(len(data.test), least)} samples, without "
            "retraining",
        )
        for steps in (FEWEST_STEPS, *FEWER_STEPS) if text else FEWER_STEPS:
            if steps * size >= full:
                return
            # Tests take about a third of the time that the steps take.
            tested = min(len(data.test), max(least, steps * size // TESTS))
            part = "" if tested == len(data.test) else f", tested on {tested} samples"
            yield replace(whole, steps=steps, test_samples=tested), f"{steps} steps{part}"

    def _test(self, data: ProbeData) -> Split:
        assert data.test is not None
        return DrawnSplit.of(data.test, self.test_samples or len(data.test), data.seed)

    def _trial(self, data: ProbeData) -> Trial:
        assert data.train is not None
        return Trial(
            data.train,
            self._test(data),
            data.task,
            replace(self.settings, seed=data.seed),
            self._epochs(data),
            None if self.steps is None else self._each(),
        )

    def _cost(self, data: ProbeData, seconds: float) -> Cost:
        train_size = len(data.train) if data.train is not None else 0
        test_size = len(self._test(data)) if data.test is not None else 0
        if self.steps is not None:
            train_size = self._each() * self.settings.batch_size
        rounds = 0 if self.start_only else self._epochs(data) * len(self.lrs)
        forward = rounds * (train_size + test_size) + test_size
        return Cost(seconds, forward, rounds * train_size)

    def _epochs(self, data: ProbeData) -> int:
        if self.epochs is not None:
            return self.epochs
        if self.steps is not None:
            return min(TESTS, self.steps)
        size = max(1, 0 if data.train is None else len(data.train))
        return min(MOST_EPOCHS, max(FEWEST_EPOCHS, DEFAULT_PASSES // size))

    def _each(self) -> int:
        """Return the steps of what counts as an epoch where steps are asked for."""
        assert self.steps is not None
        return -(-self.steps // min(TESTS, self.steps))

    def _too_much(self, network: nn.Module, data: ProbeData) -> str | None:
        """Return why the default number of epochs is not begun, if it costs too much."""
        if self.epochs is not None or self.steps is not None or self.start_only:
            return None
        cost = self._cost(data, 0.0)
        work = (cost.forward + 2 * cost.backward) * _work_of_one(network, data)
        if work <= MOST_WORK:
            return None
        return (
            f"{self._epochs(data)} epochs of retraining at {len(self.lrs)} learning rates would "
            f"cost {work:.1e} multiply-adds: say how many you want with --retrain-epochs (epochs=)"
        )


def _work_of_one(network: nn.Module, data: ProbeData) -> int:
    """Return the multiply-adds of one pinned sample."""
    one = data.task.select(data.batch, torch.arange(1))
    return flops(network, call_of(network, one, data.task))


def _fewest_tested(network: nn.Module, data: ProbeData) -> int:
    """Return on how many samples a test is worth having, fewer of a large network."""
    try:
        each = _work_of_one(network, data)
    except Exception:  # said by the probe, which runs the network
        return FEWEST_TESTED
    return min(FEWEST_TESTED, max(FEWEST_DEAR, int(TESTED_WORK // max(each, 1))))
