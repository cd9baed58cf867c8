"""Intervals that keep their coverage whatever the stream does: online quantile tracking.

After each label a bound moves by rate * (level - hit) (Gibbs and Candes 2021, adaptive conformal
inference, in the form of Angelopoulos, Candes and Tibshirani 2023, section 2.1): the share of labels below
it tends to its level without any assumption on the data. Bounds are in standard deviations of the slot's
usual error, so that nights are narrow and rush hours wide. Calibrated on *shared* labels, the only ones
there are: the truth is covered somewhat more often.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Column, Keyed, Rows
from trainers.spec import TaskSpec

Floats = NDArray[np.float64]


class Conformal(Keyed):
    """`bounds` float64 [K, 2]: lower and upper quantile of error / spread; a new key starts with the
    normal law's.
    """

    def __init__(self, spec: TaskSpec) -> None:
        low, high = spec.levels[0], spec.levels[2]
        start = np.array([NormalDist().inv_cdf(low), NormalDist().inv_cdf(high)])
        super().__init__(bounds=Column((2,), np.float64, start))
        self._rate = spec.intervals.rate
        self._levels = np.array([low, high])

    def learn(self, rows: Rows, errors: Floats) -> None:
        """One label for each of `rows` (each key once): errors float64 [N] in units of the spread."""
        bounds = self["bounds"][rows]
        below = (errors[:, None] < bounds).astype(np.float64)
        self["bounds"][rows] = bounds + self._rate * (self._levels - below)

    def quantiles(self, rows: Rows, point: Floats, spread: Floats, lower: float, upper: float) -> Floats:
        """float64 [N, 3], never falling: lower bound, `point`, upper bound, clipped to what can be shared."""
        bounds = self["bounds"][rows]
        low = point + np.minimum(bounds[:, 0], 0) * spread
        high = point + np.maximum(bounds[:, 1], 0) * spread
        return np.stack([np.maximum(low, lower), point, np.minimum(high, upper)], axis=1)
