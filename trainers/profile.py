"""The usual day of every key: mean by slot of day, what the weekday adds, and how large errors are.

A value enters the profile only when it has left the window (context + held-out slots): the deviations that
a forecast sees are deviations from other days, and no sample's profile knows its label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Column, Keyed, Rows
from trainers.seasons import Seasons
from trainers.spec import TaskSpec
from trainers.windows import Gone

SMALLEST = 1e-3  # deviation, of the unit: a stream that never errs must not divide by zero


class ProfileTable(Keyed):
    """Exponentially forgetting means (float32), smoothed by a triangle over neighbouring slots.

    Released: `day` [K, S], NaN where no day was seen; `week` [K, 7 S], difference of a weekday to `day`, 0
    where unseen; `spread` [K, S], mean squared error of the served forecast by slot, NaN where unseen.
    """

    def __init__(self, spec: TaskSpec, seasons: Seasons) -> None:
        s, w = spec.day, spec.week
        super().__init__(
            day=Column((s,), np.float32, np.nan),
            week=Column((w,), np.float32, 0),
            spread=Column((s,), np.float32, np.nan),
            day_mean=Column((s,), np.float32, 0),
            day_weight=Column((s,), np.float32, 0),
            week_mean=Column((w,), np.float32, 0),
            week_weight=Column((w,), np.float32, 0),
            spread_count=Column((s,), np.float32, 0),
        )
        self._spec, self._seasons, self._slots = spec.profile, seasons, s
        h = spec.profile.smooth
        self._near = np.arange(-h, h + 1)
        self._triangle = (h + 1 - np.abs(self._near)).astype(np.float32)
        self._wide = np.arange(-spec.profile.spread_smooth, spec.profile.spread_smooth + 1)
        self._forget_day = np.float32(spec.profile.forget)
        self._forget_week = np.float32(spec.profile.forget**2)
        self._prior = np.float32(spec.profile.weekday_prior * float(self._triangle.sum()))

    def fold(self, gone: Gone) -> None:
        """Learn the values that left the window: each key at most once."""
        rows, day, week = gone.rows, self._seasons.day(gone.slots), self._seasons.week(gone.slots)
        values = gone.values.astype(np.float32)
        usual = self["day"][rows, day]  # before this value
        self._learn("day", rows, day, values, self._forget_day)
        known = np.isfinite(usual)
        if known.any():
            r, w = rows[known], week[known]
            self._learn("week", r, w, values[known] - usual[known], self._forget_week)
            self._smooth("week", r, w, self._prior)
        self._smooth("day", rows, day, np.float32(0))

    def widen(self, rows: Rows, slots: NDArray[np.int64], errors: NDArray[np.float64]) -> None:
        """Learn the errors of forecasts for `slots`: each key at most once."""
        places = (self._seasons.day(slots)[:, None] + self._wide) % self._slots
        r = rows[:, None]
        count, spread = self["spread_count"][r, places], self["spread"][r, places]
        rate = np.maximum(np.float32(self._spec.spread_rate), 1 / (count + 1))
        old = np.where(count > 0, spread, 0)
        self["spread"][r, places] = old + rate * ((errors * errors).astype(np.float32)[:, None] - old)
        self["spread_count"][r, places] = count + 1

    def _learn(
        self,
        name: str,
        rows: Rows,
        places: NDArray[np.int64],
        values: NDArray[np.float32],
        forget: np.float32,
    ) -> None:
        mean, weights = self[f"{name}_mean"], self[f"{name}_weight"]
        weight = forget * weights[rows, places] + 1
        weights[rows, places] = weight
        mean[rows, places] += (values - mean[rows, places]) / weight

    def _smooth(self, name: str, rows: Rows, places: NDArray[np.int64], prior: np.float32) -> None:
        """Recompute the smoothed table around `places`: sum(k w m) / (sum(k w) + prior) over the triangle
        k.
        """
        size = self[name].shape[1]
        targets = (places[:, None] + self._near) % size
        taps = (targets[:, :, None] + self._near) % size
        r = rows[:, None, None]
        weight = self[f"{name}_weight"][r, taps] * self._triangle
        total = weight.sum(axis=2)
        value = (weight * self[f"{name}_mean"][r, taps]).sum(axis=2)
        smooth = value / np.maximum(total + prior, np.float32(1e-30))
        self[name][rows[:, None], targets] = np.where(total > 0, smooth, self[name][rows[:, None], targets])


def deviations(spread: NDArray[np.float32], unit: float) -> NDArray[np.float64]:
    """Standard deviations, float64, from mean squared errors of any shape; one `unit` where nothing is
    known yet.
    """
    square = np.where(np.isnan(spread), unit * unit, spread.astype(np.float64))
    result: NDArray[np.float64] = np.sqrt(np.maximum(square, (SMALLEST * unit) ** 2))
    return result
