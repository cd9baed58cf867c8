"""From windows and profile to the inputs of the experts: the deviations that forecasting.md's ablation
found to matter.

The same formulas stand in `trainers/graph.py` as ONNX nodes; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Rows
from trainers.profile import ProfileTable
from trainers.seasons import Seasons
from trainers.spec import Public, TaskSpec

Floats = NDArray[np.float64]
EXTRA = 10  # inputs beside lags and moving averages


@dataclass(frozen=True, slots=True)
class Inputs:
    """For N forecasts: `x` float64 [N, F] in units of `Public.unit`, `base` float64 [N], the value that
    they deviate from.
    """

    x: Floats
    base: Floats


class Sampler:
    """Builds inputs. Row i of every output depends on row i of the inputs alone, bit for bit.

    That is why sums are stacked matrix products of one fixed shape: a plain `sum` or `@` over a batch may
    add in another order when the batch has another size, and a replay with other batch borders would then
    differ in the last bit.
    """

    def __init__(self, spec: TaskSpec, public: Public, seasons: Seasons) -> None:
        self.spec, self.public, self.seasons = spec, public, seasons
        ar, n = spec.autoregression, spec.context
        ages = np.arange(n - 1, -1, -1)
        self.ages = ages
        self.averages = np.stack([0.5 ** (ages / half) for half in ar.half_lives], axis=1)  # [context, H]
        self.ones = np.ones((n, 1))
        self.size = ar.lags + len(ar.half_lives) + EXTRA
        angle = 2 * np.pi * np.arange(spec.day) / spec.day
        self.clock = np.stack([f(k * angle) / 4 for k in (1, 2) for f in (np.sin, np.cos)], axis=1)  # [S, 4]
        self.hour = max(1, spec.day // 24)

    def inputs(self, profile: ProfileTable, rows: Rows, values: Floats, slots: NDArray[np.int64]) -> Inputs:
        """For the forecast of slot + 1, given `values` float64 [N, context] (NaN: missing) that end at
        `slots` int64 [N].

        The last value of each row must not be missing.
        """
        unit, lags, n = self.public.unit, self.spec.autoregression.lags, len(rows)
        day = profile["day"]
        there = np.isfinite(values)
        seen = np.where(there, values, 0.0)
        parts = np.stack([seen, there.astype(np.float64)], axis=1)  # [N, 2, context]
        level_sums = np.matmul(parts, self.ones)[:, :, 0]
        level = (level_sums[:, 0] / level_sums[:, 1])[:, None]

        usual = day[rows[:, None], self.seasons.day(slots[:, None] - self.ages)].astype(np.float64)
        usual = np.where(np.isnan(usual), level, usual)
        parts[:, 0] = np.where(there, seen - usual, 0.0)
        sums = np.matmul(parts, self.averages)  # [N, 2, H]

        target = self.seasons.day(slots + 1)
        base = day[rows, target].astype(np.float64)
        base = np.where(np.isnan(base), level[:, 0], base)
        x = np.empty((n, self.size))
        x[:, :lags] = parts[:, 0, : -lags - 1 : -1] / unit
        at = lags + sums.shape[2]
        x[:, lags:at] = sums[:, 0] / sums[:, 1] / unit
        week = profile["week"]
        x[:, at] = week[rows, self.seasons.week(slots + 1)].astype(np.float64) / unit
        x[:, at + 1] = week[rows, self.seasons.week(slots)].astype(np.float64) / unit
        x[:, at + 2] = (base - usual[:, -1]) / unit
        x[:, at + 3] = (base - usual[:, -1 - min(self.hour, self.spec.context - 1)]) / unit
        x[:, at + 4] = (base - self.public.lower) / (8 * unit)
        x[:, at + 5 : at + 9] = self.clock[target]
        x[:, at + 9] = 0.5
        return Inputs(x, base)
