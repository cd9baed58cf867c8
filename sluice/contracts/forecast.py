"""What the noise costs a plain forecast: a seasonal autoregression by recursive least squares, numpy only.

One step ahead, predict first, then learn; fed once with the truth and once with what is shared, scored both
times on the truth. The figure is the owner's: it is computed from raw values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.contract import Contract
from schemas.rules import Count, Number, Time

Floats = NDArray[np.float64]
DAY_MS = 86_400_000
LAGS = 4
FORGETTING = 0.9995
SHORTEST = 300  # steps of one series; below, a figure would be noise itself
WARM_UP = 0.25  # of a series, not scored
MOST_SERIES = 20


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean absolute errors in the field's unit; `more` = (shared - truth) / truth."""

    field: str
    mae_truth: float
    mae_shared: float
    mae_persistence: float
    steps: int

    @property
    def more(self) -> float:
        return self.mae_shared / self.mae_truth - 1 if self.mae_truth else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "mae_truth": self.mae_truth,
            "mae_shared": self.mae_shared,
            "mae_persistence": self.mae_persistence,
            "more": self.more,
            "steps": self.steps,
        }


def loss(
    contract: Contract, name: str, rule: Count | Number, raw: pa.RecordBatch, shared: pa.RecordBatch
) -> Loss | None:
    """Rows of `raw` and `shared` belong together. None where no series is long enough."""
    grid = contract.privacy.fields[contract.event.time.field]
    assert isinstance(grid, Time)
    truth = raw.column(name).cast(pa.float64()).fill_null(float(rule.default)).to_numpy(zero_copy_only=False)
    truth = np.nan_to_num(truth, nan=float(rule.default)).clip(float(rule.min), float(rule.max))
    noised = shared.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    times = raw.column(contract.event.time.field).cast(pa.int64()).to_numpy()
    keys = np.unique(np.array(raw.column(contract.event.key).to_pylist(), dtype=str), return_inverse=True)[1]
    slots = (times % DAY_MS) // grid.grid_ms
    scale = max(float(rule.max - rule.min), 1e-9)
    errors: list[Floats] = []
    for key in np.unique(keys)[:MOST_SERIES]:
        rows = np.flatnonzero(keys == key)
        rows = rows[np.argsort(times[rows], kind="stable")]
        if len(rows) < SHORTEST:
            continue
        y, slot = truth[rows], slots[rows]
        start = max(int(len(rows) * WARM_UP), LAGS + 1)
        clean, private = (np.abs(y - follow(fed / scale, slot) * scale)[start:] for fed in (y, noised[rows]))
        errors.append(np.stack([clean, private, np.abs(np.diff(y))[start - 1 :]]))
    if not errors:
        return None
    clean_mae, shared_mae, last = np.concatenate(errors, axis=1).mean(axis=1)
    return Loss(name, float(clean_mae), float(shared_mae), float(last), sum(e.shape[1] for e in errors))


def follow(fed: Floats, slot: NDArray[np.int64]) -> Floats:
    """Forecast of each value from the fed values before it. Features: 1, lags, the slot's running mean
    now and one step before (recursive least squares with forgetting: Haykin, Adaptive Filter Theory, ch.
    10).
    """
    forecasts = np.zeros(len(fed))
    width = LAGS + 3
    weights, inverse = np.zeros(width), np.eye(width) * 100.0
    weights[1] = 1.0  # begin as persistence
    means: dict[int, float] = {}
    x = np.ones(width)
    before = float(fed[0]) if len(fed) else 0.0
    for t in range(len(fed)):
        profile = means.get(int(slot[t]), float(fed[t - 1]) if t else 0.0)
        if t >= LAGS:
            x[1 : LAGS + 1] = fed[t - LAGS : t][::-1]
            x[LAGS + 1], x[LAGS + 2] = profile, before
            forecasts[t] = x @ weights
            gain = inverse @ x
            gain /= FORGETTING + x @ gain
            weights += gain * (fed[t] - forecasts[t])
            inverse = (inverse - np.outer(gain, x @ inverse)) / FORGETTING
        means[int(slot[t])] = profile + 0.2 * (float(fed[t]) - profile)
        before = profile
    return forecasts
