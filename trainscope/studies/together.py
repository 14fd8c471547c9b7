"""Several columns together: what a regression says of a candidate that it was not fitted to.

Ordinary least squares on the columns' ranks, with a constant for each stratum. Each candidate is
predicted by the fit to all others, all copies of it left out, so that a column of noise gains
nothing: it loses a little, as a left-out mean moves away from what is left out.
"""

from __future__ import annotations

import numpy as np

from trainscope.studies.association import Floats, Ints, ranks

_RIDGE = 1e-9


def left_out_predictions(columns: Floats, y: Floats, weights: Floats, strata: Ints) -> Floats:
    """Return each candidate's prediction by the regression on all others, [B, N].

    Args:
        columns: [P, N], finite.
        y: [N], what is predicted.
        weights: [B, N], how often each candidate is in each sample.
        strata: [N].

    Returns:
        [B, N]; a candidate that its sample holds alone in its stratum has the mean of the others.
    """
    kinds = np.unique(strata)
    constants = (strata[None, :] == kinds[:, None]).astype(float)
    sizes = constants @ np.ones(len(y))
    size = sizes[np.searchsorted(kinds, strata)]
    once = np.ones((1, len(y)))
    scaled = np.stack([(2 * ranks(column, once, strata)[0] - 1) / size - 1 for column in columns])
    x = np.concatenate([constants, scaled]).T  # [N, K]
    found = np.empty(weights.shape)
    for row, w in enumerate(weights):
        gram = x.T @ (w[:, None] * x)
        gram[np.diag_indices_from(gram)] += _RIDGE * max(1.0, float(np.trace(gram)))
        inverse = np.linalg.inv(gram)
        fitted = x @ (inverse @ (x.T @ (w * y)))
        leverage = w * np.einsum("nk,kl,nl->n", x, inverse, x)
        away = (y - fitted) / np.maximum(1 - leverage, 1e-6)
        found[row] = np.where(w > 0, y - away, fitted)
    return found
