"""Recursive least squares with forgetting, one linear model per key (Haykin, Adaptive Filter Theory, table
10.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Column, Keyed, Rows
from trainers.spec import Autoregression

Floats = NDArray[np.float64]


class Rls(Keyed):
    """`weights` float64 [K, F], `covariance` float64 [K, F, F]."""

    def __init__(self, spec: Autoregression, size: int) -> None:
        super().__init__(
            weights=Column((size,), np.float64, 0.0),
            covariance=Column((size, size), np.float64, spec.prior * np.eye(size)),
        )
        self._spec = spec

    def predict(self, rows: Rows, x: Floats) -> Floats:
        """float64 [N], in the unit of the targets, for inputs float64 [N, F]."""
        result: Floats = np.matmul(x[:, None, :], self["weights"][rows][:, :, None])[:, 0, 0]
        return result

    def learn(self, rows: Rows, x: Floats, targets: Floats) -> None:
        """One step for each of `rows` (each key once).

        Forgetting inflates the covariance in directions without data for ever; above `limit` it pauses.
        """
        p = self["covariance"][rows]
        px = np.matmul(p, x[:, :, None])  # [N, F, 1]
        trace = np.trace(p, axis1=1, axis2=2)[:, None, None]
        forget = np.where(trace > self._spec.limit, 1.0, self._spec.forget)
        scale = forget + np.matmul(x[:, None, :], px)
        error = targets - self.predict(rows, x)
        self["weights"][rows] += (px / scale)[:, :, 0] * error[:, None]
        # px_i px_j is symmetric to the last bit, so the covariance stays symmetric
        self["covariance"][rows] = (p - px * px.transpose(0, 2, 1) / scale) / forget
