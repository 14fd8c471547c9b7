"""Judge the estimator on language models under AdamW: ends of plans, cooldowns, passages of a loss.

    python benchmarks/estimator_language_models.py LM

LM is the folder of `lm_runs.csv` and `lm_curves.csv` (the trainings of fabian-sp/lr-scheduling and
of MultiPowerLaw; a record is a step with its LR and its validation loss). Nothing of them has a
part in the calibration. A run that cools down from a stable LR is its model's constant run, and
then its own records. Three kinds of questions:

- where a plan ends: a run is watched to the start of its cooldown, or to half of its cosine, and
  the LRs of the rest are known. Beside it nothing is known, or a constant run, or one whole run
  with decays, from the same peak LR or from another. The answer is the validation loss at the end.
- extra steps before a cooldown: a run is watched to the start of its planned cooldown, the target
  is where another run of the model ended, which is the reference or is not known. What is true is
  interpolated between the lengths of the model's own cooldowns, in the logarithm of the first
  stage. By the loss, and by the accuracy of single tokens with the training loss left out.
- first passage of a run at a constant LR, watched for a share of its length, without a reference;
  the targets are what it had at 60, 80 and 100 % of its length.

Columns: median and 90th percentile of the error (nats; |log2| of the first stage, or of the step),
coverage of the 80 % interval, its median width, and, of lengths, the median of said / true.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainscope.convergence import Interval, LearningCurve, estimate_extra_epochs
from trainscope.convergence.passage import first_passage, running_maximum
from trainscope.convergence.plan import own_schedule

Floats = NDArray[np.float64]
WATCHED = (0.1, 0.2, 0.3, 0.5)
TARGETS = (0.6, 0.8, 1.0)
SAME = 1e-3
"""Share by which LRs that are the same may differ."""
FALLEN = 0.7
"""Share of its peak below which the last LR of a run was decayed."""


@dataclass(frozen=True)
class Training:
    """One training: the LR of a record is the mean since the record before it.

    Attributes:
        model: Data and network.
        kind: "constant", "cooldown" (in a line, a quarter as long as the stage before it),
            "cosine", or "decayed" in another way.
        peak: The largest LR.
        held: Records of the first LR stage; of a cosine those of its first half.
        step: [N], increasing.
        lr: [N].
        loss: [N], validation loss, nats.
        accuracy: [N], validation accuracy of single tokens, percent; NaN where it is not known.
    """

    model: str
    kind: str
    peak: float
    held: int
    step: Floats
    lr: Floats
    loss: Floats
    accuracy: Floats

    def curve(self, records: int | None = None, *, accuracy: bool = False) -> LearningCurve:
        """Return the curve of the first records, or of all: of the loss, or of the accuracy."""
        part = slice(records)
        if accuracy:
            return LearningCurve(self.step[part], self.accuracy[part], self.lr[part], per="step")
        return LearningCurve(
            self.step[part],
            lr=self.lr[part],
            metric=self.loss[part],
            better="lower",
            unit="nats",
            name="loss",
            per="step",
        )

    @property
    def stage(self) -> float:
        """Return the steps of the first LR stage."""
        return float(self.step[self.held - 1])

    def end(self, *, accuracy: bool = False) -> float:
        """Return the last loss, or accuracy."""
        return float((self.accuracy if accuracy else self.loss)[-1])


def read(folder: Path) -> list[Training]:
    """Return all trainings whose first records are known."""
    with (folder / "lm_runs.csv").open() as file:
        runs = {row["run"]: row for row in csv.DictReader(file)}
    tables: dict[str, list[tuple[float, ...]]] = {name: [] for name in runs}
    with (folder / "lm_curves.csv").open() as file:
        for row in csv.DictReader(file):
            numbers = (float(row["step"]), float(row["lr"]), float(row["val_loss"] or "nan"))
            # MultiPowerLaw's have one loss, that of training batches, none of which comes twice.
            lost = numbers[2] if row["val_loss"] else float(row["train_loss"] or "nan")
            right = 100 * float(row["val_acc"] or "nan")
            tables[row["run"]].append((*numbers[:2], lost, right))
    model = {name: f"{row['source']} {row['model']}" for name, row in runs.items()}
    peak = {name: float(row["peak_lr"]) for name, row in runs.items()}
    constant = {
        (model[name], peak[name]): np.array(tables[name])
        for name, row in runs.items()
        if row["schedule"] == "constant"
    }
    found = []
    for name, row in runs.items():
        table, cools = np.array(tables[name]), row["schedule"] == "wsd 0.2"
        if cools:
            whole = constant.get((model[name], peak[name]))
            if whole is None:
                continue
            table = np.concatenate((whole[whole[:, 0] <= table[0, 0]], table[1:]))
        found.append(_training(model[name], peak[name], table, cools=cools))
    return found


def _training(model: str, peak: float, table: Floats, *, cools: bool) -> Training:
    """Return one training from its steps, LRs at them, and losses."""
    table = table[np.isfinite(table[:, :3]).all(1)]
    step, at, loss, accuracy = table.T
    at = np.append(peak, at[1:]) if at[0] >= 0.9 * peak else at
    lr = np.append(at[0], (at[1:] + at[:-1]) / 2)
    keep = step > 0
    held = int((lr[keep] >= peak * (1 - SAME)).sum() + (np.argmax(lr[keep] >= peak * (1 - SAME))))
    kind = "cooldown" if cools else "constant" if lr[-1] > FALLEN * peak else "decayed"
    if held < len(lr) // 4:
        kind, held = "cosine", len(lr) // 2
    return Training(model, kind, peak, held, step[keep], lr[keep], loss[keep], accuracy[keep])


@dataclass(frozen=True)
class Answer:
    """One question's answer and its truth, in nats or steps.

    Errors of steps are told of the sum with `offset`.
    """

    group: str
    said: Interval
    true: float
    offset: float = 0.0


def ends(trainings: list[Training]) -> Iterator[Answer]:
    """Yield where plans end."""
    for run in trainings:
        if run.kind == "constant":
            continue
        for evidence, other in _beside(run, trainings):
            plan = own_schedule(run.curve())
            assert plan is not None
            small = run.curve(run.held)
            said = estimate_extra_epochs(
                small, float(small.accuracy[-1]), other and other.curve(), 0.8, *plan
            ).final
            assert said is not None
            yield Answer(evidence, said, run.end())


def _beside(run: Training, trainings: list[Training]) -> Iterator[tuple[str, Training | None]]:
    """Yield what may be known beside a run."""
    yield f"nothing but its own {'first half' if run.kind == 'cosine' else 'first stage'}", None
    for other in trainings:
        if other.model != run.model or other is run:
            continue
        same = "the same" if abs(other.peak / run.peak - 1) < SAME else "another"
        if other.kind == "constant":
            if same == "another":
                yield "a constant run of another peak", other
        else:
            yield f"a decayed run of {same} peak", other


def cooldowns(
    trainings: list[Training], *, reference: bool, accuracy: bool = False
) -> Iterator[Answer]:
    """Yield the steps to add so that a run ends, after its cooldown, where another did."""
    sign = 1.0 if accuracy else -1.0
    for run in trainings:
        if run.kind != "cooldown":
            continue
        mine = sorted(
            (o for o in trainings if (o.model, o.kind, o.peak) == (run.model, run.kind, run.peak)),
            key=lambda o: o.stage,
        )
        log_stages = np.log([o.stage for o in mine])
        rising = np.maximum.accumulate([sign * o.end(accuracy=accuracy) for o in mine])
        small = run.curve(run.held, accuracy=accuracy)
        plan = own_schedule(run.curve())
        assert plan is not None
        for other in trainings:
            if other.model != run.model or other.kind == "constant":
                continue
            target = other.end(accuracy=accuracy)
            if not sign * run.end(accuracy=accuracy) < sign * target <= rising[-1]:
                continue
            true = float(np.exp(np.interp(sign * target, rising, log_stages))) - run.stage
            large = other.curve(accuracy=accuracy) if reference else None
            said = estimate_extra_epochs(small, target, large, 0.8, *plan).extra_epochs
            kind = "a longer cooldown" if other.kind == "cooldown" else "a cosine of another peak"
            yield Answer(f"where {kind} ended", said, true, run.stage)


def passages(trainings: Iterable[Training]) -> Iterator[Answer]:
    """Yield the first passages of runs at a constant LR."""
    for run in trainings:
        if run.kind != "constant":
            continue
        time, best = run.step, running_maximum(-run.loss)
        for part in WATCHED:
            until = max(int((time <= part * time[-1]).sum()), 6)
            for at in TARGETS:
                target = float(np.interp(at * time[-1], time, best))
                true = float(first_passage(time, best, np.array([target]))[0])
                if true > time[until - 1]:
                    said = estimate_extra_epochs(run.curve(until), -target).first_passage
                    yield Answer(f"{part:.0%} watched", said, true)


def show(title: str, answers: Iterable[Answer], *, nats: bool) -> None:
    """Print the figures by group."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.group, []).append(answer)
    print(
        f"\n**{title}**\n\n| | cases | median | p90 | held | width | said / true |\n|{'---|' * 7}"
    )
    for name, part in groups.items():
        true = np.array([a.true for a in part])
        said, low, high = np.array([(a.said.median, a.said.low, a.said.high) for a in part]).T
        from_0 = np.array([a.offset for a in part])
        off = np.abs(said - true if nats else np.log2((said + from_0) / (true + from_0)))
        width = high - low if nats else np.log2((high + from_0) / (low + from_0))
        held = (low <= true) & (true <= high)
        middle = math.nan if nats else float(np.median(said / true))
        print(
            f"| {name} | {len(part)} | {np.median(off):.4f} | {np.quantile(off, 0.9):.3f} | "
            f"{held.sum()} ({held.mean():.2f}) | {np.median(width):.3f} | {middle:.2f} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the lm_*.csv files")
    trainings = read(parser.parse_args().folder)
    show("Where a plan ends, nats; known beside the run", ends(trainings), nats=True)
    for accuracy, name in ((False, "loss"), (True, "accuracy of single tokens")):
        for reference, known in ((True, "which is the reference"), (False, "which is not known")):
            title = f"Steps to add before a cooldown, by the {name}, to end where another run did"
            answers = cooldowns(trainings, reference=reference, accuracy=accuracy)
            show(f"{title}, {known}", answers, nats=False)
    show("First passage of a loss, without a reference", passages(trainings), nats=False)


if __name__ == "__main__":
    main()
