"""Where a plan ends agrees with the epochs to add to it, or the explanation says why not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainscope.convergence import Estimate, LearningCurve, estimate_extra_epochs
from trainscope.convergence.plan import own_schedule

LR = 0.01
APART = "Two ways to tell differ here"
PLANS = {
    "the same LR": (f"0:{LR},40:{LR / 10}", 60),
    "a smaller first LR": (f"0:{LR / 4},40:{LR / 40}", 60),
    "a larger first LR": (f"0:{4 * LR},40:{LR}", 60),
    "a larger first LR, not for long": (f"0:{10 * LR},6:{LR}", 12),
    "a warm-up": (f"0:{LR / 10},5:{LR},40:{LR / 10}", 60),
    "a constant larger LR": (f"0:{4 * LR}", 40),
    "a cosine": (
        ",".join(f"{i}:{LR * (1 + math.cos(math.pi * i / 60)) / 2!r}" for i in range(60)),
        60,
    ),
}


def run(rates: list[float], seed: int = 0) -> LearningCurve:
    """Return accuracies that rise with LR time, less what the present LR keeps up, with noise."""
    lr = np.array(rates)
    time = np.cumsum(lr / LR)
    noise = 0.2 * np.random.default_rng(seed).normal(size=len(lr))
    return LearningCurve(
        np.arange(1.0, len(lr) + 1), 95 - 40 * (time + 2) ** -0.6 - 2 * (lr / LR) ** 0.7 + noise, lr
    )


def agrees(found: Estimate) -> bool:
    """Return whether a plan that is said to need nothing is said to end at the target."""
    assert found.final is not None
    return (found.final.median >= found.target) == (found.extra_epochs.median == 0)


@pytest.mark.parametrize("beside", [None, [0.1] * 25 + [0.01] * 10])
@pytest.mark.parametrize("plan", PLANS)
def test_extra_epochs_and_the_end_agree_or_it_is_said_why_not(plan: str, beside) -> None:
    small, reference = run([LR] * 25), None if beside is None else run(beside, seed=1)
    schedule, total = PLANS[plan]
    for target in np.arange(85.0, 94.0, 0.5):
        found = estimate_extra_epochs(small, float(target), reference, 0.8, schedule, total)
        if found.status == "already reached":
            continue
        assert agrees(found) == (APART not in found.explanation)


def test_a_plan_at_another_lr_says_whose_first_passage_it_tells() -> None:
    schedule, total = PLANS["a constant larger LR"]
    found = estimate_extra_epochs(run([LR] * 25), 92.0, None, 0.8, schedule, total)
    assert found.first_passage.median > total
    assert found.extra_epochs.median == 0
    assert "the first passage is that at the present LR of 0.01" in found.explanation


@pytest.mark.parametrize("of", ["steps", "a line", "a cosine"])
@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_ended_below_the_target_needs_more(of: str, seed: int) -> None:
    rates = {
        "steps": [LR] * 25 + [LR / 10] * 10,
        "a line": [LR] * 25 + np.linspace(LR, LR / 100, 10).tolist(),
        "a cosine": [LR * (1.001 + math.cos(math.pi * i / 35)) / 2 for i in range(35)],
    }[of]
    whole = run(rates, seed)
    plan = own_schedule(whole)
    assert plan is not None
    ended = float(whole.accuracy[-3:].mean())
    for above in (0.01, 0.1, 1.0):
        found = estimate_extra_epochs(whole, ended + above, None, 0.8, *plan)
        assert found.final is not None
        assert found.final.median == pytest.approx(ended, abs=0.1)
        assert found.extra_epochs.median > 0
    found = estimate_extra_epochs(whole, ended - 0.5, None, 0.8, *plan)
    assert found.extra_epochs.median == 0
    assert found.status == "already reached"


def test_a_target_passed_before_the_decays_of_a_run_that_ended_below_it_is_told_so() -> None:
    values = np.append(90 - 20 / np.arange(1.0, 26), np.full(10, 87.0))
    small = LearningCurve(np.arange(1.0, 36), values, [LR] * 25 + [LR / 10] * 10)
    plan = own_schedule(small)
    assert plan is not None
    found = estimate_extra_epochs(small, 88.5, None, 0.8, *plan)
    assert found.status == "already reached"
    assert found.extra_epochs.median > 0
    assert found.explanation.startswith(
        "The target is reached in the first LR stage, but after the decays the last records have "
        "87.00 %, below it."
    )
