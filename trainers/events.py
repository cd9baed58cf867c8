"""Events in, forecasts out: the two sides of a learner's step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Array, Rows
from trainers.spec import EXPERTS
from trainers.windows import NEVER

Floats = NDArray[np.float64]
Slots = NDArray[np.int64]


class HeldOut(NamedTuple):
    """N labels, oldest first. `feed`: what the exported graph takes to forecast each of them; `samples`: the
    columns of `trainers.recent.Recent`, so the labels and the forecasts that were issued for them.
    """

    feed: dict[str, Array]
    samples: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What N events gave, in their order. Floats are in the unit of the target.

    After each event a forecast for the key's next slot: `target` int64 [N], `value` float64 [N] (the
    mixture), `quantiles` float64 [N, 3], `experts` float64 [N, 3] (order: EXPERTS). An event that is late
    (not after the key's last slot) or not finite is not learned, counted in `late`, and answered with the
    forecast that stands (NaN, target NEVER + 1, where the key has none).

    `learned` tells the events that were taken from those that were left out.

    Where an event was the label of a standing forecast, `scored` is True and `issued_*` is that forecast,
    made before the label was known; else NaN.
    """

    rows: Rows
    target: Slots
    value: Floats
    quantiles: Floats
    experts: Floats
    learned: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    issued_value: Floats
    issued_quantiles: Floats
    issued_experts: Floats

    @classmethod
    def empty(cls, rows: Rows) -> Self:
        n, m = len(rows), len(EXPERTS)

        def blank(*shape: int) -> Floats:
            return np.full((n, *shape), np.nan)

        def none() -> NDArray[np.bool_]:
            return np.zeros(n, np.bool_)

        target = np.full(n, NEVER + 1)
        return cls(rows, target, blank(), blank(3), blank(m), none(), none(), blank(), blank(3), blank(m))


def once_each(rows: Rows) -> list[Rows]:
    """Indices into `rows` in parts without a repeated row; a row's events keep their order."""
    if len(rows) < 2:
        return [np.arange(len(rows))]
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(rows)]]))
    turn = np.empty(len(rows), np.intp)
    turn[order] = np.arange(len(rows)) - np.repeat(starts, lengths)
    by_turn = np.argsort(turn, kind="stable")
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
