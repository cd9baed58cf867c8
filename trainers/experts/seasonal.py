"""Seasonal-naive: the last value seen in the same slot of the week, else of the day, else the last value
at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Column, Keyed, Rows
from trainers.seasons import Seasons

Floats = NDArray[np.float64]


class SeasonalNaive(Keyed):
    """`week` float32 [K, 7 S] and `day` float32 [K, S]: the last value in each slot, NaN where none was
    seen.
    """

    def __init__(self, seasons: Seasons) -> None:
        self._seasons = seasons
        super().__init__(
            week=Column((7 * seasons.day_slots,), np.float32, np.nan),
            day=Column((seasons.day_slots,), np.float32, np.nan),
        )

    def learn(self, rows: Rows, slots: NDArray[np.int64], values: Floats) -> None:
        self["week"][rows, self._seasons.week(slots)] = values
        self["day"][rows, self._seasons.day(slots)] = values

    def predict(self, rows: Rows, slots: NDArray[np.int64], last: Floats) -> Floats:
        """float64 [N]: forecasts for `slots`; `last` float64 [N] is the newest value."""
        week = self["week"][rows, self._seasons.week(slots)].astype(np.float64)
        day = self["day"][rows, self._seasons.day(slots)].astype(np.float64)
        return np.where(np.isfinite(week), week, np.where(np.isfinite(day), day, last))
