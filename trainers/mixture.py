"""One forecast out of several: weights fall with a power of each expert's discounted squared error.

w_k ~ L_k^-p, L_k = sum of discount^age * error^2 (Bates and Granger, 1969, with p = 1). No exponentials,
so equal numbers on every machine with IEEE arithmetic; no expert's weight reaches 0, so that each can come
back.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Array, Column, Keyed, Rows
from trainers.spec import Mixture as MixtureSpec

Floats = NDArray[np.float64]
FLOOR = 1e-12  # squared error, in units: an expert that is never wrong must not divide by zero


class Mixture(Keyed):
    """`loss` float64 [K, M] per key, `events` float64 [K] its discounted count.

    A key's losses are completed by `prior` events of the average key, so that a new key starts with the
    weights of the others. The average moves only in `settle`, which the learner calls at fixed event
    counts.
    """

    def __init__(self, spec: MixtureSpec, experts: int) -> None:
        super().__init__(loss=Column((experts,), np.float64, 0.0), events=Column((), np.float64, 0.0))
        self._spec = spec
        self.average = np.ones(experts)

    def weights(self, rows: Rows) -> Floats:
        """float64 [N, M], positive, each row adds up to 1."""
        loss = np.maximum(self["loss"][rows] + self._spec.prior * self.average, FLOOR)
        ratio = loss.min(axis=1, keepdims=True) / loss
        power: int = self._spec.power
        while power > 1:
            ratio, power = ratio * ratio, power // 2
        total = ratio[:, 0].copy()
        for column in range(1, ratio.shape[1]):
            total += ratio[:, column]
        weights: Floats = ratio / total[:, None]
        return weights

    def blend(self, rows: Rows, experts: Floats) -> Floats:
        """float64 [N] from the experts' forecasts float64 [N, M]."""
        parts = self.weights(rows) * experts
        total = parts[:, 0].copy()
        for column in range(1, parts.shape[1]):
            total += parts[:, column]
        result: Floats = total
        return result

    def learn(self, rows: Rows, errors: Floats) -> None:
        """One label for each of `rows` (each key once): errors float64 [N, M] in units of the scale."""
        self["loss"][rows] = self._spec.discount * self["loss"][rows] + errors * errors
        self["events"][rows] = self._spec.discount * self["events"][rows] + 1

    def settle(self, keys: int) -> None:
        """Move the average to that of the first `keys` rows."""
        events = float(self["events"][:keys].sum())
        if events > 0:
            self.average = self["loss"][:keys].sum(axis=0) / events

    def snapshot(self, prefix: str) -> dict[str, Array]:
        return {**super().snapshot(prefix), f"{prefix}.average": self.average.copy()}

    def restore(self, prefix: str, state: Mapping[str, Array]) -> None:
        super().restore(prefix, state)
        self.average = np.array(state[f"{prefix}.average"], np.float64)
