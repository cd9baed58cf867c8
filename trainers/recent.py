"""The last events of a task, in log order: what a replay trains on and what the errors of a window are
taken from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Array, Rows
from trainers.spec import EXPERTS


class Recent:
    """A ring over event numbers: event e lies at e mod capacity, whether it brought a label (`valid`) or
    not.
    """

    def __init__(self, capacity: int, inputs: int, experts: int) -> None:
        self.capacity = capacity
        self.arrays: dict[str, Array] = {
            "valid": np.zeros(capacity, np.uint8),
            "row": np.zeros(capacity, np.int64),
            "slot": np.zeros(capacity, np.int64),  # of the label
            "x": np.zeros((capacity, inputs), np.float32),
            "target": np.zeros(capacity, np.float32),
            "label": np.zeros(capacity, np.float64),
            "quantiles": np.zeros((capacity, 3), np.float32),
            "forecasts": np.zeros((capacity, experts + 2), np.float32),  # mixture, experts, persistence
        }

    def skip(self, events: NDArray[np.int64]) -> None:
        """These events bring no label (until `put` says otherwise)."""
        self.arrays["valid"][events % self.capacity] = 0

    def put(self, events: NDArray[np.int64], rows: Rows, **columns: Array) -> None:
        """The labelled samples of these events: all columns but `valid`."""
        at = events % self.capacity
        self.arrays["valid"][at] = 1
        self.arrays["row"][at] = rows
        for name, column in columns.items():
            self.arrays[name][at] = column

    def samples(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Inputs [N, F], targets [N], rows [N] of all labelled events still held."""
        kept = self.arrays["valid"] == 1
        return self.arrays["x"][kept], self.arrays["target"][kept], self.arrays["row"][kept]

    def last(self, events: int, count: int) -> dict[str, Array]:
        """The last `count` labelled samples before event number `events`, oldest first."""
        order = np.arange(max(0, events - self.capacity), events) % self.capacity
        chosen = order[self.arrays["valid"][order] == 1][-count:]
        return {name: array[chosen] for name, array in self.arrays.items()}

    def snapshot(self, prefix: str) -> dict[str, Array]:
        return {f"{prefix}.{name}": array.copy() for name, array in self.arrays.items()}

    def restore(self, prefix: str, state: Mapping[str, Array]) -> None:
        """Take over what `snapshot` gave. Raises ValueError where shape or type differ."""
        for name, old in self.arrays.items():
            array = np.array(state[f"{prefix}.{name}"], order="C", copy=True)
            if array.shape != old.shape or array.dtype != old.dtype:
                raise ValueError(f"{prefix}.{name} is {array.dtype}{list(array.shape)}, not of this task")
            self.arrays[name] = array


def summary(samples: Mapping[str, Array], levels: tuple[float, float, float]) -> dict[str, float]:
    """Errors of the forecasts in `samples` (as `Recent.last` gives them) on their labels; NaN where there
    are none.
    """
    label = samples["label"]
    names = ("mae", *(f"mae_{name}" for name in EXPERTS), "mae_persistence")
    if not len(label):
        return {"count": 0.0} | dict.fromkeys((*names, "rmse", "coverage", "interval_score"), float("nan"))
    errors = samples["forecasts"].astype(np.float64) - label[:, None]
    low, high = samples["quantiles"][:, 0].astype(np.float64), samples["quantiles"][:, 2].astype(np.float64)
    found = dict(zip(names, np.abs(errors).mean(axis=0).tolist(), strict=True))
    return {
        "count": float(len(label)),
        **found,
        "rmse": float(np.sqrt((errors[:, 0] ** 2).mean())),
        "coverage": float(((label >= low) & (label <= high)).mean()),
        "interval_score": interval_score(low, high, label, levels),
    }


def interval_score(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    label: NDArray[np.float64],
    levels: tuple[float, float, float],
) -> float:
    """Mean over N intervals: width + 2 / alpha * what lies outside (Gneiting and Raftery 2007, eq. 43)."""
    alpha = 1 - (levels[2] - levels[0])
    outside = np.maximum(low - label, 0) + np.maximum(label - high, 0)
    return float((high - low + 2 / alpha * outside).mean())
