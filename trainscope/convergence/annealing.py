"""What a run ends at under any LR schedule: one law for every run of one network in evidence.

Quality is taken as Q = Q0 - A (tau / T)^-alpha - B n. The first loss is what training takes off: it
falls as a power of tau, the sum of LR^q over the epochs. The second is the noise that the present
LR keeps up and that a decay releases: n follows LR^p, with a short delay, and of what an LR above
all in evidence would add by that only a part (`LOUDER`). Constant runs tell nothing of B, runs with
decays do, and runs at two LRs do between them. The powers cannot be read off one curve, so that all
of a grid are kept, each weighted by how well its fit agrees with the records. Early records count
less, by how far below the last ones they lie. Nothing in it depends on the units of the axis, of
the LR or of the metric.

Sources of the form: Tissue et al. (2024), "Scaling Law with Learning Rate Annealing"; Luo et al.
(2025), "A Multi-Power Law for Loss Curve Prediction Across Learning Rate Schedules".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainscope.convergence.annealing_evidence import (
    FEWEST,
    LAST,
    TINY,
    Evidence,
    clocks,
    evidence_of,
    grain_of,
    helped_share,
)
from trainscope.convergence.curve import LearningCurve
from trainscope.convergence.passage import WINDOW, Floats
from trainscope.convergence.track import Track

CERTAIN = 4.0
"""Records' worth of belief in the misfit that is assumed, against the one that is found."""
TRUST = (0.05, 4.0)
"""How far the found one may move the weight of the records."""
DRAWS = 400
"""Curves that stand for the posterior."""


@dataclass(frozen=True)
class AnnealingPrior:
    """What is believed of a run before it is seen. Pure numbers.

    Attributes:
        q: Powers of the LR in the clock that are tried.
        p: Powers of the LR in the noise.
        delay: Of the noise, as a share of the longest run in evidence.
        alpha: Powers of the clock.
        alpha_centre: Where the prior on alpha has its centre.
        alpha_width: Its standard deviation.
        power_width: That of the priors on q and p, about the middle of those that are tried.
        evidence: Weight of each record, below one as errors of neighbours are shared.
        misfit: The form's own error, as a share of the rise over a unit of log time.
        distance: What is added to it for each unit by which a record lies below the last one.
        of_rise: Centre of the prior on B, for each unit of that rise: other metrics, percentages.
        of_noise: The same for each unit of noise from record to record.
        unsure: Standard deviation of that prior, for each unit of the rise: other metrics,
            percentages. Wide, as decays bring nothing to some small networks and more than a
            doubling of the epochs to language models, and no constant run tells which.
        unsure_noise: The same for each unit of that noise.
        across: Error of the logarithm of B for each unit of log LR between the peaks in evidence.
        luck: Units of the noise by which the last records of a run that gets worse may lie off the
            law's curve by chance.
        ahead: Error of the form for each unit of log time ahead, as a share of the rise.
        above: The same for each unit of log LR by which a peak is above the largest in evidence.
        still: As `above`, of where the plan's LR is still above: other metrics, percentages. What
            a larger LR gains shows in nothing watched at a smaller one; its decays give it back.
        below: The same for each unit by which a peak is below the smallest.
        turned: Of metrics that are no percentages, how much worse than the law's end a run may be,
            in units of the rise, for each unit of log time that the plan goes further than any
            run in evidence: test losses flatten, or rise again, and the law only falls.
        fitted: Share of `unsure` that is left for a test loss that decays do not help
            (`helped_share`).
    """

    q: tuple[float, ...] = (0.5, 0.7, 0.9)
    p: tuple[float, ...] = (0.6, 0.8, 1.0)
    delay: tuple[float, ...] = (0.001, 0.003, 0.01)
    alpha: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.4, 2.0)
    alpha_centre: float = 0.5
    alpha_width: float = 0.5
    power_width: float = 0.25
    evidence: float = 0.25
    misfit: float = 0.06
    distance: float = 0.12
    of_rise: tuple[float, float] = (1.3, 0.0)
    of_noise: float = 0.5
    unsure: tuple[float, float] = (1.8, 1.4)
    unsure_noise: float = 0.6
    across: float = 0.3
    luck: float = 0.3
    ahead: float = 0.1
    above: float = 0.8
    still: tuple[float, float] = (2.4, 1.6)
    below: float = 0.4
    turned: float = 0.8
    fitted: float = 0.1


PRIOR = AnnealingPrior()


@dataclass(frozen=True)
class Law:
    """The posterior of the law: curves of one network under any schedule.

    Attributes:
        draws: [D, 3]: Q0, A and B of each draw.
        alpha: [D].
        powers: [D], the place of each draw's q, p and delay in `grid`.
        grid: [3, G]: q, p, and the delay as a share of `horizon`.
        sway: [D], standard normal: the form's own error of each draw.
        fate: [D], a standard normal or 0, whichever is larger: how far each draw turns.
        worst: The lowest quality of the watched run.
        turns: Whether the metric is none that ends at 100 %: its curves may turn.
        helped: How much of what decays bring reaches the test, 0 to 1 (`helped_share`).
        reference: The largest LR in evidence, in units of which LRs are.
        lowest: The smallest peak LR in evidence.
        horizon: The longest run in evidence, epochs: T.
        lr_time: The largest sum of LR over the epochs of a run in evidence.
        rise: Of the quality over a unit of log time, where the watched run stands.
        jitter: Standard deviation of one record about the curve, neighbours' shared luck included.
        prior: What was believed.
    """

    draws: Floats
    alpha: Floats
    powers: NDArray[np.intp]
    grid: Floats
    sway: Floats
    fate: Floats
    worst: float
    turns: bool
    helped: float
    reference: float
    lowest: float
    horizon: float
    lr_time: float
    rise: float
    jitter: float
    prior: AnnealingPrior

    def quality(self, track: Track, at: Floats, watched: float) -> Floats:
        """Return the quality of every draw at some epochs of a schedule, [D, M].

        Args:
            track: The schedule from epoch 0.
            at: [M], increasing, positive.
            watched: The epoch to which the watched run is known.
        """
        q, p, delay = self.grid
        clock, noisy = clocks(track, at, self.reference, q, p, delay * self.horizon)
        tau, held = clock[self.powers], noisy[self.powers]
        x = np.maximum(tau / self.horizon, TINY) ** -self.alpha[:, None]
        base, scale, released = self.draws.T[:, :, None]
        ahead = np.maximum(np.log(at / watched), 0.0)
        error = self.rise * np.hypot(self.prior.ahead * ahead, self._outside(track, at))
        told = base - scale * x - released * held + self.sway[:, None] * error
        return self.turned(told, 1 - self.helped, track, at)

    def _outside(self, track: Track, at: Floats) -> Floats:
        """Return the form's error as LRs are outside of those in evidence, [M], in rises."""
        if not track.peak:
            return np.zeros(len(at))
        above, below = np.log(track.peak / self.reference), np.log(self.lowest / track.peak)
        still = np.log(np.maximum(track.rate(at) / self.reference, 1.0))
        peak = max(self.prior.above * above, self.prior.below * below, 0.0)
        return np.asarray(np.maximum(peak, self.prior.still[not self.turns] * still))

    def turned(self, quality: Floats, share: float, track: Track, at: Floats) -> Floats:
        """Return qualities as they are if a loss turns for the worse, [D, M].

        Half the draws do not turn, and none gets worse than the watched run has been. `quality`
        has turned already as far as decays do not help the test.

        Args:
            quality: [D, M], at the same epochs.
            share: How far they turn, 0 to 1.
            track: The schedule from epoch 0.
            at: [M], increasing, positive.
        """
        if share <= 0 or not self.turns:
            return quality
        epochs = np.log(at / self.horizon)
        lr_time = np.log(np.maximum(track.lr_time(at), TINY * self.lr_time) / self.lr_time)
        further = np.maximum(np.maximum(epochs, lr_time), 0.0)  # a larger LR is further on
        by = share * self.prior.turned * self.rise * self.fate[:, None] * further
        return np.asarray(quality - np.minimum(by, np.maximum(quality - self.worst, 0.0)))


def fit_law(curves: Sequence[LearningCurve], prior: AnnealingPrior = PRIOR) -> Law | None:
    """Fit the law to the runs in evidence; None where they hold fewer than `FEWEST` records.

    Args:
        curves: Of one network, data and metric, on one scale; the watched one first.
        prior: What is believed before.
    """
    curves = [c for c in curves if len(c.lr) and (c.epochs > 0).any()]
    if not curves or sum(int((c.epochs > 0).sum()) for c in curves) < FEWEST:
        return None
    peaks = [float(c.lr.max()) for c in curves]
    reference, lowest = max(peaks), min(peaks)
    horizon = max(float(c.epochs[-1]) for c in curves)
    axes = np.meshgrid(prior.q, prior.p, prior.delay, indexing="ij")
    grid = np.stack([axis.ravel() for axis in axes])
    seen = evidence_of(curves, reference, horizon, grid)
    percent = curves[0].scale.percent
    helped = helped_share(curves[0])
    of_rise = helped * prior.of_rise[percent]
    unsure = max(helped, prior.fitted) * prior.unsure[percent]
    rise, alpha, size = seen.rise, np.array(prior.alpha), prior.evidence * len(seen.quality)
    unit = max(rise, seen.jitter / WINDOW, 1e-9 * max(float(np.ptp(seen.quality)), 1e-9))
    error = seen.jitter**2 + (prior.misfit * unit) ** 2 + (prior.distance * seen.below) ** 2
    weight = prior.evidence / error
    x = -(seen.tau[None] ** -alpha[:, None, None])
    design = np.stack(np.broadcast_arrays(np.ones_like(x), x, -seen.held[None]), axis=-1)
    weighted = np.swapaxes(design * weight[:, None], -1, -2)
    gram, moment = weighted @ design, weighted @ seen.quality
    square, trust = float(weight @ seen.quality**2), 1.0
    belief = _belief(prior, alpha, *grid[:2])
    for _ in range(2):  # the second time by the rise and the misfit that the law itself has
        centre = of_rise * rise + prior.of_noise * seen.jitter
        spread = max(unsure * rise + prior.unsure_noise * seen.jitter, 1e-6 * unit)
        theta, cov, cost, fit = _solved(
            trust * gram, trust * moment, trust * square, centre, spread
        )
        best = np.unravel_index(np.argmax(fit), fit.shape)
        trust = float(np.clip((size + CERTAIN) / (cost[best] / trust + CERTAIN), *TRUST))
        share = np.exp(fit + belief - (fit + belief).max())
        share /= share.sum()
        speeds = alpha[:, None] * theta[..., 1] * seen.end[None] ** -alpha[:, None]
        rise = float(np.clip((share * speeds).sum(), 0.0, 4 * unit))
    off = seen.quality - design[best[0], best[1]] @ theta[best]
    rough = weight @ off**2 / weight.sum()
    grain = max(map(grain_of, curves)) if percent else 0.0
    jitter = float(np.sqrt(seen.jitter**2 + rough + grain**2 / 2))
    draws, place, k, sway = _drawn(share, theta, cov)
    used, powers = np.unique(place, return_inverse=True)
    _beyond_the_fit(draws, seen.now[place], seen, off, prior)
    return Law(
        draws=draws,
        alpha=alpha[k],
        powers=powers,
        grid=grid[:, used],
        sway=sway,
        fate=np.maximum(np.random.default_rng(3).standard_normal(DRAWS), 0.0),
        worst=float(curves[0].quality.min()),
        turns=not percent,
        helped=helped,
        reference=reference,
        lowest=lowest,
        horizon=horizon,
        lr_time=max(float(Track.of(c).lr_time(c.lr_epochs[-1:])[0]) for c in curves),
        rise=rise,
        jitter=jitter,
        prior=prior,
    )


def _solved(
    gram: Floats, moment: Floats, square: float, centre: float, spread: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the posterior of Q0, A and B for every power, and its log evidence.

    Args:
        gram: [K, G, 3, 3].
        moment: [K, G, 3].
        square: Weighted sum of squared qualities.
        centre: Of the prior on B.
        spread: Of the same.

    Returns:
        Means [K, G, 3], covariances [K, G, 3, 3], cost [K, G], log evidence up to a constant.
    """
    precision = 1 / spread**2
    own = gram.copy()
    own[..., 2, 2] += precision
    own[..., 0, 0] += 1e-9 * np.maximum(own[..., 0, 0], 1e-300)
    own[..., 1, 1] *= 1 + 1e-9
    target = moment.copy()
    target[..., 2] += precision * centre
    cov: Floats = np.asarray(np.linalg.inv(own), dtype=np.float64)
    theta: Floats = (cov @ target[..., None])[..., 0]
    cost = square + precision * centre**2 - (theta * target).sum(-1)
    fit = -0.5 * cost + 0.5 * np.linalg.slogdet(cov)[1]
    return theta, cov, cost, np.where(theta[..., 1] < 0, fit - 50.0, fit)


def _belief(prior: AnnealingPrior, alpha: Floats, q: Floats, p: Floats) -> Floats:
    """Return the log prior of every power, [K, G]."""
    middles = float(np.mean(prior.q)), float(np.mean(prior.p))
    powers = ((q - middles[0]) ** 2 + (p - middles[1]) ** 2) / prior.power_width**2
    shapes = ((alpha - prior.alpha_centre) / prior.alpha_width) ** 2
    # Powers lie closer together where they are small: each stands for the gap about it.
    gaps = np.gradient(alpha)
    return np.asarray(np.log(gaps)[:, None] - 0.5 * (shapes[:, None] + powers[None]))


def _drawn(
    share: Floats, theta: Floats, cov: Floats
) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return curves drawn from the posterior, the same ones every time.

    Args:
        share: [K, G], probability of every power.
        theta: [K, G, 3].
        cov: [K, G, 3, 3].

    Returns:
        Q0, A and B [D, 3], the place of each draw's q, p and delay [D], of its alpha [D], and a
        standard normal [D].
    """
    random = np.random.default_rng(0)
    flat = np.searchsorted(np.cumsum(share.ravel()), (np.arange(DRAWS) + 0.5) / DRAWS)
    flat = np.minimum(flat, share.size - 1)
    k, g = np.unravel_index(flat, share.shape)
    normal = random.standard_normal((DRAWS, 4))
    root = np.linalg.cholesky(cov[k, g] + 1e-18 * np.eye(3))
    drawn = theta[k, g] + (root @ normal[:, :3, None])[..., 0]
    for i in (2, 1):  # neither loss is a gain
        lack = np.minimum(drawn[:, i], 0.0)
        drawn = drawn - cov[k, g][:, :, i] / cov[k, g][:, i, i, None] * lack[:, None]
    return drawn, g, k, normal[:, 3]


def _beyond_the_fit(
    draws: Floats, now: Floats, seen: Evidence, off: Floats, prior: AnnealingPrior
) -> None:
    """Give the draws what one law for all runs leaves out.

    Runs of other peak LRs have another B each, which leaves the curve that was watched where it is.
    And a run that gets worse, like a test loss that rises again, has left a law that never does: it
    is taken to stay as far off as its last records are, give or take as much. (Of runs that get
    better this was tried too, and made the lengths before decays worse.)

    Args:
        draws: [D, 3], changed in place.
        now: [D], the noise at the watched run's end.
        seen: The records.
        off: [N], their qualities less the law's.
        prior: What was believed.
    """
    luck, peaks = np.random.default_rng(2).standard_normal((2, len(draws)))
    more = draws[:, 2] * (np.exp(prior.across * seen.apart * peaks) - 1)
    behind = float(off[max(seen.count - LAST, 0) : seen.count].mean()) + prior.luck * seen.jitter
    gap = min(behind, 0.0) if seen.falls else 0.0
    draws[:, 0] += more * now + gap * (1 + luck)
    draws[:, 2] += more
