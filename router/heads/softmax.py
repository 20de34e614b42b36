"""Multinomial logistic regression on dense rows, by L-BFGS: a closed set of answers at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

STEPS, TOLERANCE = 40, 1e-4
STRENGTH = 100.0
"""The inverse of the penalty on squared weights, for all examples together."""


def fit(x: F32, labels: Ints, classes: int, start: F32 | None = None) -> F32:
    """Weights (d + 1, classes), the biases last, for rows (n, d) and labels (n,) below ``classes``. ``start``: weights
    to go on from, as of a fit on some of the rows."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    n, d = x.shape
    at = np.zeros((d + 1, classes), np.float32) if start is None else start
    if classes < 2 or not n:
        return at
    rows, penalty = np.arange(n), 1 / (STRENGTH * n)

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(d + 1, classes).astype(np.float32)
        logs = log_probabilities(x, weights)
        value = -float(logs[rows, labels].mean(dtype=np.float64))
        residuals = np.exp(logs)
        residuals[rows, labels] -= 1
        residuals /= n
        gradient = np.empty((d + 1, classes))
        gradient[:-1] = x.T @ residuals + penalty * weights[:-1]
        gradient[-1] = residuals.sum(axis=0)
        return value + penalty / 2 * float((weights[:-1] ** 2).sum(dtype=np.float64)), gradient.ravel()

    steps = {"maxiter": STEPS, "gtol": TOLERANCE, "ftol": 1e-7}
    with threadpool_limits(1):  # threads that wait for each other a thousand times a second cost more than they bring
        found = minimize(loss, at.ravel().astype(np.float64), jac=True, method="L-BFGS-B", options=steps).x
    fitted: F32 = found.reshape(d + 1, classes).astype(np.float32)
    return fitted


def log_probabilities(x: F32, weights: F32) -> F32:
    """Rows (n, d) to (n, classes)."""
    logits = x @ weights[:-1]
    logits += weights[-1]
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits
