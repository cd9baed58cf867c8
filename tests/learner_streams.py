"""Small tasks and made-up streams for the learner's tests."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.events import Forecasts
from trainers.learner import Learner
from trainers.spec import Public, TaskSpec

PUBLIC = Public(0.0, 256.0, 7.83)


def small(**more: Any) -> TaskSpec:
    """An hourly task whose seasons, windows and replays come round within a few hundred events."""
    settings: dict[str, Any] = {
        "task": "small",
        "contracts": ["a.b"],
        "target": "vehicles",
        "step": "1h",
        "zone": "America/Los_Angeles",
        "context": 16,
        "held_out": 48,
        "profile": {"smooth": 1, "spread_smooth": 2},
        "autoregression": {"lags": 5, "half_lives": [2, 6]},
        "network": {"hidden": [8, 8], "embedding": 2, "steps": 4, "batch": 16, "capacity": 256},
    }
    return TaskSpec.model_validate(settings | more)


class Stream:
    """`keys`, `slots`, `values` of N events in log order: daily waves of several keys, with gaps and
    repeats.
    """

    def __init__(self, events: int, keys: int, seed: int, first_slot: int = 405_000) -> None:
        rng = np.random.default_rng(seed)
        at = np.full(keys, first_slot)
        self.keys: list[str] = []
        slots, values = [], []
        for number in range(events):
            key = int(rng.integers(0, min(keys, 1 + number // 7)))  # keys appear one by one
            step = int(
                rng.choice([1, 1, 1, 1, 1, 1, 1, 2, 9, 40, 0], p=[0.13] * 7 + [0.03, 0.02, 0.01, 0.03])
            )
            at[key] += step  # 0: a slot that was there already
            wave = 90 + 60 * np.sin(2 * np.pi * at[key] / 24 + key) + rng.normal(0, 7)
            self.keys.append(f"key-{key}")
            slots.append(int(at[key]))
            values.append(float(np.clip(np.round(wave), 0, 256)))
        self.slots = np.array(slots, np.int64)
        self.values = np.array(values, np.float64)

    def __len__(self) -> int:
        return len(self.keys)

    def feed(
        self, learner: Learner, borders: list[int] | None = None, start: int = 0, stop: int | None = None
    ) -> Forecasts:
        """Step through events start..stop, cut at `borders`; the parts' forecasts joined again."""
        stop = len(self) if stop is None else stop
        cuts = [start, *sorted(b for b in set(borders or []) if start < b < stop), stop]
        parts = [learner.step(self.keys[a:b], self.slots[a:b], self.values[a:b]) for a, b in pairwise(cuts)]
        return Forecasts(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Forecasts))
        )


def same(left: Forecasts, right: Forecasts, upto: int | None = None) -> bool:
    """Equal bit for bit, over the first `upto` events."""
    return all(
        getattr(left, f.name)[:upto].tobytes() == getattr(right, f.name)[:upto].tobytes()
        for f in fields(Forecasts)
    )


def states_differ(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> list[str]:
    """Names of arrays that are not equal bit for bit."""
    assert left.keys() == right.keys()
    return [
        name
        for name in left
        if left[name].dtype != right[name].dtype
        or left[name].shape != right[name].shape
        or left[name].tobytes() != right[name].tobytes()
    ]
