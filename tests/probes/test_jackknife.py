"""Standard errors and summaries by hand: leaving one out, one after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import student

from trainscope.probes.hessian.density import Quadrature, spectral_density
from trainscope.probes.hessian.lanczos import Ritz
from trainscope.probes.jackknife import function_of, mean_stderr, moments, stderr
from trainscope.probes.jacobian import _median_stderr, _summary

GRADIENTS = np.array([[1.0, 0.0, 2.0], [0.5, -1.0, 1.0], [2.0, 1.0, 0.0], [0.0, 0.5, 1.5]])


def pair(gradients=GRADIENTS):
    mean = gradients.mean(0)
    return moments((gradients**2).sum(1), gradients @ mean)


def by_hand(gradients):
    """Return tr Sigma and |G|^2, each without bias."""
    mean, count = gradients.mean(0), len(gradients)
    noise = ((gradients - mean) ** 2).sum() / (count - 1)
    return noise, (mean**2).sum() - noise / count


def test_noise_and_signal_are_without_bias():
    everything, left_out = pair()
    noise, signal = by_hand(GRADIENTS)
    assert float(everything.noise) == pytest.approx(noise)
    assert float(everything.signal) == pytest.approx(signal)
    for i in range(4):
        noise, signal = by_hand(np.delete(GRADIENTS, i, 0))
        assert left_out.noise[i] == pytest.approx(noise)
        assert left_out.signal[i] == pytest.approx(signal)


def test_the_jackknifes_error_is_that_of_leaving_one_out():
    values = np.array([by_hand(np.delete(GRADIENTS, i, 0))[1] for i in range(4)])
    expected = student(4) * math.sqrt(3 / 4 * ((values - values.mean()) ** 2).sum())
    value, error = function_of(pair(), lambda m: m.signal)
    assert value == pytest.approx(by_hand(GRADIENTS)[1])
    assert error == pytest.approx(expected)


def test_no_error_where_one_left_out_is_infinite_or_there_are_too_few():
    assert stderr(np.array([1.0, np.inf, 2.0])) is None
    assert stderr(np.array([1.0])) is None
    assert function_of(pair(GRADIENTS[:1]), lambda m: m.mean_square)[1] is None
    assert mean_stderr(np.array([1.0])) is None
    assert mean_stderr(np.array([1.0, 2.0, 4.0])) == pytest.approx(
        student(3) * math.sqrt(7 / 3 / 3)
    )


def test_a_mean_that_vanishes_without_one_sample_has_a_square_of_zero_not_less():
    """Without the first of (1, 0) nothing is left; a dot product 1e-7 too large makes it -2e-7."""
    _, left_out = moments(np.array([1.0, 0.0]), np.array([0.5 + 1e-7, 0.0]))
    assert left_out.mean_square[0] == 0.0


def exact(values, weights):
    """What a random vector in 10 dimensions says whose Lanczos run is exhausted."""
    ritz = Ritz(np.array(values), np.zeros(len(values)), np.array(weights))
    return Quadrature(ritz, ritz, 10)


def test_the_density_of_two_runs_and_its_error():
    runs = [exact([0.0, 1.0], [0.25, 0.75]), exact([0.5, 2.0], [0.5, 0.5])]
    found = spectral_density(runs, points=9, share=0.1)
    assert found.width == pytest.approx(0.2)
    assert found.x == pytest.approx(np.linspace(-0.8, 2.8, 9))

    def bump(x, at):
        return math.exp(-0.5 * ((x - at) / 0.2) ** 2) / (0.2 * math.sqrt(2 * math.pi))

    one = np.array([0.25 * bump(x, 0.0) + 0.75 * bump(x, 1.0) for x in found.x])
    two = np.array([0.5 * bump(x, 0.5) + 0.5 * bump(x, 2.0) for x in found.x])
    assert found.y == pytest.approx((one + two) / 2)
    # Over the eigenvalues, the mean of the bumps' squares less the square of their mean.
    squares = np.array(
        [
            0.125 * bump(x, 0.0) ** 2
            + 0.375 * bump(x, 1.0) ** 2
            + 0.25 * bump(x, 0.5) ** 2
            + 0.25 * bump(x, 2.0) ** 2
            for x in found.x
        ]
    )
    spread = np.maximum(squares - ((one + two) / 2) ** 2, 0)
    assert found.stderr == pytest.approx(np.sqrt(2 / 12 * spread / 2))
    fine = spectral_density(runs, points=2001)
    assert np.trapezoid(fine.y, fine.x) == pytest.approx(1.0, abs=1e-4)
    assert spectral_density(runs[:1]).stderr is None


def test_the_density_that_moved_counts_once_and_widens_the_error():
    """A share of 0.015 of each run went from 0 to 2, far enough apart not to overlap."""
    values, no = np.array([0.0, 1.0, 2.0]), np.zeros(3)
    now = Ritz(values, no, np.array([0.5, 0.25, 0.25]))
    before = Ritz(values, no, np.array([0.515, 0.25, 0.235]))
    moved = spectral_density([Quadrature(now, before, 10)] * 2, points=1001)
    still = spectral_density([Quadrature(now, now, 10)] * 2, points=1001)
    assert moved.change == pytest.approx(0.015, rel=1e-3)
    assert still.change == 0
    height = 0.015 / (0.02 * math.sqrt(2 * math.pi))
    at = int(np.abs(moved.x).argmin())
    shape = math.exp(-0.5 * (moved.x[at] / 0.02) ** 2)
    assert moved.stderr[at] == pytest.approx(math.hypot(still.stderr[at], height * shape))


def test_the_density_of_a_single_eigenvalue_is_a_narrow_bump():
    found = spectral_density([exact([5.0], [1.0])])
    assert found.width == pytest.approx(0.01 * 5e-6)
    assert np.isfinite(found.y).all()
    nothing = spectral_density([exact([0.0], [1.0])])
    assert np.isfinite(nothing.y).all()


VALUES = np.array([[4.0, 2.0, 1.0], [9.0, 3.0, 0.001], [5.0, 0.004, 0.0], [2.0, 2.0, 2.0]])


def summary(values=VALUES, dead=None, eps=1e-6):
    dead = np.zeros((len(values), 3), dtype=bool) if dead is None else dead
    return _summary(values, dead, eps, "logit/input")


def test_singular_values_are_summed_up_as_they_are_defined():
    found = summary()
    assert found.value("max_jsv") == 9.0
    assert found.value("min_jsv") == 0.0
    assert found.value("mean_jsv") == pytest.approx(VALUES.mean())
    assert found.value("std_over_mean") == pytest.approx(VALUES.std() / VALUES.mean())
    left = [np.delete(VALUES, i, 0) for i in range(4)]
    ratios = np.array([each.std() / each.mean() for each in left])
    assert found.scalars["std_over_mean"].stderr == pytest.approx(
        student(4) * math.sqrt(3 / 4 * ((ratios - ratios.mean()) ** 2).sum())
    )
    # 0.001 of 9, 0.004 of 5 and 0 are below a thousandth of the largest.
    assert found.value("share_below_1e-3") == pytest.approx((1 / 3 + 2 / 3) / 4)
    shares = np.array([0, 1 / 3, 2 / 3, 0])
    assert found.scalars["share_below_1e-3"].stderr == pytest.approx(
        student(4) * shares.std(ddof=1) / 2
    )
    assert found.arrays["condition_numbers"] == [4.0, pytest.approx(9000.0), None, 1.0]
    assert found.value("singular_samples") == 1
    assert found.value("condition_number") == pytest.approx((4 + 9000) / 2)


def test_singular_means_at_or_below_eight_roundings_of_the_largest():
    eps = 2.0**-10
    limit = 8 * eps
    found = summary(np.array([[1.0, 1.0, limit], [1.0, 1.0, limit * 1.001]]), eps=eps)
    assert found.value("singular_samples") == 1
    assert found.arrays["condition_numbers"][0] is None


def test_a_sample_whose_singular_values_are_all_zero_is_below_wholly():
    found = summary(np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    assert found.value("share_below_1e-3") == 0.5


def test_an_output_is_dead_where_every_sample_finds_it_so():
    dead = np.array([[True, True, False], [True, False, False]])
    found = summary(VALUES[[0, 3]], dead)
    assert found.value("dead_outputs") == 1
    assert found.arrays["dead_outputs_per_sample"] == [2, 1]


def test_the_error_of_a_median_is_half_the_distance_of_two_order_statistics():
    """Of 16 values the half width is 2 places around 7.5: places 5 and 10."""
    values = np.arange(16.0) ** 2
    expected = student(16) * (10.0**2 - 5.0**2) / 2
    assert _median_stderr(values[::-1]) == pytest.approx(expected)
    values[10:] = np.inf
    assert _median_stderr(values) is None
    assert _median_stderr(np.array([1.0, 4.0])) == pytest.approx(student(2) * 3 / 2)
    assert _median_stderr(np.array([1.0])) is None
